"""The rates of this machine that speeds are predicted with: measured once, or not at all where nobody may wait."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from owm.engine.tuning import Tuning
from owm.events import Sink, ignore
from owm.fit import speed
from owm.fit.speed import Speed
from owm.formats.gguf import Header
from owm.hardware import rates
from owm.hardware.machine import Machine, this_machine

MEASURING_SECONDS = 20.0  # for all the types of a repo's quants; those that are left have no speed until the next time


@dataclass(slots=True)
class Speeds:
    """Predicts speeds on the CPU of this machine.

    Attributes:
        measures: the machine may be measured where that was not done yet, which takes a second for each type.
    """

    tuning: Tuning
    measures: bool
    sink: Sink = ignore
    _left: float = field(default_factory=lambda: MEASURING_SECONDS)

    def of(self, headers: Sequence[Header], *, size_share: float = 1.0) -> Speed | None:
        """Return how fast a model would be, None if that is not known.

        Raises:
            EngineError: ggml cannot compute.
        """
        type_k, type_v = (name.upper() if name else "F16" for name in (self.tuning.type_k, self.tuning.type_v))
        began = time.monotonic()
        found = rates.speeds(
            _machine(),
            speed.type_names(headers),
            cache_types=tuple(dict.fromkeys((type_k, type_v))),
            n_threads=self.tuning.n_threads,
            measures=self.measures and self._left > 0,
            deadline_seconds=max(0.0, self._left),
            sink=self.sink,
        )
        self._left -= time.monotonic() - began
        if found is None:
            return None
        n_parallel = self.tuning.n_parallel or 1
        return speed.predict(headers, found, n_parallel=n_parallel, type_k=type_k, type_v=type_v, size_share=size_share)


@cache
def _machine() -> Machine:
    return this_machine()
