"""Publishing files: whoever reads one, also after a crash or a power cut, finds the old content or the new.

What is written grows under another name first. A link that lies there is taken away, never written through.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not a POSIX system: what a killed process left stays there until `owm prune`
    fcntl = None  # type: ignore[assignment]

PRIVATE = 0o600  # of a file with the user's own text
_LEFT = re.compile(r"\.[0-9]+\.incomplete")
_N_TRIES = 100  # while somebody else puts something in the way again and again
_FLAGS = (
    os.O_RDWR
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a named pipe would wait
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def publish_text(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a small file so that a reader, a crash or a power cut finds either the old or the new content.

    Args:
        mode: of the file, less what the umask takes.
    """
    with replacing(path, mode=mode) as file:
        file.write(text.encode("utf-8"))


def json_text(value: object) -> str:
    """Return a value as JSON that a file can hold: halves of characters, as in names that are no text, escaped."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"


@contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Give a file to write that takes the name `path` when the block ends without an error.

    It lies beside it as `NAME.PID.incomplete` meanwhile, and is locked: those that are not are of processes that were
    killed, and are removed.

    Args:
        mode: of the file, less what the umask takes.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    _sweep(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.incomplete")
    try:
        with open(_create_held(temporary, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:  # still held: nobody takes it for a leftover
                os.replace(temporary, path)
        if fcntl is None:
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def save_text(path: Path, text: str) -> None:
    """Write a text of the user's into a file that the user has named, for the user alone.

    A file that is there keeps its permissions and a link stays one; a device or a pipe stays what it is.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(os.path.realpath(path))
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        publish_text(path, text, mode=PRIVATE)
        return
    if not stat.S_ISREG(mode):
        path.write_text(text, encoding="utf-8")
        return
    publish_text(path, text, mode=PRIVATE)
    path.chmod(stat.S_IMODE(mode))


def create_anew(path: Path, *, mode: int = 0o666) -> int:
    """Make a file of this process alone and open it to write and read; what has its name is taken away first.

    Raises:
        OSError: it cannot be made.
    """
    for _ in range(_N_TRIES):
        path.unlink(missing_ok=True)
        try:
            return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            continue
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def open_partial(path: Path, *, mode: int = 0o666, flags: int = 0) -> int:
    """Open a file that is not whole yet to write and read, and make it if it is not there.

    A link, a file that has another name too, and what is no file at all are taken away first: what is written goes
    into a file that this one name leads to.

    Raises:
        OSError: it cannot be opened.
    """
    for _ in range(_N_TRIES):
        try:
            descriptor = os.open(path, _FLAGS | flags)
        except FileNotFoundError:
            try:
                return os.open(path, _FLAGS | flags | os.O_CREAT | os.O_EXCL, mode)
            except FileExistsError:
                continue
        except OSError:
            if not _is_in_the_way(path):
                raise
        else:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                return descriptor
            os.close(descriptor)
        path.unlink(missing_ok=True)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def make_private(folder: Path) -> None:
    """Make a folder that nobody else may look into, whatever the umask; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
    except FileNotFoundError:
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the platform can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_held(path: Path, mode: int) -> int:
    """Make a file and lock it; one that was swept away in between is made again."""
    while True:
        descriptor = create_anew(path, mode=mode)
        if fcntl is None:
            return descriptor
        with suppress(OSError):  # a file system without locks, where nothing is swept either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)


def _sweep(path: Path) -> None:
    """Remove what killed processes have left of a file: what nobody has locked."""
    names: list[str] = []
    if fcntl is not None:
        with suppress(OSError):
            names = os.listdir(path.parent)
    for name in names:
        if not (name.startswith(f"{path.name}.") and _LEFT.fullmatch(name, len(path.name))):
            continue
        with suppress(OSError):
            descriptor = os.open(path.with_name(name), _FLAGS)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.with_name(name).unlink()
            finally:
                os.close(descriptor)


def _is_in_the_way(path: Path) -> bool:
    """Tell whether what cannot be opened is neither a file nor a folder."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return True
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
