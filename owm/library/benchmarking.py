"""Measuring stored models with the settings that `owm run` would use, keeping the results, and finding earlier ones."""

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.bench import history
from owm.bench.case import Case, Subject
from owm.bench.compare import work_key
from owm.bench.grading import Grade, grade
from owm.bench.ranges import Grid
from owm.bench.record import Build, Limits, Record, record_of
from owm.bench.rounds import STAGE, Measured, measure_cases
from owm.engine.tuning import N_BATCH, N_UBATCH, Tuning
from owm.errors import Damaged, NotFound, OwmError, StoreError, UsageError
from owm.events import Sink, Warned, ignore
from owm.library.configuring import effective, tuning_of
from owm.library.gate import admit
from owm.settings.keys import KEYS
from owm.settings.layers import Setting

if TYPE_CHECKING:
    from owm.store.local import Store
    from owm.store.model import StoredModel

MAX_RESULT_BYTES = 256 << 20
_HINT = "`owm bench -o json` writes some, and so does `llama-bench -o json`"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(T[\d:]*Z?)?")
# Field of a tuning -> the setting that it comes from
_SETTINGS = {
    "n_threads": "threads",
    "n_gpu_layers": "gpu_layers",
    "n_batch": "batch_size",
    "n_ubatch": "ubatch_size",
    "flash_attention": "flash_attn",
    "type_k": "cache_type_k",
    "type_v": "cache_type_v",
}


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be measured of one model.

    Attributes:
        base: what `owm run` would compute with.
        origins: where each value of the cases' tunings is from, by the setting's name.
    """

    name: str
    cases: tuple[Case, ...]
    base: Tuning
    origins: Mapping[str, str]

    def said(self, n_usable: int) -> str:
        """Say what is measured with which settings and why those, in one line."""
        tests = list(dict.fromkeys(case.test for case in self.cases))
        shown = tests if len(tests) <= 6 else [*tests[:5], f"{len(tests) - 5} more"]
        return f"{self.name}: {', '.join(shown)} with {self._settings(n_usable)}"

    def _settings(self, n_usable: int) -> str:
        tunings = [case.tuning for case in self.cases]

        def values(field: str, default: object) -> str:
            found = dict.fromkeys(getattr(tuning, field) for tuning in tunings)
            return ", ".join("auto" if each is None and default is None else str(each or default) for each in found)

        def why(*fields: str) -> str:
            origins = dict.fromkeys(self.origins.get(_SETTINGS[field], "default") for field in fields)
            said = [origin for origin in origins if origin != "default"]
            return f" ({', '.join(said)})" if said else ""

        threads = values("n_threads", n_usable)
        is_default = self.origins.get("threads", "default") == "default"
        flash = dict.fromkeys(tuning.flash_attention for tuning in tunings)
        words = {None: "auto", True: "on", False: "off"}
        type_k, type_v = values("type_k", "f16"), values("type_v", "f16")
        parts = [
            f"{threads} {'thread' if threads == '1' else 'threads'}"
            + (f" ({KEYS['threads'].unset})" if is_default else why("n_threads")),
            f"batch {values('n_batch', N_BATCH)}{why('n_batch')}",
            f"ubatch {values('n_ubatch', N_UBATCH)}{why('n_ubatch')}",
            f"flash attention {', '.join(words[each] for each in flash)}{why('flash_attention')}",
            f"KV {type_k if type_k == type_v else f'{type_k} and {type_v}'}{why('type_k', 'type_v')}",
        ]
        if any(tuning.n_gpu_layers is not None for tuning in tunings):
            parts.append(f"{values('n_gpu_layers', 0)} layers on the GPU{why('n_gpu_layers')}")
        as_run = "" if any(origin.startswith("--") for origin in self.origins.values()) else ", as `owm run` would"
        return ", ".join(parts) + as_run


class Stopped(KeyboardInterrupt):
    """Ctrl-C came while measuring; `records` has what was measured by then."""

    def __init__(self, records: Sequence[Record]) -> None:
        super().__init__()
        self.records = records


class Broken(Exception):
    """An error ended the measuring; `records` has what was measured by then, at least one result."""

    def __init__(self, records: Sequence[Record], error: OwmError) -> None:
        super().__init__(str(error))
        self.records = records
        self.error = error


def plan(
    stored: "StoredModel",
    name: str,
    store: "Store",
    grid: Grid,
    *,
    prompt: str | None = None,
    note: Callable[[str], None] = lambda message: None,
) -> Planned:
    """Plan what is measured of a stored model: all combinations of `grid`, and elsewhere what `owm run` would use.

    Args:
        prompt: a real one, through the model's chat template.

    Raises:
        UsageError: settings contradict each other, or there are too many combinations.
        OwmError: llama.cpp does not take the model, see `owm.library.gate`.
    """
    admit(stored)
    _, settings = effective(stored, store, {}, note=note)
    base = replace(tuning_of({key: setting.value for key, setting in settings.items()}), n_parallel=None)
    subject = subject_of(stored, name)
    tokens = _tokens(stored, prompt) if prompt is not None else ()
    return Planned(name, tuple(grid.cases(subject, base, tokens)), base, _origins(grid, settings))


def subject_of(stored: "StoredModel", name: str) -> Subject:
    """Say what is measured of a stored model."""
    return Subject(name, tuple(stored.files), stored.is_verified)


def _origins(grid: Grid, settings: Mapping[str, Setting]) -> dict[str, str]:
    return {
        name: f"--{name.replace('_', '-')}" if getattr(grid, field) else settings[name].origin
        for field, name in _SETTINGS.items()
    }


def _tokens(stored: "StoredModel", prompt: str) -> tuple[int, ...]:
    """Make the tokens of a real prompt, as `owm run` would send it."""
    from owm.engine.model import Model
    from owm.engine.wishes import Wishes

    with Model(stored.files, n_gpu_layers=0, is_verified=stored.is_verified) as model:
        tokens = tuple(Wishes().prompt(model, [{"role": "user", "content": prompt}]).tokens)
    if not tokens:
        raise UsageError("the prompt is empty")
    return tokens


def measure(
    planned: Sequence[Planned],
    *,
    repetitions: int = 5,
    has_warmup: bool = True,
    has_quality: bool = False,
    reference: Subject | None = None,
    keeps: bool = True,
    log: Callable[[str], None] | None = None,
    sink: Sink = ignore,
) -> list[Record]:
    """Measure what was planned, all of it in turn; results are added to the history.

    Args:
        has_quality: measure the models' quality, too, after their speed.
        reference: the model that quality is measured against; by default the best of each family, see `grade`.

    Raises:
        Stopped: by Ctrl-C; what was measured by then is in the history.
        Broken: by an error, after something was measured, which is in the history.
        OwmError: as `owm.bench.rounds.measure_cases`, before anything was measured.
    """
    from owm.hardware.machine import this_machine

    origins = {case: one.origins for one in planned for case in one.cases}
    cases = list(origins)
    build, machine, run_id = build_of(), this_machine().record(), secrets.token_hex(6)
    limits = _limits(planned, sink)
    results: list[Measured] = []
    grades: dict[str, Grade] = {}
    is_stopped, broken = False, None

    def recorded() -> list[Record]:
        return [
            record_of(
                each,
                build,
                Limits() if _is_on_gpu(each) else limits,
                settings=origins[each.case],
                machine=machine,
                run_id=run_id,
            )
            for each in results
        ]

    try:
        for measured in measure_cases(cases, repetitions=repetitions, has_warmup=has_warmup, log=log, sink=sink):
            results.append(measured)  # noqa: PERF402 - what is there stays there if it is interrupted
        if any(max(record.bandwidth_share or 0, record.flops_share or 0) > 1 for record in recorded()):
            limits = _limits(planned, sink, is_fresh=True)  # what is known was measured at a busy moment
        if has_quality:
            grades.update(_grades(planned, reference, sink))
    except KeyboardInterrupt:
        is_stopped = True
    except OwmError as error:
        if not results:
            raise
        broken = error
    is_partial = is_stopped or broken is not None
    found = [_graded(replace(record, is_partial=is_partial), grades.get(record.model)) for record in recorded()]
    if keeps and found:
        try:
            history.append(found)
        except OwmError as error:
            sink(Warned(STAGE, f"the results are not in the history: {error}"))
    if is_stopped:
        raise Stopped(found)
    if broken is not None:
        raise Broken(found, broken) from broken
    return found


def _grades(planned: Sequence[Planned], reference: Subject | None, sink: Sink) -> Iterator[tuple[str, Grade]]:
    """Measure quality as far as it can be; speeds that are known are not lost for it."""
    subjects = [one.cases[0].subject for one in planned]
    tuning = planned[0].base
    try:
        for subject, found in grade(
            subjects,
            reference,
            n_threads=tuning.n_threads,
            n_gpu_layers=tuning.n_gpu_layers,
            note=lambda message: sink(Warned(STAGE, message)),
            sink=sink,
        ):
            yield subject.name, found
    except OwmError as error:
        sink(Warned(STAGE, f"the quality was not measured: {error}"))


def _graded(record: Record, found: Grade | None) -> Record:
    if found is None:
        return record
    return replace(
        record,
        quality_reference=found.reference,
        kld=found.kld,
        kld_margin=found.kld_margin,
        perplexity=found.perplexity,
        top1_agreement=found.top1_agreement,
    )


def build_of() -> Build:
    """Say what computes."""
    from owm import __version__
    from owm.native import ggml, llama

    llama.start()
    devices = ggml.devices()
    return Build(
        commit=ggml.commit() or "unknown",
        cpu_info=", ".join(device.description for device in devices if not device.is_gpu),
        gpu_info=", ".join(device.description for device in devices if device.is_gpu),
        backends=",".join(ggml.backends()) or "CPU",
        owm_version=__version__,
        library=llama.library_build(),
    )


def _limits(planned: Sequence[Planned], sink: Sink, *, is_fresh: bool = False) -> Limits:
    """Return what this machine can do at most; it is measured once in a while, which takes a second."""
    from owm.bench.cost import cost_of
    from owm.formats import gguf
    from owm.hardware.machine import this_machine
    from owm.hardware.rates import rates
    from owm.native.compute import TYPES

    subjects = dict.fromkeys(case.subject for one in planned for case in one.cases)
    try:
        names = [cost_of([gguf.read_header(path) for path in subject.files]).type_name for subject in subjects]
        known = [name.lower() for name in dict.fromkeys(names) if name.lower() in TYPES]
        found = rates(this_machine(), known, is_fresh=is_fresh)
    except OwmError as error:
        sink(Warned(STAGE, f"what this machine can do at most is not known: {error}"))
        return Limits()
    return Limits(found.bytes_per_second, {name.upper(): rate for name, rate in found.flops.items()})


def _is_on_gpu(measured: Measured) -> bool:
    """Tell whether the processor's limits mean nothing for a result."""
    return measured.opened.n_gpu_layers != 0


def earlier(
    what: str, *, like: Sequence[Record] = (), note: Callable[[str], None] = lambda message: None
) -> list[Record]:
    """Return results that were made before: `last`, a date (`2026-11-23`, or more of it), or a file of results.

    Args:
        like: results made just now; `last` is the last run before on the same machine that did some of the same work,
            and itself no result.

    Raises:
        NotFound: there are none.
        Damaged, StoreError: a file has no results, or cannot be read.
    """
    path = Path(what).expanduser()
    if what != "last" and path.is_file():
        return read_file(path)
    known = history.read(note=note)
    if what == "last":
        current = {record.run_id for record in like}
        work = {_work_here(record) for record in like}
        others = history.runs([record for record in known if record.run_id not in current])
        # One that was interrupted is the last resort: not all of it is there.
        others.reverse()
        for run in sorted(others, key=lambda run: run[0].is_partial):
            same = [record for record in run if _work_here(record) in work]
            if not like or same:
                return same or run
        raise NotFound("there is no earlier result to compare with", hint="`owm bench MODEL` keeps one")
    if not _DATE.fullmatch(what):
        raise NotFound(f"no such file of results: {what}", hint="`--compare` takes `last`, a date, or a file")
    current = {record.run_id for record in like}
    found = [record for record in known if record.test_time.startswith(what) and record.run_id not in current]
    if not found:
        times = [record.test_time for record in known if record.run_id not in current]
        days = sorted({time[:10] for time in times if _DATE.fullmatch(time)})
        hint = f"there are results of {', '.join(days[-5:])}" if days else "`owm bench MODEL` keeps results"
        raise NotFound(f"there are no results of {what}", hint=hint)
    return found


def _work_here(record: Record) -> tuple[object, ...]:
    return record.machine.get("fingerprint"), record.model_size, *work_key(record)


def is_result(text: str) -> bool:
    """Tell whether a word names results, and no model."""
    if text == "last" or _DATE.fullmatch(text):
        return True
    return text.lower().endswith((".json", ".jsonl")) and Path(text).expanduser().is_file()


def read_file(path: Path) -> list[Record]:
    """Read results that `owm bench` or `llama-bench` wrote as JSON or JSON Lines.

    Raises:
        Damaged: there are none in it.
        StoreError: it cannot be read.
    """
    try:
        if path.stat().st_size > MAX_RESULT_BYTES:
            raise Damaged(f"{path} is too large for a file of results")
        raw = path.read_bytes()
        # A shell of Windows writes what goes through `>` in one of these.
        text = raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise Damaged(f"{path} holds no results, it is no text") from None
    try:
        is_list = text.lstrip().startswith("[")
        lines = [text] if is_list else [line for line in text.splitlines() if line.strip()]
        entries: list[Any] = [json.loads(line) for line in lines]
        found = [Record.of_members(entry) for entry in (entries[0] if is_list else entries)]
    except (ValueError, RecursionError, TypeError, AttributeError):
        raise Damaged(f"{path} holds no results", hint=_HINT) from None
    except UsageError as error:
        raise Damaged(f"{path} holds no results: {error}", hint=_HINT) from None
    if not found:
        raise Damaged(f"{path} holds no results")
    return found
