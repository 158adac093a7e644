"""Blocks of Markdown made into lines for a terminal.

Code begins at the left edge wherever it stands, between its fences and with nothing added, so that it can be copied.
"""

import re
from collections.abc import Iterable, Sequence

from rich.style import Style
from rich.text import Text

from owm.cli.look import Look
from owm.cli.markdown.blocks import (
    Block,
    CodeEnd,
    CodeLine,
    CodeStart,
    Container,
    Heading,
    Paragraph,
    Place,
    Quote,
    Rule,
    TableRow,
    TableStart,
)
from owm.cli.markdown.code import CodeColors
from owm.cli.markdown.inline import FAINT, MAX_MARKED, completed, styled
from owm.cli.markdown.table import TableRows
from owm.cli.wrapping import columns, wrapped

_HEADINGS = {1: Style(bold=True, underline=True), 2: Style(bold=True)}
_LOW_HEADING = Style(bold=True, italic=True)
_RULE_COLUMNS = 40
_LANGUAGE = re.compile(r"[\w+#.-]+")


class MarkdownLines:
    """Takes blocks in their order and gives their lines; `preview` is the same for a text that goes on."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._containers: tuple[Container, ...] = ()
        self._code: CodeColors | None = None
        self._is_indented = False
        self._table: TableRows | None = None
        self._prefixes = Text(), Text()  # of the open table: of its next line, of those after it
        self._limit: int | None = None  # of characters worth showing of a line

    def fork(self, *, limit: int | None = None) -> "MarkdownLines":
        """Return a copy that goes on from here on its own; with a limit it is for showing a text that is unfinished."""
        copy = MarkdownLines(self._look)
        copy._containers, copy._is_indented, copy._prefixes = self._containers, self._is_indented, self._prefixes
        copy._code = self._code.fork() if self._code else None
        copy._table = self._table.fork() if self._table else None
        copy._limit = limit
        return copy

    def render(self, blocks: Iterable[Block], width: int) -> list[Text]:
        """Return the lines that the blocks add, in a window of so many columns."""
        return [line for block in blocks for line in self._render(block, width)]

    def _render(self, block: Block, width: int) -> list[Text]:
        if isinstance(block, CodeLine):
            return [self._code_line(block.text, width)]
        if isinstance(block, CodeEnd):
            self._code = None
            return [Text(block.fence, FAINT)] if block.fence else []
        if isinstance(block, TableRow):
            return self._table_row(block, width)
        if isinstance(block, TableStart):
            lines, first, rest = self._begin(block.place, width)
            self._prefixes = first, rest
            self._table = TableRows(list(map(self._styled, block.cells)), block.alignments)
            return lines
        if isinstance(block, Paragraph | Heading | Rule | CodeStart):
            lines, first, rest = self._begin(block.place, width)
            return lines + self._whole(block, first, rest, width)
        table, self._table = self._table, None
        return self._in_table(table.finish(self._room(width)), width) if table else []

    def _whole(self, block: Paragraph | Heading | Rule | CodeStart, first: Text, rest: Text, width: int) -> list[Text]:
        room = max(width - columns(first.plain), 2)
        if isinstance(block, CodeStart):
            language = _LANGUAGE.search(block.info)
            self._is_indented = not block.fence
            self._code = CodeColors(language[0] if language else "", self._look.code_theme)
            marker = [first] if first.plain != rest.plain else []
            return [*marker, Text(block.fence + block.info, FAINT)] if block.fence else marker
        if isinstance(block, Rule):
            text = Text("---" if self._look.is_plain else "─" * min(room, _RULE_COLUMNS), FAINT)
        elif isinstance(block, Heading):
            mark = "#" * block.level + " " if self._look.is_plain else ""
            style = _HEADINGS.get(block.level, _LOW_HEADING)
            text = Text.assemble(mark, self._styled(block.text), style=style)
        else:
            text = self._styled(self._end_of(block.text, room))
        lines = wrapped(text, room)
        return [_joined(first if n == 0 else rest, line) for n, line in enumerate(lines)]

    def _code_line(self, line: str, width: int) -> Text:
        line = self._end_of("    " + line if self._is_indented else line, width)
        return self._code.color(line) if self._code and self._look.has_color else Text(line)

    def _table_row(self, row: TableRow, width: int) -> list[Text]:
        if self._table is None:
            return []
        return self._in_table(self._table.add(list(map(self._styled, row.cells)), self._room(width)), width)

    def _in_table(self, lines: Sequence[Text], width: int) -> list[Text]:
        result = []
        for line in lines:
            first, rest = self._prefixes
            self._prefixes = rest, rest
            result.append(_joined(first, line))
        return result

    def _room(self, width: int) -> int:
        return max(width - columns(self._prefixes[1].plain), 2)

    def _styled(self, text: str) -> Text:
        text = completed(text) if self._limit is not None else text
        return styled(text, has_color=self._look.has_color, is_plain=self._look.is_plain)

    def _end_of(self, line: str, width: int) -> str:
        """Return as much of the end of a very long line as can be seen, while it is unfinished."""
        if self._limit is None or len(line) <= max(self._limit, MAX_MARKED):
            return line
        return line[(len(line) - self._limit) // width * width :]

    def _begin(self, place: Place, width: int) -> tuple[list[Text], Text, Text]:
        """Return the empty line before a block, if there is one, and what its first and its other lines begin with."""
        lines = []
        if place.is_apart:
            common = [container for container in place.containers if container in self._containers]
            blank = self._prefix(common, width, is_first=False)
            blank.rstrip()
            lines.append(blank)
        first = self._prefix(place.containers, width, is_first=True)
        rest = self._prefix(place.containers, width, is_first=False)
        self._containers = place.containers
        return lines, first, rest

    def _prefix(self, containers: Sequence[Container], width: int, *, is_first: bool) -> Text:
        parts = []
        for container in containers:
            if isinstance(container, Quote):
                parts.append(Text("> " if self._look.is_plain else "│ ", FAINT))
                continue
            marker = "•" if container.marker in "-+*" and not self._look.is_plain else container.marker
            is_new = is_first and container not in self._containers
            parts.append(Text(marker + " " if is_new else " " * (len(marker) + 1)))
        # Deep inside of others, text needs the room more than the outermost need theirs.
        while len(parts) > 1 and sum(map(len, parts)) > width // 2:
            del parts[0]
        return Text.assemble(*parts)


def _joined(prefix: Text, line: Text) -> Text:
    if not prefix.plain:
        return line
    whole = Text.assemble(prefix, line)
    whole.rstrip()
    return whole
