"""The sha256 of a file on disk."""

import hashlib
import os
import time
from pathlib import Path

from owm.events import Advanced, Finished, Sink, Started, ignore


def sha256_of(path: Path, *, sink: Sink = ignore) -> str:
    """Hash a file, reporting progress in bytes."""
    began = time.monotonic()
    hasher = hashlib.sha256()
    done = 0
    with open(path, "rb", buffering=0) as file:
        sink(Started(path.name, os.fstat(file.fileno()).st_size, "bytes"))
        while chunk := file.read(1 << 22):
            hasher.update(chunk)
            done += len(chunk)
            sink(Advanced(path.name, done))
    sink(Finished(path.name, time.monotonic() - began))
    return hasher.hexdigest()
