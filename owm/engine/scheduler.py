"""The one loop that makes tokens: N sequences over one context, prefill in chunks mixed with decode.

A one-shot answer is N = 1; drafts and batches are larger N. `submit` queues a request, `step` runs one decode and
returns the chunks it gave, `is_idle` says when nothing is left: everything else is a loop over these three.
"""

import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from owm.engine.request import Chunk, FinishReason, Request, Timings
from owm.engine.retained import Retained
from owm.engine.running import Prefix, Running
from owm.engine.sharing import Sharing
from owm.errors import EngineError, OwmError
from owm.native.llama import Context

if TYPE_CHECKING:
    from owm.engine.constrain import Matcher, Vocabulary

FIRST_PREFILL = 256  # tokens in a step until the first answer begins, where several are to: it should not wait for all

__all__ = ["Chunk", "FinishReason", "Request", "Scheduler", "Timings"]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Requests with one prompt that will get slots together."""

    ids: list[int]
    requests: list[Request]
    matchers: "list[Matcher | None]"


class Scheduler:
    """Continuous batching over the sequences of one context."""

    def __init__(
        self,
        context: Context,
        *,
        n_slots: int | None = None,
        n_ctx_limit: int | None = None,
        n_prefill: int | None = None,
        piece: int | None = None,
        isolates_failures: bool = False,
        retains: bool = False,
        vocabulary: "Callable[[], Vocabulary] | None" = None,
    ) -> None:
        """Take a context.

        Args:
            n_slots: sequences for requests, all by default; the others keep prefixes that requests share.
            n_ctx_limit: the most tokens a sequence may have (llama.cpp rounds contexts up).
            n_prefill: the most prompt tokens in a step while answers are under way, so that these do not wait long.
            piece: prompts are read up to multiples of so many tokens: with one slot, each by itself decides how.
            isolates_failures: a request that fails ends with a chunk that says why, and the others go on.
            retains: what a request has read and made stays in its sequence, and the next request, which begins when no
                other runs, goes on from what its prompt has in common with it; of its `splits` there are checkpoints
                where the model needs such.
            vocabulary: gives what constraints need to know of the model's tokens.
        """
        self._context = context
        self._n_slots = context.n_sequences if n_slots is None else n_slots
        self._limit = min(n_ctx_limit or context.n_ctx_sequence, context.n_ctx_sequence)
        self._n_prefill = n_prefill or context.n_batch
        self._piece = piece
        self._isolates_failures = isolates_failures
        self._vocabulary = vocabulary
        self._free = list(range(self._n_slots))  # ascending
        self._waiting: deque[_Waiting] = deque()
        self._running: list[Running] = []  # in the order in which they began
        self.retained = Retained(context) if retains else None
        on_read = self.retained.keep if self.retained is not None else None
        self._sharing = Sharing(context, range(self._n_slots, context.n_sequences), on_read)
        self._has_sampled = False
        self.n_decoded = 0  # tokens, of prompts and answers
        self._next_id = 0
        self._is_closed = False
        self._stepping = threading.Lock()  # a context is not freed under a decode

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return self._is_closed or (not self._waiting and not self._running)

    @property
    def is_cancelled(self) -> bool:
        """Nothing that is submitted will run any more."""
        return self._is_closed or self._context.is_cancelled

    @property
    def n_slots(self) -> int:
        """How many requests can run at the same time."""
        return self._n_slots

    @property
    def n_ctx_limit(self) -> int:
        """The most tokens that a sequence may have."""
        return self._limit

    @property
    def n_running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        """Requests that have none yet."""
        return sum(len(waiting.ids) for waiting in self._waiting)

    @property
    def held_prefixes(self) -> tuple[Prefix, ...]:
        """Beginnings of prompts that need not be read again."""
        return self._sharing.held

    def submit(self, request: Request) -> int:
        """Queue a request; return the id that its chunks will carry.

        Raises:
            EngineError: the prompt is empty or does not fit, which the caller should have ruled out.
            UsageError: the constraint means nothing to this model, or the answer's prefix breaks it.
        """
        return self._submit([request])[0]

    def submit_drafts(self, request: Request, n: int) -> list[int]:
        """Queue `n` answers to one prompt, which is read once; the seeds count up from the request's.

        They begin when `n` sequences are free.

        Raises:
            EngineError: as `submit`, or the context has not so many sequences over one cache.
            UsageError: as `submit`.
        """
        if not 0 < n <= self._n_slots or (n > 1 and not self._context.is_unified):
            raise EngineError(f"{n} drafts need a context of so many sequences that share a cache")
        sampling = request.sampling.with_seed()
        return self._submit([replace(request, sampling=sampling.of_draft(i)) for i in range(n)])

    def _submit(self, requests: list[Request]) -> list[int]:
        if self._is_closed:
            raise EngineError("the scheduler is closed")
        prompt = requests[0].prompt
        if not 0 < len(prompt) < self._limit:
            raise EngineError(f"a prompt of {len(prompt)} tokens does not fit a context of {self._limit}")
        matchers = [self._matcher(request) for request in requests]
        ids = [self._next_id + 1 + i for i in range(len(requests))]
        self._next_id = ids[-1]
        self._waiting.append(_Waiting(ids, requests, matchers))
        return ids

    def _matcher(self, request: Request) -> "Matcher | None":
        if request.constraint is None:
            return None
        if self._vocabulary is None:
            raise EngineError("this scheduler was made without a vocabulary for constraints")
        matcher = request.constraint.matcher(self._vocabulary())
        if request.answer_prefix:
            matcher.accept_text(request.answer_prefix)
        return matcher

    def cancel(self) -> None:
        """Stop everything; the next step ends every request as cancelled. Callable from any thread."""
        self._context.cancel()

    def step(self) -> list[Chunk]:
        """Run one decode and sample from it.

        Raises:
            EngineError: llama.cpp failed, a constraint cannot be met, or the scheduler is closed.
        """
        with self._stepping:
            if self._is_closed:
                raise EngineError("the model was closed before the answer had ended")
            return self._step()

    @contextmanager
    def borrow(self) -> Iterator[Context]:
        """Lend the context to another kind of work while nothing waits or runs; its sequences are emptied after it.

        Raises:
            EngineError: the scheduler is closed, or has work of its own.
        """
        with self.pause() as context:
            try:
                yield context
            finally:
                self._empty()

    @contextmanager
    def pause(self) -> Iterator[Context]:
        """Lend the context as it is while nothing waits or runs.

        Raises:
            EngineError: the scheduler is closed, or has work of its own.
        """
        with self._stepping:
            if self._is_closed:
                raise EngineError("the scheduler is closed")
            if not self.is_idle:
                raise EngineError("the scheduler is at work")
            yield self._context

    def resume(self) -> None:
        """Take requests again after `cancel`; what was under way is forgotten, as after a failed step."""
        with self._stepping:
            if self._is_closed:
                raise EngineError("the scheduler is closed")
            if not self.is_idle:
                self._end_all([])
                self._empty()
            self._context.resume()

    def close(self) -> None:
        """Stop a step that runs in another thread, then free the context. Closing twice is once."""
        self._context.cancel()
        with self._stepping:
            if not self._is_closed:
                self._shut()
                self._context.close()

    def _shut(self) -> None:
        self._is_closed = True
        for running in self._running:
            running.close()
        self._running.clear()

    def _step(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        if self._waiting:
            self._fill_slots(chunks)
        if self._context.is_cancelled:
            self._end_all(chunks)
            return chunks
        if self._free and not self._waiting:
            self._close_gaps()
        self._fill_batch()
        if not self._context.batch.n_tokens:  # whatever ran has ended before anything was read
            return chunks
        status = self._context.decode()
        if status == 2:
            self._end_all(chunks, is_torn=True)
            return chunks
        if status == 1:
            raise EngineError("the KV cache has no room for the next tokens", hint="ask for a larger `--ctx-size`")
        self.n_decoded += self._context.batch.n_tokens
        for running in self._running:
            if running.prefixes:
                self._sharing.advance(running)
        for running in tuple(self._running):
            if running.logits_index is not None:
                self._has_sampled = True
                self._advance(running, running.sample, chunks)
        return chunks

    def _fill_slots(self, chunks: list[Chunk]) -> None:
        """Give slots to those who wait, in order; what their prompts share is read by the first of them."""
        while self._waiting and len(self._waiting[0].ids) <= len(self._free):
            waiting = self._waiting.popleft()
            are_drafts, n_held = len(waiting.ids) > 1, 0
            for request_id, request, matcher in zip(waiting.ids, waiting.requests, waiting.matchers, strict=True):
                running = self._begin(request_id, request, matcher, len(waiting.ids))
                self._running.append(running)
                n_held = max(n_held, running.n_past)  # by the first; the others get it from there
                self._advance(running, running.take_given, chunks)
                if not running.has_ended and (are_drafts or request.splits):
                    known = [*request.prompt[: running.n_past], *running.pending]
                    lengths = {length for length in request.splits if n_held < length < len(known)}
                    if are_drafts:  # they share the last token too: with it goes what the next is drawn from
                        lengths.add(len(known))
                    running.prefixes = [tuple(known[:length]) for length in sorted(lengths)]
                    self._sharing.begin(running)

    def _begin(self, request_id: int, request: Request, matcher: "Matcher | None", n_drafts: int) -> Running:
        """Give a request a slot, and what that slot holds of its prompt."""
        context, retained, n_held, limit = self._context, self.retained, 0, self._limit
        began = time.perf_counter()
        if retained is None:
            slot = self._free.pop(0)
            context.forget(slot)
        else:
            slot = retained.best(self._free, request.prompt)
            self._free.remove(slot)
            if not self._running:  # other drafts get it from the first one
                n_held = retained.begin(slot, request.prompt)
            else:
                retained.forget(slot)
            limit = min(limit, len(request.prompt) + (context.n_ctx - len(request.prompt)) // n_drafts)
        running = Running.begin(request_id, request, slot, context, limit, matcher)
        if retained is not None:
            running.began = began
            running.fed = []
            running.timings.n_held = n_held
            running.go_on_at(n_held)
        return running

    def _advance(self, running: Running, take: Callable[[list[Chunk]], None], chunks: list[Chunk]) -> None:
        """Let a request take what comes next, and free its slot if that ends it."""
        try:
            take(chunks)
        except OwmError as error:
            if not self._isolates_failures:
                raise
            chunks.append(running.end(FinishReason.FAILED, error=error))
        if running.has_ended:
            self._release(running)

    def _close_gaps(self) -> None:
        """Move the last sequences to free places before them: llama.cpp computes at once what lies side by side."""
        if self._context.is_unified or self.retained is not None:
            return
        for running in sorted(self._running, key=attrgetter("slot"), reverse=True):
            if self._free[0] > running.slot:
                return
            free = self._free.pop(0)
            insort(self._free, running.slot)
            running.move(free)

    def _fill_batch(self) -> None:
        """The next token of each answer under way, then prompt tokens into the room that is left, oldest first."""
        batch = self._context.batch
        batch.clear()
        n_room, n_prefill = batch.capacity, batch.capacity
        counts: dict[Running, int] = {}
        for running in self._running:
            if running.is_decoding:
                counts[running] = n = running.readable(n_room)
                n_room -= n
                n_prefill = self._n_prefill
        reading = [running for running in self._running if not running.is_decoding]
        if not self._has_sampled and sum(running.awaits is None for running in reading) > 1:
            n_prefill = min(n_prefill, FIRST_PREFILL)
        n_room = min(n_room, n_prefill)
        for running in reading:
            counts[running] = n = running.readable(n_room, self._piece)
            n_room -= n
        # In the order of their slots, without which llama.cpp computes them in several parts.
        for running in sorted(counts, key=attrgetter("slot")):
            running.feed(counts[running])

    def _end_all(self, chunks: list[Chunk], *, is_torn: bool = False) -> None:
        """End what runs or waits as cancelled.

        Args:
            is_torn: the last decode was broken off.
        """
        self._sharing.clear()
        for running in tuple(self._running):
            chunks.append(running.end(FinishReason.CANCELLED))
            running.prefixes.clear()
            running.awaits = None
            self._release(running, is_torn=is_torn)
        while self._waiting:
            waiting = self._waiting.popleft()
            for request_id, request in zip(waiting.ids, waiting.requests, strict=True):
                timings = Timings(n_prompt=len(request.prompt))
                chunks.append(Chunk(request_id, "", None, FinishReason.CANCELLED, timings=timings))

    def _release(self, running: Running, *, is_torn: bool = False) -> None:
        running.close()
        self._running.remove(running)
        self._sharing.leave(running)
        if self.retained is None or running.fed is None:
            self._context.forget(running.slot)
        else:
            self.retained.end(running.slot, running.fed, running.n_fed if is_torn else 0)
        insort(self._free, running.slot)

    def _empty(self) -> None:
        """Forget what all sequences hold."""
        self._sharing.clear()
        if self.retained is not None:
            self.retained.clear()
        for sequence in range(self._context.n_sequences):
            self._context.forget(sequence)
