"""What is asked of the scheduler, and what it gives: requests, and their answers chunk by chunk."""

from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from owm.engine.sampling import Sampling
from owm.errors import OwmError

if TYPE_CHECKING:
    from owm.engine.constrain import Constraint
    from owm.engine.logprobs import TokenLogprobs
    from owm.engine.reasoning import ReasoningFormat, ReasoningStream


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    FAILED = "failed"  # only among others, which go on


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to make.

    Attributes:
        max_tokens: of the thought and the answer; None means to the end of the turn or of the context.
        stops: texts that end the answer; the thought may contain them.
        constraint: what the answer after the thought has to be.
        reasoning: how the model marks its thoughts, None for one that has none.
        thinks_at_start: the prompt ends inside an open thought.
        think_budget: tokens of thought, after which it is closed by force; None for any number.
        answer_prefix: what the answer begins with; it is fed and not sampled.
        n_logprobs: how many of the likeliest tokens to tell for each token of the answer.
        splits: lengths of beginnings of the prompt that other requests have too, ascending; each is read once for all.
    """

    prompt: Tokens[int]
    sampling: Sampling
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    constraint: "Constraint | None" = None
    reasoning: "ReasoningFormat | None" = None
    thinks_at_start: bool = False
    think_budget: int | None = None
    answer_prefix: str = ""
    n_logprobs: int = 0
    splits: tuple[int, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Nothing steers its answer but sampling."""
        return not (self.constraint or self.reasoning or self.answer_prefix or self.n_logprobs)

    def thoughts(self) -> "ReasoningStream | None":
        """Return what tells thought and answer apart, None if the model has no thoughts."""
        if self.reasoning is None:
            return None
        from owm.engine.reasoning import ReasoningStream

        return ReasoningStream(self.reasoning, starts_inside=self.thinks_at_start)


@dataclass(slots=True)
class Timings:
    """Seconds and counts of one answer; prefill ends with the first token.

    What is fed in the midst of an answer (a forced end of the thought, tokens that a constraint leaves no choice of)
    counts as generated. `n_reasoning` of the generated tokens were thought, `n_held` of the prompt's were not read
    again, because the context still held them.
    """

    n_prompt: int = 0
    n_generated: int = 0
    n_reasoning: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    n_held: int = 0

    @property
    def prompt_per_second(self) -> float | None:
        """Prompt tokens read per second (pp)."""
        return (self.n_prompt - self.n_held) / self.prefill_seconds if self.prefill_seconds > 0 else None

    @property
    def decode_per_second(self) -> float | None:
        """Generated tokens per second (tg): the first token belongs to the prefill."""
        return (
            (self.n_generated - 1) / self.decode_seconds if self.n_generated > 1 and self.decode_seconds > 0 else None
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one token gave one request: text (may be empty while a character or a stop string is incomplete)."""

    request_id: int
    text: str
    token: int | None
    finish_reason: FinishReason | None = None
    stopped_by: str | None = None
    hit_context_end: bool = False
    timings: Timings | None = None
    reasoning: str = ""
    logprobs: "TokenLogprobs | None" = None
    is_answer: bool = False  # of a steered answer: it has begun
    is_thought_open: bool = False  # of the last chunk: a thought has not ended
    error: OwmError | None = None  # of a failed answer
