"""Measuring many cases: in rounds, each case once in each, so that whatever drifts on the machine drifts for all alike.

Contexts are kept from round to round as long as there is memory for them, and made anew where there is not.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from owm.bench.case import Case, Subject
from owm.bench.cost import Cost, cost_of
from owm.bench.measure import Sample, Workload, open_workload
from owm.engine.model import Model
from owm.engine.tuning import Tuning
from owm.errors import EngineError, NotEnoughMemory, OwmError
from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.hardware import probe, resident
from owm.native import ggml

STAGE = "measuring"
LOADING = "loading"
WEIGHTS_SHARE = 0.6  # of the memory for the models that are measured together
FREE_SHARE = 0.1  # of the memory that stays free beside contexts that are kept
GPU_FREE_BYTES = 1 << 30

_Key = tuple[Subject, int | None]


@dataclass(frozen=True, slots=True)
class Loading:
    """Seconds until a model that is being opened has read one token.

    Attributes:
        cold_seconds: its file was not in memory; None where that cannot be had.
    """

    warm_seconds: float
    cold_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """What is known of a model that was measured."""

    description: str
    size_bytes: int
    n_params: int
    n_gpu_layers: int
    cost: Cost


@dataclass(slots=True)
class Measured:
    """A case and what was measured of it.

    Attributes:
        tuning: with what held where the case's says nothing.
        started_at: seconds since the epoch.
        peak_bytes: that the process would have held at most with this model and this context alone.
        gpu_bytes: of the memory of GPUs that model and context took, None without a GPU.
    """

    case: Case
    opened: Opened
    tuning: Tuning
    loading: Loading | None = None
    samples: list[Sample] = field(default_factory=list)
    started_at: float = 0.0
    peak_bytes: int = 0
    gpu_bytes: int | None = None


def measure_cases(
    cases: Sequence[Case],
    *,
    repetitions: int = 5,
    has_warmup: bool = True,
    times_loading: bool = True,
    log: Callable[[str], None] | None = None,
    sink: Sink = ignore,
) -> Iterator[Measured]:
    """Measure cases; those of models that have room together are given out together, in their order.

    Args:
        has_warmup: do each case once before it is measured.
        times_loading: open each model twice, from disk and from memory, and time that.
        log: takes llama.cpp's own log.

    Raises:
        KeyboardInterrupt, OwmError: after what was measured by then was given out; the latter as opening a model and
            `open_workload` do.
    """
    began = time.perf_counter()
    sink(Started(STAGE, len(cases) * repetitions, "parts"))
    base_bytes, n_done = resident.held_bytes(), 0
    for group in groups(cases):
        found: list[Measured] = []
        try:
            with ExitStack() as stack:
                shelf = _Shelf(base_bytes, has_warmup=has_warmup)
                for case in group:
                    if (key := _key(case)) not in shelf.models:
                        sink(Advanced(STAGE, n_done, f"{LOADING} {case.subject.name}"))
                        shelf.models[key] = stack.enter_context(_Held.open(case, times_loading=times_loading, log=log))
                        # Contexts before models: what is entered last is left first.
                        stack.callback(shelf.close)
                    held = shelf.models[key]
                    found.append(Measured(case, held.facts, _effective(case.tuning, held.model), held.loading))
                for _ in range(repetitions):
                    for measured in found:
                        shelf.measure(measured)
                        n_done += 1
                        sink(Advanced(STAGE, n_done, f"{measured.case.subject.name} {measured.case.test}"))
        except (KeyboardInterrupt, OwmError):
            yield from (measured for measured in found if measured.samples)
            raise
        yield from found
    sink(Finished(STAGE, time.perf_counter() - began))


def groups(cases: Sequence[Case], *, room_bytes: int | None = None) -> list[list[Case]]:
    """Part cases by models that have room in memory together."""
    room = weights_room() if room_bytes is None else room_bytes
    found: list[list[Case]] = []
    sizes: dict[_Key, int] = {}
    for case in cases:
        key = _key(case)
        if not found or key not in sizes:
            n_bytes = sum(path.stat().st_size for path in case.subject.files)
            if not found or sum(sizes.values()) + n_bytes > room:
                found.append([])
                sizes = {}
            sizes[key] = n_bytes
        found[-1].append(case)
    return found


def weights_room() -> int:
    """Return the bytes that models which are open together may have."""
    gpus = [device.total_bytes for device in ggml.devices() if device.is_gpu]
    return int(min(probe.memory().total, sum(gpus) if gpus else probe.memory().total) * WEIGHTS_SHARE)


def _key(case: Case) -> _Key:
    return case.subject, case.tuning.n_gpu_layers


def _effective(tuning: Tuning, model: Model) -> Tuning:
    """Say what holds where a tuning says nothing, as far as that is a number; flash attention stays llama.cpp's."""
    from owm.engine.tuning import N_BATCH, N_UBATCH
    from owm.native import llama

    n_batch = tuning.n_batch or N_BATCH
    defaults = Tuning(
        n_threads=model.cores.usable,
        n_batch=n_batch,
        n_ubatch=min(N_UBATCH, n_batch),
        type_k="f16",
        type_v="f16",
        n_gpu_layers=model.n_gpu_layers if llama.can_offload() else -1,
    )
    return tuning.over(defaults)


class _Held:
    """An open model, what opening it took, and the memory that it holds."""

    def __init__(self, model: Model, loading: Loading | None, held_bytes: int, gpu_bytes: int | None) -> None:
        native = model.native
        self.model = model
        self.loading = loading
        self.held_bytes = held_bytes
        self.gpu_bytes = gpu_bytes
        self.facts = Opened(
            native.description, native.size_bytes, native.n_params, model.n_gpu_layers, cost_of(model.headers)
        )

    @classmethod
    def open(cls, case: Case, *, times_loading: bool, log: Callable[[str], None] | None) -> "_Held":
        """Open a case's model, with a token read, so that its weights are in memory."""

        def load() -> tuple[Model, float]:
            began = time.perf_counter()
            model = Model(
                case.subject.files,
                n_gpu_layers=case.tuning.n_gpu_layers,
                is_verified=case.subject.is_verified,
                log=log,
            )
            try:
                with open_workload(
                    model, Case(case.subject, 1, 0, tuning=Tuning(n_threads=case.tuning.n_threads))
                ) as one:
                    one.measure()
            except BaseException:
                model.close()
                raise
            return model, time.perf_counter() - began

        cold = None
        if times_loading:
            is_cold = resident.forget_files(case.subject.files)
            model, seconds = load()
            model.close()
            cold = seconds if is_cold else None
        before, gpu_before = resident.held_bytes(), gpu_used_bytes()
        model, warm = load()
        held = max(0, resident.held_bytes() - before)
        return cls(model, Loading(warm, cold) if times_loading else None, held, _more(gpu_used_bytes(), gpu_before))

    def __enter__(self) -> "_Held":
        return self

    def __exit__(self, *_: object) -> None:
        self.model.close()


class _Shelf:
    """The contexts that are kept, the one that was used last at the end."""

    def __init__(self, base_bytes: int, *, has_warmup: bool) -> None:
        self.models: dict[_Key, _Held] = {}
        self._base_bytes = base_bytes
        self._has_warmup = has_warmup
        self._kept: dict[Case, tuple[Workload, ExitStack]] = {}

    def measure(self, measured: Measured) -> None:
        """Measure a case once more."""
        held = self.models[_key(measured.case)]
        is_first = not measured.samples
        if is_first:
            measured.started_at = time.time()
            before, gpu_before = resident.held_bytes(), gpu_used_bytes()
            resident.reset_peak()
        workload = self._workload(measured.case, held.model)
        measured.samples.append(workload.measure())
        if is_first:
            more = max(0, resident.peak_bytes() - before)
            measured.peak_bytes = self._base_bytes + held.held_bytes + more
            context_gpu = _more(gpu_used_bytes(), gpu_before)
            if held.gpu_bytes is not None and context_gpu is not None:
                measured.gpu_bytes = held.gpu_bytes + context_gpu

    def _workload(self, case: Case, model: Model) -> Workload:
        if case in self._kept:
            self._kept[case] = kept = self._kept.pop(case)
            return kept[0]
        while self._kept and _is_tight():
            self._drop()
        try:
            workload = self._make(case, model)
        except (EngineError, NotEnoughMemory):
            if not self._kept:
                raise
            while self._kept:
                self._drop()
            workload = self._make(case, model)
        if self._has_warmup:
            workload.warm_up()
        return workload

    def _make(self, case: Case, model: Model) -> Workload:
        with ExitStack() as stack:
            workload = stack.enter_context(open_workload(model, case))
            self._kept[case] = workload, stack.pop_all()
        return workload

    def _drop(self) -> None:
        _, stack = self._kept.pop(next(iter(self._kept)))
        stack.close()

    def close(self) -> None:
        """Free all contexts."""
        while self._kept:
            self._drop()


def _is_tight() -> bool:
    memory = probe.memory()
    if memory.available < memory.total * FREE_SHARE:
        return True
    gpus = [device for device in ggml.devices() if device.is_gpu]
    return bool(gpus) and sum(gpu.free_bytes for gpu in gpus) < GPU_FREE_BYTES


def gpu_used_bytes() -> int | None:
    """Return the memory of all GPUs that is in use, None without a GPU."""
    gpus = [device for device in ggml.devices() if device.is_gpu]
    return sum(gpu.total_bytes - gpu.free_bytes for gpu in gpus) if gpus else None


def _more(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else max(0, now - before)
