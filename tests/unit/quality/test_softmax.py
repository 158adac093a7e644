"""Rows of logits against the same figures in double precision."""

import numpy as np
import pytest

from owm.errors import EngineError
from owm.quality.softmax import Softmax

RANDOM = np.random.default_rng(7)
N_VOCAB = 5000


def _logits(n_rows: int, spread: float = 3.0) -> np.ndarray:
    return (RANDOM.standard_normal((n_rows, N_VOCAB)) * spread + 20).astype(np.float32)


def _log_softmax(rows: np.ndarray) -> np.ndarray:
    exact = rows.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    return exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))


def _kld(reference: np.ndarray, rows: np.ndarray) -> np.ndarray:
    p, q = _log_softmax(reference), _log_softmax(rows)
    return np.where(p > -16, np.exp(p) * (p - q), 0).sum(axis=1)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_divergence_and_likelihoods_are_those_of_double_precision(n_threads: int) -> None:
    reference = _logits(7)
    reference[:, 3] += 15  # the usual shape: one likely token
    rows = reference + 0.1 * _logits(7, 1.0)
    targets = RANDOM.integers(0, N_VOCAB, 7)
    with Softmax(N_VOCAB, n_threads) as softmax:
        scores = softmax.divergence(reference, rows, targets)
    every = np.arange(7)
    np.testing.assert_allclose(scores.kld, _kld(reference, rows), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores.nll_reference, -_log_softmax(reference)[every, targets], rtol=1e-6)
    np.testing.assert_allclose(scores.nll, -_log_softmax(rows)[every, targets], rtol=1e-6)
    assert list(scores.is_same_top) == list(reference.argmax(axis=1) == rows.argmax(axis=1))


def test_a_model_does_not_differ_from_itself() -> None:
    rows = _logits(3)
    with Softmax(N_VOCAB, 1) as softmax:
        scores = softmax.divergence(rows, rows.copy(), np.zeros(3, np.int64))
    assert scores.kld == pytest.approx([0, 0, 0], abs=1e-12)
    assert scores.is_same_top.all()


def test_stored_rows_give_the_same_divergence() -> None:
    reference = _logits(6, 4.0)
    rows = reference + 0.05 * _logits(6, 1.0)
    targets = RANDOM.integers(0, N_VOCAB, 6)
    with Softmax(N_VOCAB, 2) as softmax:
        stored = softmax.store(reference, targets)
        scores = softmax.divergence_from_stored(stored, rows, targets)
        exact = softmax.divergence(reference, rows, targets)
    np.testing.assert_allclose(scores.kld, exact.kld, rtol=2e-3, atol=2e-6)
    np.testing.assert_array_equal(scores.nll_reference, exact.nll_reference)
    np.testing.assert_array_equal(scores.nll, exact.nll)
    np.testing.assert_array_equal(scores.is_same_top, exact.is_same_top)
    assert stored.n_bytes == 2 * reference.size


def test_tokens_that_never_come_are_no_trouble() -> None:
    reference = _logits(2)
    rows = reference + 0.05 * _logits(2, 1.0)
    reference[:, 10:20] = rows[:, 10:20] = -np.inf
    with Softmax(N_VOCAB, 1) as softmax:
        scores = softmax.divergence(reference, rows, np.zeros(2, np.int64))
    kept = np.r_[0:10, 20:N_VOCAB]
    np.testing.assert_allclose(scores.kld, _kld(reference[:, kept], rows[:, kept]), rtol=1e-4)


@pytest.mark.parametrize("side", [0, 1])
def test_what_is_no_number_is_refused(side: int) -> None:
    both = [_logits(2), _logits(2)]
    both[side][1, 5] = np.nan
    with Softmax(N_VOCAB, 2) as softmax, pytest.raises(EngineError, match="no numbers"):
        softmax.divergence(both[0], both[1], np.zeros(2, np.int64))
