"""Whether a stored model is still what its source has, and what has changed: from listings alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from owm.errors import NoUsableFile
from owm.store import manifest, pull, refs
from owm.store.checkpoint import CheckpointPlan
from owm.store.manifest import FileRecord, Manifest
from owm.store.matching import path_in_repo
from owm.store.model import StoredModel
from owm.store.pull import Look, PullPlan
from owm.store.sources.base import Offer, RemoteFile
from owm.units import format_bytes

if TYPE_CHECKING:
    from owm.store.local import Store

State = Literal["current", "stale", "old", "pinned", "made here", "foreign", "unknown"]
# old: a newer one of the same name is stored beside it; foreign: another tool's, or the user's


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is different at the source."""

    what: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None or self.after is None:
            return self.what
        return f"{self.what} {self.before} -> {self.after}"


def state_without_asking(model: StoredModel, among: Sequence[StoredModel]) -> tuple[State, str] | None:
    """Tell what is known of a model without its source, and why; None if the source has to be asked.

    Args:
        among: all stored models.
    """
    of = model.manifest
    if of is None:
        return "foreign", "it is a file of yours"
    if of.owner is not None or any(file.root == "outside" for file in of.files):
        return "foreign", f"it belongs to {of.owner or 'you'}, update it there"
    if of.made_from is not None or of.source == "local":
        return "made here", "it was made here; make it again to have it anew"
    if newer := _newer(model, among):
        return "old", f"one of {newer.created_at[:10]} is stored beside it"
    ref = refs.parse(of.ref)
    if is_pinned(of):
        return "pinned", f"{ref.revision or (ref.digest or '')[:12]} was asked for, which does not change"
    if ref.kind == "url" and ref.revision is not None:
        return "unknown", "the query of its address is not kept, as it may hold a secret; pull the whole address again"
    return None


def is_pinned(of: Manifest) -> bool:
    """Tell whether a model was asked for by a name that always means the same content."""
    ref = refs.parse(of.ref)
    if ref.digest is not None or (ref.kind == "pypi" and ref.revision is not None):
        return True
    is_hash = re.fullmatch(r"[0-9a-f]{7,64}", ref.revision or "")
    return ref.kind in ("hub", "modelscope") and bool(is_hash) and (of.commit or "").startswith(ref.revision or "-")


def _newer(model: StoredModel, among: Sequence[StoredModel]) -> Manifest | None:
    of = model.manifest
    assert of is not None
    same = [
        other.manifest
        for other in among
        if other.manifest
        and not other.is_gone
        and other.folder != model.folder
        and (other.manifest.ref, other.label) == (of.ref, model.label)
        and other.manifest.owner is None
        and other.manifest.made_from is None
        and (other.manifest.created_at, str(other.folder)) > (of.created_at, str(model.folder))
    ]
    return max(same, key=lambda other: other.created_at, default=None)


def plan_again(found: Look, model: StoredModel, store: "Store") -> PullPlan:
    """Plan the pull of what a stored model is at its source now, beside the one that is stored.

    Raises:
        QuantNotFound, ModelNotFound, NoUsableFile: the source has it no more.
    """
    of = model.manifest
    assert of is not None
    wanted = replace(found.wanted, quant=model.label, file=None)
    first = path_in_repo(of.files[0])
    if found.wanted.file is not None:
        wanted = found.wanted
    elif found.wanted.kind in ("hub", "modelscope") and any(file.path == first for file in found.offer.files):
        by_file = _as_pull(pull.plan_of(replace(found, wanted=replace(wanted, quant=None, file=first)), store))
        if by_file.variant.label == model.label:
            return _beside(by_file, model, store)
    elif found.wanted.kind in ("url", "pypi"):
        wanted = found.wanted
    return _beside(_as_pull(pull.plan_of(replace(found, wanted=wanted), store)), model, store)


def _as_pull(plan: PullPlan | CheckpointPlan) -> PullPlan:
    if isinstance(plan, CheckpointPlan):
        raise NoUsableFile(f"{plan.name} has no model file any more, only its original weights", files=())
    return plan


def _beside(plan: PullPlan, model: StoredModel, store: "Store") -> PullPlan:
    """Let a source without commits have a new folder each time, so that the old model stays whole until the end."""
    number = 2
    folder = plan.folder
    while folder == model.folder or (folder != plan.folder and _has_model(folder)):
        offer = plan.offer
        revision = f"{offer.commit or offer.revision or 'latest'}+{number}"
        folder = store.folder_of(offer.source, offer.name, revision, plan.variant.label)
        number += 1
    return replace(plan, folder=folder)


def _has_model(folder: Path) -> bool:
    return (folder / manifest.FILE_NAME).exists()


def compare(of: Manifest, plan: PullPlan) -> tuple[State, tuple[Change, ...]]:
    """Compare a stored model with what its source lists now."""
    offer, files = plan.offer, plan.variant.files
    verdicts = [_is_same(record, file) for record, file in zip(of.files, files, strict=False)]
    changes: list[Change] = []
    if len(of.files) != len(files):
        changes.append(Change("parts", str(len(of.files)), str(len(files))))
    elif n_changed := verdicts.count(False):
        count = "its file" if len(files) == 1 else f"{n_changed} of its {len(files)} files"
        changes.append(Change(f"{count} changed", None, None))
    if (size := plan.size_bytes) is not None and size != of.size_bytes:
        changes.append(Change("size", format_bytes(of.size_bytes), format_bytes(size)))
    if plan.licence and of.licence and plan.licence != of.licence:
        changes.append(Change("licence", of.licence, plan.licence))
    if offer.gated != of.gated:
        changes.append(Change("access", *(("open", "gated") if offer.gated else ("gated", "open"))))
    changes += _changed_extras(of, offer)
    if changes:
        return "stale", tuple(changes)
    return ("unknown" if None in verdicts else "current"), ()


def _is_same(record: FileRecord, file: RemoteFile) -> bool | None:
    """Tell whether a file is the same; None where the source says too little."""
    if file.sha256 is not None:
        return file.sha256 == record.sha256
    if file.size_bytes is not None and file.size_bytes != record.size_bytes:
        return False
    if file.validator is not None and record.validator is not None:
        return file.validator == record.validator
    return None


def _changed_extras(of: Manifest, offer: Offer) -> list[Change]:
    before = {record.role: record for record in of.extras}
    changed = [
        Change(f"{extra.role} changed", None, None)
        for extra in offer.extras
        if extra.role in before and _is_same(before[extra.role], extra.file) is False
    ]
    if (config := of.generation_config) is not None:
        name = config.path.rpartition("/")[2]
        listed = next((file for file in offer.files if file.path == name), None)
        if listed is not None and _is_same(config, listed) is False:
            changed.append(Change(f"{name} changed", None, None))
    return changed
