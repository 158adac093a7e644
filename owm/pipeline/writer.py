"""The one streaming writer: rows are read, transformed and encoded in worker threads and written in order.

Several plans of the same tensors (a model in several types) are written from one reading. A file grows under
`NAME.incomplete` and takes its name when it is whole, on disk and has passed the check that its maker wants. A journal
beside it notes up to where the bytes are on disk, so that the same plan, started again after a kill, goes on there.
"""

import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from owm.errors import NotEnoughDisk, StoreError
from owm.events import Advanced, Finished, Sink, Started, Warned, ignore
from owm.pipeline.block import Block, encode_block
from owm.pipeline.output import Output, OutputFile, incomplete_path
from owm.pipeline.plan import Plan, PlannedTensor
from owm.pipeline.rows import QUANT_BLOCKS, row_bytes
from owm.pipeline.stream import CHUNK_BYTES, N_BUFFERS
from owm.store.download import write_error
from owm.units import format_bytes

__all__ = ["Buffers", "Verify", "Written", "incomplete_path", "write", "write_all"]

BLOCK_BYTES = 4 << 20  # of rows that a worker holds at once, read or made
BLOCK_VALUES = 1 << 20  # at most, if they are quantized: a slow type takes a second for so many
N_AHEAD = 8  # blocks in work or waiting to be written
MIN_BLOCK_BYTES = 256 << 10
SMALL_BYTES = 512 << 20  # a file
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


def write(plan: Plan, paths: Sequence[Path], **options: Any) -> list[Written]:
    """Write every file of one plan; see `write_all`."""
    return write_all([(plan, paths)], **options)[0]


def write_all(
    outputs: Sequence[tuple[Plan, Sequence[Path]]],
    *,
    n_threads: int | None = None,
    memory_bytes: int | None = None,
    verify: Verify = lambda *, wait: None,
    digest: bool = True,
    stage: str = "convert",
    sink: Sink = ignore,
) -> list[list[Written]]:
    """Write every file of some plans, which have the same tensors in the same order; all files appear, or none.

    Args:
        outputs: plans, each with one path a file.
        n_threads: workers, default one a core.
        memory_bytes: about what the buffers may take, default as much as keeps workers and disk busy.
        verify: called now and then (`wait=False`) and at the end (`wait=True`), before anything takes its name; raises
            if nothing may.
        digest: whether the sha256 of the files is wanted.

    Raises:
        NotEnoughDisk, StoreError: the disk is full or cannot be written; what is written is kept for another try.
        MalformedFile: a source file is not what its header said; nothing is kept.
        Damaged: values that are no numbers, which quantized types cannot hold; nothing is kept.
    """
    began = time.perf_counter()
    buffers = Buffers.within(memory_bytes, len(outputs), sum(plan.n_bytes for plan, _ in outputs))
    todo = [Output(plan, paths, buffers.chunk_bytes) for plan, paths in outputs]
    files = [file for output in todo for file in output.files]
    progress = _Progress(stage, verify, sink)
    first_path = files[0].path
    try:
        for file in files:
            file.lock()
        _check_space(files)
        sink(Started(stage, sum(plan.n_bytes for plan, _ in outputs), "bytes"))
        with ThreadPoolExecutor(n_threads or os.cpu_count() or 1, thread_name_prefix="owm-rows") as pool:
            _stream(todo, buffers, pool, progress, digest=digest)
        verify(wait=True)
        for file in files:
            file.publish()
    except OSError as error:
        translated = write_error(error, first_path)
        if isinstance(translated, NotEnoughDisk):
            raise translated from error
        raise StoreError(f"cannot write {error.filename or first_path}: {error.strerror or error}") from error
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
    return [[Written(file.path, file.planned.n_bytes, file.sha256) for file in output.files] for output in todo]


@dataclass(frozen=True, slots=True)
class Buffers:
    """How much is held in memory: blocks ahead of the disk, bytes of a block, bytes of a stream's buffers."""

    n_ahead: int
    block_bytes: int
    chunk_bytes: int

    @classmethod
    def within(cls, memory_bytes: int | None, n_outputs: int, n_bytes: int) -> "Buffers":
        """Choose sizes that stay within a limit as well as they can, and are no larger than small files need."""
        sizes = cls(N_AHEAD, BLOCK_BYTES, CHUNK_BYTES)
        if n_bytes < SMALL_BYTES * n_outputs:
            sizes = cls(N_AHEAD, max(BLOCK_BYTES // 4, 1), CHUNK_BYTES // 4)
        if memory_bytes is None:
            return sizes
        while sizes.total(n_outputs) > memory_bytes and sizes.block_bytes > MIN_BLOCK_BYTES:
            sizes = cls(max(sizes.n_ahead - 1, 4), sizes.block_bytes // 2, max(sizes.chunk_bytes // 2, MIN_BLOCK_BYTES))
        return sizes

    def total(self, n_outputs: int) -> int:
        """Return the bytes of all buffers: a block is held as it was read and as each output wants it."""
        return self.n_ahead * self.block_bytes * (1 + n_outputs) + N_BUFFERS * self.chunk_bytes * n_outputs


def _stream(
    outputs: Sequence[Output], buffers: Buffers, pool: ThreadPoolExecutor, progress: "_Progress", *, digest: bool
) -> None:
    """Keep the workers some blocks ahead of the streams, which take them in order."""
    coming: deque[tuple[int, int, int, Future[Block]]] = deque()
    syncing: Future[None] | None = None
    synced = time.monotonic()
    try:
        for output in outputs:
            output.open(progress.advance, digest=digest)
        todo = _blocks(outputs, buffers)
        while True:
            while len(coming) < buffers.n_ahead and (following := next(todo, None)):
                index, begin, end, targets = following
                coming.append((index, begin, end, pool.submit(encode_block, targets, begin, end)))
            if not coming:
                break
            index, begin, end, future = coming.popleft()
            block = future.result()
            for output, raw in zip(outputs, block.raws, strict=True):
                if raw is not None:
                    output.append(index, begin, raw, progress.advance)
            progress.notice(outputs[0].tensors[index].name, block)
            if time.monotonic() - synced > SYNC_SECONDS and (syncing is None or syncing.done()):
                if syncing is not None:
                    syncing.result()
                syncing = pool.submit(_sync, [output.marks() for output in outputs])
                synced = time.monotonic()
        for output in outputs:
            output.finish(progress.advance)
    except KeyboardInterrupt:
        for output in outputs:
            output.suspend()
        raise
    finally:
        for *_, future in coming:
            future.cancel()
        wait(future for *_, future in coming)
        if syncing is not None:
            wait([syncing])
        for output in outputs:
            output.close()


def _blocks(
    outputs: Sequence[Output], buffers: Buffers
) -> Iterator[tuple[int, int, int, tuple[PlannedTensor | None, ...]]]:
    """Cut the tensors that are still wanted into blocks: tensor, first row, end, what each output makes of it."""
    for index, tensor in enumerate(outputs[0].tensors):
        targets = tuple(output.tensors[index] if output.wants(index) else None for output in outputs)
        wanted = [target for target in targets if target is not None]
        if not wanted:
            continue
        widest = max(1, row_bytes(tensor.rows), *(target.row_bytes for target in wanted))
        step = max(1, buffers.block_bytes // widest)
        if any(target.type_name in QUANT_BLOCKS for target in wanted):
            step = max(1, min(step, BLOCK_VALUES // max(1, tensor.rows.shape[-1])))
        # Matrices that have weights of their own are cut apart.
        n_matrices = max(1 if target.weights is None else len(target.weights) for target in wanted)
        n_rows = tensor.n_rows // n_matrices
        for matrix in range(0, tensor.n_rows, max(1, n_rows)):
            for begin in range(matrix, matrix + n_rows, step):
                yield index, begin, min(begin + step, matrix + n_rows), targets


def _check_space(files: Sequence[OutputFile]) -> None:
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

    def advance(self, n_bytes: int) -> None:
        """Count bytes of a file that need no more work."""
        self._done += n_bytes

    def notice(self, name: str, block: Block) -> None:
        """Tell how far it is, and remember what was wrong with a tensor's values."""
        self._not_finite[name] += block.n_not_finite
        self._too_large[name] += block.n_too_large
        self._sink(Advanced(self._stage, self._done, name))
        self._verify(wait=False)

    def warn(self) -> None:
        """Tell of values that are no numbers."""
        for name, count in (+self._not_finite).items():
            text = f"{name} has {count} values that are infinite or not a number (NaN), as published"
            self._sink(Warned(self._stage, text))
        for name, count in (+self._too_large).items():
            text = f"{name} has {count} values too large for the type asked for, which became infinite"
            self._sink(Warned(self._stage, text))


def _sync(marks: Sequence[Sequence[tuple[OutputFile, int]]]) -> None:
    for file, watermark in chain.from_iterable(marks):
        file.sync(watermark)
