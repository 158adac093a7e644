"""What a conversation needs of whoever it is held with: a terminal with an editor, or lines in and out."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from owm.cli.chat.answer import Manner
from owm.engine.request import Chunk
from owm.errors import OwmError

if TYPE_CHECKING:
    from owm.chat.session import Session
    from owm.library.chatting import Reply


UNANSWERED = "this has no answer yet; `/retry` asks for one"


class Front(Protocol):
    """One of them.

    Attributes:
        can_edit: a text can be put into the prompt, to be changed before it is sent.
        can_ask: there is someone who answers questions.
        manner: how answers are shown.
    """

    can_edit: bool
    can_ask: bool
    manner: Manner

    def read(self, text: str = "") -> str:
        """Return the next prompt or command; `text` to begin with.

        Raises:
            EOFError: there will be none.
            KeyboardInterrupt: Ctrl-C, with nothing typed.
        """

    def say(self, text: str) -> None:
        """Show what a command gives."""

    def note(self, message: str) -> None:
        """Say a sentence that is good to know."""

    def warn(self, message: str) -> None:
        """Say a sentence that the person must know."""

    def problem(self, error: OwmError) -> None:
        """Say what went wrong, and what can be done."""

    def choose(self, question: str, answers: Mapping[str, str]) -> str | None:
        """Return which of some answers (as they are typed, and what they mean) is given; None for none of them."""

    def show(self, reply: "Reply") -> None:
        """Show an answer while it is made, to its end or to Ctrl-C."""

    def show_drafts(self, reply: "Reply") -> None:
        """Show several answers while they are made."""

    def show_past(self, session: "Session") -> None:
        """Show where a conversation stands: its last exchange, and how much was before."""

    def show_thought(self, text: str) -> None:
        """Show a thought as a whole."""

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Say what is waited for, if that takes a while."""

    def clear(self) -> None:
        """Clear the screen."""

    def set_multi(self, is_multi: bool | None) -> bool | None:
        """Let Enter begin a new line or send; None is the other of the two. Return which holds, None if neither can."""


class Chunks(Protocol):
    """What can be consumed and stopped: an answer, or a summary that is being made."""

    def __iter__(self) -> Iterator[Chunk]: ...

    def cancel(self) -> None:
        """Stop it, from wherever."""


def consume(chunks: Chunks, take: Callable[[Chunk], None], *, rest: Callable[[], Iterable[Chunk]] = tuple) -> bool:
    """Take all chunks; Ctrl-C ends the making of them and nothing else. Return whether it did."""
    with stopping(chunks.cancel) as is_stopped:
        try:
            for chunk in chunks:
                take(chunk)
        except KeyboardInterrupt:  # from before the handler was there
            for chunk in rest():
                take(chunk)
            return True
        return is_stopped()


@contextmanager
def stopping(cancel: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C call `cancel` and not interrupt the body; the result tells whether it did."""
    n_stops = 0

    def stop(_number: int, _frame: object) -> None:
        nonlocal n_stops
        n_stops += 1
        cancel()

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: n_stops > 0
    finally:
        signal.signal(signal.SIGINT, before)


def first_words(text: str, n_chars: int = 60) -> str:
    """Return the beginning of a text on one line, for messages."""
    line = " ".join(text[: 4 * n_chars].split())
    return line if len(line) <= n_chars else line[: n_chars - 1].rstrip() + "…"


def count(n: int, noun: str) -> str:
    """Write a number of things: `1 turn`, `2,048 tokens`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
