"""What every choice of types costs in divergence: measured errors, weighed by a few true measurements.

Small disturbances of the logits add up in the KL divergence, and each grows with the energy that a tensor's outputs lose.
So the divergence is about the sum of slope × error over tensors, with one slope for each kind of tensor, found by a trial:
the model with that kind alone in few bits.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.tailor.sensitivity import Errors, bpw, kind

STAGE = "trials"
BASE, TRIAL = "Q8_0", "Q4_0"  # both fit nearly all rows, and are fast to make and to run
MAX_TRIALS = 12
OTHERS = "others"

Measure = Callable[[Mapping[str, str]], float]  # tensor -> type, to the mean divergence in nats a token


@dataclass(frozen=True, slots=True)
class Losses:
    """Errors of all tensors, and the slope of each one's group: nats a token for all that a tensor has to lose.

    `base_kld` is what was measured with everything in `BASE`.
    """

    errors: Mapping[str, Errors]
    slopes: Mapping[str, float]
    base_kld: float | None = None

    def loss(self, name: str, type_name: str) -> float:
        """Return the divergence to expect of a tensor as a type."""
        return self.slopes[name] * self.errors[name].by_type[type_name]

    def predict(self, types: Mapping[str, str]) -> float:
        """Return the divergence to expect of a model."""
        return sum(self.loss(name, type_name) for name, type_name in types.items())


def calibrate(errors: Mapping[str, Errors], measure: Measure | None, *, sink: Sink = ignore) -> Losses:
    """Find the slopes by one trial for each group of tensors, and one without any.

    Without `measure` every tensor counts alike by its share of the weights, which is a guess.
    """
    if measure is None:
        total = sum(error.width * error.n_rows for error in errors.values())
        return Losses(errors, {name: error.width * error.n_rows / total for name, error in errors.items()})
    groups = _groups(errors)
    sink(Started(STAGE, len(groups) + 1, "files"))
    base = {name: _nearest(error, BASE) for name, error in errors.items()}
    base_kld = measure(base)
    sink(Advanced(STAGE, 1))
    found: dict[str, float] = {}
    for number, (group, names) in enumerate(groups.items(), 2):
        trial = base | {name: _nearest(errors[name], TRIAL) for name in names}
        added = sum(errors[name].by_type[trial[name]] - errors[name].by_type[base[name]] for name in names)
        if added > 0:
            found[group] = (measure(trial) - base_kld) / added
        sink(Advanced(STAGE, number, group))
    sink(Finished(STAGE, 0.0))
    # A group that seems to lose nothing was lost in the noise of few tokens.
    usual = statistics.median(found.values()) if found else 1.0
    least = max(usual / 20, 1e-9)
    slopes = {name: max(found.get(group, least), least) for group, names in groups.items() for name in names}
    return Losses(errors, slopes, base_kld)


def _groups(errors: Mapping[str, Errors]) -> dict[str, list[str]]:
    """Group tensors by kind; kinds with the fewest weights share a trial if there would be too many."""
    groups: dict[str, list[str]] = {}
    for name in errors:
        groups.setdefault(kind(name), []).append(name)
    if len(groups) <= MAX_TRIALS:
        return groups
    n_weights = {
        group: sum(errors[name].width * errors[name].n_rows for name in names) for group, names in groups.items()
    }
    few = sorted(groups, key=lambda group: n_weights[group])[: len(groups) - MAX_TRIALS + 1]
    merged = {group: names for group, names in groups.items() if group not in few}
    return merged | {OTHERS: [name for group in few for name in groups[group]]}


def _nearest(errors: Errors, type_name: str) -> str:
    """Return a type, or for rows that it does not fit the one that fits and takes the least more, else the largest."""
    if type_name in errors.by_type:
        return type_name
    ratio = bpw(type_name)
    larger = [name for name in errors.by_type if bpw(name) >= ratio]
    return min(larger, key=bpw) if larger else max(errors.by_type, key=bpw)
