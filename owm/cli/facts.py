"""Facts as lines, a name and what is known under it: whole in a pipe, wrapped to the screen on a terminal.

Long sentences of the talk beside them are wrapped in the same way.
"""

import sys
import textwrap
from collections.abc import Mapping

from owm.cli.output import Output
from owm.cli.terminal import is_terminal, one_line

LEAST_COLUMNS = 24  # for what is said of a fact; on a narrower screen it goes below its name


def lines(facts: Mapping[str, object]) -> list[str]:
    """Return the lines; facts that are None are left out."""
    known = {name: str(value) for name, value in facts.items() if value is not None}
    if not known:
        return []
    width = max(map(len, known))
    if not is_terminal(sys.stdout):
        return [f"{name.ljust(width)}  {value}" for name, value in known.items()]
    return [line for name, value in known.items() for line in _wrapped(name, one_line(value), width, _columns())]


def note(sentence: str, out: Output) -> None:
    """Say a long sentence on stderr, on a terminal broken between words."""
    for line in _broken(one_line(sentence), _columns()) if is_terminal(sys.stderr) else [sentence]:
        out.note(line)


def _wrapped(name: str, value: str, width: int, columns: int) -> list[str]:
    indent = width + 2
    if columns - indent < LEAST_COLUMNS:
        return [name, *(f"  {line}" for line in _broken(value, max(columns - 2, 10)))]
    first, *rest = _broken(value, columns - indent)
    return [f"{name.ljust(width)}  {first}", *(" " * indent + line for line in rest)]


def _broken(value: str, columns: int) -> list[str]:
    """Break between words; a long word is left whole, so that it can be copied."""
    return textwrap.wrap(value, columns, break_long_words=False, break_on_hyphens=False) or [""]


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns
