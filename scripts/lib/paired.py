"""The one way owm's benchmarks compare: two sides in turn, the ratio of each pair, the median ratio and its interval.

Runs alternate (A B, B A, A B, …) because a shared machine drifts: what both sides of a pair saw cancels in their ratio.
"""

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import psutil

POLL_SECONDS = 0.005
MIN_PAIRS = 5
Ours = TypeVar("Ours")
Theirs = TypeVar("Theirs")


@dataclass(frozen=True, slots=True)
class Run:
    """One finished command: what it took and what it said.

    `cpu_seconds` and `written_bytes` (to disks; 0 where that is not known) are those of
    its children too.
    """

    seconds: float
    peak_bytes: int
    stdout: str
    stderr: str
    cpu_seconds: float = 0.0
    written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paired measurements of `ours` against `theirs`, and what they say about a bound on ours / theirs.

    With `slack` the bound is on ours - theirs instead. No bound at all means that the numbers are for information.
    """

    name: str
    unit: str
    ours: list[float]
    theirs: list[float]
    bound: float | None
    at_least: bool
    slack: float | None = None

    @property
    def ratios(self) -> list[float]:
        """Ours / theirs of each pair."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def differences(self) -> list[float]:
        """Ours - theirs of each pair."""
        return [ours - theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def is_met(self) -> bool:
        """The verdict on the median; on the interval at a bound of 1, for "as good as" shows only up to the noise."""
        if self.slack is not None:
            return statistics.median(self.differences) <= self.slack
        if self.bound is None:
            return True
        low, high, _ = median_interval(self.ratios)
        median = statistics.median(self.ratios)
        if self.at_least:
            return (high if self.bound == 1.0 else median) >= self.bound
        return (low if self.bound == 1.0 else median) <= self.bound

    def summary(self) -> dict[str, object]:
        """Say it for a program."""
        low, high, confidence = median_interval(self.ratios)
        return asdict(self) | {
            "ratios": self.ratios,
            "ratio": statistics.median(self.ratios),
            "interval": [low, high],
            "confidence": confidence,
            "is_met": self.is_met,
        }

    def lines(self) -> list[str]:
        """Say it for a person."""
        lines = [
            _title(self.name, None if self.bound is None and self.slack is None else self.is_met),
            f"  owm         {statistics.median(self.ours):.4g} {self.unit}",
            f"  reference   {statistics.median(self.theirs):.4g} {self.unit}",
            f"  ratio       {_median_text(self.ratios, 'pairs')}",
        ]
        if self.slack is not None:
            lines.append(
                f"  difference  {_median_text(self.differences, 'pairs')} {self.unit}, bound <= {self.slack:g}"
            )
        elif self.bound is not None:
            lines[-1] += f", bound {'>=' if self.at_least else '<='} {self.bound:g}"
        return lines


@dataclass(frozen=True, slots=True)
class Limit:
    """Measurements held against an absolute upper limit."""

    name: str
    unit: str
    ours: list[float]
    bound: float

    @property
    def is_met(self) -> bool:
        """The verdict on the median."""
        return statistics.median(self.ours) <= self.bound

    def summary(self) -> dict[str, object]:
        """Say it for a program."""
        low, high, confidence = median_interval(self.ours)
        median = statistics.median(self.ours)
        interval = {"interval": [low, high], "confidence": confidence}
        return asdict(self) | {"median": median} | interval | {"is_met": self.is_met}

    def lines(self) -> list[str]:
        """Say it for a person."""
        return [
            _title(self.name, self.is_met),
            f"  owm         {_median_text(self.ours, 'runs')} {self.unit}, bound <= {self.bound:g}",
        ]


def _title(name: str, is_met: bool | None) -> str:
    return name if is_met is None else f"{name}: {'met' if is_met else 'MISSED'}"


def _median_text(values: Sequence[float], counted: str) -> str:
    low, high, confidence = median_interval(values)
    return f"{statistics.median(values):.3f} [{low:.3f}, {high:.3f}] ({confidence:.0%}, {len(values)} {counted})"


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the tightest pair of order statistics that holds the median with 95 %, and its exact confidence.

    Assumes nothing but independent runs. With 5 values the widest there is holds it with 94 %.
    ref: Conover, Practical Nonparametric Statistics, 3.2 (the sign test's interval)
    """
    ordered = sorted(values)
    n = len(ordered)
    best = 0
    for k in range(n // 2):
        if _confidence(n, k) >= 0.95:
            best = k
    return ordered[best], ordered[n - 1 - best], _confidence(n, best)


def _confidence(n: int, k: int) -> float:
    """Probability that the median lies between the (k+1)th smallest and the (k+1)th largest of n values."""
    return 1 - 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n


def measure_pairs(
    ours: Callable[[], Ours], theirs: Callable[[], Theirs], pairs: int
) -> tuple[list[Ours], list[Theirs]]:
    """Run both sides alternately after one warm-up each, swapping who goes first in every pair."""
    busy = psutil.cpu_percent(interval=1.0)
    if busy > 10:
        # With as many threads as cores, one other busy process can slow either side tenfold, at random.
        print(f"warning: the machine is busy ({busy:.0f} %), the numbers will be noisy", file=sys.stderr)
    ours()
    theirs()
    results: tuple[list[Ours], list[Theirs]] = ([], [])
    sides: Sequence[Callable[[], None]] = (lambda: results[0].append(ours()), lambda: results[1].append(theirs()))
    for pair in range(pairs):
        for side in sides if pair % 2 == 0 else reversed(sides):
            side()
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return results


def run_command(
    command: Sequence[str | Path],
    environment: dict[str, str] | None = None,
    *,
    with_children: bool = False,
    meanwhile: Callable[[int], object] | None = None,
    exit_code: int = 0,
) -> Run:
    """Run a command to its end and measure it; one that fails ends the benchmark.

    The peak is the resident memory of the largest process, mapped file pages included. `with_children` sums over all
    processes that live at once; that needs polling, which takes time from a program that wants all cores. `meanwhile`
    is called with the id of the process while it runs, and may stop it; then it ends with another `exit_code`.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        began = perf_counter()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | (environment or {}),
        )
        watch = _MemoryWatch(process.pid) if with_children else None
        if meanwhile is not None:
            meanwhile(process.pid)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        written_bytes = _written_bytes(process.pid)
        # wait4 and not communicate: it wakes at the end itself and knows the peak that polling may have missed.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if watch is not None:
            peak_bytes = max(peak_bytes, watch.stop())
        stdout.seek(0)
        stderr.seek(0)
        run = Run(
            seconds=seconds,
            peak_bytes=peak_bytes,
            stdout=stdout.read().decode("utf-8", "replace"),
            stderr=stderr.read().decode("utf-8", "replace"),
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            written_bytes=written_bytes,
        )
    if process.returncode != exit_code:
        code = process.returncode
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        tail = "\n".join(run.stderr.splitlines()[-10:])
        sys.exit(f"error: {reason} from: {' '.join(words)}\n{tail}")
    return run


class _MemoryWatch(threading.Thread):
    """Polls the resident memory of a process tree."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._peak_bytes = 0
        self._is_over = threading.Event()
        self.start()

    def run(self) -> None:
        before = 0
        while not self._is_over.wait(POLL_SECONDS):
            now = _tree_bytes(self._pid)
            # Seen twice in a row: for an instant a freshly forked child seems to hold all its parent's pages again.
            self._peak_bytes = max(self._peak_bytes, min(before, now))
            before = now

    def stop(self) -> int:
        """End the polling and return the peak."""
        self._is_over.set()
        self.join()
        return self._peak_bytes


def _written_bytes(pid: int) -> int:
    """Return what a process that has ended, but not been waited for, and its children sent to disks.

    What was removed before it was written counts too. ref: proc_pid_io(5)
    """
    try:
        lines = Path("/proc", str(pid), "io").read_text().splitlines()
    except OSError:
        return 0
    counts = {name: int(count) for name, _, count in (line.partition(":") for line in lines)}
    return counts.get("write_bytes", 0)


def _tree_bytes(pid: int) -> int:
    """Sum the resident bytes of a process and its descendants; those that have ended count nothing."""
    proc = Path("/proc", str(pid))
    try:
        # Straight from /proc on Linux: psutil lists every process of the machine to find children.
        resident = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        children = [child for task in (proc / "task").iterdir() for child in (task / "children").read_text().split()]
        return resident + sum(_tree_bytes(int(child)) for child in children)
    except (OSError, IndexError):
        pass
    try:
        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in tree)
    except psutil.Error:
        return 0


def arguments(description: str | None, *, fewest: int = MIN_PAIRS) -> argparse.ArgumentParser:
    """Return the options that every benchmark has; below five pairs there is no interval to speak of."""

    def n_pairs(text: str) -> int:
        if (pairs := int(text)) < fewest:
            raise argparse.ArgumentTypeError(f"at least {fewest}")
        return pairs

    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=n_pairs, default=9, metavar="N", help="pairs to measure (default 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    return parser


def report(results: Sequence[Comparison | Limit], json_file: Path | None) -> int:
    """Print every result, write them to a file if asked, and return the exit status."""
    for result in results:
        print("\n".join(result.lines()))
    if json_file:
        document = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "results": [result.summary() for result in results],
        }
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(result.is_met for result in results) else 1
