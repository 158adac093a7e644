"""How long work reports what it is doing: small frozen events, handed to one callable.

Whoever starts the work decides what becomes of the events (a progress bar, a log line, nothing).
`Advanced.done` is absolute, so a lost event costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Unit = Literal["bytes", "tokens", "tensors", "files", "texts", "parts"]


@dataclass(frozen=True, slots=True)
class Started:
    """A stage begins; `total` is None when its length is not known."""

    stage: str
    total: int | None
    unit: Unit


@dataclass(frozen=True, slots=True)
class Advanced:
    """A stage has come to `done` units in all."""

    stage: str
    done: int
    item: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """A stage is over."""

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know that is no failure, in one sentence."""

    stage: str
    message: str


Event = Started | Advanced | Finished | Warned
Sink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop every event: the default sink."""
