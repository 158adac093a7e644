"""Tuning a stored model for this machine: search, and keep what is better than the defaults."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from owm.errors import UsageError
from owm.events import Sink, ignore
from owm.hardware import probe
from owm.hardware.machine import this_machine
from owm.library.configuring import identity_of, settings_of, tuning_of
from owm.settings import tuned
from owm.settings.keys import HARDWARE_KEYS
from owm.settings.tuned import Tuned
from owm.store.model import StoredModel

if TYPE_CHECKING:
    from owm.bench.tune import Found
    from owm.engine.model import Model

BUDGET_SECONDS = 60.0
MIN_BUDGET_SECONDS, MAX_BUDGET_SECONDS = 5.0, 86400.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of tuning: what is kept, and what was found; values that are not there are the defaults."""

    kept: Tuned
    found: "Found"

    def said(self) -> list[str]:
        """Say it in sentences."""
        measured = f"{self.found.n_measured} measurements in {self.found.seconds:.0f} s"
        if not self.kept.values:
            return [f"nothing is faster than the defaults beyond the noise ({measured})"]
        words = {"prompt": "prompts are read", "answer": "answers are made", "batch": "batches run"}
        gains = [f"{words[name]} {times:.2f} times as fast" for name, times in self.kept.gain.items()]
        lines = [f"tuned for this machine: {self.kept.said()} ({measured})"]
        if gains:
            compared = "as with the defaults" if "prompt" in self.kept.gain else "as one by one"
            lines.append(f"{', '.join(gains)} {compared}")
        kinds = {self.kept.values.get("cache_type_k"), self.kept.values.get("cache_type_v")} - {None}
        if kinds - {"f16", "bf16", "f32"}:
            lines.append(f"the KV cache is {' and '.join(sorted(map(str, kinds)))}, which changes answers a little")
        return lines


def tune_model(
    stored: StoredModel,
    name: str,
    *,
    budget_seconds: float = BUDGET_SECONDS,
    start: Mapping[str, Any] | None = None,
    open_model: "Callable[[int | None], Model] | None" = None,
    sink: Sink = ignore,
) -> Outcome:
    """Search what computes a model fastest on this machine, and keep it; see `owm.bench.tune.tune`.

    What was kept before for the same model, machine and build is replaced, by nothing if nothing is better.

    Args:
        name: of the model, for people.
        start: values of settings to begin with, by name; others than those of the hardware count for nothing.
        open_model: with so many layers on the GPU; by default without a word.

    Raises:
        UsageError: the budget is too small to find anything, or longer than a day.
        OwmError: the model cannot be opened or measured, or the values cannot be kept; then those before stay.
    """
    from owm.bench.case import Subject
    from owm.bench.choices import axes
    from owm.bench.trials import Trials
    from owm.bench.tune import tune
    from owm.native import llama

    check_budget(budget_seconds)
    began = time.perf_counter()
    path = tuned.default_path()
    tuned.load(path)  # a damaged file is told of before the work
    machine = this_machine()
    cores = probe.cores()
    subject = Subject(name, tuple(stored.files), stored.is_verified)
    first = tuning_of({key: value for key, value in (start or {}).items() if key in HARDWARE_KEYS})
    with Trials(subject, open_model or _opener(stored)) as trials:
        model = trials.model(first.n_gpu_layers)
        model.check_makes_text()
        n_layers = (model.header.integer("block_count") or 0) + 1 if llama.can_offload() else None
        found = tune(
            trials,
            axes(n_cores=cores.usable, n_threads=cores.allowed, n_layers=n_layers),
            start=first,
            budget_seconds=budget_seconds,
            max_width=max_width(model),
            began=began,
            sink=sink,
        )
    kept = Tuned(
        model=identity_of(stored),
        machine=machine.fingerprint,
        build=machine.build,
        name=name,
        machine_name=machine.cpu,
        values=settings_of(found.tuning),
        gain={part: round(times, 4) for part, times in found.gain.items()},
        tuned_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    tuned.save(path, kept)
    return Outcome(kept, found)


def check_budget(seconds: float) -> None:
    """Refuse a budget in which nothing can be found, or that is none.

    Raises:
        UsageError: it is one of these.
    """
    if not MIN_BUDGET_SECONDS <= seconds <= MAX_BUDGET_SECONDS:
        raise UsageError(f"--budget must be from {MIN_BUDGET_SECONDS:g} s to a day: {seconds:g} s")


def max_width(model: "Model") -> int:
    """Return the most answers side by side for which memory has room, of the length that answers commonly have."""
    from owm.engine.context import DEFAULT_CONTEXT, kv_bytes_per_token

    per_token = kv_bytes_per_token(model.header)
    if not per_token:
        return 16
    return max(1, min(64, model.free_bytes() // (per_token * DEFAULT_CONTEXT // 4)))


def _opener(stored: StoredModel) -> "Callable[[int | None], Model]":
    from owm.engine.model import Model
    from owm.library.gate import admit

    admit(stored)
    return lambda n: Model(stored.files, n_gpu_layers=n, is_verified=stored.is_verified)
