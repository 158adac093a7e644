"""What an importance matrix says of each tensor: how active its columns are, and how evenly.

ref: llama.cpp tools/imatrix/imatrix.cpp, compute_statistics and compute_cossim
"""

import re
from dataclasses import dataclass

import numpy as np

from owm.formats.imatrix import Entry, Imatrix

ACTIVE = 1e-5  # a mean square below that is of a column that nothing ever passes


@dataclass(frozen=True, slots=True)
class Activity:
    """Figures of the mean squares of one tensor's columns, experts without data left out.

    `total`, `minimum`, `maximum`, `mean` and `deviation` are theirs; `active` is the share above 0.00001, `entropy` in
    bits, `evenness` its share of what equal columns would have, `z_share` the share more than a deviation above the
    mean, `similarity` the cosine to the same tensor of the block before (None if there is none).
    """

    name: str
    n_values: int
    n_unhit: int
    total: float
    minimum: float
    maximum: float
    mean: float
    deviation: float
    active: float
    entropy: float
    evenness: float
    z_share: float
    similarity: float | None


def activities(imatrix: Imatrix) -> list[Activity]:
    """Return the figures of every tensor that has data, by block and name."""
    found = [_activity(name, entry, imatrix) for name, entry in imatrix.entries.items() if entry.is_hit]
    return sorted(found, key=lambda one: _order(one.name))


def _activity(name: str, entry: Entry, imatrix: Imatrix) -> Activity:
    is_hit = entry.counts > 0
    means = (entry.sums[is_hit] / entry.counts[is_hit][:, None].astype(np.float64)).ravel()
    total, mean = float(means.sum()), float(means.mean())
    deviation = float(np.sqrt(max(0.0, float(np.mean(means * means)) - mean * mean)))
    shares = means[means > 0] / total if total > 0 else means[:0]
    entropy = float(-(shares * np.log2(shares)).sum()) + 0.0
    return Activity(
        name=name,
        n_values=means.size,
        n_unhit=0 if imatrix.is_legacy else entry.n_unhit,
        total=total,
        minimum=float(means.min()),
        maximum=float(means.max()),
        mean=mean,
        deviation=deviation,
        active=float(np.mean(means > ACTIVE)),
        entropy=entropy,
        evenness=entropy / float(np.log2(means.size)) if means.size > 1 else 1.0,
        z_share=float(np.mean(means > mean + deviation)) if deviation > 0 else 0.0,
        similarity=_similarity(name, entry, imatrix),
    )


def _similarity(name: str, entry: Entry, imatrix: Imatrix) -> float | None:
    found = re.match(r"blk\.(\d{1,6})\.", name)
    before = imatrix.entries.get(f"blk.{int(found[1]) - 1}.{name[found.end() :]}") if found else None
    if before is None or before.sums.size != entry.sums.size:
        return None
    ours, theirs = entry.sums.ravel().astype(np.float64), before.sums.ravel().astype(np.float64)
    length = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float(ours @ theirs) / length if length > 0 else None


def _order(name: str) -> tuple[int, str]:
    found = re.match(r"blk\.(\d{1,6})\.", name)
    return (int(found[1]), name[found.end() :]) if found else (1 << 30, name)
