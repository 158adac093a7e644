"""Intervals hold the whole text's figure as often as they say, also when measuring stops as soon as they are narrow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.quality.interval import MIN_CHUNKS, Strata
from owm.quality.sample import Sample
from owm.quality.softmax import Scores

N_TOKENS = 31


def _text(random: np.random.Generator, n_chunks: int) -> np.ndarray:
    """Return divergences (chunks × tokens): heavy tails, kinds of text one after the other, alike neighbours."""
    kinds = np.repeat(random.lognormal(0, 0.4, 9), -(-n_chunks // 9))[:n_chunks]
    chunks = kinds * random.lognormal(0, 0.2, n_chunks)
    return 0.05 * chunks[:, None] * random.lognormal(-0.5, 1.0, (n_chunks, N_TOKENS))


def _read(strata: Strata, text: np.ndarray, precision: float) -> Sample:
    sample = Sample(strata)
    for turn in strata.rounds:
        for index in turn:
            zeros = np.zeros(N_TOKENS)
            sample.add(index, Scores(text[index], zeros, zeros, zeros > 0))
        if sample.is_known(precision):
            break
    return sample


@given(st.integers(2, 400), st.integers(0, 5))
def test_every_chunk_comes_once_and_each_round_goes_through_the_whole_text(n_chunks: int, seed: int) -> None:
    strata = Strata(n_chunks, seed)
    order = [index for turn in strata.rounds for index in turn]
    assert sorted(order) == list(range(n_chunks))
    assert len({strata.stratum[index] for index in strata.rounds[0]}) == len(strata.sizes)
    assert strata.weights(order) == pytest.approx([1 / n_chunks] * n_chunks)


def test_the_order_is_always_the_same() -> None:
    assert Strata(100).rounds == Strata(100).rounds
    assert Strata(100).rounds != Strata(100, seed=1).rounds


def test_figures_of_the_whole_text_are_points() -> None:
    random = np.random.default_rng(1)
    text = _text(random, 30)
    sample = _read(Strata(30), text, 0.0)
    assert sample.is_whole
    for found, exact in (
        (sample.kld_mean(), text.mean()),
        (sample.kld_quantile(0.5), np.median(text)),
        (sample.kld_quantile(0.99), np.quantile(text, 0.99)),
    ):
        assert (found.value, found.low, found.high) == pytest.approx((exact, exact, exact), rel=1e-9)


def test_a_few_chunks_have_wide_intervals_and_are_not_enough() -> None:
    strata = Strata(200)
    text = _text(np.random.default_rng(2), 200)
    sample = Sample(strata)
    for index in strata.rounds[0][:5]:
        sample.add(index, Scores(text[index], text[index], text[index], text[index] > 0))
        assert not sample.is_known(0.5)
    mean = sample.kld_mean()
    assert mean.low < mean.value < mean.high


def test_intervals_hold_when_measuring_stops_as_soon_as_they_are_narrow() -> None:
    random = np.random.default_rng(3)
    n_texts, held, held_median, shares = 100, 0, 0, []
    for seed in range(n_texts):
        text = _text(random, 330)
        sample = _read(Strata(330, seed), text, 0.05)
        mean, median = sample.kld_mean(), sample.kld_quantile(0.5)
        held += mean.low <= text.mean() <= mean.high
        held_median += median.low <= np.median(text) <= median.high
        shares.append(sample.n_chunks / 330)
        assert sample.n_chunks >= MIN_CHUNKS
        assert mean.high - mean.value <= 0.05 * mean.value
    assert held >= 0.93 * n_texts
    assert held_median >= 0.93 * n_texts
    assert np.median(shares) < 0.6
