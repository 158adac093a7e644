"""Putting another tool's file into owm's own tree: as a link, as a copy that shares its blocks, or as a whole copy."""

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from owm.errors import NotEnoughDisk, StoreError, Unsupported
from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.publishing import sync_folder
from owm.store.copying import copy_into
from owm.store.download import write_error
from owm.store.model import read_error
from owm.store.space import RESERVE_BYTES
from owm.units import format_bytes

Link = Literal["hard", "sym", "reflink", "copy"]

_FICLONE = 0x40049409  # ref: linux/fs.h
_SAYS = {
    "hard": "a hard link cannot be made there",
    "sym": "a symbolic link cannot be made there",
    "reflink": "its file system cannot share blocks between files",
}
_IMPOSSIBLE = (
    errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.ENOTTY, errno.EMLINK, errno.ENOSYS,
)  # fmt: skip
_INSTEAD = {
    "hard": "`--link sym` or `--link copy`",
    "sym": "`--link copy`",
    "reflink": "`--link hard` or `--link copy`",
}


def put(source: Path, target: Path, link: Link, *, sink: Sink = ignore) -> str | None:
    """Have `source` under the name `target` too, in one step; return the sha256 if all bytes went through here.

    A whole copy is flushed before it gets its name; what a killed one has left is gone on from.

    Raises:
        Unsupported: that kind of link cannot be made between these places.
        NotEnoughDisk, StoreError: the target cannot be written, or the source not be read.
    """
    partial = target.with_name(target.name + ".incomplete")
    if link == "copy":
        try:
            _check_room(source, target, partial)
            digest = _copy(source, partial, sink)
            os.replace(partial, target)
            sync_folder(target.parent)
        except OSError as error:
            raise write_error(error, target) from error
        return digest
    try:
        partial.unlink(missing_ok=True)
        _WAYS[link](source, partial)
        os.replace(partial, target)
        sync_folder(target.parent)
    except OSError as error:
        if error.errno not in _IMPOSSIBLE:
            raise write_error(error, target) from error
        raise Unsupported(
            f"{source.name} is not linked from {target.parent}: {_why(error, link)}",
            hint=f"{_INSTEAD[link]}, or leave it where it lies, without `--link`",
        ) from error
    finally:
        partial.unlink(missing_ok=True)  # two names of one file are not replaced by each other
    return None


def _why(error: OSError, link: Link) -> str:
    return "it lies on another disk" if error.errno == errno.EXDEV else _SAYS[link]


def _copy(source: Path, target: Path, sink: Sink) -> str:
    began, done = time.monotonic(), 0
    try:
        total = source.stat().st_size
    except OSError as error:
        raise read_error(error, source) from error

    def advance(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        sink(Advanced(source.name, done))

    sink(Started(source.name, total, "bytes"))
    digest = copy_into(source, target, advance=advance)
    sink(Finished(source.name, time.monotonic() - began))
    return digest


def _check_room(source: Path, target: Path, partial: Path) -> None:
    try:
        begun = partial.stat().st_size if partial.exists() else 0
        needed = max(0, source.stat().st_size - begun) + RESERVE_BYTES
    except OSError as error:
        raise read_error(error, source) from error
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise NotEnoughDisk(
            f"a copy of {source.name} needs {format_bytes(needed)} ({format_bytes(RESERVE_BYTES)} of it to spare), "
            f"{format_bytes(free)} are free on the disk of {target.parent}",
            needed=needed,
            free=free,
            hint="without `--link` nothing is copied",
        )


def _hard(source: Path, target: Path) -> None:
    os.link(os.path.realpath(source), target)


def _sym(source: Path, target: Path) -> None:
    os.symlink(os.path.abspath(source), target)


def _reflink(source: Path, target: Path) -> None:
    if sys.platform == "darwin":
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        if library.clonefile(os.fsencode(os.path.realpath(source)), os.fsencode(target), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return
    try:
        import fcntl
    except ImportError as error:
        raise StoreError("this system has no copies that share their blocks", hint=_INSTEAD["reflink"]) from error
    with open(source, "rb") as reading, open(target, "xb") as writing:
        fcntl.ioctl(writing.fileno(), _FICLONE, reading.fileno())


_WAYS: dict[str, Callable[[Path, Path], None]] = {"hard": _hard, "sym": _sym, "reflink": _reflink}
