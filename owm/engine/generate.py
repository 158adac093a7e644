"""Generation as an iterator: decoding runs in a thread of its own, so that whoever draws never slows it."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from owm.engine.scheduler import Chunk, Scheduler

# With every core decoding, whatever else wakes up takes about a millisecond from it: chunks are handed over this often,
# not singly. (At 30 times a second it cost 3 % of the rate on 2 cores, at 10 it cannot be measured.)
HANDOVER_SECONDS = 0.1

# Idle threads are used again: OpenMP keeps a team of workers for each thread that ever computed, and slows all of them
# down to system calls at every barrier once there are more of those than cores.
_decoders = ThreadPoolExecutor(max_workers=8, thread_name_prefix="owm-decode")

T = TypeVar("T")


def decoded(work: Callable[[], T], cancel: Callable[[], None]) -> T:
    """Do other work of llama.cpp's in a decoding thread and wait for it; whoever stops waiting (Ctrl-C) cancels it."""
    doing = _decoders.submit(work)
    try:
        return doing.result()
    finally:
        if not doing.done():
            cancel()
            wait([doing])


class Generation:
    """Chunks of all the requests of a scheduler, as they are made.

    Iterate in the thread that consumes; `cancel` from anywhere. The decoding thread ends when every request has, when
    it is cancelled, or when the iteration is left.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._chunks: queue.SimpleQueue[list[Chunk] | BaseException | None] = queue.SimpleQueue()
        self._is_over = threading.Event()
        self._decoding: Future[None] | None = None

    def __iter__(self) -> Iterator[Chunk]:
        """Yield chunks until all requests have ended.

        Raises:
            EngineError: llama.cpp failed.
        """
        self._decoding = _decoders.submit(self._decode)
        try:
            while (item := self._chunks.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield from item
                if self._chunks.empty():
                    self._is_over.wait(HANDOVER_SECONDS)
        finally:
            if not self._is_over.is_set():
                self.cancel()
            wait([self._decoding])

    def cancel(self) -> None:
        """Stop decoding; requests end with the finish reason `cancelled`."""
        self._scheduler.cancel()

    def rest(self) -> list[Chunk]:
        """After an interrupted iteration: cancel, and return the chunks that were made but not seen."""
        self.cancel()
        if self._decoding is not None:
            wait([self._decoding])
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
        finally:
            self._is_over.set()
