"""What a command says: data to stdout (a table or one JSON value), talk to stderr, in one place for all commands."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from owm.cli import failures
from owm.cli.secrets import spoken
from owm.cli.terminal import is_terminal, one_line
from owm.errors import OwmError


@dataclass(frozen=True, slots=True)
class Output:
    """How much to say, and in which form."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False

    def data(self, value: Any, *, lines: Sequence[str] | None = None) -> None:
        """Write a result: as JSON if that was asked for, else `lines`."""
        if self.as_json:
            # On a terminal everything but ASCII is escaped: what came from strangers must not steer it.
            try:
                text = json.dumps(value, ensure_ascii=is_terminal(sys.stdout), indent=2, allow_nan=False)
            except ValueError:
                raise OwmError("the result has a value that is no number, which JSON cannot say") from None
            # A name on disk may hold bytes that are no text: they are written as JSON's own escapes.
            sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
            return
        for line in lines or ():
            sys.stdout.write((one_line(line) if is_terminal(sys.stdout) else line) + "\n")

    def table(
        self, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, right: Sequence[str] = ()
    ) -> None:
        """Write rows: as a JSON list, or as a table of `columns` (key in the row -> heading).

        A table on a terminal is fitted to its width; in a pipe every cell is whole and columns stand two spaces apart.
        """
        if self.as_json:
            self.data(list(rows))
            return
        cells = [[one_line(str("" if row[key] is None else row[key])) for key in columns] for row in rows]
        if is_terminal(sys.stdout):
            _draw(cells, columns, right)
            return
        for line in aligned([list(columns.values()), *cells], [key in right for key in columns]):
            sys.stdout.write(line + "\n")

    def note(self, message: str) -> None:
        """Say something on stderr, unless `--quiet`."""
        if not self.quiet:
            talk(spoken(message) + "\n")

    def detail(self, message: str) -> None:
        """Say something on stderr with `--verbose` only."""
        if self.verbose:
            self.note(message)

    def warn(self, message: str) -> None:
        """Say on stderr what the user must know; `--quiet` does not hide it."""
        failures.say("warning", message)


def talk(text: str) -> None:
    """Write to stderr; a reader of it that has left, or a full disk, costs no answer."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def aligned(lines: Sequence[Sequence[str]], is_right: Sequence[bool]) -> list[str]:
    """Pad cells so that columns line up, two spaces apart; some to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_right, strict=True)
        ).rstrip()
        for line in lines
    ]


def _draw(cells: Sequence[Sequence[str]], columns: Mapping[str, str], right: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    narrowest = []
    for index, (key, heading) in enumerate(columns.items()):
        texts = [heading, *(row[index] for row in cells)]
        longest = max(map(len, texts))
        longest_word = max((len(word) for text in texts for word in text.split()), default=0)
        is_figure = key in right
        # Figures never wrap, words wrap between words, and a long name is folded rather than lost.
        narrowest.append(min(longest, console.width // 3) if index == 0 else longest if is_figure else longest_word)
        table.add_column(
            heading,
            justify="right" if is_figure else "left",
            no_wrap=is_figure,
            overflow="fold",
            min_width=narrowest[-1],
        )
    if sum(narrowest) + 2 * len(narrowest) > console.width:
        _draw_blocks(cells, list(columns.values()))
        return
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _draw_blocks(cells: Sequence[Sequence[str]], headings: Sequence[str]) -> None:
    """Where a table does not fit: one line for each cell, an empty line between rows."""
    width = max(map(len, headings))
    blocks = [
        "\n".join(f"{heading.ljust(width)}  {cell}" for heading, cell in zip(headings, row, strict=True))
        for row in cells
    ]
    sys.stdout.write("\n\n".join(blocks) + "\n")


def confirm(question: str) -> bool:
    """Ask on the terminal; no answer is no."""
    sys.stderr.write(f"{spoken(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
