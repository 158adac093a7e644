"""The one streaming writer: rows are read, transformed and encoded in worker threads and written in order.

The file grows under `NAME.incomplete` and takes its name when it is whole, on disk and has passed the check that its
maker wants. A journal beside it notes up to where the bytes are on disk, so that the same plan, started again after a
kill, goes on from there.
"""

import json
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from owm.errors import NotEnoughDisk, StoreError
from owm.events import Advanced, Finished, Sink, Started, Warned, ignore
from owm.pipeline.plan import Plan, PlannedFile, PlannedTensor
from owm.pipeline.rows import Array, DType, row_bytes
from owm.pipeline.stream import Stream
from owm.pipeline.values import count_not_finite, encode
from owm.store.download import write_error
from owm.store.manifest import sync_folder
from owm.units import format_bytes

try:
    import fcntl
except ImportError:  # not a POSIX system: there processes are not kept apart
    fcntl = None  # type: ignore[assignment]

BLOCK_BYTES = 4 << 20  # of rows that a worker holds at once
N_AHEAD = 8  # blocks in work or waiting to be written
SYNC_SECONDS = 1.0  # between two flushes to disk, after which the journal is brought up to date
RESERVE_BYTES = 64 << 20  # left free on the disk


class Verify(Protocol):
    """Raises when what is being written must not be published; waits for the verdict only if asked to."""

    def __call__(self, *, wait: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Written:
    """A finished file; `sha256` is empty if it was not asked for."""

    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows of a tensor, encoded, and what was wrong with them."""

    tensor: PlannedTensor
    raw: Array
    n_not_finite: int
    n_too_large: int


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
        digest: whether the sha256 of the files is wanted.

    Raises:
        NotEnoughDisk, StoreError: the disk is full or cannot be written; what is written is kept for another try.
        MalformedFile: a source file is not what its header said; nothing is kept.
    """
    began = time.perf_counter()
    files = [_File(planned, path, plan.digest()) for planned, path in zip(plan.files, paths, strict=True)]
    progress = _Progress(stage, verify, sink)
    written: list[Written] = []
    try:
        for file in files:
            file.lock()
        _check_space(files)
        sink(Started(stage, plan.n_bytes, "bytes"))
        with ThreadPoolExecutor(n_threads or os.cpu_count() or 1, thread_name_prefix="owm-rows") as pool:
            written += [
                Written(file.path, file.planned.n_bytes, file.write(pool, progress, digest=digest)) for file in files
            ]
        verify(wait=True)
        for file in files:
            file.publish()
    except OSError as error:
        translated = write_error(error, paths[0])
        if isinstance(translated, NotEnoughDisk):
            raise translated from error
        raise StoreError(f"cannot write {error.filename or paths[0]}: {error.strerror or error}") from error
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt | NotEnoughDisk):
            for file in files:
                file.discard()
        raise
    finally:
        for file in files:
            file.unlock()
    progress.warn()
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


class _Progress:
    """What is told while files are written, and what was noticed in their values."""

    def __init__(self, stage: str, verify: Verify, sink: Sink) -> None:
        self._stage = stage
        self._verify = verify
        self._sink = sink
        self._done = 0
        self._not_finite: Counter[str] = Counter()
        self._too_large: Counter[str] = Counter()

    def advance(self, n_bytes: int, block: _Block | None = None) -> None:
        """Count bytes of the file that need no more work."""
        self._done += n_bytes
        if block is not None:
            self._not_finite[block.tensor.name] += block.n_not_finite
            self._too_large[block.tensor.name] += block.n_too_large
        self._sink(Advanced(self._stage, self._done, block.tensor.name if block else None))
        self._verify(wait=False)

    def warn(self) -> None:
        """Tell of values that are no numbers."""
        for name, count in (+self._not_finite).items():
            text = f"{name} has {count} values that are infinite or not a number (NaN), as published"
            self._sink(Warned(self._stage, text))
        for name, count in (+self._too_large).items():
            text = f"{name} has {count} values too large for the type asked for, which became infinite"
            self._sink(Warned(self._stage, text))


class _File:
    """One file on its way, and the journal of how far it has come."""

    def __init__(self, planned: PlannedFile, path: Path, digest: str) -> None:
        self.planned = planned
        self.path = path
        self._incomplete = path.with_name(path.name + ".incomplete")
        self._journal = path.with_name(path.name + ".incomplete.journal")
        self._digest = digest
        self._lock = -1

    def lock(self) -> None:
        """Keep other processes from writing the same file until `unlock`.

        Raises:
            StoreError: one does.
        """
        if fcntl is None:
            return
        while self._lock < 0:
            fd = os.open(self._incomplete, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), os.stat(self._incomplete)):
                    self._lock, fd = fd, -1
            except FileNotFoundError:  # another process has just finished it
                continue
            except BlockingIOError:
                raise StoreError(
                    f"another owm is writing {self.path}", hint="wait for it, or write to another file (`-o`)"
                ) from None
            finally:
                if fd >= 0:
                    os.close(fd)

    def unlock(self) -> None:
        """Let others write the file; nothing stays of one that was not begun."""
        if self._lock >= 0:
            if not os.fstat(self._lock).st_size:
                self._incomplete.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def n_bytes_on_disk(self) -> int:
        """Return how much of the disk an earlier try has taken already."""
        try:
            found = self._incomplete.stat()
        except FileNotFoundError:
            return 0
        return min(getattr(found, "st_blocks", 0) * 512, self.planned.n_bytes)

    def write(self, pool: ThreadPoolExecutor, progress: _Progress, *, digest: bool) -> str:
        """Write what is missing and flush it; return the sha256 if it is wanted."""
        first, position = self._resume()
        if position == 0:
            if self._incomplete.exists():
                os.truncate(self._incomplete, 0)
            self._journal.write_text(json.dumps({"plan": self._digest}) + "\n", "utf-8")
        stream = Stream(self._incomplete, self.planned.n_bytes, position=position, digest=digest)
        try:
            if position == 0:
                stream.append(memoryview(self.planned.header))
                position = len(self.planned.header)
            progress.advance(position)
            self._write_tensors(stream, first, position, pool, progress)
            return stream.finish()
        except KeyboardInterrupt:
            self._sync(stream, stream.suspend())
            raise
        finally:
            stream.close()

    def _write_tensors(
        self, stream: Stream, first: int, position: int, pool: ThreadPoolExecutor, progress: _Progress
    ) -> None:
        """Keep the workers some blocks ahead of the stream, which takes them in order."""
        todo = self._blocks(first)
        coming: deque[tuple[int, Future[_Block]]] = deque()
        synced = time.monotonic()
        syncing: Future[None] | None = None
        try:
            while True:
                while len(coming) < N_AHEAD and (following := next(todo, None)):
                    offset, tensor, begin, end = following
                    coming.append((offset, pool.submit(_encode, tensor, begin, end)))
                if not coming:
                    break
                offset, future = coming.popleft()
                block = future.result()
                gap = offset - position  # what aligns a tensor
                stream.append(memoryview(bytes(gap)))
                stream.append(block.raw.data)
                position = offset + len(block.raw)
                progress.advance(gap + len(block.raw), block)
                if time.monotonic() - synced > SYNC_SECONDS and (syncing is None or syncing.done()):
                    if syncing is not None:
                        syncing.result()
                    syncing = pool.submit(self._sync, stream, stream.watermark())
                    synced = time.monotonic()
            gap = self.planned.n_bytes - position
            stream.append(memoryview(bytes(gap)))
            progress.advance(gap)
        finally:
            for _, future in coming:
                future.cancel()
            wait(future for _, future in coming)
            if syncing is not None:
                wait([syncing])

    def publish(self) -> None:
        """Give the file its name."""
        os.replace(self._incomplete, self.path)
        self._journal.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def discard(self) -> None:
        """Remove what cannot become a file, unless another process is writing it."""
        if self._lock < 0 and fcntl is not None:
            return
        self._incomplete.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def _blocks(self, first: int) -> Iterator[tuple[int, PlannedTensor, int, int]]:
        """Cut the tensors from `first` on into blocks of rows, each with its place in the file."""
        for offset, tensor in list(zip(self.planned.offsets, self.planned.tensors, strict=True))[first:]:
            step = max(1, BLOCK_BYTES // max(1, row_bytes(tensor.rows), tensor.row_bytes))
            for begin in range(0, tensor.n_rows, step):
                yield offset + begin * tensor.row_bytes, tensor, begin, min(begin + step, tensor.n_rows)

    def _sync(self, stream: Stream, watermark: int) -> None:
        """Flush, then note how far the file has come."""
        stream.flush()
        with open(self._journal, "a", encoding="utf-8") as journal:
            journal.write(f"{watermark}\n")

    def _resume(self) -> tuple[int, int]:
        """Return the first tensor to write and where it begins; 0 and 0 for a file that begins anew.

        A journal of another plan does not count, nor a line without its end: the process died while it was written.
        """
        try:
            if self._incomplete.stat().st_size != self.planned.n_bytes:
                return 0, 0
            first, *rest = self._journal.read_text("utf-8").splitlines(keepends=True)
            if json.loads(first) != {"plan": self._digest}:
                return 0, 0
            lines = [int(line) for line in rest if line.endswith("\n") and line.strip().isdecimal()]
        except (OSError, ValueError):
            return 0, 0
        watermark = max(lines, default=0)
        placed = zip(self.planned.offsets, self.planned.tensors, strict=True)
        ends = [offset + tensor.n_bytes for offset, tensor in placed]
        index = next((index for index, end in enumerate(ends) if end > watermark), len(ends) - 1)
        if watermark < len(self.planned.header) or not ends:
            return 0, 0
        return index, self.planned.offsets[index]


def _encode(tensor: PlannedTensor, begin: int, end: int) -> _Block:
    """Read and encode some rows. Runs in a worker."""
    rows = tensor.rows.read(begin, end)
    bad = count_not_finite(rows, tensor.rows.dtype)
    made = encode(rows, tensor.rows.dtype, tensor.type_name)
    raw = np.ascontiguousarray(made).view(np.uint8).reshape(-1)
    assert len(raw) == (end - begin) * tensor.row_bytes, f"{tensor.name}: {len(raw)} bytes"
    narrow: DType | None = {"F16": "F16", "BF16": "BF16", "F32": "F32"}.get(tensor.type_name)  # type: ignore[assignment]
    grown = count_not_finite(made, narrow) - bad if narrow is not None and narrow != tensor.rows.dtype else 0
    return _Block(tensor, raw, bad, max(grown, 0))
