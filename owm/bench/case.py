"""What is measured: an amount of work, a model that does it, and how it is computed with."""

from dataclasses import dataclass
from pathlib import Path

from owm.engine.tuning import DEFAULT, Tuning
from owm.errors import UsageError


@dataclass(frozen=True, slots=True)
class Subject:
    """A model file to measure, or all its parts in order; `name` is what people call it."""

    name: str
    files: tuple[Path, ...]
    is_verified: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure, in llama-bench's terms: `n_prompt` tokens read, or `n_gen` made, or one after the other.

    Attributes:
        n_depth: tokens that are in the context before, which are not timed.
        n_parallel: so many prompts and answers side by side, through the scheduler that `batch` uses.
        prompt: a real prompt's tokens, of which the first `n_prompt` are read (or, if `n_prompt` is 0, all of them
            before, untimed) and to which the answer is sampled greedily; without it tokens are random and, as in
            llama-bench, nothing is sampled.
    """

    subject: Subject
    n_prompt: int
    n_gen: int
    n_depth: int = 0
    tuning: Tuning = DEFAULT
    n_parallel: int = 1
    prompt: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what measures nothing.

        Raises:
            UsageError: a number is below what it can be, or there is nothing to do.
        """
        for name, least in (("n_prompt", 0), ("n_gen", 0), ("n_depth", 0), ("n_parallel", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be {least} or more: {getattr(self, name)}")
        if not self.n_prompt and not self.n_gen:
            raise UsageError("there is nothing to measure", hint="`-p` reads tokens, `-n` makes some")
        if self.n_parallel > 1 and self.n_prompt and self.n_depth:
            raise UsageError(
                "side by side, prompts cannot be measured in a filled context, only answers",
                hint="`-p 0` leaves the prompts out",
            )
        if self.prompt and self.n_prompt not in (0, len(self.prompt)):
            raise UsageError(f"the prompt has {len(self.prompt)} tokens, not {self.n_prompt}")

    @property
    def test(self) -> str:
        """The test's name as llama-bench writes it: `pp512`, `tg128 @ d4096`, with ` × 4` for four side by side."""
        names = [f"pp{self.n_prompt}"] * (self.n_prompt > 0) + [f"tg{self.n_gen}"] * (self.n_gen > 0)
        depth = f" @ d{self.n_depth_in_all}" if self.n_depth_in_all else ""
        width = f" × {self.n_parallel}" if self.n_parallel > 1 else ""
        return "+".join(names) + depth + width

    @property
    def n_depth_in_all(self) -> int:
        """Tokens in the context when the clock starts."""
        return self.n_depth + (0 if self.n_prompt else len(self.prompt))

    @property
    def n_tokens(self) -> int:
        """Tokens that are timed, over all answers."""
        return self.n_parallel * (self.n_prompt + self.n_gen)
