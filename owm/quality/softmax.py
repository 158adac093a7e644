"""Rows of logits turned into figures: log-likelihoods and divergences of each position, on several threads.

A row is worked on while it lies in the processor's cache, with numpy functions that release the interpreter lock.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from owm.errors import EngineError

Array = np.ndarray[Any, np.dtype[Any]]
_RANGE = 24.0  # nats below the likeliest token that are kept: even 262,144 tokens down there weigh 1e-5 together
_STEPS = 65535
# Tokens that the reference holds for less likely than e^-16 are left out of a divergence, as llama-perplexity does: of
# a small divergence they are 0.2 %. ref: llama.cpp tools/perplexity/perplexity.cpp
_CUT = np.float32(-16.0)


@dataclass(frozen=True, slots=True)
class Scores:
    """What positions of a text say of a reference and a candidate; arrays with one entry for each position.

    Divergences and negative log-likelihoods (of the text's next token) are in nats.
    """

    kld: Array
    nll_reference: Array
    nll: Array
    is_same_top: Array


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Logits of a reference in 16 bits each: (root of the distance to the row's largest) over `_RANGE`'s root.

    The root gives likely tokens the fine steps. `nll` and `top` were taken before rounding.
    """

    codes: Array  # n × n_vocab, u16
    nll: Array
    top: Array

    @property
    def n_bytes(self) -> int:
        """Memory that the rows take."""
        return int(self.codes.nbytes)


class Softmax:
    """Working memory and threads. Close it, or use it in a `with` statement."""

    def __init__(self, n_vocab: int, n_threads: int) -> None:
        self.n_threads = max(1, min(n_threads, os.cpu_count() or 1))
        self._pool = ThreadPoolExecutor(self.n_threads, thread_name_prefix="owm-softmax")
        self._buffers = [np.empty((4, n_vocab), np.float32) for _ in range(self.n_threads)]

    def __enter__(self) -> "Softmax":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def divergence(self, reference: Array, rows: Array, targets: Array) -> Scores:
        """Compare rows of a candidate with those of the reference at the same positions."""
        scores = _empty(len(rows))

        def work(buffer: Array, i: int) -> None:
            row, target = reference[i], targets[i]
            top = int(row.argmax())
            x, p = buffer[0], buffer[1]
            np.subtract(row, row[top], out=x)
            target_distance = float(x[target])
            log_sum = _compare(x, p, rows[i], int(target), top, buffer[2], buffer[3], scores, i)
            scores.nll_reference[i] = log_sum - target_distance

        self._each(len(rows), work)
        _checked(scores.kld)
        return scores

    def store(self, rows: Array, targets: Array) -> StoredRows:
        """Keep rows of the reference for later, in 16 bits each."""
        stored = StoredRows(np.empty(rows.shape, np.uint16), np.empty(len(rows)), np.empty(len(rows), np.int64))
        scale = np.float32(_STEPS / _RANGE**0.5)

        def work(buffer: Array, i: int) -> None:
            row, x = rows[i], buffer[0]
            top = stored.top[i] = row.argmax()
            stored.nll[i] = _log_sum(row, row[top], x, buffer[1]) - float(row[targets[i]] - row[top])
            np.negative(x, out=x)
            np.minimum(x, np.float32(_RANGE), out=x)
            np.sqrt(x, out=x)
            np.multiply(x, scale, out=x)
            np.rint(x, out=x)
            stored.codes[i] = x

        self._each(len(rows), work)
        _checked(stored.nll)
        return stored

    def divergence_from_stored(self, reference: StoredRows, rows: Array, targets: Array) -> Scores:
        """Compare rows of a candidate with stored ones.

        The rounded logits are a distribution of their own, taken for the reference's: so rounding moves a divergence by
        no more than its own size times how far the candidate differs.
        """
        scores = _empty(len(rows))
        scale = np.float32(_RANGE**0.5 / _STEPS)

        def work(buffer: Array, i: int) -> None:
            x = buffer[0]
            np.multiply(reference.codes[i], scale, out=x, dtype=np.float32)
            np.multiply(x, x, out=x)
            np.negative(x, out=x)
            _compare(x, buffer[1], rows[i], int(targets[i]), int(reference.top[i]), buffer[2], buffer[3], scores, i)

        scores.nll_reference[:] = reference.nll
        self._each(len(rows), work)
        _checked(scores.kld)
        return scores

    def _each(self, n_rows: int, work: Callable[[Array, int], None]) -> None:
        def run(part: int) -> None:
            buffer = self._buffers[part]
            with np.errstate(all="ignore"):  # what is not finite is found at the end
                for i in range(part, n_rows, self.n_threads):
                    work(buffer, i)

        list(self._pool.map(run, range(self.n_threads)))


def _empty(n_rows: int) -> Scores:
    return Scores(np.empty(n_rows), np.empty(n_rows), np.empty(n_rows), np.empty(n_rows, bool))


def _log_sum(row: Array, largest: Any, x: Array, p: Array) -> float:
    """Return log Σ exp(row - largest); leave the differences in `x`, their exponentials in `p`."""
    np.subtract(row, largest, out=x)
    np.exp(x, out=p)
    return float(np.log(np.add.reduce(p), dtype=np.float64))


def _compare(
    x: Array, p: Array, row: Array, target: int, top: int, y: Array, q: Array, scores: Scores, i: int
) -> float:
    """Fill in the scores of one position; return the log of the reference's sum. `x`: its logits, the largest 0.

    KLD = Σ p (log p - log q), with log p = x - log Σ exp(x) and log q alike; `np.add.reduce` sums pairwise.
    """
    own_top = int(row.argmax())
    log_sum = _log_sum(row, row[own_top], y, q)
    scores.nll[i] = log_sum - float(y[target])
    np.exp(x, out=p)
    log_total = float(np.log(np.add.reduce(p), dtype=np.float64))
    is_rare = x <= _CUT + np.float32(log_total)
    # Both logs are of order 1, so the difference of the sums is taken into each term and not after the sum.
    np.subtract(x, y, out=x)
    np.add(x, np.float32(log_sum - log_total), out=x)
    np.multiply(x, p, out=x)
    np.copyto(x, 0, where=is_rare)
    scores.kld[i] = float(np.add.reduce(x)) / float(np.exp(log_total))
    scores.is_same_top[i] = own_top == top
    return log_total


def _checked(figures: Array) -> Array:
    """Raise if a model gave what is no number.

    Raises:
        EngineError: it did.
    """
    if not np.isfinite(figures).all():
        raise EngineError("a model's logits are no numbers", hint="one of the files is damaged or of a broken type")
    return figures
