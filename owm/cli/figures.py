"""How measured quality is written for people: figures with their intervals, and what was read for them."""

from math import floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from owm.quality.certificate import Certificate
    from owm.quality.figures import Divergence, Estimate


def lines(found: "Divergence") -> list[str]:
    """Say what was measured, one figure a line."""
    from owm.units import format_seconds

    rows = {
        "KLD mean": figure(found.kld_mean),
        "KLD median": figure(found.kld_median),
        "KLD 99 %": figure(found.kld_p99),
        "perplexity": figure(found.perplexity),
        "  of the reference": figure(found.perplexity_reference),
        "top-1 agreement": percentage(found.top1_agreement),
        "read": _read(found.n_chunks, found.n_chunks_total, found.n_ctx, found.text_name),
        "time": format_seconds(found.seconds),
    }
    width = max(map(len, rows))
    return [f"{name.ljust(width)}  {value}" for name, value in rows.items()]


def say_quality(found: "Certificate", *, is_claimed: bool) -> str:
    """Say a certificate in one line; `is_claimed` if only the file says it."""
    said = (
        f"KLD {figure(found.kld_mean)} (99 %: {three_digits(found.kld_p99.value)}), "
        f"perplexity {figure(found.perplexity)} (reference: {three_digits(found.perplexity_reference.value)}), "
        f"top-1 {percentage(found.top1_agreement)}"
    )
    return f"{said}, by its own account" if is_claimed else said


def said_of(found: "Certificate") -> str:
    """Say what a certificate was measured against, and on what."""
    return f"against {found.reference}, {_read(found.n_chunks, found.n_chunks_total, found.n_ctx, found.text)}"


def figure(estimate: "Estimate") -> str:
    """Write a figure and its margin, with as many digits as the margin allows but three at least."""
    return _with_margin(estimate.value, max(estimate.high - estimate.value, estimate.value - estimate.low))


def percentage(estimate: "Estimate") -> str:
    """Write a share and its margin in per cent."""
    margin = max(estimate.high - estimate.value, estimate.value - estimate.low)
    return f"{_with_margin(100 * estimate.value, 100 * margin)} %"


def three_digits(value: float) -> str:
    """Write a number with three digits that count."""
    return f"{value:.{_decimals(value)}f}"


def _with_margin(value: float, margin: float) -> str:
    if margin <= 0:
        return f"{value:.{_decimals(value) + 1}f}"
    decimals = max(_decimals(value), min(9, -floor(log10(margin))))
    return f"{value:.{decimals}f} ± {margin:.{decimals}f}"


def _decimals(value: float) -> int:
    return max(0, min(9, 2 - floor(log10(max(abs(value), 1e-9)))))


def _read(n_chunks: int, n_total: int, n_ctx: int, name: str) -> str:
    share = f"all {n_total}" if n_chunks == n_total else f"{n_chunks} of {n_total}"
    return f"{share} chunks of {n_ctx} tokens of {name}"
