"""The one streaming writer: rows are read, transformed and encoded in worker threads and written where they belong.

The file grows under `NAME.incomplete` and takes its name when it is whole, on disk and has passed the check that its
maker wants. A journal beside it notes which tensors are on disk, so that the same plan, started again after a kill,
goes on from there.
"""

import hashlib
import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from owm.errors import NotEnoughDisk
from owm.events import Advanced, Finished, Sink, Started, Warned, ignore
from owm.pipeline.plan import Plan, PlannedFile, PlannedTensor
from owm.pipeline.rows import row_bytes
from owm.pipeline.values import count_not_finite, encode
from owm.store.download import write_error
from owm.units import format_bytes

BLOCK_BYTES = 8 << 20  # of source rows that a worker holds at once
SYNC_SECONDS = 1.0  # between two flushes to disk, after which finished tensors are journalled
RESERVE_BYTES = 64 << 20  # left free on the disk


class Verify(Protocol):
    """Raises when what is being written must not be published; waits for the verdict only if asked to."""

    def __call__(self, *, wait: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Written:
    """A finished file."""

    path: Path
    size_bytes: int
    sha256: str


def write(
    plan: Plan,
    paths: Sequence[Path],
    *,
    n_threads: int | None = None,
    verify: Verify = lambda *, wait: None,
    digest: bool = True,
    stage: str = "convert",
    sink: Sink = ignore,
) -> list[Written]:
    """Write every file of a plan; either all of them appear, or none.

    Args:
        paths: one path a file of the plan.
        n_threads: workers, default one a core.
        verify: called now and then (`wait=False`) and at the end (`wait=True`), before anything takes its name; raises
            if nothing may.
        digest: whether the sha256 of the files is wanted (it is read back from memory, at 1 to 2 GB/s).

    Raises:
        NotEnoughDisk, StoreError: the disk is full or cannot be written; what is written is kept for another try.
        MalformedFile: a source file is not what its header said; nothing is kept.
    """
    began = time.perf_counter()
    files = [_File(planned, path, plan.digest()) for planned, path in zip(plan.files, paths, strict=True)]
    try:
        _check_space(files)
        for file in files:
            file.open()
        done = sum(file.n_bytes_done for file in files)
        sink(Started(stage, plan.n_bytes, "bytes"))
        sink(Advanced(stage, done))
        _write_tensors(files, n_threads or os.cpu_count() or 1, stage, done, verify, sink)
        verify(wait=True)
        written = [file.finish(digest=digest) for file in files]
        for file in files:
            file.publish()
    except OSError as error:
        raise write_error(error, paths[0]) from error
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt | NotEnoughDisk):
            for file in files:
                file.discard()
        raise
    finally:
        for file in files:
            file.close()
    sink(Finished(stage, time.perf_counter() - began))
    return written


def _check_space(files: Sequence["_File"]) -> None:
    needed = sum(file.planned.n_bytes - file.n_bytes_on_disk() for file in files) + RESERVE_BYTES
    folder = files[0].path.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NotEnoughDisk(
            f"{files[0].path.name} needs {format_bytes(needed)} ({format_bytes(RESERVE_BYTES)} of it to spare), "
            f"{format_bytes(free)} are free on the disk of {folder}",
            needed=needed,
            free=free,
            hint="free some space or write to another disk (`-o`)",
        )


def _write_tensors(files: Sequence["_File"], n_threads: int, stage: str, done: int, verify: Verify, sink: Sink) -> None:
    """Keep every worker busy with a block, report, and flush now and then."""
    blocks = (
        (file, index, *block) for file in files for index in file.missing() for block in _blocks(file.tensor(index))
    )
    pending: dict[Future[_Block], _File] = {}
    bad: Counter[str] = Counter()
    too_large: Counter[str] = Counter()
    synced = time.monotonic()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="owm-write") as pool:
        try:
            while True:
                while len(pending) < 2 * n_threads and (following := next(blocks, None)):
                    file, index, begin, end = following
                    pending[pool.submit(file.write_block, index, begin, end)] = file
                if not pending:
                    break
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    block, file = future.result(), pending.pop(future)
                    done += block.n_bytes
                    file.note(block)
                    name = file.tensor(block.index).name
                    bad[name] += block.n_not_finite
                    too_large[name] += block.n_too_large
                    sink(Advanced(stage, done, name))
                verify(wait=False)
                if time.monotonic() - synced > SYNC_SECONDS:
                    for file in files:
                        file.sync_in(pool)
                    synced = time.monotonic()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for name, count in (+bad).items():
        sink(Warned(stage, f"{name} has {count} values that are infinite or not a number (NaN), as published"))
    for name, count in (+too_large).items():
        sink(Warned(stage, f"{name} has {count} values too large for F16, they became infinite; BF16 holds them"))


def _blocks(tensor: PlannedTensor) -> list[tuple[int, int]]:
    step = max(1, BLOCK_BYTES // max(1, row_bytes(tensor.rows)))
    return [(begin, min(begin + step, tensor.n_rows)) for begin in range(0, tensor.n_rows, step)]


@dataclass(frozen=True, slots=True)
class _Block:
    """What became of some rows of a tensor."""

    index: int
    n_rows: int
    n_bytes: int
    n_not_finite: int
    n_too_large: int


class _File:
    """One file on its way, its journal, and which of its tensors are finished."""

    def __init__(self, planned: PlannedFile, path: Path, digest: str) -> None:
        self.planned = planned
        self.path = path
        self.incomplete = path.with_name(path.name + ".incomplete")
        self.journal = path.with_name(path.name + ".incomplete.journal")
        self._digest = digest
        self._fd = -1
        self._rows_left = [tensor.n_rows for tensor in planned.tensors]
        self._on_disk: set[int] = set()
        self._to_journal: list[int] = []
        self._syncing: Future[None] | None = None
        self._lock = threading.Lock()
        # One write at a time: the system lets one thread into a file, and the others would spin.
        self._writing = threading.Lock()

    @property
    def n_bytes_done(self) -> int:
        """Bytes of the tensors that need not be written again, and of the header."""
        return len(self.planned.header) + sum(self.tensor(index).n_bytes for index in self._on_disk)

    def tensor(self, index: int) -> PlannedTensor:
        """Return a tensor of this file."""
        return self.planned.tensors[index]

    def n_bytes_on_disk(self) -> int:
        """Return how much of the disk an earlier try has taken already."""
        try:
            found = self.incomplete.stat()
        except FileNotFoundError:
            return 0
        return min(getattr(found, "st_blocks", 0) * 512, self.planned.n_bytes)

    def open(self) -> None:
        """Open the incomplete file, and take up what its journal says is done under the same plan."""
        self._on_disk = self._read_journal()
        fresh = not self._on_disk
        self._fd = os.open(self.incomplete, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if fresh else 0), 0o666)
        os.ftruncate(self._fd, self.planned.n_bytes)
        _write_all(self._fd, self.planned.header, 0)
        if fresh:
            self.journal.write_text(json.dumps({"plan": self._digest}) + "\n", "utf-8")

    def missing(self) -> list[int]:
        """Return the tensors still to be written."""
        return [index for index in range(len(self.planned.tensors)) if index not in self._on_disk]

    def write_block(self, index: int, begin: int, end: int) -> _Block:
        """Read, encode and write some rows. Runs in a worker."""
        tensor = self.tensor(index)
        rows = tensor.rows.read(begin, end)
        bad = count_not_finite(rows, tensor.rows.dtype)
        made = encode(rows, tensor.rows.dtype, tensor.type_name)
        raw = np.ascontiguousarray(made).view(np.uint8).reshape(-1)
        assert len(raw) == (end - begin) * tensor.row_bytes, f"{tensor.name}: {len(raw)} bytes"
        with self._writing:
            _write_all(self._fd, raw.data, self.planned.offsets[index] + begin * tensor.row_bytes)
        grown = count_not_finite(made, "F16") - bad if tensor.type_name == "F16" != tensor.rows.dtype else 0
        return _Block(index, end - begin, len(raw), bad, max(grown, 0))

    def note(self, block: _Block) -> None:
        """Count rows; a tensor that is whole is journalled at the next flush."""
        self._rows_left[block.index] -= block.n_rows
        if self._rows_left[block.index] == 0:
            with self._lock:
                self._to_journal.append(block.index)

    def sync_in(self, pool: ThreadPoolExecutor) -> None:
        """Flush what is written so far beside the work that goes on, unless a flush is under way."""
        if self._syncing is None or self._syncing.done():
            if self._syncing is not None:
                self._syncing.result()
            self._syncing = pool.submit(self._sync)

    def _sync(self) -> None:
        with self._lock:
            finished, self._to_journal = self._to_journal, []
        _flush(self._fd)
        if finished:
            with open(self.journal, "a", encoding="utf-8") as journal:
                journal.write("".join(f"{index}\n" for index in finished))

    def finish(self, *, digest: bool) -> Written:
        """Flush to disk; return what the file is."""
        if self._syncing is not None:
            self._syncing.result()
        hashed = ThreadPoolExecutor(1).submit(_sha256, self.incomplete) if digest else None
        os.fsync(self._fd)
        return Written(self.path, self.planned.n_bytes, hashed.result() if hashed else "")

    def publish(self) -> None:
        """Give the file its name."""
        self.close()
        os.replace(self.incomplete, self.path)
        self.journal.unlink(missing_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove what cannot become a file."""
        self.close()
        self.incomplete.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read_journal(self) -> set[int]:
        """Return the tensors on disk, none if the journal is another plan's."""
        try:
            if self.incomplete.stat().st_size != self.planned.n_bytes:
                return set()
            first, *rest = self.journal.read_text("utf-8").splitlines(keepends=True)
            if json.loads(first) != {"plan": self._digest}:
                return set()
            # A line without its end was being written when the process died.
            indexes = {int(line) for line in rest if line.endswith("\n") and line.strip().isdecimal()}
        except (OSError, ValueError):
            return set()
        return {index for index in indexes if index < len(self.planned.tensors)}


def _write_all(fd: int, raw: bytes | memoryview, offset: int) -> None:
    view, done = memoryview(raw), 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], offset + done)


def _flush(fd: int) -> None:
    getattr(os, "fdatasync", os.fsync)(fd)


def _sha256(path: Path) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
