"""An answer on the screen while it is made: its thought dim and live, one line once the answer begins, then Markdown.

Chunks come in the thread that consumes them, and are drawn in another one.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rich.text import Text

from owm.cli.chat.canvas import DIM, Canvas, Waiting
from owm.cli.markdown.stream import MarkdownStream
from owm.cli.terminal import visible
from owm.cli.wrapping import wrapped
from owm.engine.request import Chunk
from owm.units import format_seconds

Thoughts = Literal["live", "show", "hide"]

_KEPT_CHARS = 20_000  # of a thought of which only the last rows are shown


@dataclass(slots=True)
class Manner:
    """How answers are shown, as `/think` and `/raw` say.

    Attributes:
        thoughts: `live` is one line once the answer begins, `show` stays, `hide` is that line only.
    """

    thoughts: Thoughts = "live"
    is_raw: bool = False


def thought_line(seconds: float, n_tokens: int) -> str:
    """Say what is left of a thought: `thought for 6 s, 412 tokens`."""
    took = f"{seconds:.0f} s" if 0.95 <= seconds < 59.5 else format_seconds(seconds)
    return f"thought for {took}, {n_tokens:,} token{'' if n_tokens == 1 else 's'}"


class ThoughtView:
    """A thought: its last rows while it goes on, and a line in the end; or all of it."""

    def __init__(self, canvas: Canvas, thoughts: Thoughts) -> None:
        self._canvas = canvas
        self._thoughts = thoughts
        self._live = canvas.live_part()
        self._text = ""  # what is not final of it
        self._is_begun = False

    def feed(self, text: str) -> None:
        """Take the next piece."""
        if not self._is_begun:
            text = text.lstrip()
            self._is_begun = bool(text)
        self._text += text
        if self._thoughts != "show":
            self._text = self._text[-_KEPT_CHARS:]

    def draw(self, seconds: float) -> None:
        """Draw what has come; `seconds` is how long it has lasted."""
        width = self._canvas.width()
        if self._canvas.look.is_plain:
            return
        if self._thoughts == "show":
            whole, line_end, self._text = self._text.rpartition("\n")
            final = self._rows(whole, width) if line_end else []
            self._live.prepare(final, self._rows(self._text, width) if self._text.strip() else [])()
            return
        head = [Text(f"thinking, {int(seconds)} s" if seconds >= 1 else "thinking", DIM)]
        n_most = max(self._canvas.height() // 2, 4)
        seen = self._text.rstrip()[-n_most * width :] if self._thoughts == "live" else ""
        rows = self._rows(seen, width)[-n_most:] if seen else []
        self._live.prepare([], [*head, *rows])()

    def finish(self, seconds: float, n_tokens: int, *, n_empty: int = 0) -> None:
        """Leave what stays of it on the screen, some empty rows, and the cursor in another one."""
        is_left = self._thoughts == "show" and self._text.strip()
        rest = self._rows(self._text.rstrip(), self._canvas.width()) if is_left else []
        line = Text(thought_line(seconds, n_tokens), DIM)
        self._live.prepare([*rest, line, *[Text("")] * n_empty], [])()
        self._text = ""

    def _rows(self, text: str, width: int) -> list[Text]:
        """Return a text as dim rows."""
        return [row for line in visible(text).split("\n") for row in wrapped(Text(line, DIM), width)]


class RawView:
    """An answer as it is written, without Markdown."""

    def __init__(self, canvas: Canvas) -> None:
        self._write = canvas.write
        self._pieces: list[str] = []
        self._last = ""

    def feed(self, text: str) -> None:
        """Take the next piece."""
        self._pieces.append(text)

    def tick(self, now: float) -> None:
        """Write what has come."""
        text = "".join(self._pieces)
        self._pieces.clear()
        if not self._last:
            text = text.lstrip("\n")
        if text:
            self._last = text[-1]
            self._write(visible(text))

    def finish(self) -> None:
        """Write the rest, and end the line."""
        self.tick(0)
        if self._last not in ("", "\n"):
            self._write("\n")


class AnswerView:
    """One answer. The cursor has to be at the beginning of an empty row; `finish` leaves it so."""

    def __init__(self, canvas: Canvas, manner: Manner, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._changing = threading.Lock()
        self._waiting = Waiting(canvas, "reading", clock=clock)
        self._thought = ThoughtView(canvas, manner.thoughts)
        self._answer: MarkdownStream | RawView = (
            RawView(canvas)
            if manner.is_raw
            else MarkdownStream(canvas.write, width=canvas.width, height=canvas.height, look=canvas.look)
        )
        self._phase: Literal["reading", "thought", "answer"] = "reading"
        self._drawn: Literal["reading", "thought", "answer"] = "reading"
        self._began = self._thought_seconds = 0.0
        self._n_thought = 0

    @property
    def has_begun(self) -> bool:
        """There is something of a thought or an answer."""
        return self._phase != "reading"

    def take(self, chunk: Chunk) -> None:
        """Take what a step gave; nothing is drawn yet."""
        with self._changing:
            if chunk.reasoning and self._phase != "answer":
                if self._phase == "reading":
                    self._phase, self._began = "thought", self._clock()
                self._thought.feed(chunk.reasoning)
            if self._phase == "thought" and chunk.token is not None and not chunk.text:
                self._n_thought += 1
            if chunk.text and (self._phase == "answer" or chunk.text.strip()):
                self._end_thought()
                self._phase = "answer"
                self._answer.feed(chunk.text)

    def draw(self, now: float) -> None:
        """Draw what is new."""
        with self._changing:
            self._advance()
            if self._drawn == "reading":
                self._waiting.draw(now)
            elif self._drawn == "thought":
                self._thought.draw(now - self._began)
            else:
                self._answer.tick(now)

    def finish(self) -> None:
        """Draw the rest."""
        with self._changing:
            self._end_thought()
            self._advance()
            self._waiting.finish()
            if self._drawn == "thought":
                self._thought.finish(self._thought_seconds, self._n_thought)
            self._answer.finish()

    def _end_thought(self) -> None:
        if self._phase == "thought" and not self._thought_seconds:
            self._thought_seconds = max(self._clock() - self._began, 1e-3)

    def _advance(self) -> None:
        """Take away what was drawn of an earlier phase."""
        if self._drawn == self._phase:
            return
        self._waiting.finish()
        if self._phase == "answer" and self._thought_seconds:
            self._thought.finish(self._thought_seconds, self._n_thought, n_empty=1)
        self._drawn = self._phase
