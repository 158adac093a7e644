"""Whether models fit this machine, how fast they would be, and which quant to take: stored, published or at a path."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from owm.engine.tuning import Tuning
from owm.errors import OwmError, UsageError
from owm.events import Sink, ignore
from owm.fit import fit, header
from owm.fit.choice import choose
from owm.fit.fit import Fit, Room
from owm.formats import gguf
from owm.formats.gguf import Header
from owm.library.fit_rows import NO_TIME, Rows
from owm.library.fit_speeds import Speeds
from owm.native.guard import Child
from owm.quality import certificate
from owm.quantize.types import DEFAULT, file_type
from owm.store import catalog, pull, quants, refs
from owm.store.checkpoint import CheckpointPlan
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.pull import PullPlan
from owm.store.quants import Variant
from owm.store.refs import ModelRef
from owm.store.sources.base import RemoteFile

QUICK_SECONDS = 3.0
GRACE_SECONDS = 0.3  # for what was begun before a deadline
PATIENT_SECONDS = 60.0
MAX_TOKENS = 1 << 23  # in all contexts together; llama.cpp keeps some bytes for each even where it allocates nothing
MAX_OWN_HEADERS = 16  # quants of a repo whose own headers are looked at where those tell of quality
CHECKPOINT_TYPES = ("Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16")


@dataclass(frozen=True, slots=True)
class FitReport:
    """The quants of a model on this machine, the chosen one among them.

    Attributes:
        model: its name, without a quant.
        n_ctx: tokens of the context that was asked about, for each of `n_parallel` answers.
        rows: smallest first.
        chosen: one of `rows`; None if there are none.
        reason: why that one, in one sentence.
        notes: what could not be found out, in sentences.
    """

    model: str
    machine: Room
    n_ctx: int
    n_parallel: int
    rows: tuple[Fit, ...]
    chosen: Fit | None
    reason: str
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "model": self.model,
            "machine": asdict(self.machine),
            "n_ctx": self.n_ctx,
            "n_parallel": self.n_parallel,
            "chosen": None if self.chosen is None else self.chosen.label,
            "reason": self.reason,
            "quants": [row.record() for row in self.rows],
            "notes": list(self.notes),
        }


def fit_model(
    model: str | Path | ModelRef,
    *,
    n_ctx: int | None = None,
    n_parallel: int = 1,
    type_k: str | None = None,
    type_v: str | None = None,
    flash_attention: bool | None = None,
    n_gpu_layers: int | None = None,
    store: Store | None = None,
    sink: Sink = ignore,
) -> FitReport:
    """Find out how a model would do on this machine: a file, a stored model, a repo, a checkpoint.

    Nothing but headers is fetched. A name without a quant gives a row for each quant of its repo, or for each that is
    stored if any is.

    Args:
        n_ctx: tokens of the context of each answer; by default 8,192, or the model's own if that is less.
        n_parallel: answers side by side.
        n_gpu_layers: layers on the GPU, -1 for all, None for as many as fit.

    Raises:
        UsageError: a setting cannot be.
        NotFound, NetworkError, Damaged, Unsupported: as a pull does, and as reading a header does.
    """
    from owm.library import open_store

    tuning = Tuning(
        type_k=type_k,
        type_v=type_v,
        flash_attention=flash_attention,
        n_parallel=n_parallel,
        n_gpu_layers=n_gpu_layers,
    )
    room = _room(n_ctx, tuning)
    store = store or open_store()
    if isinstance(model, Path):
        ref = ModelRef("path", str(model))
    else:
        ref = refs.parse(model) if isinstance(model, str) else model
    ref = store.aliases.expand(ref)
    with Child() as child:
        rows = Rows(child, room, n_ctx, tuning, n_gpu_layers, Speeds(tuning, True, sink))
        if ref.kind == "path" and (folder := _checkpoint_folder(ref.name)) is not None:
            report = _report(str(folder), rows, _of_folder(folder, rows, CHECKPOINT_TYPES))
        elif (found := store.find(ref)) is not None:
            stored = _stored_beside(found, ref, store)
            report = _report(found.name, rows, [_of_stored(each, rows, store) for each in stored])
        else:
            planned = pull.plan(ref, store, sink=sink)
            report = _of_plan(planned, ref, rows, store, until=time.monotonic() + PATIENT_SECONDS)
        return _with_speeds(report, rows)


def fit_offer(
    plan: PullPlan | CheckpointPlan,
    *,
    n_ctx: int | None = None,
    n_parallel: int = 1,
    type_k: str | None = None,
    type_v: str | None = None,
    flash_attention: bool | None = None,
    n_gpu_layers: int | None = None,
    store: Store | None = None,
    deadline_seconds: float = QUICK_SECONDS,
    measures: bool = False,
    sink: Sink = ignore,
) -> FitReport:
    """Find out how the quants of what a pull has planned would do, quickly: what took too long is left out of the rows.

    What a header or the network does is never raised: it becomes a note.

    Args:
        plan: of the model without a quant, or of one quant: then it is the only row.
        deadline_seconds: for all that is asked of the network and of llama.cpp.
        measures: let the machine be measured for speeds if that was not done yet, which takes seconds more.

    Raises:
        UsageError: a setting cannot be.
    """
    from owm.library import open_store

    tuning = Tuning(
        type_k=type_k,
        type_v=type_v,
        flash_attention=flash_attention,
        n_parallel=n_parallel,
        n_gpu_layers=n_gpu_layers,
    )
    room = _room(n_ctx, tuning)
    store = store or open_store()
    until = time.monotonic() + deadline_seconds
    with Child() as child:
        rows = Rows(child, room, n_ctx, tuning, n_gpu_layers, Speeds(tuning, measures, sink), until)
        asked = store.aliases.expand(plan.asked)
        found: dict[str, Fit] = {}
        made: list[FitReport] = []
        problems: list[Exception] = []

        def work() -> None:
            try:
                made.append(_of_plan(plan, asked, rows, store, until=until, made=found))
            except Exception as problem:  # told by whoever waits, if there is anyone left
                problems.append(problem)

        worker = threading.Thread(target=work, name="owm-fit", daemon=True)
        worker.start()
        worker.join(max(0.0, until - time.monotonic()) + GRACE_SECONDS)
        if made:
            return _with_speeds(made[0], rows)
        if problems:
            raise problems[0]
        late = replace(rows, notes=["there was no time to look at its header"] if not found else [NO_TIME])
        if isinstance(plan, CheckpointPlan):
            return _report(_name(plan), late, _by_size(plan, late, CHECKPOINT_TYPES))
        sizes = [found.get(each.label) or late.of_size(each.label, each.size_bytes) for each in _variants(plan, asked)]
        return _with_speeds(_report(_name(plan), late, sizes), late)


def _room(n_ctx: int | None, tuning: Tuning) -> Room:
    """Look at this machine, and refuse what cannot be asked of it."""
    if n_ctx is not None and n_ctx <= 0:
        raise UsageError(f"--ctx-size must be positive: {n_ctx}")
    if (n_ctx or fit.DEFAULT_CONTEXT) * (tuning.n_parallel or 1) > MAX_TOKENS:
        raise UsageError(f"--ctx-size times --parallel must be at most {MAX_TOKENS}: {n_ctx} × {tuning.n_parallel}")
    room = fit.room()
    if tuning.n_gpu_layers and not room.gpu_bytes:
        raise UsageError(
            "--gpu-layers needs a build of llama.cpp that can use a GPU",
            hint="the README has the one line that installs it for each kind of GPU",
        )
    return room


def _report(model: str, rows: Rows, made: Sequence[Fit]) -> FitReport:
    ordered = tuple(sorted(made, key=lambda row: (row.size_bytes or 0, row.label)))
    chosen, reason = choose(ordered) if ordered else (None, "it has no quant")
    n_ctx = ordered[0].n_ctx if ordered else rows.n_ctx or fit.DEFAULT_CONTEXT
    n_parallel = rows.tuning.n_parallel or 1
    return FitReport(model, rows.room, n_ctx, n_parallel, ordered, chosen, reason, tuple(rows.notes))


def _with_speeds(report: FitReport, rows: Rows) -> FitReport:
    """Return a report with the speeds of its rows, that of the chosen one first: there may be no time for all."""
    order = sorted(range(len(report.rows)), key=lambda index: report.rows[index] is not report.chosen)
    made = {index: rows.with_speed(report.rows[index]) for index in order}
    chosen = made[order[0]] if report.chosen is not None else None
    return replace(report, rows=tuple(made[i] for i in range(len(made))), chosen=chosen, notes=tuple(rows.notes))


# -- what is here ------------------------------------------------------------------------------------------------------


def _stored_beside(found: StoredModel, ref: ModelRef, store: Store) -> list[StoredModel]:
    """Return all stored quants of a model, if none was named."""
    if found.manifest is None or ref.quant is not None or ref.file is not None:
        return [found]
    source = found.manifest.source, found.manifest.name
    return [
        each
        for each in store.models()
        if each.manifest is not None and (each.manifest.source, each.manifest.name) == source and not each.is_gone
    ] or [found]


def _of_stored(stored: StoredModel, rows: Rows, store: Store) -> Fit:
    with store.reading(stored):
        headers = tuple(gguf.read_header(path) for path in stored.files)
    label = stored.label or headers[0].file_type or "model"
    is_stored = stored.manifest is not None
    made = rows.of_headers(headers, stored.path, label, stored.size_bytes, is_stored=is_stored)
    measured = certificate.of_manifest(stored.manifest.quality) if stored.manifest else None
    return replace(made, quality=measured.kld_mean.value) if measured else made


def _checkpoint_folder(name: str) -> Path | None:
    folder = Path(name).expanduser()
    try:
        is_one = (folder / "config.json").is_file() and not any(folder.glob("*.gguf"))
    except OSError:
        return None
    return folder if is_one else None


def _of_folder(folder: Path, rows: Rows, types: Sequence[str]) -> list[Fit]:
    """Return a row for each common type that a checkpoint could be quantized to, planned as `owm quantize` would."""
    from owm.library import quantizing
    from owm.pipeline.hollow import hollow_file

    source = quantizing.of_folder(folder)
    made = []
    for planned in quantizing.plan(source, types, rows.child, allow_requantize=True):
        with hollow_file(planned.plan) as path:
            headers = (gguf.read_header(path),)
            made.append(rows.of_headers(headers, path, planned.label, planned.plan.n_bytes))
        rows.forget()
    return made


# -- what is elsewhere -------------------------------------------------------------------------------------------------


def _of_plan(
    plan: PullPlan | CheckpointPlan,
    asked: ModelRef,
    rows: Rows,
    store: Store,
    *,
    until: float,
    made: dict[str, Fit] | None = None,
) -> FitReport:
    """Return the report of a planned pull; `made` gets each row as soon as it is there."""
    if isinstance(plan, CheckpointPlan):
        return _of_checkpoint(plan, rows)
    choices = _variants(plan, asked)
    made = {} if made is None else made
    kept = _stored_labels(plan, store)
    with ExitStack() as stack:
        try:
            first = stack.enter_context(_headers(plan, plan.variant, store))
            path = first[0].path
            size_bytes = plan.variant.size_bytes
            label = plan.variant.label
            made[label] = rows.of_headers(first, path, label, size_bytes, is_stored=label in kept)
            tells = certificate.of_header(first[0]) is not None
            others = [each for each in choices if each.label not in made]
            for each in others[:MAX_OWN_HEADERS] if tells else ():
                if time.monotonic() < until:
                    own = stack.enter_context(_headers(plan, each, store))
                    made[each.label] = rows.of_headers(
                        own, own[0].path, each.label, each.size_bytes, is_stored=each.label in kept
                    )
            left = [(each.label, each.size_bytes) for each in others if each.label not in made]
            for row in rows.of_others(first, path, left):
                made[row.label] = replace(row, is_stored=row.label in kept)
        except OwmError as problem:
            rows.note(f"its header cannot be looked at: {problem}")
    unknown = [rows.of_size(each.label, each.size_bytes) for each in choices if each.label not in made]
    return _report(_name(plan), rows, [*made.values(), *unknown])


def _stored_labels(plan: PullPlan, store: Store) -> set[str]:
    """Return the quants of just this commit that are stored already."""
    offer = plan.offer
    return {
        each.label
        for each in store.models([])
        if (m := each.manifest) is not None and each.label is not None and not each.is_gone
        if (m.source, m.name, m.commit) == (offer.source, offer.name, offer.commit)
    }


def _variants(plan: PullPlan, asked: ModelRef) -> list[Variant[RemoteFile]]:
    """Return what can be chosen from: the quant that was named, or all."""
    if asked.quant is not None or asked.file is not None or plan.offer.ref.file is not None:
        return [plan.variant]
    return quants.variants(plan.offer.files) or [plan.variant]


@contextmanager
def _headers(plan: PullPlan, variant: Variant[RemoteFile], store: Store) -> Iterator[tuple[Header, ...]]:
    kept_in = store.home / "cache" / "headers"
    remote = header.fetch_all(plan.source, plan.offer, variant.files, kept_in=kept_in)
    with header.hollow(remote) as headers:
        yield headers


def _of_checkpoint(plan: CheckpointPlan, rows: Rows) -> FitReport:
    """Say what the original weights would be in common types, or in the one that was asked for."""
    from owm.library.fit_checkpoints import hollow_checkpoint

    types = (file_type(plan.quant),) if plan.quant else CHECKPOINT_TYPES
    try:
        with hollow_checkpoint(plan) as folder:
            made = _of_folder(folder, rows, types)
    except OwmError as problem:
        rows.note(f"its original weights cannot be looked at: {problem}")
        made = _by_size(plan, rows, types)
    report = _report(_name(plan), rows, made)
    usual = next((row for row in report.rows if row.label == DEFAULT), None)
    if plan.quant or usual is None:
        return report
    return replace(report, chosen=usual, reason=f"{DEFAULT} is what original weights are quantized to")


def _by_size(plan: CheckpointPlan, rows: Rows, types: Sequence[str]) -> list[Fit]:
    """Return rows from the size of the original weights alone, which nearly all have two bytes each."""
    n_params = sum(file.size_bytes or 0 for file in plan.weights if "consolidated" not in file.path) / 2
    return [rows.of_size(name, round(n_params * _BITS[name] / 8)) for name in types if name in _BITS]


# Bits a weight that llama.cpp's recipes give models of common shapes.
_BITS = {"Q3_K_M": 4.0, "Q4_K_M": 4.9, "Q5_K_M": 5.7, "Q6_K": 6.6, "Q8_0": 8.5, "BF16": 16.0, "F16": 16.0, "F32": 32.0}


def _name(plan: PullPlan | CheckpointPlan) -> str:
    ref = plan.offer.ref.with_quant(None)
    return catalog.load().short_name(ref) or str(ref)
