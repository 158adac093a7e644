"""A window of a terminal without a program in it: what is written to it, and what a person sees or has seen."""

from collections.abc import Mapping
from random import Random

import pyte
from pyte.screens import Char, HistoryScreen

from owm.cli.look import Look
from owm.cli.markdown.stream import MarkdownStream


class Window:
    """A virtual screen of a given size that keeps what has scrolled away."""

    def __init__(self, columns: int, rows: int) -> None:
        self.screen = HistoryScreen(columns, rows, history=100_000, ratio=0.5)
        self._stream = pyte.Stream(self.screen)
        self.frames: list[str] = []

    def write(self, text: str) -> None:
        """Take what a program writes."""
        self.frames.append(text)
        self._stream.feed(text)

    def stream(self, look: Look | None = None) -> MarkdownStream:
        """Return a Markdown stream that draws here, and takes no time for it."""
        return MarkdownStream(
            self.write,
            width=lambda: self.screen.columns,
            height=lambda: self.screen.lines,
            look=look or Look(),
            clock=lambda: 0.0,
        )

    def show(self, text: str, *, random: Random | None = None, look: Look | None = None) -> None:
        """Draw a whole text as it comes in pieces, of about a token each, with frames at random moments."""
        random = random or Random(1)
        with self.stream(look) as stream:
            now = at = 0
            while at < len(text):
                n = random.choice((1, 2, 4, 7, 30))
                stream.feed(text[at : at + n])
                at += n
                if random.random() < 0.7:
                    now += 1
                    stream.tick(now)

    def lines(self) -> list[str]:
        """Return everything that was written, one string a row, without blanks at the end."""
        past = [_row(line, self.screen.columns) for line in self.screen.history.top]
        rows = [row.rstrip() for row in (*past, *self.screen.display)]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def cells(self) -> list[list[Char]]:
        """Return every character that was written with its looks, one list a row."""
        rows = [*self.screen.history.top, *(self.screen.buffer[y] for y in range(self.screen.lines))]
        return [[row[x] for x in range(self.screen.columns)] for row in rows]

    def raw(self) -> str:
        """Return everything that was written, with its escapes."""
        return "".join(self.frames)


def _row(line: Mapping[int, Char], columns: int) -> str:
    return "".join(line[x].data for x in range(columns))
