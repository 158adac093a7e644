"""How many rows to answer at the same time: measured on the model at hand, and bounded by memory."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from owm.engine.generate import decoded
from owm.engine.tuning import DEFAULT, Tuning
from owm.errors import EngineError

if TYPE_CHECKING:
    from owm.engine.model import Model
    from owm.native.llama import Context

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128)
SECONDS = 0.5  # for measuring once; a width that would take longer is not tried
WORTH = 1.03  # times the rate: less is no reason for more sequences, each of which needs memory

_N_PREFIX = 64
_N_TIMES = 2  # that every width is measured, not one after the other: a moment of other work must not decide
_N_STEPS = 2  # of which the first one makes llama.cpp ready for the width


@dataclass(frozen=True, slots=True)
class Width:
    """How many rows at a time, and the tokens per second that were measured at some widths."""

    n: int
    rates: Mapping[int, float]

    def __str__(self) -> str:
        measured = ", ".join(f"{width}: {rate:.0f}" for width, rate in self.rates.items())
        return f"{self.n} at a time (measured tokens/s by width: {measured})"


def measure_width(model: "Model", tokens: Sequence[int], *, most: int, tuning: Tuning = DEFAULT) -> Width:
    """Decode a few tokens at growing widths, and take the smallest width that comes near the best rate.

    Args:
        tokens: of any text, to read first.
        most: the largest width that memory, or the number of rows, allows.

    Raises:
        EngineError: llama.cpp failed, or the model was closed.
    """
    if most <= 1:
        return Width(1, {})
    widths = [width for width in WIDTHS if width < most] + [min(most, WIDTHS[-1])]
    prefix = (list(tokens) * (_N_PREFIX // len(tokens) + 1))[:_N_PREFIX]
    made = model.scheduler(_N_PREFIX + _N_STEPS, n_sequences=widths[-1] + 1, n_shared=_N_PREFIX, tuning=tuning)
    with made as scheduler, scheduler.borrow() as context:
        seconds = decoded(lambda: _measure(context, prefix, widths), context.cancel)
    rates = {width: width / each for width, each in seconds.items()}
    best = max(rates.values(), default=0.0)
    return Width(next((width for width, rate in rates.items() if rate * WORTH >= best), 1), rates)


def _measure(context: "Context", prefix: Sequence[int], widths: Sequence[int]) -> dict[int, float]:
    """Return the seconds of one decode by width. The first sequence keeps the prefix, from which the others go on."""
    _decode(context, [(token, position, 0) for position, token in enumerate(prefix)])
    found: dict[int, float] = {}
    began = time.perf_counter()
    for width in widths:
        expected = 2 * max(found.values(), default=0.0) * _N_STEPS  # twice as many take less than twice as long
        if time.perf_counter() - began + expected > SECONDS:
            break
        found[width] = _seconds(context, prefix, width)
    for width in tuple(found) * (_N_TIMES - 1):
        found[width] = min(found[width], _seconds(context, prefix, width))
    return found


def _seconds(context: "Context", prefix: Sequence[int], width: int) -> float:
    """Return how long a decode takes of so many sequences that go on from a prefix."""
    sequences = range(1, width + 1)
    for sequence in sequences:
        context.forget(sequence)
        context.share(0, sequence)
    seconds = 0.0
    for step, token in enumerate(prefix[:_N_STEPS]):
        before = time.perf_counter()
        _decode(context, [(token, len(prefix) + step, sequence) for sequence in sequences])
        seconds = time.perf_counter() - before
    return seconds


def _decode(context: "Context", tokens: Sequence[tuple[int, int, int]]) -> None:
    context.batch.clear()
    for token, position, sequence in tokens:
        context.batch.add(token, position, sequence, wants_logits=True)
    if context.decode() != 0:
        raise EngineError("measuring how many rows to answer at a time was stopped")
