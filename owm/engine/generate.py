"""Generation as an iterator: decoding runs in a thread of its own, so that whoever draws never slows it."""

import queue
import threading
from collections.abc import Iterator

from owm.engine.scheduler import Chunk, Scheduler


class Generation:
    """Chunks of all the requests of a scheduler, as they are made.

    Iterate in the thread that consumes; `cancel` from anywhere. The decoding thread ends when every request has, when
    it is cancelled, or when the iteration is left.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._chunks: queue.SimpleQueue[list[Chunk] | BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._decode, name="owm-decode", daemon=True)

    def __iter__(self) -> Iterator[Chunk]:
        """Yield chunks until all requests have ended.

        Raises:
            EngineError: llama.cpp failed.
        """
        self._thread.start()
        try:
            while (item := self._chunks.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield from item
        finally:
            if self._thread.is_alive():
                self.cancel()
                self._thread.join()

    def cancel(self) -> None:
        """Stop decoding; requests end with the finish reason `cancelled`."""
        self._scheduler.cancel()

    def rest(self) -> list[Chunk]:
        """After an interrupted iteration: cancel, and return the chunks that were made but not seen."""
        self.cancel()
        self._thread.join()
        chunks: list[Chunk] = []
        while True:
            try:
                item = self._chunks.get_nowait()
            except queue.Empty:
                return chunks
            if isinstance(item, list):
                chunks.extend(item)

    def _decode(self) -> None:
        try:
            while not self._scheduler.is_idle:
                if chunks := self._scheduler.step():
                    self._chunks.put(chunks)
            self._chunks.put(None)
        except BaseException as error:
            self._chunks.put(error)
