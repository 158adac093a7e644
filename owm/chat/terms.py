"""What holds for the answers of a conversation, and how much room there is for it."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from owm.chat.conversation import Compaction
from owm.chat.turn import Turn
from owm.engine.context import Limit
from owm.engine.wishes import Wishes
from owm.errors import UsageError

Overflow = Literal["ask", "compact", "drop", "error"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for answers.

    Attributes:
        wishes: of its answers; `n_ctx` is what was asked for, None for as much as the conversation comes to need.
        overflow: what whoever shows the conversation does when it no longer fits.
    """

    wishes: Wishes = field(default_factory=Wishes)
    overflow: Overflow = "ask"

    def settings(self) -> dict[str, Any]:
        """Return what of it is written beside an answer."""
        wishes = self.wishes
        sampling = {name: getattr(wishes.sampling, name) for name in wishes.sampling.__dataclass_fields__}
        thinking = {"think": wishes.thinking.mode, "effort": wishes.thinking.effort}
        found = sampling | {"max_tokens": wishes.max_tokens} | thinking
        return {name: value for name, value in found.items() if value is not None} | wishes.shape()


@dataclass(frozen=True, slots=True)
class Room:
    """Whether a prompt fits, in tokens.

    Attributes:
        n_prompt: of the whole prompt as it would be fed.
        n_kept: what is kept free for the answer.
        n_ctx: the largest context that there can be; it grows up to that by itself.
    """

    n_prompt: int
    n_kept: int
    n_ctx: int

    @property
    def fits(self) -> bool:
        """There is room for the prompt and what is kept for its answer."""
        return self.n_over <= 0

    @property
    def n_over(self) -> int:
        """How many tokens there are too many; fewer than 0 where there is room left."""
        return self.n_prompt + self.n_kept - self.n_ctx


@dataclass(frozen=True, slots=True)
class Use:
    """What the model reads of a conversation, in tokens.

    Attributes:
        n_ctx: the largest context that there can be.
        n_allocated: the context that there is now.
        n_used: all that the model reads before the next turn.
        n_system: of the system prompt alone.
        n_held: of `n_used`, what need not be read again.
        limited_by: what keeps `n_ctx` from being larger.
        turns: those that the model reads, each with the tokens of its text; what is left of `n_used` are the marks of
            the chat template, and the summary.
        compacted: what stands for the turns before these.
    """

    n_ctx: int
    n_allocated: int
    n_used: int
    n_system: int
    n_held: int
    limited_by: Limit
    turns: tuple[tuple[Turn, int], ...]
    compacted: Compaction | None


def read_overflow(text: str) -> Overflow:
    """Read what is to be done when a conversation no longer fits.

    Raises:
        UsageError: there is no such way.
    """
    for way in get_args(Overflow):
        if text == way:
            return way  # type: ignore[no-any-return]
    raise UsageError(f"overflow must be ask, compact, drop or error: {text}")
