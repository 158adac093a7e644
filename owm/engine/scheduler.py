"""The one loop that makes tokens: N sequences over one context, prefill in chunks mixed with decode.

A one-shot answer is N = 1; drafts and batches are larger N. `submit` queues a request, `step` runs one decode and
returns the chunks it gave, `is_idle` says when nothing is left: everything else is a loop over these three.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from owm.engine.guide import Given, Guide
from owm.engine.request import Chunk, FinishReason, Request, Timings
from owm.engine.sampling import Sampling
from owm.engine.text import TextStream
from owm.errors import EngineError
from owm.native.llama import Context
from owm.native.sampler import Sampler, SamplerSettings

if TYPE_CHECKING:
    from owm.engine.constrain import Matcher, Vocabulary
    from owm.engine.logprobs import TokenLogprobs

__all__ = ["Chunk", "FinishReason", "Request", "Scheduler", "Timings"]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Requests with one prompt that will get slots together."""

    ids: list[int]
    requests: list[Request]
    matchers: "list[Matcher | None]"


@dataclass(slots=True, eq=False)
class _Running:
    """A request that holds a slot. `pending` tokens are known, but were not decoded yet; `guide` is None if plain."""

    request_id: int
    request: Request
    slot: int
    sampler: Sampler
    stream: TextStream
    guide: Guide | None
    began: float
    pending: list[int] = field(default_factory=list)
    n_past: int = 0
    logits_index: int | None = None
    first_token_at: float | None = None
    timings: Timings = field(default_factory=Timings)


class Scheduler:
    """Continuous batching over the sequences of one context."""

    def __init__(
        self,
        context: Context,
        *,
        n_ctx_limit: int | None = None,
        vocabulary: "Callable[[], Vocabulary] | None" = None,
    ) -> None:
        """Take a context.

        Args:
            n_ctx_limit: the most tokens a sequence may have (llama.cpp rounds contexts up).
            vocabulary: gives what constraints need to know of the model's tokens.
        """
        self._context = context
        self._limit = min(n_ctx_limit or context.n_ctx_sequence, context.n_ctx_sequence)
        self._vocabulary = vocabulary
        self._free = deque(range(context.n_sequences))
        self._waiting: deque[_Waiting] = deque()
        self._running: list[_Running] = []
        self._sharing: list[list[_Running]] = []  # groups whose first one is still at their common prompt
        self._next_id = 0
        self._is_closed = False
        self._stepping = threading.Lock()  # a context is not freed under a decode

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return self._is_closed or (not self._waiting and not self._running)

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
        if not 0 < n <= self._context.n_sequences or (n > 1 and not self._context.is_unified):
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
        with self._stepping:
            if self._is_closed:
                raise EngineError("the scheduler is closed")
            if not self.is_idle:
                raise EngineError("the scheduler is at work")
            try:
                yield self._context
            finally:
                for sequence in range(self._context.n_sequences):
                    self._context.forget(sequence)

    def close(self) -> None:
        """Stop a step that runs in another thread, then free the context. Closing twice is once."""
        self._context.cancel()
        with self._stepping:
            if not self._is_closed:
                self._is_closed = True
                for running in list(self._running):
                    self._release(running)
                self._context.close()

    def _step(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        if self._waiting:
            self._fill_slots(chunks)
        if self._context.is_cancelled:
            self._end_all(chunks)
            return chunks
        self._fill_batch()
        if not self._context.batch.n_tokens:  # whatever ran has ended before anything was read
            return chunks
        status = self._context.decode()
        if status == 2:
            self._end_all(chunks)
            return chunks
        if status == 1:
            raise EngineError("the KV cache has no room for the next tokens", hint="ask for a larger `--ctx-size`")
        if self._sharing:
            self._share_prompts()
        for running in tuple(self._running):
            if running.logits_index is not None:
                self._sample(running, chunks)
        return chunks

    def _fill_slots(self, chunks: list[Chunk]) -> None:
        """Give slots to those who wait, in order; the first of a group reads the prompt for all."""
        while self._waiting and len(self._waiting[0].ids) <= len(self._free):
            waiting = self._waiting.popleft()
            began = time.perf_counter()
            group = [
                self._begin(request_id, request, matcher, began)
                for request_id, request, matcher in zip(waiting.ids, waiting.requests, waiting.matchers, strict=True)
            ]
            for running in group:
                if running.guide is not None:
                    self._take_given(running, running.guide, chunks)
            if len(group) > 1 and group[0] in self._running:  # some answers end before anything is read
                self._sharing.append(group)
                for running in group[1:]:
                    running.pending.clear()

    def _begin(self, request_id: int, request: Request, matcher: "Matcher | None", began: float) -> _Running:
        slot = self._free.popleft()
        self._context.forget(slot)
        settings = request.sampling.with_seed()
        sampler = Sampler(_settings(settings), self._context.model)
        sampler.accept(request.prompt)
        stream = TextStream(request.stops, request.thoughts())
        guide = None if request.is_plain else Guide(request, self._context.model, stream, sampler, matcher)
        running = _Running(request_id, request, slot, sampler, stream, guide, began, list(request.prompt))
        running.timings.n_prompt = len(request.prompt)
        self._running.append(running)
        return running

    def _fill_batch(self) -> None:
        """The next token of each answer under way, then prompt tokens into the room that is left."""
        self._context.batch.clear()
        prefilling = []
        for running in self._running:
            if running.first_token_at is None:
                prefilling.append(running)
            else:
                self._feed(running)
        for running in prefilling:
            self._feed(running)

    def _feed(self, running: _Running) -> None:
        """Put a request's pending tokens into the batch, as many as there is room for; the last one gives logits."""
        batch, pending, position = self._context.batch, running.pending, running.n_past
        n_room = batch.capacity - batch.n_tokens
        n_rest = len(pending) - n_room
        running.logits_index = None
        for token in pending if n_rest <= 0 else pending[:n_room]:
            running.logits_index = batch.add(token, position, running.slot, wants_logits=False)
            position += 1
        running.n_past = position
        if n_rest > 0:
            running.logits_index = None
        elif running.logits_index is not None:
            batch.want_logits(running.logits_index)
        del pending[:n_room]

    def _share_prompts(self) -> None:
        """Let the others of a group go on from where its first one has read the prompt."""
        for group in tuple(self._sharing):
            first, *others = group
            if first.logits_index is None:
                continue
            self._sharing.remove(group)
            for running in others:
                self._context.share(first.slot, running.slot)
                running.n_past, running.logits_index = first.n_past, first.logits_index

    def _sample(self, running: _Running, chunks: list[Chunk]) -> None:
        """Draw a token from the logits of a request, and take it."""
        context, index, guide = self._context, running.logits_index, running.guide
        assert index is not None
        token = running.sampler.sample(context, index) if guide is None else guide.draw(context, index)
        now = time.perf_counter()
        timings = running.timings
        if running.first_token_at is None:
            running.first_token_at = now
            timings.prefill_seconds = now - running.began
        timings.decode_seconds = now - running.first_token_at
        if token is not None:
            if context.model.is_end(token) and not running.request.sampling.ignore_eos:
                if guide is None or not guide.refuses_end():
                    timings.n_generated += 1
                    chunks.append(self._end(running, FinishReason.STOP, "", token))
                    return
            elif self._take(running, token, chunks):
                return
        if guide is not None:
            self._take_given(running, guide, chunks)

    def _take_given(self, running: _Running, guide: Guide, chunks: list[Chunk]) -> None:
        """Take what follows without being drawn: an answer's beginning, the end of a thought, what is forced."""
        while (given := guide.given(running.timings.n_reasoning)) is not None:
            if given.text:
                if self._take_beginning(running, guide, given, chunks):
                    return
                continue
            for n_left, token in zip(range(len(given.tokens) - 1, -1, -1), given.tokens, strict=True):
                if self._take(running, token, chunks, is_last=n_left == 0):
                    return

    def _take_beginning(self, running: _Running, guide: Guide, given: Given, chunks: list[Chunk]) -> bool:
        """Feed the beginning of an answer, which counts as a part of the prompt; return whether it is all of it."""
        running.pending += given.tokens
        running.timings.n_prompt += len(given.tokens)
        text = running.stream.push(given.text.encode())
        is_over = running.n_past + len(running.pending) > self._limit
        if is_over or running.stream.stopped_by is not None or guide.is_finished:
            reason = FinishReason.LENGTH if is_over else FinishReason.STOP
            chunks.append(self._end(running, reason, text, None, context_end=is_over))
            return True
        chunks.append(Chunk(running.request_id, text, None))
        return False

    def _take(self, running: _Running, token: int, chunks: list[Chunk], *, is_last: bool = True) -> bool:
        """Make a token, which is no end, a part of the answer; return whether the answer ended with it.

        Args:
            is_last: none of what the guide knows to come is left.
        """
        model, stream, guide, timings = self._context.model, running.stream, running.guide, running.timings
        timings.n_generated += 1
        logprobs = None
        if guide is None:
            text = stream.push(model.piece(token, special=False))
        else:
            timings.n_reasoning += guide.is_thinking
            text = guide.push(token)
            logprobs = guide.logprobs(token)
        reason, is_context_end = None, False
        if stream.stopped_by is not None or (guide is not None and is_last and guide.is_finished):
            reason = FinishReason.STOP
        elif running.request.max_tokens is not None and timings.n_generated >= running.request.max_tokens:
            reason = FinishReason.LENGTH
        elif running.n_past + len(running.pending) >= self._limit:
            reason, is_context_end = FinishReason.LENGTH, True
        if reason is not None:
            chunks.append(self._end(running, reason, text, token, context_end=is_context_end, logprobs=logprobs))
            return True
        running.pending.append(token)
        thought, is_answer = stream.take_thought(), guide is not None and guide.has_begun
        chunks.append(Chunk(running.request_id, text, token, reasoning=thought, logprobs=logprobs, is_answer=is_answer))
        return False

    def _end(
        self,
        running: _Running,
        reason: FinishReason,
        text: str,
        token: int | None,
        *,
        context_end: bool = False,
        logprobs: "TokenLogprobs | None" = None,
    ) -> Chunk:
        self._release(running)
        is_thinking = running.guide is not None and running.guide.is_thinking
        text += running.stream.finish()
        stopped_by = running.stream.stopped_by
        if stopped_by is not None:  # it may have come to light in the text that was held back
            reason, context_end = FinishReason.STOP, False
        thought = running.stream.take_thought()
        is_answer = running.guide is not None and running.guide.has_begun
        return Chunk(
            running.request_id,
            text,
            token,
            reason,
            stopped_by,
            context_end,
            running.timings,
            thought,
            logprobs,
            is_answer,
            is_thinking,
        )

    def _end_all(self, chunks: list[Chunk]) -> None:
        """End what runs or waits as cancelled."""
        self._sharing.clear()
        chunks += [self._end(running, FinishReason.CANCELLED, "", None) for running in tuple(self._running)]
        while self._waiting:
            waiting = self._waiting.popleft()
            for request_id, request in zip(waiting.ids, waiting.requests, strict=True):
                timings = Timings(n_prompt=len(request.prompt))
                chunks.append(Chunk(request_id, "", None, FinishReason.CANCELLED, timings=timings))

    def _release(self, running: _Running) -> None:
        running.sampler.close()
        self._running.remove(running)
        self._context.forget(running.slot)
        self._free.append(running.slot)


def _settings(sampling: Sampling) -> SamplerSettings:
    return SamplerSettings(
        temp=sampling.temp,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repeat_penalty=sampling.repeat_penalty,
        repeat_last_n=sampling.repeat_last_n,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed or 0,
        ignore_eos=sampling.ignore_eos,
    )
