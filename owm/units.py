"""Numbers as people read and write them: sizes in GiB, parameters in B, durations, rates."""

import re

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_FACTORS = {
    "": 1,
    "b": 1,
    **{p + s: 1000 ** (i + 1) for i, p in enumerate("kmgt") for s in ("b",)},
    **{p + s: 1024 ** (i + 1) for i, p in enumerate("kmgt") for s in ("", "ib")},
}


def format_bytes(n_bytes: int) -> str:
    """Write a size with three significant digits in binary units: `93.8 MiB`, `4.07 GiB`."""
    value = float(n_bytes)
    for unit in _BINARY:
        if value < 1000 or unit == _BINARY[-1]:
            if unit == "B":
                return f"{n_bytes} B"
            return (
                f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
            )
        value /= 1024
    raise AssertionError("unreachable")


def parse_bytes(text: str) -> int:
    """Read a size such as `4.2GiB`, `500M` or `1GB` (SI with `B`, binary otherwise).

    Raises:
        ValueError: `text` is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _FACTORS:
        raise ValueError(f"not a size: {text}")
    factor: int = _FACTORS[match[2]]
    return round(float(match[1]) * factor)


def format_count(n: int) -> str:
    """Write a parameter count: `135M`, `1.24B`."""
    for factor, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n >= factor:
            value = n / factor
            return (
                f"{value:.2f}{suffix}"
                if value < 10
                else f"{value:.1f}{suffix}"
                if value < 100
                else f"{value:.0f}{suffix}"
            )
    return str(n)


def format_seconds(seconds: float) -> str:
    """Write a duration: `85 ms`, `4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def format_rate(per_second: float) -> str:
    """Write a token rate: `151.3 t/s`."""
    return f"{per_second:.1f} t/s"
