"""Folders with a well-known path that may be a link to another disk, and the one step that makes it lead there.

A move is noted in a journal beside the path before anything is copied, and forgotten when nothing of it is left to do;
so it is known at any time which of two places is the tree, and what is only a copy.
"""

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from owm.errors import StoreError
from owm.publishing import publish_text, sync_folder

LOCK = "move.lock"
MARKER = "moving"
_EXCHANGE = 2  # ref: linux/fs.h, RENAME_EXCHANGE, and macOS sys/stdio.h, RENAME_SWAP: the same number
_HERE = {"linux": -100, "darwin": -2}  # AT_FDCWD


@dataclass(frozen=True, slots=True)
class Journal:
    """A move that has begun: from where the tree really lay, to where it will."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder that can be moved.

    Attributes:
        name: of the folder in its new place.
        path: the well-known one.
        home: owm's own folder, with the journal and the locks.
        writers: finds the locks of those who write to the tree.
    """

    name: str
    path: Path
    home: Path
    writers: Callable[[], list[Path]] = field(compare=False)

    @property
    def place(self) -> Path:
        """Where the tree really lies."""
        return Path(os.path.realpath(self.path))

    @property
    def newcomer(self) -> Path:
        """What will take the path's place in the exchange, and after that, for a moment, what had it."""
        return self.path.with_name(f"{self.path.name}.new")

    @property
    def aside(self) -> Path:
        """What had the path before."""
        return self.path.with_name(f"{self.path.name}.old")

    @property
    def journal(self) -> Path:
        """Where a move is noted."""
        return self.home / f"move-{self.name}.json"

    def copied_into(self, target: Path) -> Path:
        """Return where the copy grows: a folder that is to have the well-known path itself grows beside it."""
        return self.newcomer if target == self.path else target

    def begun(self) -> Journal | None:
        """Return the move that has begun and not ended.

        Raises:
            StoreError: the journal cannot be read.
        """
        try:
            noted = json.loads(self.journal.read_text("utf-8"))
            return Journal(Path(noted["from"]), Path(noted["to"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(f"cannot read {self.journal}: {error}", hint="look at what is beside it first") from error

    def note(self, journal: Journal) -> None:
        """Note that a move begins."""
        text = json.dumps({"schema": 1, "from": str(journal.source), "to": str(journal.target)}, indent=1)
        publish_text(self.journal, text + "\n")

    def has_switched(self, journal: Journal) -> bool:
        """Tell whether the path leads to the new place already."""
        if journal.target == self.path:
            return self.path.is_dir() and not self.path.is_symlink()
        return self.path.is_symlink() and self.place == journal.target

    def switch(self, target: Path) -> None:
        """Have the path lead to the copy in `target`, in one step; what it was is `aside` then.

        Raises:
            OSError: it could not be done, and nothing has changed.
        """
        if target != self.path:
            with suppress(FileNotFoundError):
                self.newcomer.unlink()
            os.symlink(target, self.newcomer)
        if not os.path.lexists(self.path):
            os.rename(self.newcomer, self.path)
        elif exchange(self.newcomer, self.path):
            os.rename(self.newcomer, self.aside)
        else:  # two steps; whoever finds the path missing does the second one
            os.rename(self.path, self.aside)
            os.rename(self.newcomer, self.path)
        sync_folder(self.path.parent)

    def finish_switch(self) -> bool:
        """Take the second of two steps where a killed move took only the first; tell whether that was so.

        Raises:
            StoreError: it cannot be done.
        """
        if os.path.lexists(self.path) or not os.path.lexists(self.newcomer) or not os.path.lexists(self.aside):
            return False
        if self.begun() is None:
            return False
        try:
            os.rename(self.newcomer, self.path)
        except FileNotFoundError:
            return True  # another process was quicker
        except OSError as error:
            raise StoreError(
                f"a move was cut off, and {self.path} cannot be put in its place: {error.strerror}",
                hint=f"look at the permissions of {self.path.parent}",
            ) from error
        return True

    def is_found_again(self) -> bool:
        """Tell whether a tree that seemed not to be there is there after all: its move was cut off.

        Raises:
            StoreError: it was moved to a place that is not there.
        """
        if problem := self.missing_place():
            raise problem
        return self.finish_switch()

    def missing_place(self) -> StoreError | None:
        """Return the error about a place that is not there, because its disk is not."""
        if self.path.is_symlink() and not self.path.exists():
            return StoreError(
                f"the {self.name} were moved to {self.place}, which is not there",
                hint="attach or mount its disk; `owm store` shows the places",
            )
        return None


def models_of(home: Path) -> Tree:
    """Return the tree of the store's models."""
    return Tree("models", home / "models", home, lambda: _locks_of_models(home))


def hub_of(home: Path, hub: Path) -> Tree:
    """Return the tree of the Hugging Face cache; other programs write to it as well, under locks of its own."""
    return Tree("hub", hub, home, lambda: [*_locks_of_models(home), *(hub / ".locks").glob("*/*.lock")])


def _locks_of_models(home: Path) -> list[Path]:
    return [path for path in (home / "locks").glob("*.lock") if path.name not in (LOCK, "config.lock")]


# -- who writes, and who moves -----------------------------------------------------------------------------------------


@contextmanager
def moving_alone(home: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of moving; another mover is waited for."""
    from filelock import FileLock, Timeout

    locks = home / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait("another owm is moving the store, waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writers_out(tree: Tree, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Let nobody write to a tree, for as long as the switch takes; those who do so already are waited for.

    Whoever takes a writer's lock looks for the marker after it; so each lock need be free for a moment only.
    """
    from filelock import FileLock, Timeout

    marker = tree.home / "locks" / MARKER
    marker.touch()
    try:
        for path in tree.writers():
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait("another program is writing to the store, waiting for it")
                lock.acquire()
            lock.release()
        yield
    finally:
        marker.unlink(missing_ok=True)


def is_moving(home: Path) -> bool:
    """Tell whether the store is being moved right now, so that nothing may be written; a killed move is mended."""
    marker = home / "locks" / MARKER
    if not marker.exists():
        return False
    from filelock import FileLock, Timeout

    lock = FileLock(home / "locks" / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    try:
        models_of(home).finish_switch()
        marker.unlink(missing_ok=True)
    finally:
        lock.release()
    return False


def wait_for_move(home: Path) -> None:
    """Wait until the store has been moved."""
    with moving_alone(home, lambda message: None):
        return


# -- the step ----------------------------------------------------------------------------------------------------------


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two files or folders in one step; False if the file system cannot, and nothing is changed.

    Raises:
        OSError: it could, but may not.
    """
    here = _HERE.get(sys.platform)
    if here is None:
        return False
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "renameat2" if sys.platform == "linux" else "renameatx_np", None)
    if call is None:
        return False
    names = [os.fsencode(path) for path in (one, other)]
    if call(here, names[0], here, names[1], ctypes.c_uint(_EXCHANGE)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(one))


def can_exchange(folder: Path) -> bool:
    """Tell whether names in a folder can be exchanged, by trying it."""
    names = [folder / f".owm-{os.getpid()}-{letter}" for letter in "ab"]
    try:
        for name in names:
            name.touch()
        return exchange(*names)
    except OSError:
        return False
    finally:
        for name in names:
            with suppress(OSError):
                name.unlink()
