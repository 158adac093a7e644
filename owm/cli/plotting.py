"""The picture of a report: the only place that imports matplotlib. It needs no display and leaves no cache behind."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from owm.cli.terminal import one_line
from owm.errors import StoreError

if TYPE_CHECKING:
    from owm.cli.report import Measured

_LOG_RATIO = 5  # from this ratio of the largest to the smallest divergence on, the axis is logarithmic
# Where a name may stand, in points from its mark, the best place first.
_SPOTS = (
    (9, 7, "left"), (-9, -7, "right"), (9, -7, "left"), (-9, 7, "right"), (0, 14, "center"), (0, -14, "center"),
    (14, 20, "left"), (-14, -20, "right"), (14, -20, "left"), (-14, 20, "right"),
)  # fmt: skip
_FRONT, _BEATEN, _INK = "#0b6e99", "#b35900", "#333333"


def draw(rows: "Sequence[Measured]", path: Path, *, title: str, front: "Sequence[Measured]") -> None:
    """Draw the measured rows, those of the Pareto front joined by a line: shapes carry the meaning, not colour alone.

    Raises:
        StoreError: the file cannot be written.
    """
    measured = sorted((row for row in rows if row.kld is not None), key=lambda row: row.size_bytes)
    unit, factor = ("GiB", 1 << 30) if measured[-1].size_bytes >= 1 << 30 else ("MiB", 1 << 20)
    with _matplotlib():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        klds = [row.kld or 0.0 for row in measured]
        if min(klds) > 0 and max(klds) >= _LOG_RATIO * min(klds):
            axes.set_yscale("log")
        best = [row for row in measured if row in front]
        others = [row for row in measured if row not in front]
        for chosen, marker, colour, line, label in (
            (best, "o", _FRONT, "-", "Pareto front"),
            (others, "X", _BEATEN, "none", "beaten by a smaller file"),
        ):
            if not chosen:
                continue
            sizes = [row.size_bytes / factor for row in chosen]
            means = [row.kld or 0.0 for row in chosen]
            intervals = [row.kld_interval or (mean, mean) for row, mean in zip(chosen, means, strict=True)]
            below = [max(mean - low, 0.0) for mean, (low, _) in zip(means, intervals, strict=True)]
            above = [max(high - mean, 0.0) for mean, (_, high) in zip(means, intervals, strict=True)]
            axes.errorbar(
                sizes, means, yerr=[below, above], fmt=marker, color=colour, linestyle=line, linewidth=1.2,
                drawstyle="steps-post", markersize=7, capsize=3, label=label,
            )  # fmt: skip
        axes.set_title(one_line(title), parse_math=False, color=_INK)
        axes.set_xlabel(f"size in {unit}", color=_INK)
        axes.set_ylabel("mean KL divergence from the source, nats a token", color=_INK)
        axes.grid(which="both", alpha=0.25)
        axes.margins(x=0.12, y=0.12)
        if len(measured) > 1:
            axes.legend(frameon=False)
        canvas.draw()  # places everything, so that names can be put where there is room
        _name(axes, canvas.get_renderer(), measured, factor)
        _save(figure, path)


def _name(axes: Any, renderer: Any, rows: "Sequence[Measured]", factor: int) -> None:
    """Write each row's name beside its mark: where it covers no other name and no mark, if there is such a place."""
    from matplotlib.transforms import Bbox

    legend = axes.get_legend()
    taken = [] if legend is None else [legend.get_window_extent(renderer)]
    places = [axes.transData.transform((row.size_bytes / factor, row.kld or 0.0)) for row in rows]
    reach = renderer.points_to_pixels(6)
    marks = [Bbox.from_extents(x - reach, y - reach, x + reach, y + reach) for x, y in places]
    for row in rows:
        for x, y, side in _SPOTS:
            text = axes.annotate(
                one_line(row.label), (row.size_bytes / factor, row.kld or 0.0), (x, y), textcoords="offset points",
                ha=side, va="center", fontsize=9, color=_INK, parse_math=False,
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            is_free = not any(box.overlaps(other) for other in (*taken, *marks))
            if is_free or (x, y, side) == _SPOTS[-1]:
                taken.append(box)
                break
            text.remove()


def _save(figure: Any, path: Path) -> None:
    """Write the picture beside its place, then give it its name."""
    suffix = path.suffix.lower()[1:]
    incomplete = path.with_name(f"{path.name}.incomplete")
    try:
        figure.savefig(incomplete, format=suffix, metadata={"Date": None} if suffix == "svg" else None)
        os.replace(incomplete, path)
    except OSError as error:
        incomplete.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def _matplotlib() -> Iterator[None]:
    """Import matplotlib with its own settings: no file of the user's counts, no cache is kept."""
    before = os.environ.get("MPLCONFIGDIR")
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it would tell of its fonts
    try:
        with TemporaryDirectory(prefix="owm-plot-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a letter that its font lacks is drawn as a box
            os.environ["MPLCONFIGDIR"] = folder
            import matplotlib

            # Text stays text in an SVG, and the same report makes the same bytes.
            with matplotlib.rc_context():
                matplotlib.rcdefaults()
                matplotlib.rcParams.update(
                    {"svg.fonttype": "none", "svg.hashsalt": "owm", "font.family": "DejaVu Sans"}
                )
                yield
    finally:
        logger.setLevel(level)
        if before is None:
            os.environ.pop("MPLCONFIGDIR", None)
        else:
            os.environ["MPLCONFIGDIR"] = before
