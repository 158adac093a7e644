"""Results as bars, as wide as there is room; without colour, so that they look alike everywhere."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from owm.bench import report
from owm.cli.terminal import is_terminal, one_line

if TYPE_CHECKING:
    from owm.bench.record import Record

PIPE_COLUMNS = 100
MOST_BAR = 60
LEAST_BAR = 16  # with less room beside the names, they stand above
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar_columns(stream: TextIO) -> int:
    """Return how wide a chart may be on a stream: all of a terminal, 100 columns elsewhere."""
    if not is_terminal(stream):
        return PIPE_COLUMNS
    from rich.console import Console

    return Console(file=stream).width


def chart(records: "Sequence[Record]", columns: int = PIPE_COLUMNS) -> list[str]:
    """Draw a bar for each result; those of prompts and of answers have a scale each."""
    from rich.cells import cell_len, set_cell_size

    most: dict[bool, float] = {}
    for record in records:
        most[record.n_prompt > 0] = max(most.get(record.n_prompt > 0, 0.0), record.avg_ts)
    names = _names(records)
    figures = [f"{record.avg_ts:.2f} t/s" for record in records]
    widest = max(map(len, figures))
    longest = max(map(cell_len, names))
    bar = min(MOST_BAR, columns - longest - widest - 4)
    is_beside = bar >= LEAST_BAR
    if not is_beside:
        bar = max(4, min(MOST_BAR, columns - widest - 2))
    lines = []
    for record, name, figure in zip(records, names, figures, strict=True):
        drawn = _bar(record.avg_ts / most[record.n_prompt > 0], bar)
        if is_beside:
            lines.append(f"{set_cell_size(name, longest)}  {drawn.ljust(bar)}  {figure.rjust(widest)}")
        else:
            lines += [_fitted(name, columns), f"{drawn.ljust(bar)}  {figure.rjust(widest)}"]
    return lines


def _bar(share: float, columns: int) -> str:
    """Draw a bar to an eighth of a column; something is always seen of it."""
    n = max(1, round(8 * columns * share))
    return "█" * (n // 8) + _EIGHTHS[n % 8].strip()


def _fitted(name: str, columns: int) -> str:
    """Cut a name in its middle where it is too wide: its end says what was measured."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(name) <= columns:
        return name
    n_end = (columns - 1) // 2
    return set_cell_size(name, columns - 1 - n_end).rstrip() + "…" + name[-n_end:]


def _names(records: "Sequence[Record]") -> list[str]:
    """Name results by what tells them apart: the model, the test, and settings that vary."""
    varied = [name for name in report.shown_settings(records) if len({getattr(each, name) for each in records}) > 1]
    found = []
    for record in records:
        settings = " ".join(f"{report.heading(name)}={report.value(record, name)}" for name in varied)
        parts = (model_name(record), record.test, settings)
        found.append(one_line(" ".join(part for part in parts if part)))
    return found


def model_name(record: "Record") -> str:
    """Return a short name of a model: of a path its last part."""
    name = record.model or record.model_type
    return os.path.basename(name).removesuffix(".gguf") if name.lower().endswith(".gguf") else name
