"""The sha256 of files on disk: of one, or of many at once."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from owm.events import Advanced, Finished, Sink, Started, ignore

CHUNK_BYTES = 1 << 20  # stays in a processor's own memory between being read and being hashed
STAGE = "verify"


@dataclass(frozen=True, slots=True)
class Hashing:
    """A file to hash.

    Attributes:
        size_bytes: that it should have, for the progress of many.
        blanked: offset and length of a text that counts as spaces, whatever the file has there.
        watch: is given the bytes as they are read, in order and in this thread, before any counts as spaces.
    """

    path: Path
    size_bytes: int
    blanked: tuple[int, int] | None = None
    watch: Callable[[memoryview], None] | None = None


def sha256_of(path: Path, *, blanked: tuple[int, int] | None = None, sink: Sink = ignore) -> str:
    """Hash a file, reporting progress in bytes.

    Args:
        blanked: offset and length of a text that counts as spaces, whatever the file has there.
    """
    began = time.monotonic()
    done = 0

    def advance(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        sink(Advanced(path.name, done))

    with open(path, "rb", buffering=0) as file:
        sink(Started(path.name, os.fstat(file.fileno()).st_size, "bytes"))
    found = _hash(Hashing(path, 0, blanked), advance)
    sink(Finished(path.name, time.monotonic() - began))
    return found


def sha256_of_all(
    files: Sequence[Hashing], *, n_threads: int | None = None, sink: Sink = ignore
) -> list[str | OSError]:
    """Hash files side by side, the largest first; of one that cannot be read the error stands in its place.

    Args:
        n_threads: that read and hash at once, None for as many as this process has processors.
        sink: is called by one thread at a time.
    """
    began = time.monotonic()
    lock, stopped = threading.Lock(), threading.Event()
    done = 0

    def advance(path: Path, n_bytes: int) -> None:
        nonlocal done
        if stopped.is_set():
            raise InterruptedError
        with lock:
            done += n_bytes
            sink(Advanced(STAGE, done, path.name))

    def hash_file(index: int) -> str | OSError:
        try:
            return _hash(files[index], lambda n_bytes: advance(files[index].path, n_bytes))
        except OSError as error:
            return error

    sink(Started(STAGE, sum(file.size_bytes for file in files), "bytes"))
    order = sorted(range(len(files)), key=lambda index: -files[index].size_bytes)
    found: list[str | OSError] = [""] * len(files)
    with ThreadPoolExecutor(min(n_threads or _n_processors(), len(files)) or 1) as pool:
        try:
            for index, result in zip(order, pool.map(hash_file, order), strict=True):
                found[index] = result
        finally:  # also when the person at the keyboard has had enough
            stopped.set()
    sink(Finished(STAGE, time.monotonic() - began))
    return found


def _hash(file: Hashing, advance: Callable[[int], None]) -> str:
    hasher = hashlib.sha256()
    done = 0
    room = memoryview(bytearray(CHUNK_BYTES))
    with open(file.path, "rb", buffering=0) as opened:
        while n_bytes := opened.readinto(room):
            if file.watch is not None:
                file.watch(room[:n_bytes])
            if file.blanked is not None:
                blank(room[:n_bytes], file.blanked[0] - done, file.blanked[1])
            hasher.update(room[:n_bytes])
            done += n_bytes
            advance(n_bytes)
    return hasher.hexdigest()


def blank(chunk: memoryview, offset: int, length: int) -> None:
    """Put spaces from `offset` on, as far as that lies within the bytes."""
    begin, end = max(0, offset), min(len(chunk), offset + length)
    if begin < end:
        chunk[begin:end] = b" " * (end - begin)


def _n_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
