"""Copying large files so that nothing is lost: what a killed copy left is gone on from, and all of it is compared.

Knows nothing of models: it takes a file into a partial one, reads it back from the disk, and gives it a name.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from owm.errors import Damaged, StoreError, UsageError
from owm.publishing import open_partial, sync_folder
from owm.store.digest import CHUNK_BYTES, blank
from owm.store.model import read_error


def copy_into(
    source: Path,
    partial: Path,
    *,
    blanked: tuple[int, int] | None = None,
    advance: Callable[[int], None] = lambda n_bytes: None,
) -> str:
    """Make `partial` the same as `source`, on disk, and return the sha256 of what was read; its beginning is kept.

    Args:
        blanked: offset and length of a text that counts as spaces in the sha256.
        advance: is told of every so many bytes that are right.

    Raises:
        StoreError: the source cannot be read, or changes meanwhile.
        OSError: the partial file cannot be written; it stays for the next try.
    """
    hasher = hashlib.sha256()
    done = 0
    room = memoryview(bytearray(CHUNK_BYTES))
    try:
        reading = open(source, "rb", buffering=0)  # noqa: SIM115
        before = os.fstat(reading.fileno())
    except OSError as error:
        raise read_error(error, source) from error
    with reading, open(open_partial(partial, flags=os.O_APPEND), "ab+", buffering=0) as writing:
        n_left = min(os.fstat(writing.fileno()).st_size, before.st_size)
        while n_bytes := _read_into(reading.readinto, room, source):
            chunk = room[:n_bytes]
            if done < n_left and not _is_same(writing.fileno(), chunk[: n_left - done], done):
                n_left = 0
            if done + n_bytes > n_left:
                n_same = max(0, n_left - done)
                if os.fstat(writing.fileno()).st_size != done + n_same:
                    os.truncate(writing.fileno(), done + n_same)
                rest = chunk[n_same:]
                while rest:
                    rest = rest[writing.write(rest) :]
            if blanked is not None:
                blank(chunk, blanked[0] - done, blanked[1])
            hasher.update(chunk)
            done += n_bytes
            advance(n_bytes)
            if done > before.st_size:  # it grows, perhaps without end
                break
        if os.fstat(writing.fileno()).st_size != done:
            os.truncate(writing.fileno(), done)
        os.fsync(writing.fileno())
        after = os.fstat(reading.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or done != before.st_size:
        raise StoreError(f"{source} changed while it was copied", hint="run the same command again")
    return hasher.hexdigest()


def read_back(
    partial: Path,
    sha256: str,
    *,
    blanked: tuple[int, int] | None = None,
    advance: Callable[[int], None] = lambda n_bytes: None,
) -> None:
    """Read a file from the disk rather than from memory, and compare.

    Raises:
        Damaged: the disk does not give back what was written; the file is removed.
    """
    hasher = hashlib.sha256()
    done = 0
    room = memoryview(bytearray(CHUNK_BYTES))
    with open(partial, "rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while n_bytes := file.readinto(room):
            chunk = room[:n_bytes]
            if blanked is not None:
                blank(chunk, blanked[0] - done, blanked[1])
            hasher.update(chunk)
            done += n_bytes
            advance(n_bytes)
    if hasher.hexdigest() != sha256:
        partial.unlink()
        raise Damaged(
            f"the disk of {partial.parent} does not give back what was written to it",
            hint="nothing was taken away where the files came from; look at that disk, then run the same command again",
        )


def publish_new(partial: Path, path: Path, *, replaces: bool = False) -> None:
    """Give a file that is whole its name, in one step that survives a power cut.

    Args:
        replaces: take the place of what is there.

    Raises:
        UsageError: something is there already.
    """
    if replaces:
        os.replace(partial, path)
    else:
        try:
            os.link(partial, path)
        except FileExistsError as error:
            raise there_already(path) from error
        except OSError:  # a file system without hard links, as on most sticks
            if os.path.lexists(path):
                raise there_already(path) from None
            os.rename(partial, path)
        else:
            partial.unlink()
    sync_folder(path.parent)


def there_already(path: Path) -> UsageError:
    """Return the error about a file that is not written over."""
    return UsageError(f"{path} is there already", hint="`--force` writes over it")


def _read_into(readinto: Callable[[memoryview], int | None], room: memoryview, source: Path) -> int:
    try:
        return readinto(room) or 0
    except OSError as error:
        raise read_error(error, source) from error


def _is_same(descriptor: int, expected: memoryview, offset: int) -> bool:
    return os.pread(descriptor, len(expected), offset) == expected
