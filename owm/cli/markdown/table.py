"""A table on a terminal: its first rows fix the widths of its columns, so that every later row is final at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style
from rich.text import Text

from owm.cli.markdown.blocks import Alignment
from owm.cli.wrapping import columns, wrapped

N_FIRST_ROWS = 12  # they fix the widths; a table that has no more is drawn when it ends
_GAP = 2
_LONGEST_WORD = 16  # a column is at least as wide as its longest word, if that is not longer
_SPARE = 4  # columns wider than the first rows need, where there is room, for longer cells later
_HEADING = Style(bold=True)
_FAINT = Style(dim=True)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Widths of the columns; none where they do not fit beside each other, and each cell has a line."""

    widths: tuple[int, ...]
    is_ruled: bool  # rows are divided by lines, because cells go over several

    @property
    def width(self) -> int:
        return sum(self.widths) + _GAP * (len(self.widths) - 1)


class TableRows:
    """The rows of one table; each call returns the lines that are final now."""

    def __init__(self, heading: Sequence[Text], alignments: Sequence[Alignment]) -> None:
        self._heading = tuple(heading)
        self._alignments = tuple(alignments)
        self._first: tuple[tuple[Text, ...], ...] = ()
        self._layout: _Layout | None = None
        self._n_drawn = 0

    def fork(self) -> "TableRows":
        """Return a copy that goes on from here on its own."""
        copy = TableRows(self._heading, self._alignments)
        copy._first, copy._layout, copy._n_drawn = self._first, self._layout, self._n_drawn
        return copy

    def add(self, cells: Sequence[Text], available: int) -> list[Text]:
        """Take a row; `available` is how many columns of the window the table may take."""
        row = tuple(cells)
        if len(self._first) < N_FIRST_ROWS:
            self._first += (row,)
            return self._begin(available, spare=_SPARE) if len(self._first) == N_FIRST_ROWS else []
        if self._layout is None or self._layout.width > available:  # the window was made narrower
            self._layout = self._lay_out(available, _SPARE)
        return self._draw(row, self._layout, available)

    def finish(self, available: int) -> list[Text]:
        """Take it that there are no more rows."""
        return self._begin(available, spare=0) if len(self._first) < N_FIRST_ROWS else []

    def _begin(self, available: int, *, spare: int) -> list[Text]:
        self._layout = self._lay_out(available, spare)
        lines = []
        if self._layout.widths:
            headings = [Text.assemble(cell, style=_HEADING) for cell in self._heading]
            lines += self._side_by_side(headings, self._layout)
            lines.append(_ruler(self._layout))
        for row in self._first:
            lines += self._draw(row, self._layout, available)
        if not self._first and not self._layout.widths:
            lines += [Text.assemble(cell, style=_HEADING) for cell in self._heading]
        return lines

    def _draw(self, row: Sequence[Text], layout: _Layout, available: int) -> list[Text]:
        is_first = self._n_drawn == 0
        self._n_drawn += 1
        if not layout.widths:
            return ([] if is_first else [Text()]) + self._stacked(row, available)
        between = [_ruler(layout)] if layout.is_ruled and not is_first else []
        return between + self._side_by_side(row, layout)

    def _stacked(self, row: Sequence[Text], available: int) -> list[Text]:
        lines = []
        for heading, cell in zip(self._heading, row, strict=True):
            whole = Text.assemble(heading, ": " if heading.plain else "", style=_HEADING)
            whole = Text.assemble(whole, cell)
            first, *more = wrapped(whole, max(available - 2, 2))
            lines += [first, *(Text.assemble("  ", line) for line in more)]
        return lines

    def _side_by_side(self, row: Sequence[Text], layout: _Layout) -> list[Text]:
        cells = [wrapped(cell, width) for cell, width in zip(row, layout.widths, strict=True)]
        lines = []
        for n in range(max(map(len, cells), default=0) or 1):
            line = Text()
            for cell, width, alignment in zip(cells, layout.widths, self._alignments, strict=True):
                part = cell[n] if n < len(cell) else Text()
                free = max(width - columns(part.plain), 0)
                before = {"left": 0, "center": free // 2, "right": free}[alignment]
                line.append(" " * before).append_text(part).append(" " * (free - before + _GAP))
            line.rstrip()
            lines.append(line)
        return lines

    def _lay_out(self, available: int, spare: int) -> _Layout:
        rows = [self._heading, *self._first]
        natural = [max(_longest(row[n].plain.split("\n")) for row in rows) for n in range(len(self._heading))]
        words = [max(_longest(row[n].plain.split()) for row in rows) for n in range(len(self._heading))]
        narrowest = [max(min(word, _LONGEST_WORD), 1) for word in words]
        room = available - _GAP * (len(natural) - 1)
        if sum(natural) <= room:
            extra = min(spare, (room - sum(natural)) // len(natural))
            return _Layout(tuple(max(width, 1) + extra for width in natural), False)
        if sum(narrowest) > room:
            return _Layout((max(available, 1),) if len(natural) == 1 else (), len(natural) == 1)
        wanted = [width - least for width, least in zip(natural, narrowest, strict=True)]
        free = room - sum(narrowest)
        shares = [free * want // sum(wanted) for want in wanted]
        return _Layout(tuple(least + share for least, share in zip(narrowest, shares, strict=True)), True)


def _ruler(layout: _Layout) -> Text:
    return Text((" " * _GAP).join("─" * width for width in layout.widths), _FAINT)


def _longest(texts: Sequence[str]) -> int:
    return max(map(columns, texts), default=0)
