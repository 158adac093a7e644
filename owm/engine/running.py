"""A request under way: the sequence that it holds, what is still to be read, and how tokens become an answer."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from owm.engine.guide import Given, Guide
from owm.engine.request import Chunk, FinishReason, Request, Timings
from owm.engine.sampling import Sampling
from owm.engine.text import TextStream
from owm.errors import OwmError
from owm.native.llama import Context
from owm.native.sampler import Sampler, SamplerSettings

if TYPE_CHECKING:
    from owm.engine.constrain import Matcher
    from owm.engine.logprobs import TokenLogprobs

Prefix = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Running:
    """A request that holds a slot.

    Attributes:
        guide: what steers it, None if it is plain.
        limit: the most tokens its sequence may have.
        pending: tokens that are known, but were not decoded yet.
        n_past: tokens of its sequence that were decoded.
        logits_index: of the token in the last batch from which the next is drawn, None if there is none.
        n_fed: tokens of it in the last batch.
        fed: which tokens its sequence holds, for a scheduler that has to know.
        prefixes: beginnings of what it reads first that others may need as well, the shortest first; each is dropped
            once it is read.
        awaits: the prefix that another request reads for it.
        has_ended: it gives nothing more.
    """

    request_id: int
    request: Request
    slot: int
    context: Context
    sampler: Sampler
    stream: TextStream
    guide: Guide | None
    limit: int
    began: float = field(default_factory=time.perf_counter)
    pending: list[int] = field(default_factory=list)
    n_past: int = 0
    logits_index: int | None = None
    n_fed: int = 0
    fed: list[int] | None = None
    prefixes: list[Prefix] = field(default_factory=list)
    awaits: Prefix | None = None
    has_ended: bool = False
    first_token_at: float | None = None
    timings: Timings = field(default_factory=Timings)

    @classmethod
    def begin(
        cls, request_id: int, request: Request, slot: int, context: Context, limit: int, matcher: "Matcher | None"
    ) -> "Running":
        """Make what a request needs, with all of its prompt still to be read."""
        sampler = Sampler(sampler_settings(request.sampling.with_seed()), context.model)
        sampler.accept(request.prompt)
        stream = TextStream(request.stops, request.thoughts())
        guide = None if request.is_plain else Guide(request, context.model, stream, sampler, matcher)
        running = cls(request_id, request, slot, context, sampler, stream, guide, limit, pending=list(request.prompt))
        running.timings.n_prompt = len(request.prompt)
        return running

    @property
    def is_decoding(self) -> bool:
        """Its prompt is read."""
        return self.first_token_at is not None

    def readable(self, n_room: int, piece: int | None = None) -> int:
        """Return how many of its pending tokens the next batch can take.

        Args:
            n_room: tokens that there is room for.
            piece: a prompt is read up to the next multiple of it.
        """
        if self.awaits is not None:
            return 0
        n = min(len(self.pending), n_room)
        if self.prefixes:
            n = min(n, len(self.prefixes[0]) - self.n_past)
        if piece is not None and not self.is_decoding:
            n = min(n, piece - self.n_past % piece)
        return n

    def feed(self, n: int) -> None:
        """Put `n` pending tokens into the batch; the last one of all gives logits."""
        self.logits_index = None
        self.n_fed = n
        if not n:
            return
        batch, pending, position, slot = self.context.batch, self.pending, self.n_past, self.slot
        index = 0
        for token in pending if n == len(pending) else pending[:n]:
            index = batch.add(token, position, slot, wants_logits=False)
            position += 1
        self.n_past = position
        if n == len(pending):
            batch.want_logits(index)
            self.logits_index = index
        if self.fed is not None:
            self.fed += pending[:n]
        del pending[:n]

    def go_on_from(self, other: int, n_read: int) -> None:
        """Take over what another sequence has read of its prompt, which is `n_read` tokens."""
        self.context.forget(self.slot)
        self.context.share(other, self.slot)
        self.go_on_at(n_read)

    def go_on_at(self, n_read: int) -> None:
        """Count what its sequence holds of its prompt, which is `n_read` tokens, as read."""
        n = n_read - self.n_past
        if self.fed is not None:
            self.fed += self.pending[:n]
        del self.pending[:n]
        self.n_past = n_read
        while self.prefixes and len(self.prefixes[0]) <= n_read:
            del self.prefixes[0]

    def move(self, slot: int) -> None:
        """Change to another sequence, which is empty."""
        if self.n_past:
            self.context.share(self.slot, slot)
            self.context.forget(self.slot)
        self.slot = slot

    def move_into(self, context: Context, limit: int, *, is_held: bool) -> None:
        """Go on in another context, which holds what was read, or else has to read it again."""
        self.context, self.limit, self.logits_index = context, limit, None
        if not is_held:
            assert self.fed is not None
            self.pending = [*self.fed, *self.pending]
            self.fed, self.n_past = [], 0

    def sample(self, chunks: list[Chunk]) -> None:
        """Draw a token from its logits, and take it.

        Raises:
            EngineError: its constraint cannot be met.
        """
        context, index, guide = self.context, self.logits_index, self.guide
        assert index is not None
        token = self.sampler.sample(context, index) if guide is None else guide.draw(context, index)
        now = time.perf_counter()
        timings = self.timings
        if self.first_token_at is None:
            self.first_token_at = now
            timings.prefill_seconds = now - self.began
        timings.decode_seconds = now - self.first_token_at
        if token is not None:
            if context.model.is_end(token) and not self.request.sampling.ignore_eos:
                if guide is None or not guide.refuses_end():
                    timings.n_generated += 1
                    chunks.append(self.end(FinishReason.STOP, "", token))
                    return
            elif self._take(token, chunks):
                return
        if guide is not None:
            self.take_given(chunks)

    def take_given(self, chunks: list[Chunk]) -> None:
        """Take what follows without being drawn: an answer's beginning, the end of a thought, what is forced."""
        guide = self.guide
        while guide is not None and (given := guide.given(self.timings.n_reasoning)) is not None:
            if given.text:
                if self._take_beginning(guide, given, chunks):
                    return
                continue
            for n_left, token in zip(range(len(given.tokens) - 1, -1, -1), given.tokens, strict=True):
                if self._take(token, chunks, is_last=n_left == 0):
                    return

    def _take_beginning(self, guide: Guide, given: Given, chunks: list[Chunk]) -> bool:
        """Feed the beginning of an answer, which counts as a part of the prompt; return whether it is all of it."""
        self.pending += given.tokens
        self.timings.n_prompt += len(given.tokens)
        text = self.stream.push(given.text.encode())
        is_over = self.n_past + len(self.pending) > self.limit
        if is_over or self.stream.stopped_by is not None or guide.is_finished:
            reason = FinishReason.LENGTH if is_over else FinishReason.STOP
            chunks.append(self.end(reason, text, None, context_end=is_over))
            return True
        chunks.append(Chunk(self.request_id, text, None))
        return False

    def _take(self, token: int, chunks: list[Chunk], *, is_last: bool = True) -> bool:
        """Make a token, which is no end, a part of the answer; return whether the answer ended with it.

        Args:
            is_last: none of what the guide knows to come is left.
        """
        model, stream, guide, timings = self.context.model, self.stream, self.guide, self.timings
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
        elif self.request.max_tokens is not None and timings.n_generated >= self.request.max_tokens:
            reason = FinishReason.LENGTH
        elif self.n_past + len(self.pending) >= self.limit:
            reason, is_context_end = FinishReason.LENGTH, True
        if reason is not None:
            chunks.append(self.end(reason, text, token, context_end=is_context_end, logprobs=logprobs))
            return True
        self.pending.append(token)
        thought, is_answer = stream.take_thought(), guide is not None and guide.has_begun
        chunks.append(Chunk(self.request_id, text, token, reasoning=thought, logprobs=logprobs, is_answer=is_answer))
        return False

    def end(
        self,
        reason: FinishReason,
        text: str = "",
        token: int | None = None,
        *,
        context_end: bool = False,
        logprobs: "TokenLogprobs | None" = None,
        error: OwmError | None = None,
    ) -> Chunk:
        """End the answer, and return its last chunk."""
        self.has_ended = True
        is_thinking = self.guide is not None and self.guide.is_thinking
        text += self.stream.finish()
        stopped_by = self.stream.stopped_by
        if stopped_by is not None and error is None:  # it may have come to light in the text that was held back
            reason, context_end = FinishReason.STOP, False
        thought = self.stream.take_thought()
        is_answer = self.guide is not None and self.guide.has_begun
        return Chunk(
            self.request_id,
            text,
            token,
            reason,
            stopped_by,
            context_end,
            self.timings,
            thought,
            logprobs,
            is_answer,
            is_thinking,
            error,
        )

    def close(self) -> None:
        """Free the sampler."""
        self.sampler.close()


def sampler_settings(sampling: Sampling) -> SamplerSettings:
    """Say settings as a sampler chain takes them."""
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
