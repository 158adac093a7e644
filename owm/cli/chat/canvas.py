"""The terminal that a conversation is drawn on: its size as it is now, a thread that draws, a line while one waits."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType

from rich.style import Style
from rich.text import Text

from owm.cli.live_part import LivePart
from owm.cli.look import Look, look_of_terminal
from owm.cli.terminal import visible
from owm.cli.wrapping import wrapped

DIM = Style(dim=True)
BEAT_SECONDS = 0.25  # between frames while nothing comes: clocks go on, and a window may change its size
GATHER_SECONDS = 0.01  # what comes at once is drawn at once
_NARROWEST, _LOWEST = 20, 4


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where to draw, and how; `write` flushes."""

    write: Callable[[str], object]
    width: Callable[[], int]
    height: Callable[[], int]
    look: Look

    def live_part(self) -> LivePart:
        """Begin a part that is drawn anew in place; the cursor has to be at the beginning of an empty row."""
        return LivePart(self.write, width=self.width, height=self.height, look=self.look)

    def lines(self, text: str, *, is_dim: bool = False) -> None:
        """Write lines of plain text, broken between words, with nothing in it that steers the terminal."""
        for line in visible(text).split("\n"):
            self.text(Text(line, DIM if is_dim else ""))

    def text(self, text: Text) -> None:
        """Write a styled line, broken between words."""
        rows = [text] if self.look.is_plain else wrapped(text, self.width())
        self.write("".join(self.look.paint(row) + "\n" for row in rows))


def canvas_of_terminal() -> Canvas:
    """Return the canvas that stdout is."""

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return Canvas(write, lambda: _size()[0], lambda: _size()[1], look_of_terminal())


def _size() -> tuple[int, int]:
    """Return columns and rows as they are now: what the environment says does not follow a window."""
    with suppress(OSError, ValueError, AttributeError):
        size = os.get_terminal_size(sys.stdout.fileno())
        if size.columns and size.lines:
            return max(size.columns, _NARROWEST), max(size.lines, _LOWEST)
    return 80, 24


class Painter:
    """Draws in a thread of its own, when it is told that there is something new, and with a beat."""

    def __init__(self, draw: Callable[[float], None], *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._draw = draw
        self._clock = clock
        self._wake, self._is_over = threading.Event(), threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="owm-paint", daemon=True)

    def __enter__(self) -> "Painter":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._wake.set()
        self._thread.join()
        if error is None:
            self._check()

    def nudge(self) -> None:
        """Say that there is something new.

        Raises:
            BaseException: whatever drawing has raised.
        """
        self._check()
        self._wake.set()

    def _check(self) -> None:
        if self._problem is not None:
            raise self._problem

    def _work(self) -> None:
        try:
            while not self._is_over.is_set():
                if self._wake.wait(BEAT_SECONDS):
                    self._is_over.wait(GATHER_SECONDS)
                    self._wake.clear()
                if not self._is_over.is_set():
                    self._draw(self._clock())
        except BaseException as error:
            self._problem = error


class Waiting:
    """One dim line that says what is waited for, and for how long, once that takes a while; it leaves nothing."""

    def __init__(
        self, canvas: Canvas, what: str, *, after_seconds: float = 0.5, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._what = what
        self._after = after_seconds
        self._began = clock()
        self._live = canvas.live_part()
        self._shown = ""
        self._canvas = canvas

    def draw(self, now: float) -> None:
        """Draw it as it is at this moment."""
        seconds = now - self._began
        if self._canvas.look.is_plain or seconds < self._after:
            return
        shown = f"{self._what}, {int(seconds)} s" if seconds >= 1 else self._what
        self._shown = shown
        self._live.prepare([], [Text(shown[: self._canvas.width()], DIM)])()

    def finish(self) -> None:
        """Take it away."""
        if self._shown:
            self._live.prepare([], [])()
            self._shown = ""


@contextmanager
def waiting(canvas: Canvas, what: str, *, after_seconds: float = 0.5) -> Iterator[None]:
    """Say what is waited for while the body waits."""
    line = Waiting(canvas, what, after_seconds=after_seconds)
    try:
        with Painter(line.draw):
            yield
    finally:
        line.finish()
