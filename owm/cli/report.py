"""What came of a quantization: a table of sizes, times and qualities, which of several are worth keeping, a plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owm.cli.output import Output, aligned
from owm.cli.terminal import one_line
from owm.errors import UsageError

PLOT_SUFFIXES = (".svg", ".png")


@dataclass(frozen=True, slots=True)
class Measured:
    """One file that was made; what was not measured is None.

    `kld` is the mean divergence from the source in nats a token, known to lie in `kld_interval`; `top1` is a share.
    """

    label: str
    size_bytes: int
    bpw: float
    seconds: float | None = None
    kld: float | None = None
    kld_interval: tuple[float, float] | None = None
    perplexity: float | None = None
    top1: float | None = None


def check_plot(path: Path) -> None:
    """Refuse a plot that could not be written, before the work that it would show.

    Raises:
        UsageError: not a kind of picture, or no such folder.
    """
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"a plot ends in {' or '.join(PLOT_SUFFIXES)}: {path}")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"no such folder: {path.parent}" if not path.is_dir() else f"{path} is a folder")


def beaten_by(row: Measured, rows: Sequence[Measured]) -> Measured | None:
    """Return the closest to the source of those that are no larger than `row` and closer, or as close and smaller.

    None is said of what lies on the Pareto front, and of what was not measured.
    """
    if row.kld is None:
        return None
    better: list[tuple[float, int, Measured]] = []
    for other in rows:
        if other.kld is None or other.kld > row.kld or other.size_bytes > row.size_bytes:
            continue
        if (other.kld, other.size_bytes) != (row.kld, row.size_bytes):
            better.append((other.kld, other.size_bytes, other))
    return min(better, key=lambda item: item[:2])[2] if better else None


def records(rows: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return rows for JSON."""
    return [
        {
            "label": row.label,
            "size_bytes": row.size_bytes,
            "bits_per_weight": round(row.bpw, 4),
            "seconds": None if row.seconds is None else round(row.seconds, 3),
            "kld_mean": row.kld,
            "kld_interval": None if row.kld_interval is None else list(row.kld_interval),
            "perplexity": row.perplexity,
            "top1_agreement": row.top1,
            "is_on_pareto_front": None if row.kld is None else beaten_by(row, rows) is None,
        }
        for row in rows
    ]


def say(rows: Sequence[Measured], out: Output) -> None:
    """Say the table on stderr, smallest file first; columns of what nothing was measured of are left out.

    Stdout is for the paths of the files, which other programs take.
    """
    from owm.units import format_bytes, format_seconds

    ordered = sorted(rows, key=lambda row: row.size_bytes)
    n_measured = sum(row.kld is not None for row in rows)
    shown = [
        {
            "label": row.label,
            "size": format_bytes(row.size_bytes),
            "bpw": f"{row.bpw:.2f}",
            "time": None if row.seconds is None else format_seconds(row.seconds),
            "kld": _kld(row),
            "ppl": None if row.perplexity is None else f"{row.perplexity:.3f}",
            "top1": None if row.top1 is None else f"{100 * row.top1:.1f} %",
            "pareto": _verdict(row, rows) if n_measured > 1 else None,
        }
        for row in ordered
    ]
    headings = {
        "label": "TYPE", "size": "SIZE", "bpw": "BPW", "time": "TIME", "kld": "KLD", "ppl": "PPL", "top1": "TOP-1",
        "pareto": "PARETO FRONT",
    }  # fmt: skip
    columns = {key: heading for key, heading in headings.items() if any(row[key] is not None for row in shown)}
    cells = [[one_line(row[key] or "") for key in columns] for row in shown]
    for line in aligned([list(columns.values()), *cells], [key not in ("label", "pareto") for key in columns]):
        out.note(line)


def _verdict(row: Measured, rows: Sequence[Measured]) -> str | None:
    """Say in words whether nothing beats a row."""
    if row.kld is None:
        return "not measured"
    other = beaten_by(row, rows)
    if other is None:
        return "on it"
    # Where the intervals overlap, another text might say otherwise.
    (low, _), (_, high) = _interval(row), _interval(other)
    return f"{'perhaps ' if high >= low and other.kld != row.kld else ''}beaten by {other.label}"


def _interval(row: Measured) -> tuple[float, float]:
    return row.kld_interval or (row.kld or 0.0, row.kld or 0.0)


def _kld(row: Measured) -> str | None:
    """Write a divergence with three digits, and how far it may be off if it is an estimate."""
    if row.kld is None:
        return None
    low, high = _interval(row)
    text = _three_digits(row.kld)
    off = max(high - row.kld, row.kld - low)
    return f"{text} ± {off:.{len(text.partition('.')[2])}f}" if off else text


def _three_digits(value: float) -> str:
    from math import floor, log10

    return f"{value:.{max(0, min(8, 2 - floor(log10(value))))}f}" if value > 0 else "0"


def plot(rows: Sequence[Measured], path: Path, *, title: str) -> None:
    """Draw size against divergence, with the Pareto front as a line.

    Args:
        path: ends in .svg or .png; a file there is replaced, in one step.
        title: whose types these are.

    Raises:
        UsageError: nothing was measured, or the path is none for a picture.
        StoreError: it cannot be written.
    """
    check_plot(path)
    if not any(row.kld is not None for row in rows):
        raise UsageError("nothing to plot: no divergence was measured", hint="add `--quality`")
    from owm.cli import plotting

    plotting.draw(rows, path, title=title, front=[row for row in rows if beaten_by(row, rows) is None])
