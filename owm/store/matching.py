"""Which stored model a reference names, and by which names a stored model can be called."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from owm.store import manifest, refs
from owm.store.manifest import Manifest
from owm.store.model import StoredModel
from owm.store.names import safe_component
from owm.store.refs import ModelRef


def words(ref: ModelRef, text: str) -> str:
    """Return what the user typed, without what an address may hide."""
    return str(ref) if ref.kind == "url" else text


def names(short: str, stored: Manifest) -> list[str]:
    """Return texts that name a stored model, the shortest first; the last ones are the most exact."""
    of = refs.parse(stored.ref)
    exact = [stored.ref] if of.kind == "url" else [f"{stored.ref}:{stored.label}"]
    if of.kind == "pypi":
        exact = [stored.ref, f"{replace(of, revision=stored.commit)}"]
    if of.kind == "local":
        exact = [f"{of.name}:{stored.label}", *exact]
    if of.kind == "hub":
        file = path_in_repo(stored.files[0])
        at_commit = replace(of, revision=stored.commit)
        exact += [f"{stored.ref}:{file}", f"{at_commit}:{stored.label}", f"{at_commit}:{file}"]
    return exact if short == stored.ref else [f"{short}:{stored.label}", *exact]


def path_in_repo(record: manifest.FileRecord) -> str:
    parts = PurePosixPath(record.path).parts
    return "/".join(parts[3:] if record.root == "hub" else parts[-1:])  # after models--owner--repo/snapshots/<commit>


def of_source(ref: ModelRef, stored: Sequence[StoredModel]) -> list[StoredModel]:
    """Return those of one repo, package or address, in the quant that `ref` asks for, newest first."""
    found = [model for model in stored if model.manifest and matches(model.manifest, ref)]
    same = [model for model in found if model.manifest and refs.parse(model.manifest.ref).revision == ref.revision]
    found = sorted(same or found, key=lambda m: m.manifest.created_at if m.manifest else "", reverse=True)
    if ref.quant is None:
        return found
    wanted = ref.quant.lower()
    exact = [m for m in found if m.label and m.label.lower() == wanted]
    return exact or [m for m in found if m.label and re.sub(r"^(ud|i1)-", "", m.label.lower()) == wanted]


def matches(stored: Manifest, ref: ModelRef) -> bool:
    of = refs.parse(stored.ref)
    if of.kind != ref.kind:
        return False
    if ref.kind == "url":
        return (of.name, of.revision) == (ref.name, ref.revision)
    # The Hub takes names in any case, and a renamed repo by its old name; `stored.name` is what it goes by now.
    if ref.name.lower() not in (of.name.lower(), stored.name.lower()):
        return False
    if ref.file is not None and all(path_in_repo(file) != ref.file for file in stored.files):
        return False
    if ref.revision is None:
        return True
    if ref.revision in (stored.revision, of.revision):
        return True
    return bool(re.fullmatch(r"[0-9a-f]{7,40}", ref.revision)) and (stored.commit or "").startswith(ref.revision)


def lies_where(folder: Path, top: Path, ref: ModelRef) -> bool:
    """Tell by its place alone whether a model could be the one that `ref` names."""
    parts = folder.relative_to(top).parts
    if len(parts) < 3:
        return False
    *name, revision, label = parts
    if ref.kind == "url":
        return revision == (ref.revision or refs.hash_of(ref.name))
    if [part.lower() for part in name] != [safe_component(part).lower() for part in ref.name.split("/")]:
        return False
    return ref.quant is None or safe_component(ref.quant).lower() == label.lower()
