"""Rows, read ahead in a thread of its own: a slow pipe must not hold up what is decoded."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from owm.batch.row import Row

GATHER_SECONDS = 0.05  # to wait for the next row, where rows are waited for at all
MOST_GATHER_SECONDS = 0.5  # for all of them: a pipe may be as slow as to keep one waiting for ever


class ReadAhead:
    """Rows that are read as long as there is room for them; `is_over` once the last one was taken."""

    def __init__(self, rows: Iterator[Row], n_most: int) -> None:
        self.is_over = False
        self._rows: queue.Queue[Row | BaseException | None] = queue.Queue(n_most)
        self._is_stopped = threading.Event()
        threading.Thread(target=self._read, args=(rows,), name="owm-rows", daemon=True).start()

    def take(self, n: int, *, waits: bool, is_given_up: Callable[[], bool] = lambda: False) -> list[Row]:
        """Return up to `n` rows that are there; waiting, there is at least one unless they are over or given up.

        Raises:
            OwmError: they cannot be read.
        """
        rows: list[Row] = []
        latest = 0.0
        while len(rows) < n and not self.is_over:
            try:
                item = self._rows.get(timeout=GATHER_SECONDS) if waits else self._rows.get_nowait()
            except queue.Empty:
                if rows or not waits or is_given_up():
                    break
                continue
            if item is None:
                self.is_over = True
            elif isinstance(item, BaseException):
                self.is_over = True
                raise item
            else:
                rows.append(item)
                latest = latest or time.monotonic() + MOST_GATHER_SECONDS
                if waits and time.monotonic() > latest:
                    break
        return rows

    def stop(self) -> None:
        """Let the thread end."""
        self.is_over = True
        self._is_stopped.set()

    def _read(self, rows: Iterator[Row]) -> None:
        last: BaseException | None = None
        try:
            for row in rows:
                if not self._put(row):
                    return
        except BaseException as error:
            last = error
        self._put(last)

    def _put(self, item: Row | BaseException | None) -> bool:
        while not self._is_stopped.is_set():
            with suppress(queue.Full):
                self._rows.put(item, timeout=0.2)
                return True
        return False
