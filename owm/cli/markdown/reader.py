"""Reads the blocks of a Markdown text line by line; a block, or a line of an open one, is given as soon as it is final.

Every decision is made on whole lines, so the blocks do not depend on how a text came in pieces. It is CommonMark with
tables, except that HTML is text, that references are not resolved, and that a line without a bar ends a table.
"""

import re
from dataclasses import dataclass, field, replace

from owm.cli.markdown.blocks import (
    Alignment,
    Block,
    CodeEnd,
    CodeLine,
    CodeStart,
    Container,
    Heading,
    Item,
    Paragraph,
    Place,
    Quote,
    Rule,
    TableEnd,
    TableRow,
    TableStart,
)

MAX_DEPTH = 20  # quotes and list items inside each other; what is deeper is text
MAX_PARAGRAPH = 2000  # characters of a paragraph of many lines; what goes on after that is a paragraph of its own

_QUOTE = re.compile(" {0,3}> ?")
_HEADING = re.compile(" {0,3}(#{1,6})(?= |$)")
_HEADING_END = re.compile("(?:^| )#+$")
_UNDERLINE = re.compile(" {0,3}(=+|-+) *$")
_RULE = re.compile(r" {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})$")
_FENCE = re.compile(" {0,3}(?:(?P<mark>`{3,})(?P<info>[^`]*)|(?P<tildes>~{3,})(?P<note>.*))$")
_ITEM = re.compile(r"(?P<indent> {0,3})(?P<marker>[-+*]|\d{1,9}[.)])(?P<space> +|$)")
_DELIMITER = re.compile(":?-+:?")


@dataclass(frozen=True, slots=True)
class _OpenParagraph:
    place: Place
    lines: tuple[str, ...]
    length: int


@dataclass(frozen=True, slots=True)
class _OpenFence:
    fence: str
    indent: int


@dataclass(frozen=True, slots=True)
class _OpenIndented:
    n_blank: int = 0


@dataclass(frozen=True, slots=True)
class _OpenTable:
    n_columns: int


_Leaf = _OpenParagraph | _OpenFence | _OpenIndented | _OpenTable


@dataclass(slots=True)
class BlockReader:
    """Takes whole lines and gives blocks; `fork` is a reader that goes on from here on its own."""

    _containers: tuple[Container, ...] = ()
    _leaf: _Leaf | None = None
    _is_apart: bool = False
    _has_begun: bool = False
    _last: tuple[Container, ...] = ()  # where the last block stands
    _given: list[Block] = field(default_factory=list)

    def fork(self) -> "BlockReader":
        """Return a reader in the same state; what either reads, the other does not see."""
        return replace(self, _given=[])

    def read(self, line: str) -> list[Block]:
        """Take a line without its end; return the blocks and lines of blocks that are final now."""
        self._read(line.expandtabs(4))
        return self._take()

    def finish(self) -> list[Block]:
        """Take it that the text ends here; return the blocks that were open."""
        self._close_to(0)
        return self._take()

    def _take(self) -> list[Block]:
        given, self._given = self._given, []
        return given

    def _read(self, line: str) -> None:
        rest, n_matched = self._match(line)
        is_inside = n_matched == len(self._containers)
        if is_inside and isinstance(self._leaf, _OpenFence):
            self._read_code(self._leaf, rest)
        elif not rest.strip():
            self._read_blank(n_matched, is_inside)
        elif is_inside and isinstance(self._leaf, _OpenIndented) and rest.startswith("    "):
            self._given += [CodeLine("")] * self._leaf.n_blank + [CodeLine(rest[4:])]
            self._leaf, self._is_apart = _OpenIndented(), False
        else:
            self._read_text(rest, n_matched)

    def _match(self, line: str) -> tuple[str, int]:
        """Return what is left of a line inside the open containers that it goes on with, and how many those are."""
        rest = line
        for n, container in enumerate(self._containers):
            if isinstance(container, Quote):
                if (mark := _QUOTE.match(rest)) is None:
                    return rest, n
                rest = rest[mark.end() :]
            elif rest.strip():
                if _indent(rest) < container.indent:
                    return rest, n
                rest = rest[container.indent :]
            else:
                is_last = n == len(self._containers) - 1
                if is_last and self._leaf is None and container not in self._last:
                    return rest, n  # an item cannot begin with two empty lines
                rest = rest[container.indent :]
        return rest, len(self._containers)

    def _read_code(self, leaf: _OpenFence, rest: str) -> None:
        bare = rest.strip()
        if _indent(rest) < 4 and len(bare) >= len(leaf.fence) and not bare.strip(leaf.fence[0]):
            self._given.append(CodeEnd(bare))
            self._leaf = None
        else:
            self._given.append(CodeLine(rest[min(_indent(rest), leaf.indent) :]))

    def _read_blank(self, n_matched: int, is_inside: bool) -> None:
        if is_inside and isinstance(self._leaf, _OpenIndented):
            self._leaf = _OpenIndented(self._leaf.n_blank + 1)
        else:
            self._close_to(n_matched)
        self._is_apart = self._has_begun

    def _read_text(self, rest: str, n_matched: int) -> None:
        n_open = n_matched
        while True:
            # Only a paragraph that stands here, not one that the line would go on with lazily, can be interrupted.
            is_inside = n_open == len(self._containers)
            here = self._leaf if is_inside and isinstance(self._leaf, _OpenParagraph) else None
            if here and self._begin_table(here, rest):
                return
            if _indent(rest) >= 4:
                break
            if here and (mark := _UNDERLINE.match(rest)):
                text = "\n".join(here.lines).strip()
                self._leaf = None
                self._give(Heading(here.place, 1 if mark[1][0] == "=" else 2, text))
                return
            if self._begin_leaf(rest, n_open):
                return
            opened = self._begin_container(rest, n_open, here) if n_open < MAX_DEPTH else None
            if opened is None:
                break
            rest = opened
            n_open += 1
            if not rest.strip():
                return
        self._go_on(rest, n_open)

    def _go_on(self, rest: str, n_open: int) -> None:
        """Take a line that begins nothing: the open paragraph or table goes on, or a paragraph or code begins."""
        if isinstance(self._leaf, _OpenParagraph):
            place, lines, length = self._leaf.place, (*self._leaf.lines, rest), self._leaf.length + len(rest) + 1
            if length > MAX_PARAGRAPH:
                self._give(Paragraph(place, "\n".join(lines[:-1])))
                place, lines, length = Place(place.containers, False), (rest,), len(rest)
            self._leaf = _OpenParagraph(place, lines, length)
            return
        if n_open == len(self._containers) and isinstance(self._leaf, _OpenTable) and "|" in rest and _indent(rest) < 4:
            self._given.append(TableRow(_fit(split_row(rest), self._leaf.n_columns)))
            return
        self._close_to(n_open)
        if _indent(rest) >= 4:
            self._give(CodeStart(self._place(), "", ""))
            self._given.append(CodeLine(rest[4:]))
            self._leaf = _OpenIndented()
        else:
            self._leaf = _OpenParagraph(self._place(), (rest,), len(rest))

    def _begin_table(self, paragraph: _OpenParagraph, rest: str) -> bool:
        """Make the last line of the paragraph a table's heading, if this line says that it is one."""
        heading = paragraph.lines[-1]
        if "|" not in heading or (alignments := _alignments(rest)) is None:
            return False
        cells = split_row(heading)
        if len(cells) != len(alignments) or _indent(heading) >= 4:
            return False
        place = paragraph.place
        if before := "\n".join(paragraph.lines[:-1]):
            self._give(Paragraph(place, before))
            place = Place(place.containers, False)
        self._give(TableStart(place, tuple(cells), tuple(alignments)))
        self._leaf = _OpenTable(len(cells))
        return True

    def _begin_leaf(self, rest: str, n_open: int) -> bool:
        if mark := _HEADING.match(rest):
            self._close_to(n_open)
            text = _HEADING_END.sub("", rest[mark.end() :].strip()).strip()
            self._give(Heading(self._place(), len(mark[1]), text))
        elif mark := _FENCE.match(rest):
            self._close_to(n_open)
            fence = mark["mark"] or mark["tildes"]
            self._give(CodeStart(self._place(), fence, (mark["info"] or mark["note"] or "").strip()))
            self._leaf = _OpenFence(fence, _indent(rest))
        elif _RULE.match(rest):
            self._close_to(n_open)
            self._give(Rule(self._place()))
        else:
            return False
        return True

    def _begin_container(self, rest: str, n_open: int, interrupted: _OpenParagraph | None) -> str | None:
        """Open a quote or an item, if one begins here; return the rest of the line inside of it."""
        if mark := _QUOTE.match(rest):
            self._close_to(n_open)
            self._containers += (Quote(),)
            return rest[mark.end() :]
        if (mark := _ITEM.match(rest)) is None:
            return None
        is_empty = not rest[mark.end() :].strip()
        if interrupted and (is_empty or mark["marker"] not in ("-", "+", "*", "1.", "1)")):
            return None
        n_spaces = len(mark["space"])
        # Many spaces are the item's own: it begins with indented code.
        indent = mark.start("space") + (1 if is_empty or n_spaces > 4 else n_spaces)
        self._close_to(n_open)
        self._containers += (Item(mark["marker"], indent),)
        return rest[indent:]

    def _place(self) -> Place:
        place = Place(self._containers, self._is_apart)
        self._is_apart, self._has_begun = False, True
        return place

    def _give(self, block: Paragraph | Heading | Rule | CodeStart | TableStart) -> None:
        self._last = block.place.containers
        self._given.append(block)

    def _close_to(self, n_open: int) -> None:
        """Close the leaf, and all containers but the first `n_open`."""
        leaf, self._leaf = self._leaf, None
        if isinstance(leaf, _OpenParagraph):
            self._give(Paragraph(leaf.place, "\n".join(leaf.lines)))
        elif isinstance(leaf, _OpenTable):
            self._given.append(TableEnd())
        elif leaf is not None:
            self._given.append(CodeEnd(""))
        while len(self._containers) > n_open:
            if isinstance(self._containers[-1], Item) and self._containers[-1] not in self._last:
                self._give(Paragraph(self._place(), ""))
            self._containers = self._containers[:-1]


def split_row(line: str) -> list[str]:
    """Return the cells of a table's line; bars after a backslash or in inline code are no borders."""
    cells, cell, is_escaped = [], "", False
    line = line.strip()
    for character in line.removeprefix("|"):
        if character == "|" and not is_escaped:
            cells.append(cell.strip())
            cell = ""
        else:
            cell = (cell[:-1] if character == "|" else cell) + character
        is_escaped = character == "\\" and not is_escaped
    return [*cells, cell.strip()] if cell.strip() or not cells else cells


def _alignments(line: str) -> list[Alignment] | None:
    bare = line.strip()
    if not bare or bare.strip("|:- ") or "-" not in bare or bare.startswith("- ") or _indent(line) >= 4:
        return None
    if "|" not in bare and ":" not in bare:
        return None
    cells = split_row(bare)
    if not all(_DELIMITER.fullmatch(cell) for cell in cells):
        return None
    return ["center" if cell[0] == cell[-1] == ":" else "right" if cell[-1] == ":" else "left" for cell in cells]


def _fit(cells: list[str], n: int) -> tuple[str, ...]:
    """Return `n` cells: what is missing is empty, what is too much goes into the last."""
    cells = cells + [""] * (n - len(cells))
    return (*cells[: n - 1], " | ".join(cells[n - 1 :]))


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip(" "))
