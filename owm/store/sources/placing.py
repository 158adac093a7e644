"""From a transfer to a file in owm's own tree: what is here already is used, the rest is fetched and published.

A file has its final name only when it is whole, so one that is found under it is taken (where its sha256 is known,
after that was checked). The same content under another name of the store is linked, not fetched again.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from owm.errors import OwmError
from owm.events import Sink
from owm.publishing import create_anew
from owm.store.digest import sha256_of
from owm.store.download import Transfer, discard, download, publish
from owm.store.limits import Limits
from owm.store.same import FindSame
from owm.store.sources.base import Check, Fetched, RemoteFile


def place(
    transfer: Transfer, path: Path, *, name: str, check: Check, sink: Sink, limits: Limits, same: FindSame
) -> Fetched:
    """Bring one file to `path`.

    Args:
        name: of the file at its source, for `check`.

    Raises:
        As `download` and `check` do; OSError if the disk takes nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = transfer.digest.hex.lower() if transfer.digest and transfer.digest.algorithm == "sha256" else None
    if (sha256 := _sha256_of_whole(path, transfer.size_bytes, wanted, sink)) is not None:
        check(path, name)
        return Fetched(path, path.stat().st_size, sha256)
    partial = partial_of(path)
    if wanted is None or not _link(wanted, transfer, partial, same, sink):
        wanted = download(transfer, partial, sink=sink, limits=limits)
    try:
        check(partial, name)
    except OwmError:
        discard(partial)
        raise
    publish(partial, path)
    return Fetched(path, path.stat().st_size, wanted)


def partial_of(path: Path) -> Path:
    """Return where a file grows that is not whole yet."""
    return path.with_name(f"{path.name}.incomplete")


def bytes_here(places: Iterable[tuple[RemoteFile, Path]], same: FindSame) -> int:
    """Count what need not be written to the disk any more: whole files, begun ones, and those that will be linked."""
    here = 0
    for file, path in places:
        size = file.size_bytes or 0
        found = next((each for each in (path, partial_of(path)) if each.exists()), None)
        if file.sha256 and size and (other := same(file.sha256, size)) and _is_on_disk_of(other, path):
            here += size
        elif found is not None:
            there = bytes_on_disk(found)
            here += min(there, size or there)
    return here


def bytes_on_disk(path: Path) -> int:
    """Return how many bytes of a file take room: one that came in parts has holes."""
    stat = path.stat()
    return min(stat.st_size, stat.st_blocks * 512) if hasattr(stat, "st_blocks") else stat.st_size


def _is_on_disk_of(other: Path, path: Path) -> bool:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    return other.stat().st_dev == folder.stat().st_dev


def _sha256_of_whole(path: Path, size: int | None, wanted: str | None, sink: Sink) -> str | None:
    """Return the sha256 of a file that an earlier try has published, None (and no file) if it is not the right one."""
    if not path.exists():
        return None
    if size is None and wanted is None:
        return None
    if size is None or path.stat().st_size == size:
        actual = sha256_of(path, sink=sink)
        if wanted in (None, actual):
            return actual
    path.unlink()
    return None


def _link(wanted: str, transfer: Transfer, partial: Path, same: FindSame, sink: Sink) -> bool:
    """Put a stored file with the wanted content under the name of the partial one; False if there is none."""
    other = same(wanted, transfer.size_bytes) if transfer.size_bytes else None
    if other is None:
        return False
    try:
        if sha256_of(other, sink=sink) != wanted:
            return False
        discard(partial)
        try:
            os.link(other, partial)
        except OSError:  # another disk, or one that knows no links
            with open(other, "rb") as source, open(create_anew(partial), "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 22)
                copy.flush()
                os.fsync(copy.fileno())
    except OSError:
        discard(partial)
        return False
    return True
