"""Finding models where they are published."""

import re

from owm.errors import UsageError
from owm.store import offline
from owm.store.sources.hub_search import FoundRepo, Wanted, search

ABOUT = 0.25  # a model of "1B" has within so much of that: 0.98B and 1.24B are called so

_SIZE = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,6})?)\s*(?P<unit>[kmbt]?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def find_repos(wanted: Wanted) -> list[FoundRepo]:
    """Search the Hub; see `owm.store.sources.hub_search.search`.

    Raises:
        SourceUnreachable: offline, or the Hub cannot be reached.
    """
    offline.refuse("the Hub is not searched")
    return search(wanted)


def size_range(text: str) -> tuple[int | None, int | None]:
    """Read a number of parameters as bounds: `8B` (about), `3B-9B`, `<4B`, `>=30B`; None is no bound.

    Raises:
        UsageError: it is none of these.
    """
    plain = text.strip()
    if bounds := re.fullmatch(r"(<=?|>=?)\s*(.+)", plain):
        n = _count(bounds[2], text)
        inside = 0 if "=" in bounds[1] else 1
        return (None, n - inside) if bounds[1][0] == "<" else (n + inside, None)
    if "-" in plain or ".." in plain:
        first, last = re.split(r"-|\.\.", plain, maxsplit=1)
        least, most = _count(first, text), _count(last, text)
        if least > most:
            raise UsageError(f"the smaller number comes first: {text}", hint=f"`{last.strip()}-{first.strip()}`")
        return least, most
    n = _count(plain, text)
    return round(n * (1 - ABOUT)), round(n * (1 + ABOUT))


def _count(text: str, whole: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"not a number of parameters: {whole}", hint="write `8B`, `3B-9B`, `<4B` or `>30B`")
    return round(float(match["number"]) * _UNITS[match["unit"].lower()])
