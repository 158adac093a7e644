"""What every choice of types costs in divergence: measured errors, weighed by a few true measurements.

Small disturbances of the logits add up in the KL divergence, and each grows with the energy that is wrong in a tensor's
outputs. So the divergence is about the sum of slope × error over tensors, with one slope for each kind of tensor, found
by a trial: the model with that kind alone in few bits. A second trial, in a type of hardly any error of its own, tells
what rounding activations coarsely costs.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.tailor.sensitivity import Errors, bpw, kind

STAGE = "trials"
BASE, TRIAL = "Q8_0", "Q4_0"  # both fit nearly all rows, and are fast to make and to run
COARSE = "Q6_K"  # computes with activations that are rounded more coarsely
MAX_FACTOR = 100.0
_UNKNOWN = (1e-4, 1e-3)  # rounding, where there is no importance matrix
MAX_GROUPS = 12
OTHERS = "others"

Measure = Callable[[Mapping[str, str]], float]  # tensor -> type, to the mean divergence in nats a token


@dataclass(frozen=True, slots=True)
class Losses:
    """Errors of all tensors, and the slope of each one's group: nats a token for all that a tensor has to lose.

    `fine` and `coarse` are factors on what `Errors.rounding` expects, for activations are not as even as it takes them
    to be: one for all tensors, and one for each (1 if it is not there).
    """

    errors: Mapping[str, Errors]
    slopes: Mapping[str, float]
    fine: float = 1.0
    coarse: Mapping[str, float] = field(default_factory=dict)

    def loss(self, name: str, type_name: str) -> float:
        """Return the divergence to expect of a tensor as a type."""
        error = self.errors[name]
        fine, coarse = error.rounding or self._usual_rounding()
        rounded = coarse * self.coarse.get(name, 1.0) if error.is_coarse(type_name) else fine * self.fine
        return self.slopes[name] * (error.by_type[type_name] + rounded)

    def predict(self, types: Mapping[str, str]) -> float:
        """Return the divergence to expect of a model."""
        return sum(self.loss(name, type_name) for name, type_name in types.items())

    def scaled(self, scales: Mapping[str, float]) -> "Losses":
        """Return the same with some tensors' slopes multiplied."""
        slopes = {name: slope * scales.get(name, 1.0) for name, slope in self.slopes.items()}
        return replace(self, slopes=slopes)

    def _usual_rounding(self) -> tuple[float, float]:
        known = [error.rounding for error in self.errors.values() if error.rounding is not None]
        if not known:
            return _UNKNOWN
        return statistics.median(fine for fine, _ in known), statistics.median(coarse for _, coarse in known)


def calibrate(errors: Mapping[str, Errors], measure: Measure, *, sink: Sink = ignore) -> Losses:
    """Find slopes and factors of rounding by trials: one of the model in `BASE`, and at most two for each group."""
    began = time.monotonic()
    groups = groups_of(errors)
    base = {name: nearest(error, BASE) for name, error in errors.items()}
    trials = {group: base | {name: nearest(errors[name], TRIAL) for name in names} for group, names in groups.items()}
    coarse_trials = {
        group: base | changed
        for group, names in groups.items()
        if (changed := {name: COARSE for name in names if COARSE in errors[name].by_type})
    }
    n_done = 0
    sink(Started(STAGE, 1 + len(trials) + len(coarse_trials), "files"))

    def measured(types: Mapping[str, str]) -> float:
        nonlocal n_done
        found = measure(types)
        n_done += 1
        sink(Advanced(STAGE, n_done))
        return found

    base_kld = measured(base)
    found: dict[str, float] = {}
    for group, trial in trials.items():
        added = sum(errors[name].by_type[trial[name]] - errors[name].by_type[base[name]] for name in groups[group])
        if added > 0:
            found[group] = (measured(trial) - base_kld) / added
    # A group that seems to lose nothing was lost in the noise of few tokens.
    least = max(statistics.median(found.values()) / 20 if found else 1.0, 1e-9)
    slopes = {name: max(found.get(group, least), least) for group, names in groups.items() for name in names}
    rounded = [Losses(errors, slopes, fine).predict(base) for fine in (0.0, 1.0)]
    fine = _factor(base_kld, *rounded)
    coarse: dict[str, float] = {}
    for group, trial in coarse_trials.items():
        # What was not explained of the base is not blamed on the group.
        kld = measured(trial) - base_kld + Losses(errors, slopes, fine).predict(base)
        names = [name for name in groups[group] if trial[name] == COARSE]
        rounded = [Losses(errors, slopes, fine, dict.fromkeys(names, each)).predict(trial) for each in (0.0, 1.0)]
        coarse |= dict.fromkeys(names, _factor(kld, *rounded))
    sink(Finished(STAGE, time.monotonic() - began))
    return Losses(errors, slopes, fine, coarse)


def _factor(kld: float, without: float, with_one: float) -> float:
    """Return how many times what one adds to a prediction is needed to make it what was measured."""
    unit = with_one - without
    return min(max((kld - without) / unit, 0.0), MAX_FACTOR) if unit > 0 else 0.0


def groups_of(errors: Mapping[str, Errors]) -> dict[str, list[str]]:
    """Group tensors by kind; kinds with the fewest weights share a trial if there would be too many."""
    groups: dict[str, list[str]] = {}
    for name in errors:
        groups.setdefault(kind(name), []).append(name)
    if len(groups) <= MAX_GROUPS:
        return groups
    n_weights = {
        group: sum(errors[name].width * errors[name].n_rows for name in names) for group, names in groups.items()
    }
    few = sorted(groups, key=lambda group: n_weights[group])[: len(groups) - MAX_GROUPS + 1]
    merged = {group: names for group, names in groups.items() if group not in few}
    return merged | {OTHERS: [name for group in few for name in groups[group]]}


def nearest(errors: Errors, type_name: str) -> str:
    """Return a type, or for rows that it does not fit the one that fits and takes the least more, else the largest."""
    if type_name in errors.by_type:
        return type_name
    ratio = bpw(type_name)
    larger = [name for name in errors.by_type if bpw(name) >= ratio]
    return min(larger, key=bpw) if larger else max(errors.by_type, key=bpw)
