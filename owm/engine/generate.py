"""Generation as an iterator: decoding runs in a thread of its own, so that whoever draws never slows it."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from owm.engine.scheduler import Chunk, Scheduler
from owm.errors import EngineError

# With every core decoding, whatever else wakes up takes about a millisecond from it: chunks are handed over this often,
# not singly. (At 30 times a second it cost 3 % of the rate on 2 cores, at 10 it cannot be measured.)
HANDOVER_SECONDS = 0.1
# Ctrl-C in the instant before a thread begins to wait is seen only when the wait ends: none is longer than this.
WAIT_SECONDS = 0.25

# Idle threads are used again: OpenMP keeps a team of workers for each thread that ever computed, and slows all of them
# down to system calls at every barrier once there are more of those than cores.
_decoders = ThreadPoolExecutor(max_workers=8, thread_name_prefix="owm-decode")

T = TypeVar("T")


def _wait_for(end: threading.Event, cancel: Callable[[], None]) -> None:
    """Cancel, and wait for the end, however often Ctrl-C comes: what is in use must not be freed."""
    interruption: KeyboardInterrupt | None = None
    while not end.is_set():
        try:
            cancel()
            while not end.wait(WAIT_SECONDS):
                pass
        except KeyboardInterrupt as error:
            interruption = error
    if interruption is not None:
        raise interruption


def decoded(work: Callable[[], T], cancel: Callable[[], None]) -> T:
    """Do other work of llama.cpp's in a decoding thread and wait for it; whoever stops waiting (Ctrl-C) cancels it."""
    has_begun, has_ended, is_given_up = threading.Event(), threading.Event(), threading.Event()

    def run() -> T:
        has_begun.set()
        try:
            if is_given_up.is_set():
                raise EngineError("nobody waits for it any more")
            return work()
        finally:
            has_ended.set()

    try:
        future = _decoders.submit(run)
        while not future.done():
            wait((future,), WAIT_SECONDS)
        return future.result()
    finally:  # also where Ctrl-C came before there was anything to wait for
        is_given_up.set()
        if has_begun.is_set() and not has_ended.is_set():
            _wait_for(has_ended, cancel)


class Generation:
    """Chunks of all the requests of a scheduler, as they are made.

    Iterate in the thread that consumes; `cancel` from anywhere. The decoding thread ends when every request has, when
    it is cancelled, or when the iteration is left.
    """

    def __init__(self, scheduler: Scheduler, feed: Callable[[], list[Chunk] | None] | None = None) -> None:
        """Take a scheduler.

        Args:
            feed: called in the decoding thread before each step, to submit what comes next. It returns chunks of its
                own, of requests that failed before they were any, or None when there is nothing more to come. While
                nothing runs, it may wait, as long as the scheduler is not cancelled.
        """
        self._scheduler = scheduler
        self._feed = feed
        self._chunks: queue.SimpleQueue[list[Chunk] | BaseException | None] = queue.SimpleQueue()
        self._is_over = threading.Event()
        self._decoding: Future[None] | None = None
        self._at_hand: Iterator[Chunk] = iter(())  # of one step, not all of which have been seen

    def __iter__(self) -> Iterator[Chunk]:
        """Yield chunks until all requests have ended.

        Raises:
            EngineError: llama.cpp failed.
        """
        self._decoding = _decoders.submit(self._decode)
        try:
            while (item := self._next()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self._at_hand = iter(item)
                yield from self._at_hand
                if self._chunks.empty():
                    self._is_over.wait(HANDOVER_SECONDS)
        finally:
            if not self._is_over.is_set():
                _wait_for(self._is_over, self.cancel)

    def cancel(self) -> None:
        """Stop decoding; requests end with the finish reason `cancelled`."""
        self._scheduler.cancel()

    def rest(self) -> list[Chunk]:
        """After an interrupted iteration: cancel, and return the chunks that were made but not seen."""
        self.cancel()
        if self._decoding is not None:
            _wait_for(self._is_over, self.cancel)
        chunks = list(self._at_hand)
        while True:
            try:
                item = self._chunks.get_nowait()
            except queue.Empty:
                return chunks
            if isinstance(item, list):
                chunks.extend(item)

    def _next(self) -> list[Chunk] | BaseException | None:
        while True:
            try:
                return self._chunks.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                continue

    def _decode(self) -> None:
        try:
            has_more = self._feed is not None
            while has_more or not self._scheduler.is_idle:
                if has_more:
                    has_more = self._take_feed()
                if self._scheduler.is_idle:
                    continue
                if chunks := self._scheduler.step():
                    self._chunks.put(chunks)
            self._chunks.put(None)
        except BaseException as error:
            self._chunks.put(error)
        finally:
            self._is_over.set()

    def _take_feed(self) -> bool:
        """Let more be submitted; return whether there may be still more."""
        assert self._feed is not None
        if self._scheduler.is_cancelled or (chunks := self._feed()) is None:
            return False
        if chunks:
            self._chunks.put(chunks)
        return True
