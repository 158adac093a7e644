"""The blocks of a Markdown text, as they are given one after the other: whole ones, and lines of long ones."""

from dataclasses import dataclass
from typing import Literal

Alignment = Literal["left", "center", "right"]


@dataclass(frozen=True, slots=True, eq=False)
class Quote:
    """A quote that is open."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A list item that is open: its marker as it was written, and how far its content is indented."""

    marker: str
    indent: int


Container = Quote | Item


@dataclass(frozen=True, slots=True)
class Place:
    """What a block stands in, outermost first, and whether empty lines stand before it."""

    containers: tuple[Container, ...]
    is_apart: bool


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text, its lines as they were written."""

    place: Place
    text: str


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of level 1 to 6."""

    place: Place
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across."""

    place: Place


@dataclass(frozen=True, slots=True)
class CodeStart:
    """The beginning of a code block; one that is indented has no fence."""

    place: Place
    fence: str
    info: str


@dataclass(frozen=True, slots=True)
class CodeLine:
    """A line of the open code block."""

    text: str


@dataclass(frozen=True, slots=True)
class CodeEnd:
    """The end of a code block, with the fence that closed it, if one did."""

    fence: str


@dataclass(frozen=True, slots=True)
class TableStart:
    """The heading row of a table."""

    place: Place
    cells: tuple[str, ...]
    alignments: tuple[Alignment, ...]


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of the open table, with as many cells as the heading."""

    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableEnd:
    """The end of a table."""


Block = Paragraph | Heading | Rule | CodeStart | CodeLine | CodeEnd | TableStart | TableRow | TableEnd
