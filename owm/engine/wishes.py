"""What is wished of an answer beside what is asked: its sampling, shape, length and thought."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from owm.engine import overflow
from owm.engine.overflow import Mode
from owm.engine.request import Request
from owm.engine.sampling import Sampling
from owm.engine.template import Thinking
from owm.engine.tuning import DEFAULT, Tuning
from owm.errors import UsageError

if TYPE_CHECKING:
    from owm.engine.constrain import Constraint
    from owm.engine.model import Model, Prompt


MAX_LOGPROBS = 100


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wished of an answer, beside what is asked.

    Attributes:
        max_tokens: of thought and answer together, None for an open end.
        n_ctx: tokens in the context, None for what prompt and answer need.
        n_threads: over those of `tuning`.
        tuning: how to compute; the layers on the GPU are those with which the model was opened.
        overflow: what to do where the prompt does not fit.
        is_raw: the prompt is sent without a chat template.
    """

    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    n_ctx: int | None = None
    n_threads: int | None = None
    tuning: Tuning = DEFAULT
    stops: tuple[str, ...] = ()
    constraint: "Constraint | None" = None
    answer_prefix: str = ""
    n_logprobs: int = 0
    thinking: Thinking = field(default_factory=Thinking)
    think_budget: int | None = None
    overflow: Mode = "error"
    is_raw: bool = False

    def __post_init__(self) -> None:
        """Refuse wishes that mean nothing.

        Raises:
            UsageError: one is such.
        """
        overflow.read_mode(self.overflow)
        for name, least in (("max_tokens", 1), ("n_ctx", 1), ("n_threads", 1), ("think_budget", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} must be {least} or more: {value}")
        if not 0 <= self.n_logprobs <= MAX_LOGPROBS:
            raise UsageError(f"n_logprobs must be between 0 and {MAX_LOGPROBS}: {self.n_logprobs}")
        if not all(self.stops):
            raise UsageError("a stop needs a text", hint="an empty text would stop everything")

    @property
    def tuned(self) -> Tuning:
        """How to compute, with all that was wished of it."""
        return Tuning(n_threads=self.n_threads).over(self.tuning)

    def shape(self) -> dict[str, Any]:
        """Return what is wished beside settings, as JSON can say it."""
        found = {
            "constraint": self.constraint and {"kind": self.constraint.kind, "source": self.constraint.source},
            "answer_prefix": self.answer_prefix,
            "stops": list(self.stops),
            "is_raw": self.is_raw,
        }
        budget = {} if self.think_budget is None else {"think_budget": self.think_budget}
        return {name: value for name, value in found.items() if value} | budget

    def prompt(self, model: "Model", messages: Sequence[Mapping[str, Any]]) -> "Prompt":
        """Make the prompt of a conversation.

        Raises:
            TemplateError: the model's template fails.
        """
        if self.is_raw:
            return model.raw_prompt("\n\n".join(str(message["content"]) for message in messages))
        is_shaped = self.constraint is not None or bool(self.answer_prefix)
        return model.chat_prompt(messages, thinking=self.thinking, is_shaped=is_shaped)

    def request(self, prompt: "Prompt") -> Request:
        """Make the request of a prompt."""
        return Request(
            prompt.tokens,
            self.sampling,
            self.max_tokens,
            self.stops,
            constraint=self.constraint,
            reasoning=prompt.reasoning,
            thinks_at_start=prompt.thinks_at_start,
            think_budget=self.think_budget,
            answer_prefix=self.answer_prefix,
            n_logprobs=self.n_logprobs,
        )

    def without_shape(self) -> "Wishes":
        """Leave the answer free: what it begins with, has to be, and ends before."""
        return replace(self, constraint=None, answer_prefix="", n_logprobs=0, stops=())
