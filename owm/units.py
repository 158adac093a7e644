"""Numbers as people read and write them: sizes in GiB, parameters in B, durations, rates."""

import math
import re
from fractions import Fraction
from typing import TypeGuard

_BINARY = ("KiB", "MiB", "GiB", "TiB")
_FACTORS = {
    "": 1,
    "b": 1,
    **{p + s: 1000 ** (i + 1) for i, p in enumerate("kmgt") for s in ("b",)},
    **{p + s: 1024 ** (i + 1) for i, p in enumerate("kmgt") for s in ("", "ib")},
}


def is_number(value: object) -> TypeGuard[int | float]:
    """Say whether a value from a file is a number, finite and no larger than a double holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of over 308 digits
        return False


def format_bytes(n_bytes: int) -> str:
    """Write a size with three significant digits in binary units: `93.8 MiB`, `4.07 GiB`."""
    if n_bytes < 1000:
        return f"{n_bytes} B"
    value, units = n_bytes / 1024, iter(_BINARY)
    unit = next(units)
    while value >= 999.5 and (larger := next(units, None)):
        value, unit = value / 1024, larger
    return f"{_three_digits(value)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def parse_bytes(text: str) -> int:
    """Read a size such as `4.2GiB`, `500M` or `1GB` (SI with `B`, binary otherwise).

    Raises:
        ValueError: `text` is not a size.
    """
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([a-z]*)\s*", text.lower(), re.ASCII)
    if match is None or match[2] not in _FACTORS:
        raise ValueError(f"not a size: {text}")
    factor: int = _FACTORS[match[2]]
    return round(Fraction(match[1]) * factor)


def format_count(n: int) -> str:
    """Write a parameter count: `135M`, `1.24B`."""
    for factor, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n >= factor - factor // 2000:  # from 999,500 on three digits make a million
            return _three_digits(n / factor) + suffix
    return str(n)


def format_seconds(seconds: float) -> str:
    """Write a duration: `85 ms`, `4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def format_rate(per_second: float) -> str:
    """Write a token rate: `151.3 t/s`, `12,318 t/s`."""
    return f"{per_second:.1f} t/s" if per_second < 1000 else f"{per_second:,.0f} t/s"
