"""Size, speed and quality of the models that were measured, in one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.bench import report
from owm.cli.bench_chart import model_name
from owm.cli.plotting import LOG_RATIO, drawing

if TYPE_CHECKING:
    from owm.bench.record import Record

_AREAS = (20.0, 160.0)  # of marks in points², from the slowest to the fastest
_INK, _MARK = "#333333", "#0b6e99"
_FILLED, _OPEN = "#0b6e9999", "#ffffff00"
_BELOW = 3.0  # times: so far below the least divergence stands the reference on a logarithmic axis


@dataclass(frozen=True, slots=True)
class Point:
    """A mark: a model, or without quality one result.

    Attributes:
        y: divergence, perplexity or rate.
        rate: None where `y` is it.
    """

    name: str
    size_bytes: int
    y: float
    rate: float | None = None
    margin: float = 0.0
    is_reference: bool = False


def draw(records: "Sequence[Record]", path: Path) -> int:
    """Draw results: quality over size with the speed as the area of a mark, or without quality speed over size.

    Returns:
        How many marks there are.

    Raises:
        StoreError: the file cannot be written.
    """
    points, x_title, y_title, note = points_of(records)
    most = max(point.size_bytes for point in points)
    unit, factor = ("GiB", 1 << 30) if most >= 1 << 30 else ("MiB", 1 << 20)
    with drawing(path, reach=8.0) as (axes, name_marks):
        heights = _heights(axes, points)
        sizes = [point.size_bytes / factor for point in points]
        known = [
            (size, height, point.margin)
            for point, size, height in zip(points, sizes, heights, strict=True)
            if 0 < point.margin < height
        ]
        if known:
            xs, ys, margins = zip(*known, strict=True)
            axes.errorbar(xs, ys, yerr=margins, fmt="none", ecolor=_INK, elinewidth=0.8, capsize=3, zorder=4)
        # Open marks are references: shape carries the meaning, not colour alone.
        axes.scatter(
            sizes, heights, s=_areas(points), facecolors=[_OPEN if point.is_reference else _FILLED for point in points],
            edgecolors=_MARK, linewidths=1.4, zorder=3,
        )  # fmt: skip
        axes.set_xlabel(f"{x_title} in {unit}{note}", color=_INK)
        axes.set_ylabel(y_title, color=_INK)
        marks = zip(points, sizes, heights, strict=True)
        name_marks([(_label(point), size, height) for point, size, height in marks])
    return len(points)


def points_of(records: "Sequence[Record]") -> "tuple[list[Point], str, str, str]":
    """Return the marks, what the axes are called, and what is to be said of the marks."""
    answers = [record for record in records if not record.n_prompt] or list(records)
    graded = [record for record in records if record.perplexity is not None]
    if not graded:
        points = [Point(name, record.model_size, record.avg_ts) for name, record in _named(answers)]
        tests = list(dict.fromkeys(record.test for record in answers))
        return points, "size", f"{', '.join(tests[:3])}{', …' * (len(tests) > 3)}, tokens per second", ""
    test = next((record.test for record in answers if record.perplexity is not None), graded[0].test)
    fastest: dict[str, Record] = {}
    for record in graded:
        if record.test == test and (record.model not in fastest or record.avg_ts > fastest[record.model].avg_ts):
            fastest[record.model] = record
    chosen = list(fastest.values())
    has_kld = any(record.kld for record in chosen)
    points = [
        Point(
            model_name(record),
            record.model_size,
            (record.kld or 0.0) if has_kld else record.perplexity or 0.0,
            record.avg_ts,
            (record.kld_margin or 0.0) if has_kld else 0.0,
            is_reference=has_kld and not record.kld,
        )
        for record in chosen
        if not has_kld or record.kld is not None
    ]
    title = "mean KL divergence from the reference, nats a token" if has_kld else "perplexity"
    return points, "size", title, f"; area of a mark: {test}, tokens per second"


def _named(records: "Sequence[Record]") -> "list[tuple[str, Record]]":
    """Name results by their model and by what else tells them apart."""
    tests = {record.test for record in records}
    varied = [name for name in report.shown_settings(records) if len({getattr(each, name) for each in records}) > 1]
    found = []
    for record in records:
        parts = [model_name(record), *([record.test] if len(tests) > 1 else [])]
        parts += [f"{report.heading(name)}={report.value(record, name)}" for name in varied]
        found.append((" ".join(parts), record))
    return found


def _label(point: Point) -> str:
    reference = " (reference)" if point.is_reference else ""
    return f"{point.name}{reference}" + ("" if point.rate is None else f", {point.rate:.4g} t/s")


def _heights(axes: Any, points: Sequence[Point]) -> list[float]:
    """Choose the axis, and say where marks are on it; a reference has no place of its own on a logarithmic one."""
    known = [point.y for point in points if not point.is_reference]
    if not known or min(known) <= 0 or max(known) < LOG_RATIO * min(known):
        return [point.y for point in points]
    axes.set_yscale("log")
    return [min(known) / _BELOW if point.is_reference else point.y for point in points]


def _areas(points: Sequence[Point]) -> list[float]:
    """Return areas that grow with the rate, alike where there is none."""
    least, most = _AREAS
    rates = [point.rate for point in points if point.rate is not None]
    if not rates:
        return [60.0] * len(points)
    return [least + (most - least) * (point.rate or 0.0) / max(rates) for point in points]
