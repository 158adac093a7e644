"""Folders for files that are of use only while a process runs; those of processes that were killed are removed."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system: there what a killed process left is the system's to remove
    fcntl = None  # type: ignore[assignment]

_PREFIX = "owm-tmp-"
_NAME = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder in the system's temporary folder that nobody else may look into, and remove it in the end.

    Raises:
        OSError: it cannot be made.
    """
    _sweep()
    # Under another name until it is locked: whoever sweeps meanwhile would take it for a leftover.
    folder = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
    descriptor = -1
    try:
        if fcntl is not None:
            descriptor = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks, where nothing is swept either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        folder = folder.rename(folder.with_name(folder.name.removeprefix(".")))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor >= 0:
            os.close(descriptor)


def _sweep() -> None:
    """Remove such folders of this user that no process has locked."""
    if fcntl is None:
        return
    top = Path(tempfile.gettempdir())
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(top)
    for name in names:
        if not _NAME.fullmatch(name):
            continue
        with suppress(OSError):
            descriptor = os.open(top / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_uid == os.getuid():
                    shutil.rmtree(top / name, ignore_errors=True)
            finally:
                os.close(descriptor)
