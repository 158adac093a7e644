"""What is on the disk for good: a growing file is flushed now and then, so that the end is not one long wait."""

import os
import threading
from collections.abc import Callable

FLUSH_SECONDS = 2.0


class Flusher:
    """Flushes a file and remembers which parts of it were there before it did."""

    def __init__(self, descriptor: int) -> None:
        self.safe: tuple[tuple[int, int], ...] = ()
        self._descriptor = descriptor
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._epoch = 0
        self._thread: threading.Thread | None = None

    def start(self, snapshot: Callable[[], tuple[tuple[int, int], ...]]) -> None:
        """Begin to flush what `snapshot` says is in the file; a second time does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(snapshot,), name="owm-flush", daemon=True)
            self._thread.start()

    def forget(self) -> None:
        """The file was emptied: nothing of it is safe."""
        with self._lock:
            self._epoch += 1
            self.safe = ()

    def stop(self) -> None:
        """End the thread, after the flush that it is in."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, snapshot: Callable[[], tuple[tuple[int, int], ...]]) -> None:
        flush = getattr(os, "fdatasync", os.fsync)
        while not self._stopping.wait(FLUSH_SECONDS):
            epoch, parts = self._epoch, snapshot()
            if parts == self.safe:
                continue
            try:
                flush(self._descriptor)
            except OSError:
                return  # the last flush, in the caller's thread, says what is wrong
            with self._lock:
                if epoch == self._epoch:
                    self.safe = parts
