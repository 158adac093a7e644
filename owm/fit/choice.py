"""Which quant to take where none is named: one rule, and the reason in words."""

from collections.abc import Sequence

from owm.fit.fit import Fit
from owm.store import quants
from owm.store.quants import Variant
from owm.units import format_bytes

USEFUL_CONTEXT = 4096  # a better quant is not worth a shorter one


def choose(fits: Sequence[Fit]) -> tuple[Fit, str]:
    """Choose among the quants of one model; return the one, and why in one sentence without a full stop.

    One that is stored is taken before any that is not. Otherwise the best quality that fits, where quality is known;
    else the usual choice (`Q4_K_M`) or, where that does not fit, the largest below it that does.

    Args:
        fits: at least one.
    """
    if stored := [each for each in fits if each.is_stored]:
        usual = _usual(stored)
        return usual, f"{usual.label} is stored already"
    usual = _usual(fits)
    if len(fits) == 1:
        return usual, f"{usual.label} is the only one{_but(usual)}"
    if all(each.verdict is None for each in fits):
        return usual, f"{usual.label} is the usual choice; how much memory it takes is not known"
    if fitting := [each for each in fits if each.verdict == "fits"]:
        return _best(fitting, usual)
    if partly := [each for each in fits if each.verdict == "partly"]:
        chosen, _ = _best(_useful(partly), usual)
        return chosen, f"none fits whole, and {_part(chosen)}"
    if unknown := [each for each in fits if each.verdict is None]:
        chosen = _largest_up_to(unknown, usual)
        return chosen, f"{chosen.label} is the nearest to the usual choice that may fit; its memory is not known"
    chosen = min(fits, key=lambda each: each.size_bytes or 0)
    return chosen, f"none fits this machine, {chosen.label} is the smallest"


def _best(fitting: Sequence[Fit], usual: Fit) -> tuple[Fit, str]:
    """Choose among those that have room, `usual` being what would be taken on a larger machine."""
    room = f"fits with {_context(fitting[0])}"
    largest = _largest_up_to(fitting, usual)
    known = [each for each in fitting if each.quality is not None]
    if known:
        best = min(known, key=lambda each: (each.quality or 0.0, each.size_bytes or 0))
        # A certificate says how good one is, not that those without are worse: those above the usual size seldom are.
        if len(known) == len(fitting) or (best.size_bytes or 0) >= (largest.size_bytes or 0):
            figure = f"{best.quality:.2g}"
            return best, f"{best.label} is the best that {room}: its mean divergence from the original is {figure}"
    if largest is usual:
        return usual, f"{usual.label} is the usual choice, and it {room}"
    less = _size(usual)
    if (largest.size_bytes or 0) <= (usual.size_bytes or 0):
        return largest, f"{largest.label} is the largest below {usual.label} ({less}) that {room}"
    return largest, f"{largest.label} is the smallest that {room}"


def _useful(partly: Sequence[Fit]) -> list[Fit]:
    """Leave out those whose context would be short, unless all are: then the longest is left."""
    useful = [each for each in partly if (each.n_ctx_fitting or each.n_ctx) >= min(USEFUL_CONTEXT, each.n_ctx)]
    return useful or [max(partly, key=lambda each: each.n_ctx_fitting or each.n_ctx)]


def _largest_up_to(fitting: Sequence[Fit], usual: Fit) -> Fit:
    """Return the usual one if it is among `fitting`, else the largest that is no larger, else the smallest."""
    if usual in fitting:
        return usual
    below = [each for each in fitting if (each.size_bytes or 0) <= (usual.size_bytes or 0)]
    if below:
        return max(below, key=lambda each: each.size_bytes or 0)
    return min(fitting, key=lambda each: each.size_bytes or 0)


def _usual(fits: Sequence[Fit]) -> Fit:
    """Return what is taken where nothing else is known. ref: owm/store/quants.py, DEFAULT_ORDER"""
    by_label = {each.label: each for each in reversed(fits)}
    choices = [Variant(each.label, (_File(each.label, each.size_bytes),)) for each in by_label.values()]
    return by_label[quants.choose(choices, None, where="").label]


def _but(fit: Fit) -> str:
    if fit.verdict == "no":
        return ", and it does not fit this machine"
    if fit.verdict == "fits":
        return f", and it fits with {_context(fit)}"
    return f", and {_part(fit)}" if fit.verdict == "partly" else ""


def _part(fit: Fit) -> str:
    """Say how far one fits that does not fit whole."""
    if fit.n_ctx_fitting is not None:
        return f"{fit.label} fits with a context of {fit.n_ctx_fitting:,} tokens"
    return f"{fit.label} fits with a part of its layers on the GPU"


def _context(fit: Fit) -> str:
    several = f" for each of {fit.need.n_parallel} answers" if fit.need is not None and fit.need.n_parallel > 1 else ""
    return f"a context of {fit.n_ctx:,} tokens{several}"


def _size(fit: Fit) -> str:
    return format_bytes(fit.size_bytes) if fit.size_bytes is not None else "of unknown size"


class _File:
    """A quant as `owm.store.quants` looks at files."""

    def __init__(self, path: str, size_bytes: int | None) -> None:
        self.path = path
        self.size_bytes = size_bytes
