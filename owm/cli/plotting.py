"""Pictures: the only place that imports matplotlib. It needs no display and leaves no cache behind."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.cli.terminal import one_line
from owm.errors import StoreError
from owm.temporary import temporary_folder

if TYPE_CHECKING:
    from owm.cli.report import Measured

Mark = tuple[str, float, float]  # name, x, y

LOG_RATIO = 5  # from this ratio of the largest to the smallest divergence on, the axis is logarithmic
# Where a name may stand, in points from its mark, the best place first.
_SPOTS = (
    (9, 7, "left"), (-9, -7, "right"), (9, -7, "left"), (-9, 7, "right"), (0, 14, "center"), (0, -14, "center"),
    (14, 20, "left"), (-14, -20, "right"), (14, -20, "left"), (-14, 20, "right"),
)  # fmt: skip
_NEAR = 24  # points: from here on a line leads to a name
_FRONT, _BEATEN, _INK = "#0b6e99", "#b35900", "#333333"


def draw(rows: "Sequence[Measured]", path: Path, *, title: str, front: "Sequence[Measured]") -> None:
    """Draw the measured rows, those of the Pareto front joined by a line: shapes carry the meaning, not colour alone.

    Raises:
        StoreError: the file cannot be written.
    """
    measured = sorted((row for row in rows if row.kld is not None), key=lambda row: row.size_bytes)
    unit, factor = ("GiB", 1 << 30) if measured[-1].size_bytes >= 1 << 30 else ("MiB", 1 << 20)
    with drawing(path) as (axes, name_marks):
        klds = [row.kld or 0.0 for row in measured]
        if min(klds) > 0 and max(klds) >= LOG_RATIO * min(klds):
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
        if len(measured) > 1:
            axes.legend(frameon=False)
        name_marks([(row.label, row.size_bytes / factor, row.kld or 0.0) for row in measured])


@contextmanager
def drawing(path: Path, *, reach: float = 6.0) -> Iterator[tuple[Any, Callable[[Sequence[Mark]], list[Any]]]]:
    """Give axes to draw on, and what writes names beside marks once all is drawn; at the end the picture is written.

    Args:
        reach: points from the middle of a mark to its edge.

    Raises:
        StoreError: the file cannot be written.
    """
    with _matplotlib():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)
        axes = figure.add_subplot()

        def name_marks(marks: Sequence[Mark]) -> list[Any]:
            axes.grid(which="both", alpha=0.25)
            axes.margins(x=0.12, y=0.12)
            canvas.draw()  # places everything, so that names can be put where there is room
            return _name(axes, canvas.get_renderer(), marks, reach)

        yield axes, name_marks
        _save(figure, path)


def _name(axes: Any, renderer: Any, marks: Sequence[Mark], reach_points: float) -> list[Any]:
    """Write names beside marks, each where it covers no other name and no mark; return the boxes that they take.

    Where marks are many, a name may stand farther off, and a line leads to it.
    """
    from matplotlib.transforms import Bbox

    legend = axes.get_legend()
    taken = [] if legend is None else [legend.get_window_extent(renderer)]
    places = [axes.transData.transform((x, y)) for _, x, y in marks]
    reach = renderer.points_to_pixels(reach_points)
    around = [Bbox.from_extents(x - reach, y - reach, x + reach, y + reach) for x, y in places]
    room = axes.get_window_extent(renderer)
    named = []
    for name, x, y in marks:
        best: tuple[float, Any] | None = None  # how much it covers, and the text
        for dx, dy, side in (*_SPOTS, *_far_spots()):
            is_far = abs(dy) > _NEAR
            end = (0.0 if side == "left" else 1.0, 0.5)  # of the text, where the line to it ends
            text = axes.annotate(
                one_line(name), (x, y), (dx, dy), textcoords="offset points", ha=side, va="center", fontsize=9,
                color=_INK, parse_math=False,
                arrowprops={"arrowstyle": "-", "color": _INK, "linewidth": 0.5, "alpha": 0.6, "relpos": end}
                if is_far else None,
            )  # fmt: skip
            box = Bbox(text.get_window_extent(renderer)) if not is_far else _text_box(text, renderer)
            covered = sum(_common(box, other) for other in (*taken, *around)) + _outside(box, room)
            if best is not None and covered >= best[0]:
                text.remove()
                continue
            if best is not None:
                best[1].remove()
            best = covered, text
            found = box
            if not covered:
                break
        taken.append(found)
        named.append(found)
    return named


def _far_spots() -> Iterator[tuple[float, float, str]]:
    """Give places in growing rings, to the sides rather than above."""
    for distance in range(34, 260, 14):
        for side, sign in (("left", 1), ("right", -1)):
            for up in (1, -1):
                yield sign * 14, up * distance, side
                yield sign * (14 + distance), up * distance, side


def _text_box(text: Any, renderer: Any) -> Any:
    """Return the box of a text without the line that leads to it."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    text.update_positions(renderer)
    return Bbox(Text.get_window_extent(text, renderer))


def _common(one: Any, other: Any) -> float:
    """Return the area that two boxes have in common."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(width * height) if width > 0 and height > 0 else 0.0


def _outside(box: Any, room: Any) -> float:
    """Return the area of a box that lies outside of another."""
    return float(box.width * box.height) - _common(box, room)


def _save(figure: Any, path: Path) -> None:
    """Write the picture beside its place, then give it its name."""
    suffix = path.suffix.lower()[1:]
    incomplete = path.with_name(f"{path.name}.incomplete")
    try:
        incomplete.unlink(missing_ok=True)
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
        with temporary_folder() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a letter that its font lacks is drawn as a box
            os.environ["MPLCONFIGDIR"] = str(folder)
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
