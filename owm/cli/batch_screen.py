"""How a batch goes, on stderr while it runs, and what came of it at its end."""

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from owm.batch.writing import ending_form
from owm.cli.output import Output, aligned, talk
from owm.cli.terminal import is_terminal, one_line
from owm.units import format_rate, format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from owm.library.batching import Batch, Outcome, Progress

LOG_SECONDS = 10.0
FRAME_SECONDS = 0.2
NARROW_COLUMNS = 100  # below, figures are worth more than a bar


class Screen:
    """What is said while a batch runs: a line that is kept up to date on a terminal, else one every few seconds."""

    def __init__(self, out: Output, *, is_shown: bool) -> None:
        self._out = out
        self._is_live = is_shown and is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
        self._seconds = FRAME_SECONDS if self._is_live else LOG_SECONDS
        self._is_shown = is_shown and not out.quiet
        self._next = time.monotonic() + (FRAME_SECONDS if self._is_live else LOG_SECONDS)
        self._last: Progress | None = None
        self._bars: Bars | None = None

    def note(self, message: str) -> None:
        """Say something that the user may want to know."""
        self._clear()
        self._out.note(message)

    def warn(self, message: str) -> None:
        """Say something that the user must know."""
        self._clear()
        self._out.warn(message)

    def tell(self, progress: "Progress") -> None:
        """Show how far it is, if it was not shown just now."""
        self._last = progress
        if not self._is_shown or (now := time.monotonic()) < self._next:
            return
        self._next = now + self._seconds
        if self._is_live:
            self._draw(progress)
        else:
            self._out.note(_line(progress))

    def interrupted(self, batch: "Batch") -> None:
        """Say what becomes of a batch that was interrupted."""
        self._clear()
        if batch.output is None:
            self._out.note("interrupted")
            return
        done = ""
        if (last := self._last) is not None:
            n_done = last.n_done - last.tally.n_failed
            done = f"; {n_done}{'' if last.n_rows is None else f' of {last.n_rows}'} rows are answered and kept"
        self._out.note(f"interrupted{done}; the same command goes on from there")

    def close(self) -> None:
        """Leave the screen clean."""
        self._clear()

    def _draw(self, progress: "Progress") -> None:
        if self._bars is None:
            self._bars = _make_bars()
            self._bars.start()
            self._bars.add_task("", total=progress.n_rows, line="")
        self._bars.update(
            self._bars.task_ids[0], completed=progress.n_done, total=progress.n_rows, line=_line(progress)
        )

    def _clear(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


@contextmanager
def progress(out: Output, *, is_shown: bool) -> Iterator[Screen]:
    """Show how a batch goes while the block runs."""
    screen = Screen(out, is_shown=is_shown)
    try:
        yield screen
    finally:
        screen.close()


def _make_bars() -> "Bars":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    console = Console(file=sys.stderr, highlight=False)
    bar = [BarColumn(bar_width=16)] if console.width >= NARROW_COLUMNS else []
    room = console.width - len("^C") - (17 if bar else 0)  # the echo of Ctrl-C must not break the line
    column = Column(no_wrap=True, overflow="ellipsis", max_width=room)
    text = TextColumn("{task.fields[line]}", markup=False, table_column=column)
    return Progress(*bar, text, console=console, transient=True, refresh_per_second=5)


def _line(progress: "Progress") -> str:
    """Say how far it is, the most telling first: a narrow screen shows its beginning."""
    tally, seconds = progress.tally, max(progress.seconds, 1e-9)
    done = progress.n_done
    parts = [f"{done}/{progress.n_rows} rows" if progress.n_rows is not None else f"{done} rows"]
    if progress.n_rows is not None and tally.n_rows:
        left = max(0, progress.n_rows - done) * seconds / tally.n_rows
        parts.append(f"{format_seconds(left)} left")
    parts.append(f"{tally.n_rows / seconds:.2f} rows/s")
    parts.append(f"answers {format_rate(tally.n_generated / seconds)}")
    parts.append(f"prompts {format_rate(tally.n_prompt / seconds)}")
    parts.append(f"{tally.n_busy} of {tally.n_slots} slots busy")
    if tally.n_failed:
        parts.append(f"{tally.n_failed} failed")
    return one_line(", ".join(parts))


def summarize(outcome: "Outcome", batch: "Batch", out: Output) -> None:
    """Say what came of a batch: a table on stderr, or JSON on stdout."""
    rows = [_row(part) for part in outcome.parts]
    if out.as_json:
        about: dict[str, Any] = {
            "input": str(batch.source or "-"),
            "output": str(batch.output),
            "rows": outcome.n_rows,
            "failed": outcome.n_failed,
            "seed": outcome.seed,
            "models": rows,
        }
        out.data(about)
        return
    if out.quiet:
        return
    if not rows:
        left = "that could be answered" if outcome.n_failed else f"to do, {outcome.n_rows} rows are done"
        out.note(f"nothing was left {left}")
    else:
        columns = {
            "model": "MODEL",
            "answered": "ANSWERED",
            "failed": "FAILED",
            "cut": "CUT",
            "prompt_tokens": "PROMPT",
            "completion_tokens": "GENERATED",
            "time": "TIME",
            "rows_per_second": "ROWS/S",
            "tokens_per_second": "TOKENS/S",
            "width": "AT A TIME",
        }
        cells = [[_cell(row[name]) for name in columns] for row in rows]
        lines = aligned([list(columns.values()), *cells], [name != "model" for name in columns])
        if max(map(len, lines)) > _n_columns():
            pairs = [pair for row in cells for pair in zip(columns.values(), row, strict=True)]
            lines = aligned(pairs, [False, False])
        talk("".join(f"{one_line(line)}\n" for line in lines))
    if outcome.n_failed:
        where = batch.errors or batch.output
        at = f", see {where}" if where is not None else ""
        if batch.errors is None and ending_form(batch.output) == "lines":
            at = ", `--errors FILE` takes the reasons"
        out.warn(f"{outcome.n_failed} of {outcome.n_rows} rows have no answer{at}")


def _n_columns() -> float:
    """Return how wide stderr is; a file has no end."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns if is_terminal(sys.stderr) else math.inf
    except (OSError, ValueError):
        return math.inf


def _row(part: "Progress") -> dict[str, Any]:
    tally, seconds = part.tally, max(part.seconds, 1e-9)
    counts = asdict(tally)
    return {
        "model": part.model,
        "answered": tally.n_rows - tally.n_failed,
        "failed": tally.n_failed,
        "cut": tally.n_cut,
        "answered_before": part.n_before,
        "prompt_tokens": tally.n_prompt,
        "completion_tokens": tally.n_generated,
        "computed_tokens": counts["n_decoded"],
        "seconds": round(part.seconds, 3),
        "time": format_seconds(part.seconds),
        "rows_per_second": round(tally.n_rows / seconds, 3),
        "tokens_per_second": round((tally.n_prompt + tally.n_generated) / seconds, 2),
        "width": tally.n_slots,
    }


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
