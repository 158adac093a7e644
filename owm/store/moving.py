"""Moving a tree of files to another disk, so that whoever looks finds all of it, whenever this is killed.

All of it is copied, flushed and read back before one step makes the copy the tree; only then is anything taken away
where it was, and of that only what the copy has. A killed move is gone on with, or undone by one to elsewhere.
"""

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from owm.errors import NotEnoughDisk, StoreError, Unsupported, UsageError
from owm.events import Advanced, Finished, Sink, Started, Warned, ignore
from owm.publishing import sync_folder
from owm.store.copying import copy_into, read_back
from owm.store.download import write_error
from owm.store.model import read_error
from owm.store.space import RESERVE_BYTES
from owm.store.trees import Journal, Tree, can_exchange, moving_alone, writers_out
from owm.store.usage import PARTIAL
from owm.units import format_bytes

STAGE = "move"
SUFFIX = ".moving"  # of what is copied into
_SMALL_BYTES = 1 << 20  # such files are compared whole
_CLOCK_NS = 2_000_000_000  # the times of files are as exact as this, at worst of the file systems of sticks


@dataclass(frozen=True, slots=True)
class MovePlan:
    """What a move will do: `n_bytes` are all of the tree, `n_bytes_there` of them are in the new place already."""

    tree: Tree
    source: Path
    target: Path
    n_files: int
    n_bytes: int
    n_bytes_there: int
    is_there: bool = False  # the tree lies there already; what is left of an earlier place is taken away
    is_same_disk: bool = False


def plan_move(tree: Tree, folder: Path) -> MovePlan:
    """Look at what is to be moved; nothing is written.

    Raises:
        UsageError: the folder cannot be the new place.
        StoreError: where the tree was moved before is not there, or something cannot be read.
        NotEnoughDisk: the new place has no room.
    """
    if problem := tree.missing_place():
        raise problem
    tree.finish_switch()
    target = _target(tree, folder)
    into = tree.copied_into(target)
    begun = tree.begun()
    if begun is not None and begun.target != target and tree.has_switched(begun):
        raise UsageError(
            f"the move to {begun.target.parent} has not ended: what was moved is not taken away yet",
            hint=f"`owm store move {begun.target.parent}` ends it",
        )
    source = tree.place
    if tree.has_switched(Journal(source, target)):
        return MovePlan(tree, source, target, 0, 0, 0, is_there=True)
    is_ours = begun is not None and begun.target == target
    if not is_ours and (into.is_symlink() or (into.exists() and any(into.iterdir()))):
        raise UsageError(f"{into} is there already and not empty", hint="name another folder")
    if tree.name == "hub" and source.exists() and not can_exchange(tree.path.parent):
        raise Unsupported(
            f"the file system of {tree.path.parent} cannot exchange two names in one step",
            hint="move that folder yourself while no program uses it, and set HF_HUB_CACHE",
        )
    n_files = n_bytes = n_there = 0
    seen: set[tuple[int, int]] = set()
    for relative, status in _walk(source):
        if not stat.S_ISREG(status.st_mode):
            continue
        n_files += 1
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            n_bytes += status.st_size
            n_there += _bytes_there(into / relative, status)
    is_same_disk = not source.exists() or _device(source) == _device(into)
    if not is_same_disk:
        _check_room(tree, into, n_bytes - n_there)
    return MovePlan(tree, source, target, n_files, n_bytes, n_there, is_same_disk=is_same_disk)


def _target(tree: Tree, folder: Path) -> Path:
    try:
        where = Path(os.path.realpath(folder.expanduser()))
        if where == Path(os.path.realpath(tree.path.parent)) and tree.path.name == tree.name:
            return tree.path  # back to where it was at first
        if where.exists() and not where.is_dir():
            raise UsageError(f"{folder} is no folder", hint="name a folder on the other disk")
        if not where.exists() and not where.parent.is_dir():
            raise UsageError(
                f"there is no folder {where.parent}", hint="is its disk attached? `mkdir -p` makes what is missing"
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"cannot be a folder: {folder}", hint="name a folder on the other disk") from error
    target = where / tree.name
    place = tree.place
    for inner, outer in ((target, place), (place, target), (target, tree.home / "locks")):
        if inner != outer and inner.is_relative_to(outer):
            raise UsageError(f"{inner} would lie in {outer}", hint="name a folder elsewhere")
    return target


def _check_room(tree: Tree, into: Path, n_missing: int) -> None:
    at = into
    while not at.exists():
        at = at.parent
    free = shutil.disk_usage(at).free
    needed = n_missing + RESERVE_BYTES
    if n_missing > 0 and needed > free:
        raise NotEnoughDisk(
            f"moving the {tree.name} needs {format_bytes(needed)} ({format_bytes(RESERVE_BYTES)} of it to spare), "
            f"{format_bytes(free)} are free on the disk of {at}",
            needed=needed,
            free=free,
            hint="free some space there; `owm rm` and `owm prune` make the store smaller",
        )


def _bytes_there(path: Path, status: os.stat_result) -> int:
    with suppress(OSError):
        if _looks_copied(path, status):
            return status.st_size
        return min(path.with_name(path.name + SUFFIX).stat().st_size, status.st_size)
    return 0


def _device(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return path.stat().st_dev


def execute_move(plan: MovePlan, *, sink: Sink = ignore) -> None:
    """Move a tree; killed at any moment, the tree is whole where its path leads, and the same call goes on.

    Raises:
        NotEnoughDisk, StoreError: the new place cannot be written, or something not be read; the tree is where it was.
        Damaged: the disk does not give back what was written to it.
    """
    tree = plan.tree

    def say(message: str) -> None:
        sink(Warned(STAGE, message))

    into = tree.copied_into(plan.target)
    try:
        with moving_alone(tree.home, say):
            tree.finish_switch()
            begun = tree.begun()
            if begun is not None and tree.has_switched(begun):
                _take_away(tree, begun, say)
            elif begun is not None and begun.target != plan.target:
                _remove_copies(tree.copied_into(begun.target), tree.place)
            source = tree.place
            if tree.has_switched(Journal(source, plan.target)):
                return
            into.mkdir(parents=True, exist_ok=True)
            journal = Journal(source, plan.target)
            tree.note(journal)
            progress = _Progress(plan.n_bytes, sink)
            _copy_all(source, into, progress, is_last=False)
            with writers_out(tree, say):
                _copy_all(source, into, progress, is_last=True)  # what was written meanwhile
                _remove_strangers(into, source)
                _sync_folders(into)
                tree.switch(plan.target)
            progress.finish()
            _take_away(tree, journal, say)
    except OSError as error:
        problem = write_error(error, into / "file")
        problem.hint = "the models are where they were; when that is mended, the same command goes on"
        raise problem from error


class _Progress:
    """Bytes that are right in the new place; a file counts once however often it is looked at."""

    def __init__(self, total: int, sink: Sink) -> None:
        self._sink, self._began, self._done = sink, time.monotonic(), 0
        self._counted: set[Path] = set()
        sink(Started(STAGE, total, "bytes"))

    def of(self, path: Path) -> Callable[[int], None]:
        is_new = path not in self._counted
        self._counted.add(path)

        def advance(n_bytes: int) -> None:
            if is_new:
                self._done += n_bytes
                self._sink(Advanced(STAGE, self._done, path.name))

        return advance

    def finish(self) -> None:
        self._sink(Finished(STAGE, time.monotonic() - self._began))


def _copy_all(source: Path, into: Path, progress: _Progress, *, is_last: bool) -> None:
    """Copy what is not there yet; before the last time, what changes meanwhile is left for later."""
    names: dict[tuple[int, int], Path] = {}
    for relative, status in list(_walk(source)):
        path, copy = source / relative, into / relative
        try:
            if stat.S_ISDIR(status.st_mode):
                if copy.is_symlink() or copy.is_file():
                    copy.unlink()
                copy.mkdir(exist_ok=True)
            elif stat.S_ISLNK(status.st_mode):
                _copy_link(path, copy, source)
            elif stat.S_ISREG(status.st_mode):
                first = names.setdefault((status.st_dev, status.st_ino), copy)
                if first != copy:
                    _name_again(first, copy)
                elif _looks_copied(copy, status) and _is_copied(path, copy, status):
                    progress.of(relative)(status.st_size)
                else:
                    _copy_file(path, copy, status, progress.of(relative))
        except (FileNotFoundError, StoreError):
            if is_last and path.exists():
                raise


def _copy_file(path: Path, copy: Path, status: os.stat_result, advance: Callable[[int], None]) -> None:
    if copy.is_dir() and not copy.is_symlink():
        shutil.rmtree(copy)  # of ours: a file has taken a folder's name since
    copy.unlink(missing_ok=True)
    if status.st_dev == copy.parent.stat().st_dev:
        with suppress(OSError):
            os.link(path, copy)
            advance(status.st_size)
            return
    partial = copy.with_name(copy.name + SUFFIX)
    sha256 = copy_into(path, partial, advance=advance)
    read_back(partial, sha256)
    with suppress(OSError):
        os.chmod(partial, stat.S_IMODE(status.st_mode))
    os.utime(partial, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(partial, copy)


def _name_again(first: Path, copy: Path) -> None:
    """Let a file that has two names have both in the new place, too."""
    if copy.exists() and copy.samefile(first):
        return
    copy.unlink(missing_ok=True)
    try:
        os.link(first, copy)
    except OSError:
        shutil.copy2(first, copy)


def _copy_link(path: Path, copy: Path, source: Path) -> None:
    """Copy a link; one that leads out of the tree by a relative path is given a whole one."""
    text = os.readlink(path)
    leads = Path(os.path.normpath(path.parent / text))
    if not os.path.isabs(text) and not leads.is_relative_to(source):
        text = str(leads)
    if os.path.lexists(copy):
        if copy.is_symlink() and os.readlink(copy) == text:
            return
        copy.unlink()
    os.symlink(text, copy)


def _looks_copied(copy: Path, status: os.stat_result) -> bool:
    """Tell by size and time whether a file has been copied: it gets its name when it is whole and flushed."""
    try:
        there = os.lstat(copy)
    except OSError:
        return False
    is_same_time = abs(there.st_mtime_ns - status.st_mtime_ns) < _CLOCK_NS
    return stat.S_ISREG(there.st_mode) and there.st_size == status.st_size and is_same_time


def _is_copied(path: Path, copy: Path, status: os.stat_result) -> bool:
    """Tell exactly: small files are compared, of large ones the times have to be as equal as the disk can say them."""
    if status.st_size <= _SMALL_BYTES:
        if path.read_bytes() != copy.read_bytes():
            return False
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        return True
    there = copy.stat().st_mtime_ns
    return there == status.st_mtime_ns or there % 10_000_000 == 0


def _walk(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every entry below a folder with its own status, folders before what is in them.

    Raises:
        StoreError: something cannot be read.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise read_error(error, Path(error.filename or top)) from error

    for folder, folders, files in os.walk(top, onerror=refuse):
        folders.sort()
        for name in (*folders, *sorted(files)):
            path = Path(folder, name)
            with suppress(FileNotFoundError):
                yield path.relative_to(top), os.lstat(path)


def _remove_strangers(into: Path, source: Path) -> None:
    """Remove from a copy what is no longer in the tree, and what was copied into."""
    for relative, status in reversed(list(_walk(into))):
        if not os.path.lexists(source / relative):
            if stat.S_ISDIR(status.st_mode):
                (into / relative).rmdir()
            else:
                (into / relative).unlink()


def _sync_folders(top: Path) -> None:
    for folder, _, _ in os.walk(top):
        sync_folder(Path(folder))
    sync_folder(top.parent)


def _take_away(tree: Tree, journal: Journal, say: Callable[[str], None]) -> None:
    """Remove what the tree was before the switch, as far as the new place has it, and forget the move."""
    leftovers = [path for path in (tree.aside, tree.newcomer) if os.path.lexists(path)]
    for old in (*(path for path in leftovers if not path.is_symlink()), journal.source):
        if old.is_dir() and not old.samefile(tree.path):
            _remove_copies(old, tree.place)
            if old.exists():
                say(f"{old} is left: it has files that were not moved")
    for path in leftovers:
        if path.is_symlink():
            path.unlink()
    tree.journal.unlink(missing_ok=True)
    for path in tree.home.glob(f"{tree.journal.name}.*{PARTIAL}"):  # of a move that was killed as it noted itself
        path.unlink(missing_ok=True)


def _remove_copies(old: Path, kept: Path) -> None:
    """Remove a folder, but for files of which `kept` has none of the same size."""
    if not old.is_dir() or old.samefile(kept):
        return
    for relative, status in reversed(list(_walk(old))):
        path, other = old / relative, kept / relative
        if stat.S_ISDIR(status.st_mode):
            with suppress(OSError):
                path.rmdir()
            continue
        if path.name.endswith(SUFFIX):
            path.unlink()
            continue
        with suppress(OSError):
            there = os.lstat(other)
            if stat.S_ISLNK(status.st_mode) or (stat.S_ISREG(there.st_mode) and there.st_size == status.st_size):
                path.unlink()
    with suppress(OSError):
        old.rmdir()
