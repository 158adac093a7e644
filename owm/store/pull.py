"""Pulling: a plan from headers alone, then bytes, then a manifest. Nothing is a model before it has one."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from owm.errors import (
    Damaged,
    MalformedFile,
    ModelNotFound,
    NetworkError,
    NotFound,
    NoUsableFile,
    OwmError,
    QuantNotFound,
    SourceUnreachable,
)
from owm.events import Sink, Warned, ignore
from owm.store import absent, catalog, checkpoint, extras, manifest, offline, quants
from owm.store.checkpoint import CheckpointPlan, is_checkpoint
from owm.store.download import write_error
from owm.store.limits import DEFAULT, Limits
from owm.store.local import Store
from owm.store.manifest import FileRecord, Manifest, ModelFacts
from owm.store.model import StoredModel
from owm.store.quants import Variant
from owm.store.refs import ModelRef
from owm.store.sources.base import Offer, RemoteFile, Source
from owm.store.sources.registry import source_for
from owm.store.space import check_space

FALLBACK_SECONDS = 4.0  # to reach a source when there is another to fall back to
PATIENT_SECONDS = 10.0  # to reach the only source there is

GENERATION_CONFIG = "generation_config.json"
MAX_CONFIG_BYTES = 1 << 16

_PUBLISHED_SO = "it was published so, nothing was kept; take another file or repo"

T = TypeVar("T")
Inspect = Callable[[Path], ModelFacts]


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull will do, known before a byte of the model is fetched."""

    asked: ModelRef
    offer: Offer
    variant: Variant[RemoteFile]
    folder: Path
    source: Source

    @property
    def size_bytes(self) -> int | None:
        """Bytes of the model, None when the source does not tell."""
        return self.variant.size_bytes

    @property
    def name(self) -> str:
        """How the model will be called in listings."""
        ref = self.offer.ref.with_quant(None)
        short = catalog.load().short_name(ref)
        has_quants = short is not None or ref.kind in ("hub", "modelscope")
        return f"{short or ref}:{self.variant.label}" if has_quants else str(ref)

    @property
    def licence(self) -> str | None:
        """The licence that the source names, or else the catalog."""
        return self.offer.licence or catalog.load().licence_of(self.offer.ref)


@dataclass(frozen=True, slots=True)
class Look:
    """What a source offers for a reference, before anything of it is chosen."""

    asked: ModelRef
    wanted: ModelRef
    offer: Offer
    source: Source


def plan(
    ref: ModelRef, store: Store, *, wants_checkpoint: bool = False, sink: Sink = ignore
) -> PullPlan | CheckpointPlan:
    """Find out what a reference means at its source, and where it will be stored.

    A repo without model files but with original weights gives a `CheckpointPlan`, for the caller to have converted;
    with `wants_checkpoint`, a repo with both does so too. The sources of a short name are tried in order; a source that
    cannot be reached is said in one `Warned` event.

    Raises:
        ModelNotFound, QuantNotFound, NoUsableFile, SourceUnreachable, AccessDenied, Unsupported.
    """
    return _first(ref, store, lambda found: _plan(found, store, wants_checkpoint=wants_checkpoint), sink)


def look(ref: ModelRef, store: Store, *, sink: Sink = ignore) -> Look:
    """Look at what a source offers, whether anything of it can be used or not; sources are tried as `plan` does.

    Raises:
        ModelNotFound, SourceUnreachable, AccessDenied, Unsupported.
    """
    return _first(ref, store, lambda found: found, sink)


def plan_of(found: Look, store: Store) -> PullPlan | CheckpointPlan:
    """Choose files of what a source offers, as `plan` does.

    Raises:
        ModelNotFound, QuantNotFound, NoUsableFile.
    """
    return _plan(found, store, wants_checkpoint=False)


def with_quant(plan: PullPlan, label: str, store: Store) -> PullPlan:
    """Return the plan for another quant of the same repo.

    Raises:
        QuantNotFound: it has none of that name.
    """
    chosen = quants.choose(quants.variants(plan.offer.files), label, where=plan.offer.name)
    return replace(plan, variant=chosen, folder=_folder(plan.offer, chosen, store))


def _first(ref: ModelRef, store: Store, use: Callable[[Look], T], sink: Sink) -> T:
    """Return what `use` makes of the first source that answers with something it can use."""
    candidates = [each for each in store.candidates(ref) if each.kind != "local"]
    if not candidates:
        raise absent.unpublished(ref, store)
    offline.refuse(f"{ref} is not stored, and nothing is fetched")
    problems: list[OwmError] = []
    unreachable: set[str] = set()
    for index, wanted in enumerate(candidates):
        if wanted.kind in unreachable:
            continue
        later = [c for c in candidates[index + 1 :] if c.kind != wanted.kind]
        source = source_for(wanted, store)
        try:
            offer = source.offer(wanted, deadline=FALLBACK_SECONDS if later else PATIENT_SECONDS)
            return use(Look(ref, wanted, offer, source))
        except (NetworkError, NotFound, NoUsableFile) as problem:
            if isinstance(problem, SourceUnreachable):
                unreachable.add(wanted.kind)
            problems.append(problem)
            following = next((c for c in candidates[index + 1 :] if c.kind not in unreachable), None)
            if following is not None:
                sink(Warned("pull", f"{problem}; trying {following.with_quant(None)} instead"))
    # What a source that answered has to say tells more than that another could not be reached.
    told = next((problem for problem in problems if not isinstance(problem, SourceUnreachable)), problems[0])
    told.hint = told.hint or ("check the network; `owm list` shows what is stored" if len(unreachable) else None)
    raise told


def _plan(found: Look, store: Store, *, wants_checkpoint: bool) -> PullPlan | CheckpointPlan:
    wanted, offer = found.wanted, found.offer
    if wants_checkpoint or (wanted.file is None and not quants.variants(offer.files) and is_checkpoint(offer)):
        return checkpoint.plan(found.asked, offer, found.source, wanted.quant)
    chosen = _choose(wanted, offer)
    return PullPlan(found.asked, offer, chosen, _folder(offer, chosen, store), found.source)


def _folder(offer: Offer, chosen: Variant[RemoteFile], store: Store) -> Path:
    return store.folder_of(offer.source, offer.name, offer.commit or offer.revision, chosen.label)


def _choose(wanted: ModelRef, offer: Offer) -> Variant[RemoteFile]:
    where = offer.name
    if wanted.file is not None:
        choices = quants.variants(offer.files)
        chosen = next((v for v in choices if any(f.path == wanted.file for f in v.files)), None)
        if chosen is None:
            if any(f.path == wanted.file for f in offer.files):
                raise _not_to_run(where, wanted.file, offer)
            near = ", ".join(f.path for f in offer.files if f.path.lower().endswith(".gguf"))
            raise ModelNotFound(
                f"{where} has no file {wanted.file}", ref=str(wanted), hint=f"it has: {near or 'no GGUF'}"
            )
    else:
        choices = quants.variants(offer.files)
        if not choices:
            raise _nothing_usable(where, offer)
        try:
            chosen = quants.choose(choices, wanted.quant, where=where)
        except QuantNotFound as error:
            for part in quants.missing_parts(offer.files):
                if wanted.quant and (quants.label_of(part) or "").lower() == wanted.quant.lower():
                    raise _part_missing(where, part, offer) from error
            raise
    return chosen


def _nothing_usable(where: str, offer: Offer) -> NoUsableFile:
    if missing := quants.missing_parts(offer.files):
        return _part_missing(where, missing[0], offer)
    paths = tuple(file.path for file in offer.files)
    shown = [path for path in paths if not path.startswith(".")]
    listing = ", ".join(shown[:10]) + (", …" if len(shown) > 10 else "")
    return NoUsableFile(f"{where} has no GGUF file to run", files=paths, hint=f"it has: {listing or 'nothing'}")


def _not_to_run(where: str, path: str, offer: Offer) -> NoUsableFile:
    if kind := quants.part_of_a_model(path):
        choices = ", ".join(variant.label for variant in quants.variants(offer.files))
        return NoUsableFile(
            f"{path} of {where} is {kind}, no model to run",
            files=tuple(file.path for file in offer.files),
            hint=f"it has these models: {choices or 'none'}",
        )
    missing = quants.missing_parts(offer.files)
    stem = path.rpartition("-of-")[0][: -len("-00001")]
    return _part_missing(where, next((part for part in missing if part.startswith(stem)), missing[0]), offer)


def _part_missing(where: str, part: str, offer: Offer) -> NoUsableFile:
    return NoUsableFile(
        f"{where} lacks a part of the model: {part}",
        files=tuple(file.path for file in offer.files),
        hint="the upload may be under way still; try later, or take another quant or repo",
    )


def execute(
    plan: PullPlan, store: Store, *, inspect: Inspect, sink: Sink = ignore, limits: Limits = DEFAULT
) -> StoredModel:
    """Bring a planned model into the store; another process doing the same is waited for, not raced.

    Args:
        inspect: reads a whole model file's header before it is published, and raises if it must not be.
        limits: how much of the network the download may take.

    Raises:
        NotEnoughDisk, TransferFailed, ChecksumMismatch, MalformedFile, StoreError.
    """

    def say_waiting() -> None:
        sink(Warned("pull", f"another owm is pulling {plan.name}, waiting for it"))

    facts: list[ModelFacts] = []

    def check(path: Path, name: str) -> None:
        try:
            facts.append(inspect(path))
        except MalformedFile as error:
            raise MalformedFile(Path(name), error.cause, hint=error.hint or _PUBLISHED_SO, kind=error.kind) from error

    with store.lock(plan.folder, on_wait=say_waiting):
        if stored := _already_here(plan, store):
            return stored
        try:
            plan.folder.mkdir(parents=True, exist_ok=True)
            if plan.size_bytes is not None:
                check_space(plan.name, plan.source, plan.offer, plan.variant.files, plan.folder)
        except OSError as error:
            raise write_error(error, plan.folder) from error
        fetched = plan.source.fetch(plan.offer, plan.variant.files, plan.folder, check=check, sink=sink, limits=limits)
        records = tuple(
            replace(
                store.record_of(item.path, item.sha256, "model" if index == 0 else "shard"), validator=file.validator
            )
            for index, (item, file) in enumerate(zip(fetched, plan.variant.files, strict=True))
        )
        brought = extras.fetch(plan.source, plan.offer, plan.folder, store, sink=sink)
        generation_config = next((each for each in brought if each.role == "generation_config"), None)
        generation_config = generation_config or _fetch_generation_config(plan, store, sink)
        label = plan.variant.label
        if plan.size_bytes is None and len(fetched) == 1:
            label = quants.label_of(fetched[0].path.name) or label
        total = sum(fact.n_params or 0 for fact in facts) or None
        made = Manifest(
            ref=str(plan.offer.ref.with_quant(None)),
            source=plan.offer.source,
            name=plan.offer.name,
            label=label,
            revision=plan.offer.revision,
            commit=plan.offer.commit,
            files=records,
            licence=plan.licence or facts[0].licence,
            facts=ModelFacts(facts[0].architecture, facts[0].name, total, facts[0].n_ctx_train, facts[0].licence),
            created_at=_later_than_others(plan, label, store),
            gated=plan.offer.gated,
            generation_config=generation_config,
            extras=tuple(each for each in brought if each.role != "generation_config"),
        )
        try:
            manifest.write(made, plan.folder)
        except OSError as error:
            raise write_error(error, plan.folder / manifest.FILE_NAME) from error
    stored = _already_here(plan, store)
    if stored is None:
        raise Damaged(f"{plan.name} disappeared while it was being stored", hint="run the same command again")
    return stored


def _later_than_others(plan: PullPlan, label: str, store: Store) -> str:
    """Return the time, but later than that of others of this name, which means the newest whatever the clock did."""
    moment, ref = datetime.now(UTC), str(plan.offer.ref.with_quant(None))
    for other in store.models():
        of = other.manifest
        if of is not None and (of.ref, of.label) == (ref, label):
            with suppress(ValueError, OverflowError, TypeError):  # not a time, or one without a zone
                moment = max(moment, datetime.fromisoformat(of.created_at) + timedelta(seconds=1))
    return moment.isoformat(timespec="seconds")


def _fetch_generation_config(plan: PullPlan, store: Store, sink: Sink) -> FileRecord | None:
    """Bring the repo's advice on sampling along if it has any; a model without it is whole, so nothing is raised."""
    listed = [file for file in plan.offer.files if file.path == GENERATION_CONFIG]
    if plan.offer.source != "hub" or not listed:
        return None
    try:
        if not 0 < (listed[0].size_bytes or 0) <= MAX_CONFIG_BYTES:
            raise Damaged(f"its size cannot be right: {listed[0].size_bytes} bytes")
        item = plan.source.fetch(plan.offer, listed, plan.folder, check=lambda path, name: None, sink=ignore)[0]
    except OwmError as problem:
        sink(Warned("pull", f"{GENERATION_CONFIG} of {plan.offer.name} is left out: {problem}"))
        return None
    return store.record_of(item.path, item.sha256, "generation_config")


def _already_here(plan: PullPlan, store: Store) -> StoredModel | None:
    try:
        model = store.at(plan.folder)
    except Damaged:
        return None
    return model if model is not None and not model.is_gone else None
