"""Several answers to one prompt on the screen: side by side in a wide window, one under the other in a narrow one."""

import threading
import time
from collections.abc import Callable, Sequence
from itertools import zip_longest

from rich.text import Text

from owm.cli.chat.canvas import DIM, Canvas
from owm.cli.look import Look
from owm.cli.markdown.lines import MarkdownLines
from owm.cli.markdown.reader import BlockReader
from owm.cli.terminal import visible
from owm.cli.wrapping import columns, folded, wrapped
from owm.engine.request import Chunk

LEAST_COLUMNS = 32  # of one draft
_BETWEEN = " │ "


class DraftsView:
    """All drafts while they are made: the end of each, live; in the end each as a whole."""

    def __init__(self, canvas: Canvas, ids: Sequence[int], *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._canvas = canvas
        self._clock = clock
        self._began = clock()
        self._live = canvas.live_part()
        self._changing = threading.Lock()
        self._texts = dict.fromkeys(ids, "")
        self._thinking = dict.fromkeys(ids, False)

    def take(self, chunk: Chunk) -> None:
        """Take what a step gave one of them."""
        with self._changing:
            self._texts[chunk.request_id] += chunk.text
            self._thinking[chunk.request_id] = bool(chunk.reasoning)

    def draw(self, now: float) -> None:
        """Draw the end of each draft."""
        if self._canvas.look.is_plain:
            return
        with self._changing:
            texts = [text.strip() for text in self._texts.values()]
            thinking = list(self._thinking.values())
        width, height = self._canvas.width(), self._canvas.height()
        column = column_width(width, len(texts))
        each = max(height // 2, 2) if column else max(height // 2 // len(texts) - 1, 1)
        parts = []
        for number, (text, thinks) in enumerate(zip(texts, thinking, strict=True), start=1):
            seconds = int(now - self._began)
            state = f"{number}: thinking, {seconds} s" if thinks else f"{number}: {'' if text else f'{seconds} s'}"
            wide = column or width
            lines = visible(text[-each * wide :]).split("\n")
            rows = [row for line in lines for row in wrapped(Text(line), wide)][-each:] if text else []
            parts.append([Text(state, DIM), *rows])
        self._live.prepare([], side_by_side(parts, column) if column else [row for part in parts for row in part])()

    def finish(self) -> None:
        """Leave all drafts on the screen, rendered."""
        texts = [text.strip() for text in self._texts.values()]
        width, look = self._canvas.width(), self._canvas.look
        column = column_width(width, len(texts))
        if look.is_plain:
            column = 0
        parts = []
        for number, text in enumerate(texts, start=1):
            rows = rendered(text, column or width, look)
            if column:
                rows = [part for row in rows for part in folded(row, column)]
            parts.append([Text(f"{number}:", DIM), *(rows or [Text("(nothing)", DIM)])])
        lines = side_by_side(parts, column) if column else [row for part in parts for row in (*part, Text(""))]
        self._live.prepare([*lines, Text("")] if column else lines, [])()


def column_width(width: int, n: int) -> int:
    """Return how wide each of n columns is in a window, 0 if they would be too narrow."""
    column = (width - len(_BETWEEN) * (n - 1)) // n
    return column if column >= LEAST_COLUMNS and n > 1 else 0


def side_by_side(parts: Sequence[Sequence[Text]], column: int) -> list[Text]:
    """Put lists of rows next to each other."""
    lines = []
    for cells in zip_longest(*parts, fillvalue=Text("")):
        line = Text("")
        for at, cell in enumerate(cells):
            line.append_text(Text(_BETWEEN, DIM) if at else Text(""))
            line.append_text(_styled(cell))
            if at < len(cells) - 1:
                line.append(" " * max(column - columns(cell.plain), 0))
        line.rstrip()
        lines.append(line)
    return lines


def rendered(text: str, width: int, look: Look) -> list[Text]:
    """Return Markdown as rows of styled text."""
    reader, lines = BlockReader(), MarkdownLines(look)
    given = [block for line in text.replace("\r\n", "\n").split("\n") for block in reader.read(visible(line))]
    return lines.render([*given, *reader.finish()], width)


def _styled(text: Text) -> Text:
    """Return a text whose whole style is a span, as appending drops the other kind."""
    copy = Text(text.plain, spans=list(text.spans))
    if text.style:
        copy.stylize_before(text.style)
    return copy
