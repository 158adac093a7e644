"""Progress on stderr: bars on a terminal, a line every few seconds in a log, nothing with `--quiet`."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from owm.cli.output import Output
from owm.cli.terminal import is_terminal, one_line
from owm.events import Advanced, Event, Finished, Sink, Started, Unit, Warned
from owm.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, Task, TaskID
    from rich.text import Text

LOG_SECONDS = 5.0
NARROW_COLUMNS = 80  # below, figures are worth more than a bar
QUIET_SECONDS = 0.7  # what is over sooner needs no bar


@contextmanager
def progress(out: Output) -> Iterator[Sink]:
    """Show the events of long work while the block runs; warnings are always said."""
    if out.quiet:
        yield lambda event: out.warn(event.message) if isinstance(event, Warned) else None
    elif is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb":
        with _Bars(out) as bars:
            yield bars.take
    else:
        yield _Log(out).take


class _Log:
    """One line every few seconds for each stage that takes long."""

    def __init__(self, out: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._stages: dict[str, tuple[float, int | None, int]] = {}  # stage -> (began, total, done at the beginning)
        self._units: dict[str, Unit] = {}
        self._next: dict[str, float] = {}

    def take(self, event: Event) -> None:
        now = self._clock()
        if isinstance(event, Warned):
            self._out.warn(event.message)
        elif isinstance(event, Started):
            self._stages[event.stage] = (now, event.total, -1)
            self._units[event.stage] = event.unit
            self._next[event.stage] = now + LOG_SECONDS
        elif isinstance(event, Advanced):
            began, total, first = self._stages.get(event.stage, (now, None, event.done))
            first = event.done if first < 0 else first
            self._stages[event.stage] = (began, total, first)
            is_step = self._units.get(event.stage) == "parts" and event.done > 0  # few and long: each is worth a line
            if is_step or now >= self._next.get(event.stage, now + LOG_SECONDS):
                self._next[event.stage] = now + LOG_SECONDS
                rate = (event.done - first) / max(now - began, 1e-9)
                self._out.note(_line(event, total, rate, self._units.get(event.stage, "bytes")))
        elif isinstance(event, Finished) and event.seconds >= LOG_SECONDS:
            self._out.note(f"{event.stage}: done in {format_seconds(event.seconds)}")


def _line(event: Advanced, total: int | None, rate: float, unit: Unit) -> str:
    if total is None:
        return f"{event.stage}: {_amount(event.done, unit)}{_speed(rate, unit)}"
    left = f", {format_seconds((total - event.done) / rate)} left" if rate > 0 else ""
    share = f"{100 * event.done // max(total, 1)}%"
    return f"{event.stage}: {share} of {_amount(total, unit)}{_speed(rate, unit)}{left}"


def _speed(rate: float, unit: Unit) -> str:
    """Return the rate as a part of a sentence; what takes longer than a second each has none."""
    return f", {_amount(round(rate), unit)}/s" if unit == "bytes" or rate >= 1 else ""


def _amount(n: int, unit: Unit) -> str:
    return format_bytes(n) if unit == "bytes" else f"{n} {unit}"


class _Bars:
    """Rich bars; a stage that ends quickly never shows, and the screen is left clean."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, tuple[float, int | None]] = {}
        self._units: dict[str, Unit] = {}

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def take(self, event: Event) -> None:
        if isinstance(event, Warned):
            if self._progress is not None:
                self._progress.stop()
                self._progress = None
                self._tasks.clear()
            self._out.warn(event.message)
        elif isinstance(event, Started):
            began, _ = self._started.get(event.stage, (time.monotonic(), None))
            self._started[event.stage] = (began, event.total)
            self._units[event.stage] = event.unit
            if event.stage in self._tasks and self._progress is not None:
                self._progress.update(self._tasks[event.stage], total=event.total)
        elif isinstance(event, Advanced):
            began, total = self._started.get(event.stage, (time.monotonic(), None))
            if event.stage not in self._tasks:
                if time.monotonic() - began < QUIET_SECONDS:
                    return
                self._show(event.stage, total, event.done)
            if self._progress is not None:
                self._progress.update(self._tasks[event.stage], completed=event.done)
        elif event.stage in self._tasks and self._progress is not None:
            self._progress.remove_task(self._tasks.pop(event.stage))

    def _show(self, stage: str, total: int | None, done: int) -> None:
        if self._progress is None:
            self._progress = _make_bars()
            self._progress.start()
        unit = self._units.get(stage, "bytes")
        self._tasks[stage] = self._progress.add_task(one_line(stage), total=total, completed=done, unit=unit)


def _make_bars() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Amount(ProgressColumn):
        """`45.2 MiB / 93.8 MiB`."""

        def render(self, task: "Task") -> "Text":
            done, unit = int(task.completed), task.fields["unit"]
            if not task.total:
                return Text(_amount(done, unit))
            so_far = _amount(done, unit) if unit == "bytes" else str(done)
            return Text(f"{so_far} / {_amount(int(task.total), unit)}")

    class Rate(ProgressColumn):
        """`21.3 MiB/s, 2.1 s left`."""

        def render(self, task: "Task") -> "Text":
            if not task.speed:
                return Text("")
            left = task.time_remaining
            rest = f", {format_seconds(left)} left" if left is not None else ""
            return Text(f"{_speed(task.speed, task.fields['unit'])}{rest}".removeprefix(", "))

    console = Console(file=sys.stderr, highlight=False)
    name = TextColumn(
        "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis", min_width=8)
    )
    bar = [BarColumn(bar_width=20)] if console.width >= NARROW_COLUMNS else []
    figures = [Amount(table_column=Column(no_wrap=True)), Rate(table_column=Column(no_wrap=True))]
    return Progress(name, *bar, *figures, console=console, transient=True, expand=True, refresh_per_second=8)
