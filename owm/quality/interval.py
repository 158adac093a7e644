"""What some chunks say of a whole text: figures of stratified samples with intervals, and when enough chunks are read.

Divergences of tokens have heavy tails and neighbouring tokens are alike, so the chunk is the unit: a figure's standard
error comes from how chunk means differ within parts (strata) of the text, with the correction for having read a good
share of it. Looking again and again whether the interval is narrow enough picks the moments when it is so by luck;
therefore it is wider than a single look at 95 % would need. ref: W. G. Cochran, Sampling Techniques, ch. 5; R. S.
Woodruff, Confidence Intervals for Medians and Other Position Measures (1952)
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from owm.quality.figures import Estimate

Array = np.ndarray[Any, np.dtype[Any]]
N_STRATA = 16
FEWEST_CHUNKS = 4  # of a longer text; from fewer no interval follows
MIN_CHUNKS = 24  # before them the spread itself is hardly known
CHUNKS_A_STRATUM = 6
Z = 2.326  # a single look would hold 98 %; with many looks it is 95 to 97 %: scripts/proof_quality counts it
_SEED = 20250


class Strata:
    """A text's chunks in parts of equal length, and the order in which they are read."""

    def __init__(self, n_chunks: int, seed: int = _SEED) -> None:
        """Cut `n_chunks` into parts and draw an order: rounds that take one chunk at random from every part."""
        random = np.random.default_rng(seed)
        n_strata = max(1, min(N_STRATA, n_chunks // CHUNKS_A_STRATUM))
        parts = [list(random.permutation(part)) for part in np.array_split(np.arange(n_chunks), n_strata)]
        self.n_chunks = n_chunks
        self.sizes = np.array([len(part) for part in parts])
        self.stratum = {int(index): number for number, part in enumerate(parts) for index in part}
        self.rounds: list[list[int]] = [
            [int(part[turn]) for part in (parts[i] for i in random.permutation(n_strata)) if turn < len(part)]
            for turn in range(max(map(len, parts)))
        ]

    def weights(self, indices: Sequence[int]) -> Array:
        """Return each read chunk's weight in a mean of the whole text; they sum to 1."""
        stratum = np.array([self.stratum[index] for index in indices])
        counts = np.bincount(stratum, minlength=len(self.sizes))
        if not counts.all():  # too few to speak for every part
            return np.full(len(indices), 1 / len(indices))
        weights: Array = self.sizes[stratum] / counts[stratum] / self.n_chunks
        return weights

    def margin(self, indices: Sequence[int], values: Array) -> float:
        """Return half the width of the interval of a mean of chunk values; infinite where nothing can be said."""
        n = len(indices)
        if n == self.n_chunks:
            return 0.0
        stratum = np.array([self.stratum[index] for index in indices])
        counts = np.bincount(stratum, minlength=len(self.sizes))
        freedom = n - int(np.count_nonzero(counts))
        if not counts.all() or freedom < len(self.sizes) // 2 or freedom < 4:
            if n < FEWEST_CHUNKS:
                return math.inf
            error = float(values.std(ddof=1)) * math.sqrt((1 - n / self.n_chunks) / n)
            return _t(n - 1) * error
        means = np.bincount(stratum, values) / counts
        squares = np.bincount(stratum, (values - means[stratum]) ** 2)
        pooled = float(squares.sum()) / freedom
        variances = np.where(counts > 1, squares / np.maximum(counts - 1, 1), pooled)
        shares = (self.sizes / self.n_chunks) ** 2
        variance = float((shares * (1 - counts / self.sizes) * variances / counts).sum())
        return _t(freedom) * math.sqrt(variance)

    def mean(self, indices: Sequence[int], values: Array) -> Estimate:
        """Return the whole text's mean of a value that every read chunk has."""
        value = float((self.weights(indices) * values).sum())
        margin = self.margin(indices, values)
        return Estimate(value, value - margin, value + margin)

    def quantile(self, indices: Sequence[int], values: Array, share: float) -> Estimate:
        """Return the value below which `share` of the whole text's tokens lie; `values` is chunks × tokens.

        The margin is that of the share of tokens below the found value, turned back into values.
        """
        order = np.argsort(values, axis=None)
        weights = np.repeat(self.weights(indices), values.shape[1])[order]
        ordered = values.ravel()[order]
        places = np.cumsum(weights) - weights
        places /= places[-1]

        def at(place: float) -> float:
            return float(np.interp(place, places, ordered))

        found = at(share)
        margin = self.margin(indices, (values <= found).mean(axis=1))
        return Estimate(found, at(max(0.0, share - margin)), at(min(1.0, share + margin)))


def _t(freedom: int) -> float:
    """Return Student's quantile for the normal one `Z`. ref: Abramowitz and Stegun 26.7.5"""
    z, n = Z, freedom
    first = (z**3 + z) / (4 * n)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return z + first + second + third
