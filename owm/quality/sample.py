"""Scores of the chunks that were read so far, and the figures of the whole text that follow from them."""

import math
from typing import Any

import numpy as np

from owm.quality.figures import Estimate
from owm.quality.interval import MIN_CHUNKS, Strata
from owm.quality.softmax import Scores

Array = np.ndarray[Any, np.dtype[Any]]


class Sample:
    """What one candidate's chunks gave, in the order in which they were read."""

    def __init__(self, strata: Strata) -> None:
        self.strata = strata
        self.indices: list[int] = []
        self.scores: list[Scores] = []

    @property
    def n_chunks(self) -> int:
        """Chunks read so far."""
        return len(self.indices)

    @property
    def is_whole(self) -> bool:
        """Whether the whole text was read."""
        return self.n_chunks == self.strata.n_chunks

    @property
    def kld(self) -> Array:
        """Divergences in nats, chunks × tokens."""
        return np.array([scores.kld for scores in self.scores])

    def add(self, index: int, scores: Scores) -> None:
        """Take the scores of a chunk."""
        self.indices.append(index)
        self.scores.append(scores)

    def chunk_means(self) -> Array:
        """Return the mean divergence of each chunk."""
        return np.array([scores.kld.mean() for scores in self.scores])

    def is_known(self, precision: float) -> bool:
        """Tell whether the mean divergence of the whole text is known to a share of itself."""
        if self.is_whole:
            return True
        if self.n_chunks < min(MIN_CHUNKS, self.strata.n_chunks):
            return False
        mean = self.kld_mean()
        return mean.high - mean.value <= precision * abs(mean.value)

    def kld_mean(self) -> Estimate:
        """Return the mean divergence of the whole text."""
        return self.strata.mean(self.indices, self.chunk_means())

    def kld_quantile(self, share: float) -> Estimate:
        """Return the divergence below which `share` of the tokens lie."""
        return self.strata.quantile(self.indices, self.kld, share)

    def perplexity(self) -> Estimate:
        """Return the candidate's perplexity."""
        return self._perplexity("nll")

    def perplexity_reference(self) -> Estimate:
        """Return the reference's perplexity."""
        return self._perplexity("nll_reference")

    def top1_agreement(self) -> Estimate:
        """Return the share of positions at which both hold the same token for the likeliest."""
        found = self._mean("is_same_top")
        return Estimate(found.value, max(0.0, found.low), min(1.0, found.high))

    def _perplexity(self, name: str) -> Estimate:
        found = self._mean(name)
        return Estimate(math.exp(found.value), math.exp(found.low), math.exp(min(found.high, 700.0)))

    def _mean(self, name: str) -> Estimate:
        return self.strata.mean(self.indices, np.array([getattr(scores, name).mean() for scores in self.scores]))
