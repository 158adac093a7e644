"""Types for a target size: the assignment of least expected divergence, checked by what it really loses."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from owm.errors import UsageError
from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.pipeline.plan import Plan, PlannedTensor
from owm.pipeline.rows import QUANT_BLOCKS
from owm.tailor import budget, sensitivity
from owm.tailor.budget import Option
from owm.tailor.losses import BASE, Losses, Measure, calibrate, groups_of, nearest
from owm.tailor.recipe_file import Row, Tailored
from owm.units import format_bytes

MAX_ROUNDS = 2  # of looking again at what was chosen
GAIN = 0.01  # of its divergence that a round has to bring for another one to follow
MAX_SCALE = 4.0  # by which a round corrects a slope
CLEARLY = 1.5  # so many times what was measured is expected: not worth a measurement
STAGE = "choosing"
_STOCK = "nothing found loses less than llama.cpp's own "


@dataclass(frozen=True, slots=True)
class Rated:
    """A model whose losses are known: types for any number of target sizes can be chosen.

    `fixed_bytes` is what a file takes beside the tensors that are chosen for: header, padding, tensors that stay.
    """

    losses: Losses
    fixed_bytes: int
    measure: Measure

    @property
    def smallest_bytes(self) -> int:
        """The smallest file there can be."""
        return self.fixed_bytes + budget.smallest_bytes(self._options())

    def choose(
        self, target_bytes: int, stock: Mapping[str, Mapping[str, str]] | None = None, *, sink: Sink = ignore
    ) -> Tailored:
        """Choose types so that the file takes at most `target_bytes`.

        Args:
            stock: other recipes by name. The chosen types are measured against those that are
                small enough and not clearly worse, and what loses least is taken.

        Raises:
            UsageError: the target is below the smallest possible size.
        """
        _check(target_bytes, self.smallest_bytes)
        return self._best(self._refined(target_bytes, sink), stock or {})

    def _refined(self, target_bytes: int, sink: Sink) -> Tailored:
        """Choose, look at what each kind of tensor loses in what was chosen, and choose again by that.

        Losses were measured one kind at a time in an otherwise good model; together, and larger, they add up to less.
        """
        rated, best = self, self._assigned(target_bytes)
        groups = groups_of(self.losses.errors)
        sink(Started(STAGE, MAX_ROUNDS * (len(groups) + 1), "files"))
        n_done = 0
        for number in range(1, MAX_ROUNDS + 1):
            scales: dict[str, float] = {}
            for names in groups.values():
                restored = {name: nearest(self.losses.errors[name], BASE) for name in names}
                n_done += 1
                if all(best.types[name] == restored[name] for name in names):
                    continue
                kld = self.measure({**best.types, **restored})
                expected = sum(
                    rated.losses.loss(name, best.types[name]) - rated.losses.loss(name, restored[name])
                    for name in names
                )
                if expected > 0:
                    scale = ((best.measured_kld or 0.0) - kld) / expected
                    scales |= dict.fromkeys(names, min(max(scale, 1 / MAX_SCALE), MAX_SCALE))
                sink(Advanced(STAGE, n_done))
            rated = replace(rated, losses=rated.losses.scaled(scales))
            other = rated._assigned(target_bytes)
            n_done = number * (len(groups) + 1)
            sink(Advanced(STAGE, n_done))
            before, after = best.measured_kld or 0.0, other.measured_kld or 0.0
            best = other if after < before else best
            if after > before * (1 - GAIN):
                break
        sink(Finished(STAGE, 0.0))
        return best

    def _assigned(self, target_bytes: int) -> Tailored:
        """Return the best assignment by these losses, measured."""
        chosen = budget.assign(self._options(), target_bytes - self.fixed_bytes)
        tailored = self._tailored({name: option.type_name for name, option in chosen.items()}, target_bytes)
        return replace(tailored, measured_kld=self.measure(tailored.types))

    def _best(self, best: Tailored, stock: Mapping[str, Mapping[str, str]]) -> Tailored:
        for name, types in stock.items():
            if (other := self._filled(types, best.target_bytes)) is None:
                continue
            if self.losses.predict(other) > CLEARLY * (best.measured_kld or 0.0):
                continue
            kld = self.measure(other)
            if kld < (best.measured_kld or 0.0):
                best = replace(self._tailored(other, best.target_bytes), measured_kld=kld, notes=(_STOCK + name,))
        return best

    def _filled(self, types: Mapping[str, str], target_bytes: int) -> dict[str, str] | None:
        """Return a recipe with what is left of the target spent on it; None if it is too large or has other types."""
        options = self._options()
        by_type = {name: {option.type_name: option for option in choices} for name, choices in options.items()}
        if any(types.get(name) not in known for name, known in by_type.items()):
            return None
        chosen = {name: known[types[name]] for name, known in by_type.items()}
        spare = target_bytes - self.fixed_bytes - sum(option.n_bytes for option in chosen.values())
        if spare < 0:
            return None
        budget.fill(options, chosen, spare)
        return {name: option.type_name for name, option in chosen.items()}

    def _tailored(self, types: Mapping[str, str], target_bytes: int) -> Tailored:
        return Tailored(types, target_bytes, self._n_bytes(types), self.losses.predict(types), table=self._table(types))

    def _n_bytes(self, types: Mapping[str, str]) -> int:
        return self.fixed_bytes + sum(self.losses.errors[name].n_bytes(kind) for name, kind in types.items())

    def _options(self) -> dict[str, list[Option]]:
        return {
            name: [Option(kind, errors.n_bytes(kind), self.losses.loss(name, kind)) for kind in errors.by_type]
            for name, errors in self.losses.errors.items()
        }

    def _table(self, types: Mapping[str, str]) -> tuple[Row, ...]:
        kinds: dict[str, list[str]] = {}
        for name in types:
            kinds.setdefault(sensitivity.kind(name), []).append(name)
        errors, rows = self.losses.errors, []
        for kind, names in kinds.items():
            n_bytes = sum(errors[name].n_bytes(types[name]) for name in names)
            n_weights = sum(errors[name].width * errors[name].n_rows for name in names)
            counted = Counter(types[name] for name in names)
            rows.append(
                Row(
                    kind,
                    len(names),
                    n_bytes,
                    8 * n_bytes / n_weights,
                    {name: counted[name] for name in sorted(counted, key=sensitivity.bpw)},
                    sum(self.losses.loss(name, types[name]) for name in names),
                    sum(self.losses.slopes[name] for name in names) / 100,
                )
            )
        return tuple(rows)


def check_target(base: Plan, target_bytes: int, *, types: tuple[str, ...] = sensitivity.TYPES) -> None:
    """Refuse a target before any trial; see `rate` for the base.

    Raises:
        UsageError: the target is below the smallest possible size.
    """
    alignment, smallest = base.files[0].alignment, base.n_bytes
    for tensor in base.tensors:
        if _is_open(tensor) and (errors := sensitivity.unmeasured(tensor, types, alignment)).by_type:
            least = min(errors.n_bytes(type_name) for type_name in errors.by_type)
            smallest += least - (tensor.n_bytes + -tensor.n_bytes % alignment)
    _check(target_bytes, smallest)


def _check(target_bytes: int, smallest: int) -> None:
    if target_bytes < smallest:
        raise UsageError(
            f"the target size is too small: {format_bytes(target_bytes)}, "
            f"the smallest possible is {format_bytes(smallest)} ({smallest} bytes)",
            hint="a smaller model, or a larger target",
        )


def rate(base: Plan, measure: Measure, *, types: tuple[str, ...] = sensitivity.TYPES, sink: Sink = ignore) -> Rated:
    """Find out what every choice of types for a model would lose.

    Args:
        base: the model planned as Q8_0 by llama.cpp's recipe, with the metadata that will be written and the weights of
            columns: what is Q8_0 or another quantized type there may be chosen for, all else stays.
        measure: writes the model in the types it is given and returns its mean divergence on some text, not the one
            that the result will be judged on. Called once for each kind of tensor, and for the results.

    Raises:
        UsageError: there is nothing to choose.
    """
    names = {tensor.name for tensor in base.tensors if _is_open(tensor)}
    errors = sensitivity.measure(base, names, types=types, sink=sink)
    if not errors:
        raise UsageError("this model has no tensor that can be quantized")
    alignment = base.files[0].alignment
    chosen_for = sum(tensor.n_bytes + -tensor.n_bytes % alignment for tensor in base.tensors if tensor.name in errors)
    return Rated(calibrate(errors, measure, sink=sink), base.n_bytes - chosen_for, measure)


def _is_open(tensor: PlannedTensor) -> bool:
    """Tell whether a tensor is quantized on its way: not one that is kept as it was published."""
    return tensor.type_name in QUANT_BLOCKS and tensor.type_name != tensor.rows.dtype
