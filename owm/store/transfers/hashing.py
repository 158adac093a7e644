"""The hash of a file while it arrives: in order, in a thread of its own, from memory where it can.

What arrives out of order waits in memory up to a bound, and beyond that is read back from the file when its turn comes.
A line that is faster than the hash is made to wait.
"""

import os
import threading
from collections.abc import Sequence
from typing import Protocol

MEMORY_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20


class Hasher(Protocol):
    """A hash of hashlib."""

    def update(self, data: bytes, /) -> object:
        """Take the next bytes."""

    def hexdigest(self) -> str:
        """Return the hash of what was taken."""


class StreamHash:
    """Hashes of one file, computed as it grows. `give` is for the threads that write, the rest for their owner."""

    def __init__(self, descriptor: int, hashers: Sequence[Hasher], reach: int) -> None:
        """Begin with the `reach` bytes that are in the file already."""
        self.position = 0
        self.problem: BaseException | None = None
        self._descriptor = descriptor
        self._hashers = hashers
        self._reach = reach
        self._memory: dict[int, bytes] = {}
        self._held = 0
        self._in_hand = 0  # bytes from memory that are being hashed
        self._is_stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="owm-hash", daemon=True)
        self._thread.start()

    def give(self, begin: int, chunk: bytes, reach: int) -> None:
        """Take bytes that are in the file now; `reach` is how far the file has no gap."""
        with self._changed:
            if begin >= self.position and (self._held + len(chunk) <= MEMORY_BYTES or begin == self.position):
                self._memory[begin] = chunk
                self._held += len(chunk)
            self._reach = reach
            self._changed.notify_all()

    def wait_for_room(self, seconds: float) -> bool:
        """Wait while the memory is full of what comes next; False when the time is over."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._held < MEMORY_BYTES or not self._is_busy() or self._is_stopped, seconds
            )

    def forget_beyond(self, position: int) -> None:
        """Drop what was given from `position` on: it will be given again."""
        with self._changed:
            for begin in [begin for begin in self._memory if begin >= position]:
                self._held -= len(self._memory.pop(begin))

    def wait_for(self, position: int, seconds: float) -> bool:
        """Wait until everything up to `position` is hashed, or the time is over.

        Raises:
            OSError: the file cannot be read back.
        """
        with self._changed:
            is_there = self._changed.wait_for(
                lambda: self.position >= position or self.problem is not None, timeout=seconds
            )
            if self.problem is not None:
                raise self.problem
            return is_there

    def stop(self) -> None:
        """End the thread; nothing is read from the file any more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _is_busy(self) -> bool:
        return self.position in self._memory or self._in_hand > 0

    def _run(self) -> None:
        try:
            while (chunk := self._next()) is not None:
                for hasher in self._hashers:
                    hasher.update(chunk)
                with self._changed:
                    self.position += len(chunk)
                    if self._in_hand:
                        self._held -= self._in_hand
                        self._in_hand = 0
                    else:  # while the file was read, some of the same bytes may have been given
                        for begin in [begin for begin in self._memory if begin < self.position]:
                            self._held -= len(self._memory.pop(begin))
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self.problem = error
                self._changed.notify_all()

    def _next(self) -> bytes | None:
        """Wait for the bytes at the position; None when stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self.position < self._reach)
            if self._is_stopped:
                return None
            begin = self.position
            chunk = self._memory.pop(begin, None)
            if chunk is not None:
                self._in_hand = len(chunk)
                return chunk
            following = min((other for other in self._memory if other > begin), default=self._reach)
            end = min(self._reach, following, begin + CHUNK_BYTES)
        chunk = os.pread(self._descriptor, end - begin, begin)
        if not chunk:
            raise OSError(0, "the file became shorter while it was being written")
        return chunk
