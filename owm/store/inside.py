"""Folders of the store, reached step by step: no link on the way leads what is written or removed to elsewhere.

The models, or the Hub cache, may lie on another disk: the one link that `owm store move` makes is theirs.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from owm.errors import StoreError

_BY_DESCRIPTOR = {os.open, os.unlink, os.rmdir} <= os.supports_dir_fd and os.scandir in os.supports_fd
_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
Folder = int | str  # open, where the system can go on from an open one


def refuse_links(folder: Path, home: Path) -> None:
    """Refuse a folder among the models, there or not, to which a link leads.

    Raises:
        StoreError: one does.
    """
    top = home / "models"
    if not folder.is_relative_to(top):
        return
    at = top
    for part in folder.relative_to(top).parts:
        at = at / part
        if at.is_symlink():
            raise StoreError(
                f"{at} is a link, and owm writes nothing and removes nothing by way of it",
                hint="put the folder itself there; `owm store move` puts all models on another disk",
            )


@contextmanager
def opened(folder: Path, top: Path) -> Iterator[Folder]:
    """Open a folder at or below `top`, whatever is exchanged on the way meanwhile; give it to the functions below.

    Raises:
        OSError: it is not there, or a link leads to it.
    """
    if not _BY_DESCRIPTOR:
        yield os.fspath(folder)
        return
    at = os.open(top, os.O_RDONLY)
    try:
        for part in folder.relative_to(top).parts:
            below = os.open(part, _FLAGS, dir_fd=at)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def names(folder: Folder) -> list[str]:
    """Return the names of what is in a folder."""
    return os.listdir(folder)


def remove(name: str, folder: Folder) -> None:
    """Remove a file, a link or a folder with all that is in it, and nothing where a link in it leads.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        if isinstance(folder, int):
            os.unlink(name, dir_fd=folder)
        else:
            os.unlink(os.path.join(folder, name))
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # macOS and Windows say the latter of folders
        if isinstance(folder, int):
            if not _is_folder(name, folder):
                raise
            shutil.rmtree(name, dir_fd=folder)
        else:
            path = Path(folder, name)
            if path.is_symlink() or not path.is_dir():
                raise
            shutil.rmtree(path)


def remove_empty(name: str, folder: Folder) -> None:
    """Remove a folder in which nothing is left.

    Raises:
        OSError: something is, or it is none.
    """
    if isinstance(folder, int):
        os.rmdir(name, dir_fd=folder)
    else:
        os.rmdir(os.path.join(folder, name))


def _is_folder(name: str, folder: int) -> bool:
    return stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode)
