"""What can be removed without loss: begun downloads, files of no model, caches, working files.

A plan says what; carrying it out looks again. What a running process holds (the lock of a model, of a blob in the Hub
cache, of the file itself) stays, and so does everything that a manifest names.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from owm.errors import OwmError
from owm.store import inside, manifest
from owm.store.download import write_error
from owm.store.usage import ASIDE, HUB_PARTIAL, PARTIAL, is_weights, walk

if TYPE_CHECKING:
    from owm.store.local import Store

try:
    import fcntl
except ImportError:  # not a POSIX system: there an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

Kind = Literal["incomplete", "unreferenced", "headers", "work", "snapshots"]
ABOUT: dict[Kind, str] = {
    "incomplete": "downloads and conversions that were begun; they start anew",
    "unreferenced": "files of no model",
    "headers": "headers of models elsewhere; they are read again",
    "work": "working files that a killed command left",
    "snapshots": "what models had read of conversations; it is read again",
}
KINDS: tuple[Kind, ...] = tuple(ABOUT)
TRIAL_SECONDS = 24 * 3600  # what a search for types tries has no lock of its own


@dataclass(frozen=True, slots=True)
class Prunable:
    """A file or folder that can go, with what belongs to it.

    Attributes:
        paths: the first is the one that is shown.
        used_at: when any of it was last written, in seconds since the epoch.
    """

    kind: Kind
    paths: tuple[Path, ...]
    size_bytes: int
    used_at: float

    @property
    def path(self) -> Path:
        """The file or folder itself."""
        return self.paths[0]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What became of it: it was removed, or it is `held` by a running process."""

    of: Prunable
    freed_bytes: int
    is_held: bool = False


def plan(store: "Store", *, kinds: Sequence[Kind] = KINDS, older_seconds: float = 0.0) -> list[Prunable]:
    """Find what can be removed, of these kinds, and not written for so long."""
    found = [
        *(_in_models(store) if {"incomplete", "unreferenced"} & set(kinds) else ()),
        *(_in_hub(store) if {"incomplete", "unreferenced"} & set(kinds) else ()),
        *(_folder(store.home / "work", "work") if "work" in kinds else ()),
        *(_folder(store.home / "cache" / "headers", "headers") if "headers" in kinds else ()),
        *(_folder(store.home / "cache" / "snapshots", "snapshots") if "snapshots" in kinds else ()),
    ]
    now = time.time()
    wanted = [each for each in found if each.kind in kinds and now - each.used_at >= _least_age(each, older_seconds)]
    return sorted(wanted, key=lambda each: (KINDS.index(each.kind), each.path))


def execute(planned: Sequence[Prunable], store: "Store") -> Iterator[Pruned]:
    """Remove what was planned, one after the other, each unless a running process holds it by now.

    Raises:
        StoreError: something cannot be removed.
    """
    for each in planned:
        try:
            with _held(each, store) as is_ours:
                if not is_ours or not _is_unchanged(each, store):
                    yield Pruned(each, 0, is_held=True)
                    continue
                freed = sum(_remove(path, store) for path in each.paths)
                if each.kind in ("incomplete", "unreferenced"):
                    _remove_empty(each.path.parent, store.home / "models")
        except OSError as error:
            raise write_error(error, each.path) from error
        yield Pruned(each, freed)


# -- finding -----------------------------------------------------------------------------------------------------------


def _in_models(store: "Store") -> Iterator[Prunable]:
    """Yield what lies among the models and is named by no manifest."""
    named = {os.path.realpath(store.file_path(record)) for model in store.models() if model.manifest
             for record in model.manifest.kept_files}  # fmt: skip
    top = store.home / "models"
    whole: dict[Path, list[tuple[Path, os.stat_result]]] = {}  # what is begun, with its notes beside it
    kept: dict[Path, bool] = {}
    for path, status in walk(top):
        begun = _begun(path, top)
        if begun is not None:
            whole.setdefault(begun, []).append((path, status))
        elif path.name != manifest.FILE_NAME and os.path.realpath(path) not in named:
            if path.parent not in kept:
                kept[path.parent] = _keeps_small_files(path.parent, store)
            if (is_weights(path) and _is_readable(path.parent, store)) or not kept[path.parent]:
                yield _prunable("unreferenced", [(path, status)])
    for begun, parts in whole.items():
        if begun.is_dir():
            yield Prunable("incomplete", (begun,), sum(map(_size, parts)), max(s.st_mtime for _, s in parts))
        else:
            yield _prunable("incomplete", sorted(parts, key=lambda part: part[0] != begun))


def _begun(path: Path, top: Path) -> Path | None:
    """Return the file or folder `*.incomplete` that a file belongs to, None if it is none of such."""
    parts = path.relative_to(top).parts
    for index, name in enumerate(parts):
        if PARTIAL in name and (name.endswith(PARTIAL) or index == len(parts) - 1):
            if name.startswith(manifest.FILE_NAME):
                return top.joinpath(*parts[: index + 1])
            return top.joinpath(*parts[:index], name.partition(PARTIAL)[0] + PARTIAL)
    return None


def _keeps_small_files(folder: Path, store: "Store") -> bool:
    """Tell whether a folder is a model's, or lies in one: what else its maker has put there stays."""
    while folder != store.home / "models":
        if (folder / manifest.FILE_NAME).exists():
            return True
        folder = folder.parent
    return False


def _is_readable(folder: Path, store: "Store") -> bool:
    """Tell whether it is known which files a folder's model has; of a newer owm's, or a damaged one, it is not."""
    while folder != store.home / "models":
        try:
            if store.at(folder) is not None:
                return True
        except OwmError:
            return False
        folder = folder.parent
    return True


def _in_hub(store: "Store") -> Iterator[Prunable]:
    """Yield what owm has begun to fetch, or put aside, in the Hub cache; what other programs have begun is theirs."""
    for repo in _listed(store.hub):
        begun: dict[str, list[tuple[Path, os.stat_result]]] = {}
        for path in _listed(repo / "blobs") if repo.name.startswith("models--") else ():
            with suppress(OSError):
                if HUB_PARTIAL in path.name:
                    begun.setdefault(path.name.partition(HUB_PARTIAL)[0], []).append((path, path.lstat()))
                elif path.name.endswith(ASIDE):
                    yield _prunable("unreferenced", [(path, path.lstat())])
        for parts in begun.values():
            yield _prunable("incomplete", sorted(parts, key=lambda part: not part[0].name.endswith(PARTIAL)))


def _folder(folder: Path, kind: Kind) -> Iterator[Prunable]:
    for path, status in walk(folder):
        if not path.name.startswith(".") and not path.name.endswith(".lock"):
            yield _prunable(kind, [(path, status)])


def _prunable(kind: Kind, parts: Sequence[tuple[Path, os.stat_result]]) -> Prunable:
    return Prunable(
        kind, tuple(path for path, _ in parts), sum(map(_size, parts)), max(status.st_mtime for _, status in parts)
    )


def _size(part: tuple[Path, os.stat_result]) -> int:
    """Return what is freed when a file goes: nothing while it has another name."""
    _, status = part
    if status.st_nlink > 1:
        return 0
    blocks = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _least_age(each: Prunable, asked: float) -> float:
    return max(asked, TRIAL_SECONDS) if each.kind == "work" and each.path.name.startswith("trial-") else asked


# -- removing ----------------------------------------------------------------------------------------------------------


@contextmanager
def _held(each: Prunable, store: "Store") -> Iterator[bool]:
    """Hold all that keeps others from using a file while it is removed; gives whether it could be had."""
    with ExitStack() as stack:
        try:
            if each.kind in ("incomplete", "unreferenced"):
                if each.path.is_relative_to(store.hub) and not each.path.is_relative_to(store.home / "models"):
                    _enter_hub_lock(stack, each.path, store.hub)
                elif not all(stack.enter_context(store.try_lock(folder)) for folder in _model_folders(each, store)):
                    raise Timeout(str(each.path))
            elif each.kind == "snapshots":
                stack.enter_context(FileLock(each.path.parent / ".lock", timeout=0, mode=0o600))
            is_ours = all(_claim(stack, path) for path in each.paths)
        except Timeout:
            is_ours = False
        yield is_ours


def _enter_hub_lock(stack: ExitStack, path: Path, hub: Path) -> None:
    """Take the lock that the Hub library, and owm with it, holds while a blob is fetched."""
    blob = path.name.partition(HUB_PARTIAL)[0].removesuffix(ASIDE)
    locks = hub / ".locks" / path.parent.parent.name
    locks.mkdir(parents=True, exist_ok=True)
    stack.enter_context(FileLock(locks / f"{blob}.lock", timeout=0))


def _model_folders(each: Prunable, store: "Store") -> Iterator[Path]:
    """Yield the folders below which a file lies: one of them is, or will be, that of the model."""
    folder = each.path.parent
    yield folder
    while (folder := folder.parent).is_relative_to(store.home / "models"):
        if store.lock_path(folder).exists():
            yield folder


def _claim(stack: ExitStack, path: Path) -> bool:
    """Take the lock that whoever writes or reads a file may hold on it; False if another has it."""
    if fcntl is None or path.is_dir():
        return True
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # gone, or not to be read: then it is not to be removed either, which is told
        return True
    stack.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_unchanged(each: Prunable, store: "Store") -> bool:
    """Tell whether nobody has written it, or made a model of it, since it was found."""
    if each.kind == "unreferenced":
        try:
            model = store.at(each.path.parent)
        except OwmError:
            return False
        if model is not None and model.manifest is not None:
            named = map(store.file_path, model.manifest.kept_files)
            if each.path in named:
                return False
    for path in each.paths:
        with suppress(FileNotFoundError):
            if not path.is_dir() and path.lstat().st_mtime > each.used_at:
                return False
    return True


def _remove(path: Path, store: "Store") -> int:
    """Remove a file or folder; return the bytes freed."""
    top = next((top for top in (store.home / "models", store.hub) if path.is_relative_to(top)), path.parent)
    try:
        with inside.opened(path.parent, top) as folder:
            is_folder = path.is_dir() and not path.is_symlink()
            freed = sum(map(_size, walk(path))) if is_folder else _size((path, path.lstat()))
            inside.remove(path.name, folder)
    except FileNotFoundError:
        return 0
    return freed


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove folders in which nothing is left."""
    while folder != top and folder.is_relative_to(top):
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
