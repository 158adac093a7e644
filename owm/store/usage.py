"""What takes how much of the disk: models, and whatever else owm keeps. Bytes with several names are counted once."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from owm.store import manifest
from owm.store.model import StoredModel
from owm.store.selecting import OWN

if TYPE_CHECKING:
    from owm.store.local import Store

PARTIAL = ".incomplete"
HUB_PARTIAL = ".owm.incomplete"
ASIDE = ".damaged"  # while a file is repaired
KINDS = {  # of what lies in owm's own tree beside models: the folder or file, and what people call it
    "sessions": "conversations",
    "chat-history": "conversations",
    "cache/snapshots": "snapshots of conversations",
    "cache/headers": "headers of models elsewhere",
    "cache": "other caches",
    "logs": "the log of answers",
    "imatrix": "importance matrices",
    "work": "working files",
    "bench": "measurements",
    "tuned.json": "measurements",
}
INCOMPLETE = "incomplete downloads"
UNREFERENCED = "files of no model"
REST = "settings and the like"
HUB_REST = "other files in the Hugging Face cache"


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What a model takes.

    Attributes:
        size_bytes: of its files that are there.
        shared_bytes: of these, what another model has too, or a name outside owm's tree.
        owner: whose bytes they are.
    """

    model: StoredModel
    owner: str
    size_bytes: int
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class PartUse:
    """What a kind of other files takes; `is_own` tells whether they are owm's."""

    what: str
    size_bytes: int
    n_files: int
    is_own: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """What everything takes."""

    models: tuple[ModelUse, ...]
    owners: dict[str, int]
    parts: tuple[PartUse, ...]

    @property
    def total_bytes(self) -> int:
        """All that is owm's: its models without those of other tools, and the rest of its tree."""
        return self.owners.get(OWN, 0) + sum(part.size_bytes for part in self.parts if part.is_own)


def measure(store: "Store", models: Sequence[StoredModel] | None = None) -> Usage:
    """Find out what takes how much.

    Args:
        models: all stored models, for a caller that has them already.
    """
    models = store.models() if models is None else models
    files = [(model, list(_files(model, store))) for model in models]
    n_users: dict[tuple[int, int], int] = {}
    for _, found in files:
        for key in {_key(status) for _, status in found}:
            n_users[key] = n_users.get(key, 0) + 1
    seen: set[tuple[int, int]] = set()
    owners: dict[str, int] = {}
    uses = []
    for model, found in files:
        owner = (model.manifest.owner if model.manifest else None) or OWN
        each = {_key(status): status for _, status in found}
        shared = sum(s.st_size for key, s in each.items() if n_users[key] > 1 or s.st_nlink > n_users[key])
        uses.append(ModelUse(model, owner, sum(status.st_size for status in each.values()), shared))
        owners.setdefault(owner, 0)
        owners[owner] += sum(status.st_size for key, status in each.items() if key not in seen)
        seen |= set(each)
    return Usage(tuple(uses), owners, tuple(_parts(store, models, seen)))


def _parts(store: "Store", models: Sequence[StoredModel], seen: set[tuple[int, int]]) -> Iterator[PartUse]:
    """Yield what is there beside the files of models; bytes that are `seen` are left out."""
    sizes: dict[str, list[int]] = {}

    def count(what: str, status: os.stat_result) -> None:
        if _key(status) not in seen:
            seen.add(_key(status))
            sizes.setdefault(what, []).append(_taken(status))

    folders = {model.folder for model in models}
    for path, status in walk(store.home, skip=store.hub):
        count(_kind(path, store.home, folders), status)
    hub_rest: list[int] = []
    for path, status in walk(store.hub):
        if HUB_PARTIAL in path.name:
            count(INCOMPLETE, status)
        elif path.name.endswith(ASIDE):
            count(UNREFERENCED, status)
        elif _key(status) not in seen:
            seen.add(_key(status))
            hub_rest.append(_taken(status))
    order = [INCOMPLETE, UNREFERENCED, *dict.fromkeys(KINDS.values()), REST]
    for what in sorted(sizes, key=order.index):
        yield PartUse(what, sum(sizes[what]), len(sizes[what]))
    if hub_rest:
        yield PartUse(HUB_REST, sum(hub_rest), len(hub_rest), is_own=False)


def _kind(path: Path, home: Path, folders: set[Path | None]) -> str:
    place = path.relative_to(home).as_posix()
    if place.startswith("models/"):
        if PARTIAL in place:
            return INCOMPLETE
        return REST if path.parent in folders and not is_weights(path) else UNREFERENCED
    for prefix, what in KINDS.items():
        if place == prefix or place.startswith(f"{prefix}/"):
            return what
    return REST


def is_weights(path: Path) -> bool:
    """Tell by its name whether a file is a model's bytes, or was before it was repaired."""
    return path.suffix.lower() == ".gguf" or path.name.endswith(ASIDE)


def walk(top: Path, *, skip: Path | None = None) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield all files in a folder, links not followed; what cannot be looked at is left out."""
    waiting = [os.fspath(top)]
    skipped = os.fspath(skip) if skip is not None else None
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path != skipped:
                            waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield Path(entry.path), os.stat(entry.path, follow_symlinks=False)
        except OSError:  # gone meanwhile, or locked away
            continue


def _files(model: StoredModel, store: "Store") -> Iterator[tuple[Path, os.stat_result]]:
    """Yield those of a model's files that are there, and its manifest."""
    if model.manifest is None:
        return
    paths = [store.file_path(record) for record in model.manifest.kept_files]
    for path in [*paths, *([model.folder / manifest.FILE_NAME] if model.folder else [])]:
        try:
            yield path, path.stat()
        except OSError:
            continue


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _taken(status: os.stat_result) -> int:
    """Return what a file takes of the disk, which is less than its length if it has holes."""
    blocks = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)
