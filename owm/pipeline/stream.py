"""A file that is written once, from beginning to end, past the page cache where the system can.

Writing gigabytes through the page cache costs more time than converting them: every page is allocated, copied and later
written back. Here whole chunks go straight to the disk from a few buffers, while the next ones are filled. A watermark
says up to where the bytes are on disk, so that an interrupted write can go on from there.
"""

import errno
import hashlib
import mmap
import os
import queue
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from owm.publishing import open_partial

CHUNK_BYTES = 8 << 20
N_BUFFERS = 4
BLOCK_BYTES = 4096  # offsets and lengths of a direct write are multiples of it


class Stream:
    """A sequential writer of `n_bytes` bytes to an existing or new file; `append` in one thread, in order."""

    def __init__(
        self, path: Path, n_bytes: int, *, position: int = 0, digest: bool = False, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        """Open a file; what lies before `position` is there already. `chunk_bytes` is a multiple of `BLOCK_BYTES`.

        Raises:
            OSError: it cannot be opened.
        """
        self.n_bytes = n_bytes
        self._chunk_bytes = chunk_bytes
        self._fd = open_partial(path)
        os.ftruncate(self._fd, n_bytes)
        self._direct = _same_file(_open_direct(path), self._fd)
        self._free: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()
        for _ in range(N_BUFFERS):
            self._free.put(mmap.mmap(-1, chunk_bytes))
        self._writers = ThreadPoolExecutor(2, thread_name_prefix="owm-disk")
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="owm-hash")
        self._sha256 = hashlib.sha256() if digest else None
        self._base = position - position % BLOCK_BYTES  # where the chunk being filled belongs
        self._filled = position - self._base
        self._chunk = self._free.get()
        self._chunk[: self._filled] = os.pread(self._fd, self._filled, self._base)
        self._unhashed = self._filled  # bytes at the beginning of the chunk that are hashed with what lies before
        self._pending: list[tuple[int, Future[None]]] = []  # end of a chunk, its write
        self._watermark = self._base
        self._hashed: Future[None] | None = self._hasher.submit(self._hash_file, position) if digest else None

    def append(self, raw: memoryview) -> None:
        """Take the next bytes.

        Raises:
            OSError: an earlier write failed.
        """
        begin = 0
        while begin < len(raw):
            n = min(len(raw) - begin, self._chunk_bytes - self._filled)
            self._chunk[self._filled : self._filled + n] = raw[begin : begin + n]
            self._filled += n
            begin += n
            if self._filled == self._chunk_bytes:
                self._send()
                self._chunk = self._free.get()

    def watermark(self) -> int:
        """Return up to where all bytes are written (not yet flushed).

        Raises:
            OSError: a write failed.
        """
        while self._pending and self._pending[0][1].done():
            end, write = self._pending.pop(0)
            write.result()
            self._watermark = end
        return self._watermark

    def flush(self) -> None:
        """Make what is written survive a power cut."""
        getattr(os, "fdatasync", os.fsync)(self._fd)

    def suspend(self) -> int:
        """Write what there is, for another try to go on from; return up to where that is.

        Raises:
            OSError: a write failed.
        """
        if self._filled:
            self._send()
        wait([write for _, write in self._pending])
        return self.watermark()

    def finish(self) -> str:
        """Write the rest and flush; return the sha256 of the whole file, empty if it was not asked for.

        Raises:
            OSError: a write failed.
        """
        self.suspend()
        if self._hashed is not None:
            self._hashed.result()
        os.fsync(self._fd)
        return self._sha256.hexdigest() if self._sha256 else ""

    def close(self) -> None:
        """Let go of the file; what was not written is lost."""
        self._writers.shutdown(wait=True, cancel_futures=True)
        self._hasher.shutdown(wait=True, cancel_futures=True)
        for fd in {self._fd, self._direct} - {-1}:
            os.close(fd)
        self._fd = self._direct = -1

    def _send(self) -> None:
        """Hand the chunk over to be hashed and written; its buffer is free again when both are done."""
        self.watermark()  # tells of a write that failed
        chunk, offset, filled, skipped = self._chunk, self._base, self._filled, self._unhashed
        hashed: Future[None] | None = None
        if self._sha256 is not None:
            hashed = self._hashed = self._hasher.submit(self._sha256.update, memoryview(chunk)[skipped:filled])
        self._pending.append((offset + filled, self._writers.submit(self._write, chunk, offset, filled, hashed)))
        self._base, self._filled, self._unhashed = offset + filled, 0, 0

    def _write(self, chunk: mmap.mmap, offset: int, filled: int, hashed: "Future[None] | None") -> None:
        view = memoryview(chunk)
        try:
            whole = filled - filled % BLOCK_BYTES if self._direct >= 0 else 0
            try:
                _write_all(self._direct, view[:whole], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:  # this file system takes no direct writes after all
                    raise
                whole = 0
            _write_all(self._fd, view[whole:filled], offset + whole)
            if hashed is not None:
                hashed.result()
        finally:
            view.release()
            self._free.put(chunk)

    def _hash_file(self, n_bytes: int) -> None:
        """Hash what an earlier try has written."""
        assert self._sha256 is not None
        done = 0
        while done < n_bytes:
            block = os.pread(self._fd, min(CHUNK_BYTES, n_bytes - done), done)
            self._sha256.update(block)
            done += len(block)


def _open_direct(path: Path) -> int:
    """Open a file for writing past the page cache, -1 where that is not possible."""
    flag: int = getattr(os, "O_DIRECT", 0)
    if not flag:
        return -1
    try:
        return os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | flag)
    except OSError:
        return -1


def _same_file(descriptor: int, other: int) -> int:
    """Return a descriptor if it is of the same file as another; else close it, and return -1."""
    if descriptor < 0 or os.path.samestat(os.fstat(descriptor), os.fstat(other)):
        return descriptor
    os.close(descriptor)
    return -1


def _write_all(fd: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], offset + done)
