"""Types for a target size: the assignment of least expected divergence, checked by what it really loses."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from owm.errors import UsageError
from owm.events import Sink, ignore
from owm.pipeline.plan import Plan, PlannedTensor
from owm.pipeline.rows import QUANT_BLOCKS
from owm.tailor import budget, sensitivity
from owm.tailor.budget import Option
from owm.tailor.losses import Losses, Measure, calibrate
from owm.tailor.recipe_file import Row, Tailored
from owm.units import format_bytes


@dataclass(frozen=True, slots=True)
class Rated:
    """A model whose losses are known: types for any number of target sizes can be chosen.

    `fixed_bytes` is what a file takes beside the tensors that are chosen for: header, padding, tensors that stay.
    """

    losses: Losses
    fixed_bytes: int
    measure: Measure | None = None

    @property
    def smallest_bytes(self) -> int:
        """The smallest file there can be."""
        return self.fixed_bytes + budget.smallest_bytes(self._options())

    def choose(self, target_bytes: int, stock: Mapping[str, Mapping[str, str]] | None = None) -> Tailored:
        """Choose types so that the file takes at most `target_bytes`.

        Args:
            stock: other recipes by name. The chosen types are measured against those that are small enough, and the one
                that loses least is taken.

        Raises:
            UsageError: the target is below the smallest possible size.
        """
        smallest = self.smallest_bytes
        if target_bytes < smallest:
            raise UsageError(
                f"the target size is too small: {format_bytes(target_bytes)}, "
                f"the smallest possible is {format_bytes(smallest)} ({smallest} bytes)",
                hint="a smaller model, or a larger target",
            )
        chosen = budget.assign(self._options(), target_bytes - self.fixed_bytes)
        tailored = self._tailored({name: option.type_name for name, option in chosen.items()}, target_bytes)
        return self._best(tailored, stock or {}) if self.measure is not None else tailored

    def _best(self, tailored: Tailored, stock: Mapping[str, Mapping[str, str]]) -> Tailored:
        assert self.measure is not None
        measured = self.measure(tailored.types)
        best = tailored
        notes: tuple[str, ...] = ()
        for name, types in stock.items():
            other = {tensor: types[tensor] for tensor in tailored.types}
            if self._n_bytes(other) > tailored.target_bytes:
                continue
            kld = self.measure(other)
            if kld < measured:
                measured, best = kld, self._tailored(other, tailored.target_bytes)
                notes = (f"{name} as llama.cpp makes it loses less than what was found",)
        return Tailored(best.types, best.target_bytes, best.n_bytes, best.predicted_kld, measured, best.table, notes)

    def _tailored(self, types: Mapping[str, str], target_bytes: int) -> Tailored:
        predicted = self.losses.predict(types) if self.measure is not None else None
        return Tailored(types, target_bytes, self._n_bytes(types), predicted, table=self._table(types))

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


def rate(
    base: Plan, measure: Measure | None, *, types: tuple[str, ...] = sensitivity.TYPES, sink: Sink = ignore
) -> Rated:
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


def choose_types(
    base: Plan,
    target_bytes: int,
    measure: Measure | None,
    *,
    stock: Mapping[str, Mapping[str, str]] | None = None,
    sink: Sink = ignore,
) -> Tailored:
    """Choose types for one target size: see `rate` and `Rated.choose`."""
    return rate(base, measure, sink=sink).choose(target_bytes, stock)


def _is_open(tensor: PlannedTensor) -> bool:
    """Tell whether a tensor is quantized on its way: not one that is kept as it was published."""
    return tensor.type_name in QUANT_BLOCKS and tensor.type_name != tensor.rows.dtype
