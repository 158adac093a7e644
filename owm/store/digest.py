"""The sha256 of a file on disk."""

import hashlib
import os
import time
from pathlib import Path

from owm.events import Advanced, Finished, Sink, Started, ignore


def sha256_of(path: Path, *, blanked: tuple[int, int] | None = None, sink: Sink = ignore) -> str:
    """Hash a file, reporting progress in bytes.

    Args:
        blanked: offset and length of a text that counts as spaces, whatever the file has there.
    """
    began = time.monotonic()
    hasher = hashlib.sha256()
    done = 0
    with open(path, "rb", buffering=0) as file:
        sink(Started(path.name, os.fstat(file.fileno()).st_size, "bytes"))
        while chunk := file.read(1 << 22):
            hasher.update(chunk if blanked is None else _with_spaces(chunk, blanked[0] - done, blanked[1]))
            done += len(chunk)
            sink(Advanced(path.name, done))
    sink(Finished(path.name, time.monotonic() - began))
    return hasher.hexdigest()


def _with_spaces(chunk: bytes, offset: int, length: int) -> bytes:
    """Return bytes with spaces from `offset` on, as far as that lies within them."""
    begin, end = max(0, offset), min(len(chunk), offset + length)
    return chunk if begin >= end else chunk[:begin] + b" " * (end - begin) + chunk[end:]
