"""The one loop that makes tokens: N sequences over one context, prefill in chunks mixed with decode.

A one-shot answer is N = 1; drafts and batches are larger N. `submit` queues a request, `step` runs one decode and
returns the chunks it gave, `is_idle` says when nothing is left: everything else is a loop over these three.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from enum import StrEnum

from owm.engine.sampling import Sampling
from owm.engine.text import TextStream
from owm.errors import EngineError
from owm.native.llama import Context, Sampler, SamplerSettings


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to make. `max_tokens` None means to the end of the turn or of the context."""

    prompt: Tokens[int]
    sampling: Sampling
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()


@dataclass(slots=True)
class Timings:
    """Seconds and counts of one answer; prefill ends with the first token."""

    n_prompt: int = 0
    n_generated: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def prompt_per_second(self) -> float | None:
        """Prompt tokens per second (pp)."""
        return self.n_prompt / self.prefill_seconds if self.prefill_seconds > 0 else None

    @property
    def decode_per_second(self) -> float | None:
        """Generated tokens per second (tg): the first token belongs to the prefill."""
        return (
            (self.n_generated - 1) / self.decode_seconds if self.n_generated > 1 and self.decode_seconds > 0 else None
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one step gave one request: text (may be empty while a character or a stop string is incomplete)."""

    request_id: int
    text: str
    token: int | None
    finish_reason: FinishReason | None = None
    stopped_by: str | None = None
    hit_context_end: bool = False
    timings: Timings | None = None


@dataclass(slots=True)
class _Running:
    """A request that holds a slot."""

    request_id: int
    request: Request
    slot: int
    sampler: Sampler
    stream: TextStream
    began: float
    n_past: int = 0
    last_token: int | None = None
    logits_index: int | None = None
    first_token_at: float = 0.0
    timings: Timings = field(default_factory=Timings)


class Scheduler:
    """Continuous batching over the sequences of one context."""

    def __init__(self, context: Context, *, n_ctx_limit: int | None = None) -> None:
        """Take a context; `n_ctx_limit` is the most tokens a sequence may have (llama.cpp rounds contexts up)."""
        self._context = context
        self._limit = min(n_ctx_limit or context.n_ctx_sequence, context.n_ctx_sequence)
        self._free = deque(range(context.n_sequences))
        self._waiting: deque[tuple[int, Request]] = deque()
        self._running: list[_Running] = []
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
        """
        if self._is_closed:
            raise EngineError("the scheduler is closed")
        if not 0 < len(request.prompt) < self._limit:
            raise EngineError(f"a prompt of {len(request.prompt)} tokens does not fit a context of {self._limit}")
        self._next_id += 1
        self._waiting.append((self._next_id, request))
        return self._next_id

    def cancel(self) -> None:
        """Stop everything; the next step ends every request as cancelled. Callable from any thread."""
        self._context.cancel()

    def step(self) -> list[Chunk]:
        """Run one decode and sample from it.

        Raises:
            EngineError: llama.cpp failed, or the scheduler is closed.
        """
        with self._stepping:
            if self._is_closed:
                raise EngineError("the model was closed before the answer had ended")
            return self._step()

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
        if self._waiting:
            self._fill_slots()
        if self._context.is_cancelled:
            return self._end_all()
        self._fill_batch()
        status = self._context.decode()
        if status == 2:
            return self._end_all()
        if status == 1:
            raise EngineError("the KV cache has no room for the next tokens", hint="ask for a larger `--ctx-size`")
        return [chunk for running in tuple(self._running) if (chunk := self._sample(running))]

    def _fill_slots(self) -> None:
        while self._waiting and self._free:
            request_id, request = self._waiting.popleft()
            slot = self._free.popleft()
            settings = request.sampling.with_seed()
            sampler = Sampler(_settings(settings), self._context.model)
            sampler.accept(request.prompt)
            self._context.forget(slot)
            running = _Running(request_id, request, slot, sampler, TextStream(request.stops), time.perf_counter())
            running.timings.n_prompt = len(request.prompt)
            self._running.append(running)

    def _fill_batch(self) -> None:
        """One token for each answer under way, then prompt tokens into the room that is left."""
        batch = self._context.batch
        batch.clear()
        prefilling = []
        for running in self._running:
            if running.last_token is not None:
                running.logits_index = batch.add(running.last_token, running.n_past, running.slot, wants_logits=True)
                running.n_past += 1
            else:
                running.logits_index = None
                prefilling.append(running)
        for running in prefilling:
            prompt = running.request.prompt
            end = min(len(prompt), running.n_past + batch.capacity - batch.n_tokens)
            for position in range(running.n_past, end):
                is_last = position == len(prompt) - 1
                index = batch.add(prompt[position], position, running.slot, wants_logits=is_last)
                if is_last:
                    running.logits_index = index
            running.n_past = end

    def _sample(self, running: _Running) -> Chunk | None:
        if running.logits_index is None:
            return None
        token = running.sampler.sample(self._context, running.logits_index)
        now = time.perf_counter()
        timings = running.timings
        if timings.n_generated == 0:
            running.first_token_at = now
            timings.prefill_seconds = now - running.began
        timings.n_generated += 1
        timings.decode_seconds = now - running.first_token_at
        model = self._context.model
        if model.is_end(token) and not running.request.sampling.ignore_eos:
            return self._end(running, FinishReason.STOP, running.stream.finish(), token)
        text = running.stream.push(model.piece(token, special=False))
        if running.stream.stopped_by is not None:
            return self._end(running, FinishReason.STOP, text, token)
        if running.request.max_tokens is not None and timings.n_generated >= running.request.max_tokens:
            return self._end(running, FinishReason.LENGTH, text + running.stream.finish(), token)
        if running.n_past >= self._limit:
            return self._end(running, FinishReason.LENGTH, text + running.stream.finish(), token, context_end=True)
        running.last_token = token
        return Chunk(running.request_id, text, token)

    def _end(
        self, running: _Running, reason: FinishReason, text: str, token: int | None, *, context_end: bool = False
    ) -> Chunk:
        self._release(running)
        if running.stream.stopped_by is not None:  # it may have come to light in the text that was held back
            reason, context_end = FinishReason.STOP, False
        return Chunk(running.request_id, text, token, reason, running.stream.stopped_by, context_end, running.timings)

    def _end_all(self) -> list[Chunk]:
        ended = [
            self._end(running, FinishReason.CANCELLED, running.stream.finish(), None) for running in list(self._running)
        ]
        while self._waiting:
            request_id, request = self._waiting.popleft()
            ended.append(
                Chunk(request_id, "", None, FinishReason.CANCELLED, timings=Timings(n_prompt=len(request.prompt)))
            )
        return ended

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
