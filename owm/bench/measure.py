"""Measuring one case over an open model, as often as wanted: the same engine, contexts and threads as `owm run`'s.

With random tokens the work is llama-bench's, so that numbers compare: a prompt in pieces of a batch, then single tokens
that were drawn before and not from the logits. With a real prompt the answer is sampled greedily, as it would be.
Side by side (`n_parallel`), prompts and answers go through the scheduler, as rows of a batch do.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from owm.bench.case import Case
from owm.engine import context
from owm.engine.generate import decoded
from owm.engine.request import FinishReason, Request
from owm.engine.sampling import Sampling
from owm.engine.scheduler import FIRST_PREFILL
from owm.errors import EngineError, NotEnoughMemory, OwmError
from owm.hardware import probe
from owm.native import state
from owm.units import format_bytes

if TYPE_CHECKING:
    from owm.engine.growing import GrowingScheduler
    from owm.engine.model import Model
    from owm.native.llama import Context
    from owm.native.sampler import Sampler

SEED = 1
GREEDY = Sampling(temp=0, seed=SEED, ignore_eos=True)
_KV_SHARES = {"f32": 2.0, "f16": 1.0, "bf16": 1.0}  # of what f16 takes
_LEAST_KV_SHARE = 0.25
MIN_STEPS = 10  # of which there is a quickest tenth


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    Attributes:
        seconds: that the case's tokens took, over all answers.
        first_seconds: until the first token could be drawn (side by side: the median), None where no prompt is read.
        quick_per_second: tokens per second in the quickest tenth of its steps, None where it is not made of steps.
    """

    seconds: float
    n_tokens: int
    first_seconds: float | None = None
    quick_per_second: float | None = None

    @property
    def per_second(self) -> float:
        """Tokens per second, over all answers."""
        return self.n_tokens / self.seconds


@contextmanager
def open_workload(model: "Model", case: Case) -> Iterator["Workload"]:
    """Make a context for a case, kept until the `with` statement is left.

    The layers on the GPU are those with which the model was opened, whatever the case's tuning says.

    Raises:
        Unsupported, UsageError, EngineError: as `Model.scheduler`.
    """
    with ExitStack() as stack:
        yield (_SideBySide if case.n_parallel > 1 else _Alone)(model, case, stack)


class Workload:
    """A case, ready to be measured; from one thread at a time. Ctrl-C stops a decode at once."""

    def __init__(self, model: "Model", case: Case, n_ctx: int, stack: ExitStack) -> None:
        """Make the context."""
        self.case = case
        self._model = model
        self._draw = random.Random(SEED)
        _check_memory(model, case, n_ctx)
        self._scheduler: GrowingScheduler = stack.enter_context(
            model.scheduler(n_ctx, n_sequences=case.n_parallel, tuning=case.tuning, isolates_failures=False)
        )

    def warm_up(self) -> None:
        """Do a little of it, or all if that is reading a prompt: what is done first takes longer.

        Raises:
            EngineError: llama.cpp failed, or was cancelled.
        """
        raise NotImplementedError

    def measure(self) -> Sample:
        """Do the work once, in an empty context.

        Raises:
            EngineError: llama.cpp failed, or was cancelled.
        """
        raise NotImplementedError

    def _random(self, n: int, *, is_first: bool) -> list[int]:
        """Draw tokens of the vocabulary, as llama-bench does: what they say does not change what they cost."""
        native = self._model.native
        tokens = [self._draw.randrange(native.n_vocab) for _ in range(n)]
        if tokens and is_first and native.adds_bos:
            tokens[0] = native.bos
        return tokens


class _Alone(Workload):
    """One sequence, without the scheduler: what llama-bench does."""

    def __init__(self, model: "Model", case: Case, stack: ExitStack) -> None:
        super().__init__(model, case, case.n_depth_in_all + case.n_prompt + case.n_gen, stack)
        self._context: Context = stack.enter_context(self._scheduler.borrow())
        self._filled: bytearray | None = None  # the state at the depth of the case, which is read once
        self._sampler = _sampler(model, stack) if case.prompt else None
        self._depth = self._random(case.n_depth, is_first=True)
        if not case.n_prompt:
            self._depth += case.prompt

    def warm_up(self) -> None:
        decoded(lambda: self._run(min(1, self.case.n_gen), is_filled=False), self._context.cancel)

    def measure(self) -> Sample:
        return decoded(lambda: self._run(self.case.n_gen, is_filled=True), self._context.cancel)

    def _run(self, n_gen: int, *, is_filled: bool) -> Sample:
        case = self.case
        self._context.forget_all()
        position = self._fill() if is_filled else 0
        n_prompt = case.n_prompt
        prompt = list(case.prompt) if case.prompt else self._random(n_prompt, is_first=position == 0)
        # Where a real prompt was read before, its last logits went with the state: any token will do to begin with.
        answer = self._random(max(n_gen, 1), is_first=position + n_prompt == 0)
        first_seconds = None
        began = time.perf_counter()
        if n_prompt:
            self._read(prompt, position)
            position += n_prompt
            first_seconds = time.perf_counter() - began
        if n_gen and self._sampler is not None:
            self._sample(answer[0] if not n_prompt else None, n_gen, position)
        ends = [began]
        if n_gen and self._sampler is None:
            for token in answer:
                self._decode([token], position)
                position += 1
                ends.append(time.perf_counter())
        seconds = time.perf_counter() - began
        return Sample(seconds, n_prompt + n_gen, first_seconds, None if n_prompt else _quick_rate(ends, 1))

    def _fill(self) -> int:
        """Bring the context to the case's depth; return the position that follows."""
        if not self._depth:
            return 0
        if self._filled is None or not state.load_state(self._context, 0, self._filled):
            self._context.forget_all()
            self._read(self._depth, 0)
            self._filled = state.save_state(self._context, 0)
        return len(self._depth)

    def _read(self, tokens: Sequence[int], position: int) -> None:
        n_batch = self._context.n_batch
        for begin in range(0, len(tokens), n_batch):
            self._decode(tokens[begin : begin + n_batch], position + begin)

    def _sample(self, first: int | None, n_gen: int, position: int) -> None:
        assert self._sampler is not None
        token = first
        for place in range(position, position + n_gen):
            if token is None:
                token = self._sampler.sample(self._context, self._context.batch.n_tokens - 1)
            self._decode([token], place)
            token = None

    def _decode(self, tokens: Sequence[int], position: int) -> None:
        batch, last = self._context.batch, len(tokens) - 1
        batch.clear()
        for i, token in enumerate(tokens):
            batch.add(token, position + i, 0, wants_logits=i == last)
        if self._context.decode() != 0:
            raise EngineError("the measurement was stopped")
        self._context.synchronize()


class _SideBySide(Workload):
    """Several sequences, through the scheduler: what `owm batch` does."""

    def __init__(self, model: "Model", case: Case, stack: ExitStack) -> None:
        n_before = max(1, case.n_depth_in_all)
        # Whoever has read its depth goes on while others still read theirs: so many tokens more.
        self._n_ahead = 2 + case.n_parallel * n_before // FIRST_PREFILL + case.n_parallel
        n_ctx = case.n_depth_in_all + case.n_prompt + case.n_gen + self._n_ahead
        super().__init__(model, case, n_ctx, stack)

    def warm_up(self) -> None:
        self._measure(min(2, self.case.n_gen))

    def measure(self) -> Sample:
        return self._measure(self.case.n_gen)

    def _measure(self, n_gen: int) -> Sample:
        run = self._read_and_answer if self.case.n_prompt else self._answer
        try:
            return decoded(lambda: run(n_gen), self._scheduler.cancel)
        finally:
            self._scheduler.cancel()
            self._scheduler.resume()  # forgets what was under way

    def _prompts(self) -> list[list[int]]:
        """Make prompts that have nothing in common, unless it is a real one."""
        case = self.case
        n_random = case.n_depth + (0 if case.prompt else case.n_prompt)
        prompts = [self._random(n_random, is_first=True) + list(case.prompt) for _ in range(case.n_parallel)]
        return [prompt or self._random(1, is_first=True) for prompt in prompts]

    def _read_and_answer(self, n_gen: int) -> Sample:
        """Time prompts, and the answers to them."""
        n_most = max(1, n_gen)
        began = time.perf_counter()
        for prompt in self._prompts():
            self._scheduler.submit(Request(prompt, GREEDY, n_most))
        firsts: dict[int, float] = {}
        while not self._scheduler.is_idle:
            for chunk in self._scheduler.step():
                _check(chunk.finish_reason, chunk.error)
                if chunk.request_id not in firsts:
                    firsts[chunk.request_id] = time.perf_counter() - began
        case = self.case
        return Sample(time.perf_counter() - began, case.n_parallel * (case.n_prompt + n_gen), median(firsts.values()))

    def _answer(self, n_gen: int) -> Sample:
        """Time the steps of `n_gen` tokens of each, from when all have begun."""
        waiting = {self._scheduler.submit(Request(prompt, GREEDY)) for prompt in self._prompts()}
        while waiting:
            for chunk in self._scheduler.step():
                _check(chunk.finish_reason, chunk.error)
                waiting.discard(chunk.request_id)
        ends = [time.perf_counter()]
        for _ in range(n_gen):
            for chunk in self._scheduler.step():
                _check(chunk.finish_reason, chunk.error)
            ends.append(time.perf_counter())
        n = self.case.n_parallel
        return Sample(ends[-1] - ends[0], n * n_gen, quick_per_second=_quick_rate(ends, n))


def _quick_rate(ends: Sequence[float], n_tokens: int) -> float | None:
    """Return tokens per second in the quickest tenth of steps, of which the times are known between which they lie."""
    steps = sorted(after - before for before, after in pairwise(ends))
    return n_tokens / steps[len(steps) // 10] if len(steps) >= MIN_STEPS else None


def _check(reason: FinishReason | None, error: OwmError | None) -> None:
    """Refuse a measurement of something that did not take place."""
    if error is not None:
        raise error
    if reason is FinishReason.CANCELLED:
        raise EngineError("the measurement was stopped")


def _check_memory(model: "Model", case: Case, n_ctx: int) -> None:
    """Refuse a context that surely has no room: the system would end the process where it is filled.

    Raises:
        NotEnoughMemory: it has none.
    """
    header = model.header
    is_known = not (header.integer("attention.sliding_window") or header.integer("attention.kv_lora_rank"))
    if model.n_gpu_layers or not is_known or context.state_bytes(header):
        return  # less is kept than the rule says, or llama.cpp finds out by itself
    share = min(_KV_SHARES.get(kind or "f16", _LEAST_KV_SHARE) for kind in (case.tuning.type_k, case.tuning.type_v))
    needed = int(n_ctx * case.n_parallel * context.kv_bytes_per_token(header) * share)
    free = probe.memory().available
    if needed > free:
        raise NotEnoughMemory(
            f"{case.test} needs {format_bytes(needed)} of memory for its context, {format_bytes(free)} are free",
            needed=needed,
            free=free,
            hint="fewer tokens, or fewer answers side by side, need less",
        )


def _sampler(model: "Model", stack: ExitStack) -> "Sampler":
    from owm.engine.running import sampler_settings
    from owm.native.sampler import Sampler

    sampler = Sampler(sampler_settings(GREEDY), model.native)
    stack.callback(sampler.close)
    return sampler
