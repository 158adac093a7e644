"""Markdown on a terminal while it is being written: what is final is written once, only the rest is drawn anew.

Finished blocks are final, and so is every finished line of an open code block, and every row of a long table. What is
final does not depend on how the text came in pieces.
"""

import re
import time
from collections.abc import Callable
from types import TracebackType

from rich.text import Text

from owm.cli.live_part import LivePart
from owm.cli.look import Look, look_of_terminal
from owm.cli.markdown.lines import MarkdownLines
from owm.cli.markdown.reader import BlockReader
from owm.cli.terminal import visible

MAX_FRAMES = 30  # a second
REST = 20  # times the cost of a frame before the next one: drawing takes less than 5 % of a core

# An unfinished line that may become a marker of any kind, and is worth waiting for.
_MARKER = re.compile(r"[\s>]{0,40}(?:[-+*_=~`#|: ]{1,80}|\d{1,9}[.)]?)\s{0,9}")


class MarkdownStream:
    """Draws one text. The cursor has to be at the beginning of an empty row; `finish` leaves it so, below the text.

    `feed` only keeps the text, from whichever thread; `tick` and `finish` draw, and belong to one thread.
    `write` takes what goes to the terminal, and flushes it.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        width: Callable[[], int],
        height: Callable[[], int],
        look: Look | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._look = look or look_of_terminal()
        self._width = width
        self._height = height
        self._clock = clock
        self._live = LivePart(write, width=width, height=height, look=self._look)
        self._pieces: list[str] = []
        self._unfinished = ""  # the last line, which has no end yet
        self._reader = BlockReader()
        self._lines = MarkdownLines(self._look)
        self._size = (0, 0)
        self._next = float("-inf")
        self._is_finished = False

    def __enter__(self) -> "MarkdownStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def feed(self, text: str) -> None:
        """Take the next piece of the text."""
        self._pieces.append(text)

    def tick(self, now: float) -> None:
        """Draw what has come, unless the last frame was drawn so recently that drawing would take too much time.

        `now` is in seconds, by any clock that goes forward.
        """
        size = (self._width(), self._height())
        if self._is_finished or now < self._next or not (self._pieces or size != self._size):
            return
        began = self._clock()
        self._draw(is_last=False)
        self._size = size
        cost = self._clock() - began
        self._next = now + cost + max(REST * cost, 1 / MAX_FRAMES)

    def finish(self) -> None:
        """Draw the rest; what is open is closed. A text can be finished again without harm."""
        if not self._is_finished:
            self._draw(is_last=True)
            self._is_finished = True

    def _draw(self, *, is_last: bool) -> None:
        n_pieces = len(self._pieces)
        came = self._unfinished + "".join(self._pieces[:n_pieces])
        *whole, unfinished = came.replace("\r\n", "\n").split("\n")
        if is_last and unfinished:
            whole.append(unfinished)
            unfinished = ""
        width = max(self._width(), 1)
        # On copies, so that an interrupt leaves everything as it was before this frame.
        reader, lines = self._reader.fork(), self._lines.fork()
        final = [text for line in whole for text in lines.render(reader.read(visible(line)), width)]
        if is_last:
            final += lines.render(reader.finish(), width)
        live = [] if is_last or self._look.is_plain else self._preview(reader, lines, unfinished, width)
        draw = self._live.prepare(final, live)
        self._reader, self._lines, self._unfinished = reader, lines, unfinished
        del self._pieces[:n_pieces]
        draw()

    def _preview(self, reader: BlockReader, lines: MarkdownLines, unfinished: str, width: int) -> list[Text]:
        """Return how the open end would look if the text ended here."""
        reader, lines = reader.fork(), lines.fork(limit=width * max(self._height(), 2))
        bare = visible(unfinished.removesuffix("\r"))
        blocks = reader.read(bare) if bare.strip() and not _MARKER.fullmatch(bare) else []
        return lines.render([*blocks, *reader.finish()], width)


def markdown_lines(text: str, *, width: int, look: Look | None = None) -> list[str]:
    """Return a whole text as lines for a terminal that is `width` columns wide."""
    look = look or look_of_terminal()
    reader, lines = BlockReader(), MarkdownLines(look)
    whole = text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []
    given = [block for line in whole for block in reader.read(visible(line))]
    return [look.paint(line) for line in lines.render([*given, *reader.finish()], width)]


def warm_up() -> None:
    """Load what drawing needs, while there is time for it: it costs as much as many frames."""
    sample = "\n\n".join(f"*a*\n\n```{language}\n1\n```" for language in ("python", "bash", "json"))
    markdown_lines(sample, width=80, look=Look())
