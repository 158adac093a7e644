"""Which stored model a reference names, and by which names a stored model can be called."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from owm.store import manifest, refs
from owm.store.manifest import Manifest
from owm.store.model import StoredModel
from owm.store.names import safe_component, safe_path
from owm.store.refs import ModelRef
from owm.store.registry_refs import place_of

_TAGGED = ("ollama", "oci")  # named by a tag, which says as much as a quant does elsewhere


def words(ref: ModelRef, text: str) -> str:
    """Return what the user typed, without what an address may hide."""
    return str(ref) if ref.kind == "url" else text


def names(short: str, stored: Manifest) -> Iterator[str]:
    """Yield texts that name a stored model, the shortest first; the last ones are the most exact."""
    of = refs.parse(stored.ref)
    if short != stored.ref:
        yield f"{short}:{stored.label}"
    if of.kind == "local":
        yield f"{of.name}:{stored.label}"
    yield stored.ref if of.kind in ("url", "pypi", *_TAGGED) else f"{stored.ref}:{stored.label}"
    if of.kind == "pypi":
        yield str(replace(of, revision=stored.commit))
    if of.kind in _TAGGED:
        yield str(replace(of, quant=stored.label))
        if re.fullmatch(r"[0-9a-f]{64}", stored.commit or ""):
            yield str(replace(of, digest=stored.commit, quant=stored.label))
    if of.kind in ("hub", "modelscope"):
        file = path_in_repo(stored.files[0])
        at_commit = replace(of, revision=stored.commit)
        yield f"{stored.ref}:{file}"
        yield f"{at_commit}:{stored.label}"
        yield f"{at_commit}:{file}"


def path_in_repo(record: manifest.FileRecord) -> str:
    """Return where a file lies in its repo; below owm's own tree every part of that has a safe name."""
    parts = PurePosixPath(record.path).parts
    if record.root == "owm" and parts[:2] == ("models", "modelscope") and len(parts) > 6:
        return "/".join(parts[6:])  # after owner/name/revision/label
    if record.root == "outside" and "snapshots" in parts[:-2]:  # of another cache with the layout of the Hub's
        at = len(parts) - 1 - parts[::-1].index("snapshots")
        parts = parts[at - 1 :] if parts[at - 1].startswith("models--") else parts
    is_in_cache = record.root == "hub" or (record.root == "outside" and parts[0].startswith("models--"))
    return "/".join(parts[3:] if is_in_cache else parts[-1:])  # after models--owner--repo/snapshots/<commit>


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
    if ref.kind in _TAGGED:
        return _is_same_tag(stored, of, ref)
    # The Hub takes names in any case, and a renamed repo by its old name; `stored.name` is what it goes by now.
    if ref.name.lower() not in (of.name.lower(), stored.name.lower()):
        return False
    if ref.file is not None:
        wanted = ref.file if ref.kind == "hub" else str(safe_path(ref.file))
        if all(path_in_repo(file) != wanted for file in stored.files):
            return False
    if ref.revision is None:
        return True
    if ref.revision in (stored.revision, of.revision):
        return True
    return bool(re.fullmatch(r"[0-9a-f]{7,40}", ref.revision)) and (stored.commit or "").startswith(ref.revision)


def _is_same_tag(stored: Manifest, of: ModelRef, ref: ModelRef) -> bool:
    """Compare what registries have: by tag, or by the digest of the manifest whatever the tag was."""
    if ref.name.lower() != of.name.lower():
        return False
    if ref.digest is not None and not (stored.commit or "").startswith(ref.digest):
        return False
    if ref.digest is not None and ref.revision is None:
        return True
    # What is stored as `latest` is also found by its quant, as its full name ends.
    is_quant = of.revision is None and ref.revision is not None and ref.revision.lower() == stored.label.lower()
    return (ref.revision == of.revision or is_quant) and (ref.digest is not None or of.digest is None)


def lies_where(folder: Path, top: Path, ref: ModelRef) -> bool:
    """Tell by its place alone whether a model could be the one that `ref` names."""
    parts = folder.relative_to(top).parts
    if len(parts) < 3:
        return False
    *name, revision, label = parts
    if ref.kind == "url":
        return revision == (ref.revision or refs.hash_of(ref.name))
    if ref.kind in _TAGGED:
        if ref.digest is not None and revision.startswith(ref.digest):
            name, place = name[:-1], ref.name
        else:
            place = place_of(ref.name, ref.revision, ref.digest)
        if [part.lower() for part in name] != [safe_component(part).lower() for part in place.split("/")]:
            return False
        return ref.quant is None or safe_component(ref.quant).lower() == label.lower()
    if [part.lower() for part in name] != [safe_component(part).lower() for part in ref.name.split("/")]:
        return False
    return ref.quant is None or safe_component(ref.quant).lower() == label.lower()
