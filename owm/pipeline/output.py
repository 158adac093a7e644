"""One plan on its way to disk: the files it is laid out in, and the journals of how far each has come."""

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from owm.errors import StoreError
from owm.pipeline.plan import Plan, PlannedFile
from owm.pipeline.rows import Array
from owm.pipeline.stream import CHUNK_BYTES, Stream
from owm.publishing import create_anew, open_partial, sync_folder

try:
    import fcntl
except ImportError:  # not a POSIX system: there processes are not kept apart
    fcntl = None  # type: ignore[assignment]

Count = Callable[[int], None]  # of bytes of a file that need no more work


def incomplete_path(path: Path) -> Path:
    """Return where a file lies until it is whole."""
    return path.with_name(path.name + ".incomplete")


class Output:
    """One plan on its way into its files, which are written one after the other."""

    def __init__(self, plan: Plan, paths: Sequence[Path], chunk_bytes: int) -> None:
        self.tensors = plan.tensors
        placed = zip(plan.files, paths, strict=True)
        self.files = [OutputFile(planned, path, plan.digest(), chunk_bytes) for planned, path in placed]
        # Of each tensor: its file, and its number in there.
        self._places = [(file, number) for file in self.files for number in range(len(file.planned.tensors))]

    def open(self, count: Count, *, digest: bool) -> None:
        """Find out what an earlier try has written."""
        for file in self.files:
            file.open(count, digest=digest)

    def wants(self, index: int) -> bool:
        """Tell whether a tensor has to be written."""
        file, number = self._places[index]
        return number >= file.first

    def append(self, index: int, begin: int, raw: Array, count: Count) -> None:
        """Write rows of a tensor from `begin` on; they come in order."""
        file, number = self._places[index]
        file.append(number, begin, raw, count)

    def finish(self, count: Count) -> None:
        """Finish the files without tensors; the others are finished with their last one."""
        for file in self.files:
            if not file.planned.tensors:
                file.finish(count)

    def marks(self) -> list[tuple["OutputFile", int]]:
        """Return the files being written, and up to where each is."""
        return [(file, file.watermark()) for file in self.files if file.is_open]

    def suspend(self) -> None:
        """Write what there is, for another try to go on from."""
        for file in self.files:
            file.suspend()

    def close(self) -> None:
        """Let go of the files."""
        for file in self.files:
            file.close()


class OutputFile:
    """One file on its way, and the journal of how far it has come."""

    def __init__(self, planned: PlannedFile, path: Path, digest: str, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.planned = planned
        self.path = path
        self.first = 0  # number of the first tensor to write
        self.sha256 = ""
        self._chunk_bytes = chunk_bytes
        self._position = 0
        self._has_sha256 = False
        self._stream: Stream | None = None
        self._flushing = threading.Lock()
        self._incomplete = incomplete_path(path)
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
            fd = open_partial(self._incomplete)
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

    @property
    def is_open(self) -> bool:
        """Tell whether the file is being written at the moment."""
        return self._stream is not None

    def open(self, count: Count, *, digest: bool) -> None:
        """Find out from where to write on."""
        self._has_sha256 = digest
        self.first, self._position = self._resume()
        if self._position == 0:
            if self._incomplete.exists():
                descriptor = open_partial(self._incomplete)
                os.truncate(descriptor, 0)
                os.close(descriptor)
            with open(create_anew(self._journal), "w", encoding="utf-8") as journal:
                journal.write(json.dumps({"plan": self._digest}) + "\n")
        count(self._position)

    def append(self, number: int, begin: int, raw: Array, count: Count) -> None:
        """Write rows of a tensor from `begin` on; they come in order."""
        stream = self._begin(count)
        offset = self.planned.offsets[number] + begin * self.planned.tensors[number].row_bytes
        self._fill(stream, offset, count)
        stream.append(raw.data)
        self._position += len(raw)
        count(len(raw))
        if self._position == self.planned.end:
            self.finish(count)

    def finish(self, count: Count) -> None:
        """Write what comes after the last tensor, and flush."""
        stream = self._begin(count)
        self._fill(stream, self.planned.n_bytes, count)
        self.sha256 = stream.finish()
        self._note(self.planned.n_bytes)
        self.close()

    def watermark(self) -> int:
        """Return up to where the file is written."""
        assert self._stream is not None
        return self._stream.watermark()

    def suspend(self) -> None:
        """Write what there is, and note how far the file has come."""
        if self._stream is not None:
            self.sync(self._stream.suspend())

    def close(self) -> None:
        """Let go of the file."""
        with self._flushing:
            if self._stream is not None:
                self._stream.close()
                self._stream = None

    def _begin(self, count: Count) -> Stream:
        if self._stream is None:
            self._stream = Stream(
                self._incomplete,
                self.planned.n_bytes,
                position=self._position,
                digest=self._has_sha256,
                chunk_bytes=self._chunk_bytes,
            )
            if self._position == 0:
                self._stream.append(memoryview(self.planned.header))
                self._position = len(self.planned.header)
                count(self._position)
        return self._stream

    def _fill(self, stream: Stream, offset: int, count: Count) -> None:
        """Write the zeros that align what comes next."""
        stream.append(memoryview(bytes(offset - self._position)))
        count(offset - self._position)
        self._position = offset

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

    def sync(self, watermark: int) -> None:
        """Flush, then note how far the file has come."""
        with self._flushing:
            if self._stream is not None:
                self._stream.flush()
                self._note(watermark)

    def _note(self, watermark: int) -> None:
        with open(open_partial(self._journal, flags=os.O_APPEND), "a", encoding="utf-8") as journal:
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
