"""The scheduler over a real llama.cpp context: slots, chunks of prefill, ends, failures, cancelling, seeds."""

import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from owm.engine.generate import Generation, decoded
from owm.engine.model import Model
from owm.engine.sampling import Sampling
from owm.engine.scheduler import Chunk, FinishReason, Request, Scheduler
from owm.errors import EngineError, UsageError
from owm.settings.keys import MAX_SEED
from support.tiny_gguf import write_tiny_gguf
from support.tiny_recurrent import write_tiny_hybrid, write_tiny_mamba

GREEDY = Sampling(temp=0, ignore_eos=True)
RANDOM = Sampling(temp=1, top_k=0, top_p=1.0, min_p=0.0, seed=7, ignore_eos=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf", n_ctx_train=4096)]) as opened:
        yield opened


def _run(scheduler: Scheduler) -> dict[int, list[Chunk]]:
    """Step until idle, with a bound; group chunks by request."""
    chunks: dict[int, list[Chunk]] = {}
    for _ in range(10_000):
        if scheduler.is_idle:
            return chunks
        for chunk in scheduler.step():
            chunks.setdefault(chunk.request_id, []).append(chunk)
    raise AssertionError("the scheduler does not end")


def _tokens(chunks: list[Chunk]) -> list[int | None]:
    return [chunk.token for chunk in chunks]


def test_an_answer_ends_at_max_tokens_with_its_counts(model: Model) -> None:
    with model.scheduler(256) as scheduler:
        request_id = scheduler.submit(Request(model.tokenize("the tin"), GREEDY, max_tokens=7))
        chunks = _run(scheduler)[request_id]
    assert len(chunks) == 7
    last = chunks[-1]
    assert last.finish_reason is FinishReason.LENGTH
    assert not last.hit_context_end
    assert last.timings is not None
    assert (last.timings.n_prompt, last.timings.n_generated) == (len(model.tokenize("the tin")), 7)
    assert last.timings.decode_per_second is not None
    assert last.timings.decode_per_second > 0


def test_more_requests_than_slots_all_end_once(model: Model) -> None:
    with model.scheduler(128, n_sequences=2) as scheduler:
        ids = [scheduler.submit(Request(model.tokenize("the " * (n + 1)), GREEDY, max_tokens=3 + n)) for n in range(5)]
        chunks = _run(scheduler)
    assert sorted(chunks) == ids
    for n, request_id in enumerate(ids):
        assert len(chunks[request_id]) == 3 + n
        assert [chunk.finish_reason for chunk in chunks[request_id]].count(FinishReason.LENGTH) == 1


def test_a_sequence_does_not_see_its_neighbours_nor_its_predecessor(model: Model) -> None:
    """In f32 with the same shapes, an answer is the same whoever shares the context or had the slot before."""
    prompts = [model.tokenize(text) for text in ("the in", "er on a", "a the er")]
    alone = []
    for prompt in prompts:
        with model.scheduler(128) as scheduler:
            request_id = scheduler.submit(Request(prompt, GREEDY, max_tokens=16))
            alone.append(_tokens(_run(scheduler)[request_id]))
    with model.scheduler(128, n_sequences=2) as scheduler:
        ids = [scheduler.submit(Request(prompt, GREEDY, max_tokens=16)) for prompt in prompts]
        together = _run(scheduler)
    assert [_tokens(together[request_id]) for request_id in ids] == alone


def test_a_prompt_longer_than_a_batch_is_prefilled_in_chunks(model: Model) -> None:
    prompt = (model.tokenize("the tin on a ") * 1000)[:3000]
    with model.scheduler(3100) as scheduler:
        request_id = scheduler.submit(Request(prompt, GREEDY, max_tokens=2))
        assert scheduler.step() == []  # 2,048 of 3,000: nothing to sample yet
        chunks = _run(scheduler)[request_id]
    assert len(chunks) == 2


def test_the_context_ends_the_answer_and_that_is_said(model: Model) -> None:
    prompt = model.tokenize("the tin")
    n_ctx = len(prompt) + 5
    with model.scheduler(n_ctx) as scheduler:
        request_id = scheduler.submit(Request(prompt, GREEDY))
        chunks = _run(scheduler)[request_id]
    assert chunks[-1].finish_reason is FinishReason.LENGTH
    assert chunks[-1].hit_context_end
    assert len(chunks) == 6  # the last token is sampled but needs no place any more


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(model: Model) -> None:
    with model.scheduler(256) as scheduler:
        whole_id = scheduler.submit(Request(model.tokenize("the"), GREEDY, max_tokens=40))
        whole = "".join(chunk.text for chunk in _run(scheduler)[whole_id])
        stop = whole[10:13]
        cut_id = scheduler.submit(Request(model.tokenize("the"), GREEDY, max_tokens=40, stops=(stop,)))
        chunks = _run(scheduler)[cut_id]
    assert "".join(chunk.text for chunk in chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert chunks[-1].stopped_by == stop


def test_a_stop_string_that_comes_to_light_at_the_end_is_the_reason(model: Model) -> None:
    with model.scheduler(256) as scheduler:
        whole_id = scheduler.submit(Request(model.tokenize("the"), GREEDY, max_tokens=20))
        whole = "".join(chunk.text for chunk in _run(scheduler)[whole_id])
        # The longer stop string holds back the end, where the shorter one lies.
        stops = (whole[-2:] + "\x00", whole[-1:])
        cut_id = scheduler.submit(Request(model.tokenize("the"), GREEDY, max_tokens=20, stops=stops))
        last = _run(scheduler)[cut_id][-1]
    assert last.stopped_by == whole[-1:]
    assert last.finish_reason is FinishReason.STOP


def test_the_same_seed_draws_the_same_answer(model: Model) -> None:
    def draw(seed: int) -> list[int | None]:
        with model.scheduler(128) as scheduler:
            sampling = Sampling(temp=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=seed, ignore_eos=True)
            request_id = scheduler.submit(Request(model.tokenize("the"), sampling, max_tokens=12))
            return _tokens(_run(scheduler)[request_id])

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_repeat_penalty_changes_a_greedy_answer(model: Model) -> None:
    def answer(penalty: float) -> list[int | None]:
        with model.scheduler(128) as scheduler:
            sampling = Sampling(temp=0, repeat_penalty=penalty, ignore_eos=True)
            request_id = scheduler.submit(Request(model.tokenize("the"), sampling, max_tokens=24))
            return _tokens(_run(scheduler)[request_id])

    assert answer(1.0) != answer(5.0)


def test_cancelling_ends_every_request_that_runs_or_waits(model: Model) -> None:
    with model.scheduler(512) as scheduler:
        for _ in range(3):
            scheduler.submit(Request(model.tokenize("the"), GREEDY))
        generation = Generation(scheduler)
        ended = {}
        for seen, chunk in enumerate(generation):
            if seen == 5:
                generation.cancel()
            if chunk.finish_reason is not None:
                ended[chunk.request_id] = chunk.finish_reason
    assert set(ended.values()) == {FinishReason.CANCELLED}
    assert len(ended) == 3


def test_leaving_the_iteration_stops_the_decoding_thread(model: Model) -> None:
    with model.scheduler(4096) as scheduler:
        scheduler.submit(Request(model.tokenize("the"), GREEDY))
        generation = Generation(scheduler)
        for _ in generation:
            break
        rest = generation.rest()
    assert all(chunk.finish_reason in (None, FinishReason.CANCELLED) for chunk in rest)


@pytest.mark.parametrize("n_tokens", [0, 128, 500])
def test_a_prompt_that_cannot_fit_is_never_queued(model: Model, n_tokens: int) -> None:
    with model.scheduler(128) as scheduler, pytest.raises(EngineError, match="does not fit"):
        scheduler.submit(Request([1] * n_tokens, GREEDY))


# -- drafts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_tiny_gguf, write_tiny_mamba, write_tiny_hybrid])
def test_drafts_are_what_their_seeds_draw_alone(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """Also where the prompt is a state, of which each draft needs its own copy."""
    with Model([write(tmp_path / "tiny.gguf")], n_gpu_layers=0) as model:
        prompt = model.tokenize("the tin on a ") * 4
        alone = []
        for seed in range(7, 11):
            with model.scheduler(len(prompt) + 20, n_threads=1) as scheduler:
                sampling = Sampling(temp=1, top_k=0, top_p=1.0, min_p=0.0, seed=seed, ignore_eos=True)
                request_id = scheduler.submit(Request(prompt, sampling, max_tokens=20))
                alone.append(_tokens(_run(scheduler)[request_id]))
        with model.scheduler(len(prompt) + 20, n_sequences=4, n_shared=len(prompt), n_threads=1) as scheduler:
            for _ in range(2):  # and once more in slots that were used
                ids = scheduler.submit_drafts(Request(prompt, RANDOM, max_tokens=20), 4)
                chunks = _run(scheduler)
                assert [_tokens(chunks[request_id]) for request_id in ids] == alone
    assert len(set(map(tuple, alone))) == 4


def test_drafts_read_their_prompt_once_in_chunks(model: Model) -> None:
    prompt = (model.tokenize("the tin on a ") * 1000)[:3000]
    with model.scheduler(3010, n_sequences=8, n_shared=3000, n_threads=1) as scheduler:
        ids = scheduler.submit_drafts(Request(prompt, RANDOM, max_tokens=3), 8)
        assert scheduler.step() == []
        first = scheduler.step()
        assert [chunk.request_id for chunk in first] == ids, "all of them draw from the prompt's logits"
        assert {request_id: len(chunks) for request_id, chunks in _run(scheduler).items()} == dict.fromkeys(ids, 2)


def test_drafts_wait_until_there_are_slots_for_all(model: Model) -> None:
    prompt = model.tokenize("the tin")
    with model.scheduler(64, n_sequences=3, n_shared=1, n_threads=1) as scheduler:
        long = scheduler.submit(Request(prompt, GREEDY, max_tokens=9))
        short = scheduler.submit(Request(prompt, GREEDY, max_tokens=2))
        drafts = scheduler.submit_drafts(Request(prompt, RANDOM, max_tokens=2), 3)
        after = scheduler.submit(Request(prompt, GREEDY, max_tokens=2))
        order = []
        while not scheduler.is_idle:
            order += [chunk.request_id for chunk in scheduler.step() if chunk.finish_reason]
    assert order == [short, long, *drafts, after]


def test_a_draft_that_ends_gives_its_slot_to_the_next_at_once(model: Model) -> None:
    prompt = model.tokenize("the tin")
    with model.scheduler(64, n_sequences=2, n_shared=1, n_threads=1) as scheduler:
        whole = scheduler.submit(Request(prompt, RANDOM, max_tokens=12))
        text = "".join(chunk.text for chunk in _run(scheduler)[whole])
        stop = text[3:5]
        drafts = scheduler.submit_drafts(Request(prompt, RANDOM, max_tokens=12, stops=(stop,)), 2)
        waiting = scheduler.submit(Request(prompt, GREEDY, max_tokens=1))
        order = []
        while not scheduler.is_idle:
            order += [chunk.request_id for chunk in scheduler.step() if chunk.finish_reason]
    assert order == [drafts[0], waiting, drafts[1]]


def test_drafts_end_together_when_they_are_cancelled(model: Model) -> None:
    with model.scheduler(512, n_sequences=4, n_shared=1, n_threads=1) as scheduler:
        ids = scheduler.submit_drafts(Request(model.tokenize("the tin"), GREEDY), 4)
        scheduler.submit_drafts(Request(model.tokenize("the"), GREEDY), 2)
        scheduler.step()
        scheduler.cancel()
        chunks = _run(scheduler)
    assert all(each[-1].finish_reason is FinishReason.CANCELLED for each in chunks.values())
    assert sorted(chunks) == [*ids, ids[-1] + 1, ids[-1] + 2]


def test_drafts_need_sequences_that_share(model: Model) -> None:
    prompt = model.tokenize("the")
    with (
        model.scheduler(64, n_sequences=2, n_threads=1) as scheduler,
        pytest.raises(EngineError, match="share a cache"),
    ):
        scheduler.submit_drafts(Request(prompt, GREEDY), 2)
    with (
        model.scheduler(64, n_sequences=2, n_shared=1, n_threads=1) as scheduler,
        pytest.raises(EngineError, match="3 drafts"),
    ):
        scheduler.submit_drafts(Request(prompt, GREEDY), 3)
    with model.scheduler(64, n_threads=1) as scheduler:
        (only,) = scheduler.submit_drafts(Request(prompt, GREEDY, max_tokens=1), 1)
        assert list(_run(scheduler)) == [only]


def test_seeds_of_drafts_stay_in_their_range(model: Model) -> None:
    def draw(seed: int, n: int) -> list[int | None]:
        with model.scheduler(64, n_sequences=n, n_shared=2, n_threads=1) as scheduler:
            sampling = Sampling(temp=2, top_k=0, top_p=1.0, min_p=0.0, seed=seed, ignore_eos=True)
            ids = scheduler.submit_drafts(Request(model.tokenize("the"), sampling, max_tokens=8), n)
            return _tokens(_run(scheduler)[ids[-1]])

    assert draw(MAX_SEED, 2) == draw(0, 1)


@pytest.mark.parametrize("n_sequences", [0, -1, 257])
def test_there_is_a_bound_on_drafts(model: Model, n_sequences: int) -> None:
    with (
        pytest.raises(UsageError, match="--drafts must be between 1 and 256"),
        model.scheduler(64, n_sequences=n_sequences),
    ):
        pass


# -- failures ----------------------------------------------------------------------------------------------------------


class DeadEnd:
    """A constraint that allows no token any more after some, or that fails at once."""

    is_finished = is_complete = False

    def __init__(self, n_allowed: int) -> None:
        self._n_left = n_allowed

    def matcher(self, vocabulary: object) -> "DeadEnd":
        return DeadEnd(self._n_left)

    def forced(self) -> list[int]:
        if self._n_left < 0:
            raise EngineError("the answer cannot begin")
        return []

    def allows(self, token: int) -> bool:
        return self._n_left > 0

    def accept(self, token: int) -> None:
        self._n_left -= 1

    def mask(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.zeros(1000, np.bool_)


def _beside_a_dead_end(model: Model, n_allowed: int) -> list[Request]:
    prompts = [model.tokenize("the tin on a ") * 2 + [40 + i] for i in range(4)]
    n = len(prompts[0]) - 1
    requests = [Request(prompt, GREEDY, max_tokens=6, splits=(n - 9, n)) for prompt in prompts]
    # The first is the one that reads for the others.
    return [replace(requests[0], constraint=DeadEnd(n_allowed)), *requests[1:]]  # type: ignore[arg-type]


@pytest.mark.parametrize("n_allowed", [-1, 0, 1, 3])
def test_a_request_that_fails_does_not_take_others_with_it(model: Model, n_allowed: int) -> None:
    """It may fail before it has read anything, with its first token, or amid its answer."""
    requests = _beside_a_dead_end(model, n_allowed)
    with model.scheduler(128, n_threads=1, is_exact=True) as scheduler:
        ids = [scheduler.submit(request) for request in requests[1:]]
        alone = _run(scheduler)
        expected = [_tokens(alone[request_id]) for request_id in ids]
    with model.scheduler(
        128, n_sequences=3, n_holders=1, n_threads=1, is_exact=True, isolates_failures=True
    ) as scheduler:
        failing, *ids = [scheduler.submit(request) for request in requests]
        chunks = _run(scheduler)
        later = scheduler.submit(requests[1])
        assert _tokens(_run(scheduler)[later]) == expected[0]
    assert [_tokens(chunks[request_id]) for request_id in ids] == expected
    assert all(chunks[request_id][-1].finish_reason is FinishReason.LENGTH for request_id in ids)
    last = chunks[failing][-1]
    assert len(chunks[failing]) == max(n_allowed, 0) + 1
    assert last.finish_reason is FinishReason.FAILED
    assert isinstance(last.error, EngineError)
    assert str(last.error).startswith("the answer cannot" if n_allowed < 0 else "no token of the model goes on")
    assert last.timings is not None
    assert last.timings.n_generated == max(n_allowed, 0)
    assert all(chunk.error is None for each in chunks.values() for chunk in each if chunk is not last)


@pytest.mark.parametrize("n_allowed", [-1, 0, 3])
def test_a_failure_ends_the_step_where_nobody_asked_for_more(model: Model, n_allowed: int) -> None:
    with model.scheduler(128, n_sequences=4, n_threads=1) as scheduler:
        for request in _beside_a_dead_end(model, n_allowed):
            scheduler.submit(request)
        with pytest.raises(EngineError, match=r"the answer cannot|no token of the model"):
            _run(scheduler)


def test_a_failed_answer_keeps_the_text_that_was_certain(model: Model) -> None:
    prompt = model.tokenize("the tin")
    with model.scheduler(128, n_threads=1, isolates_failures=True) as scheduler:
        whole = scheduler.submit(Request(prompt, GREEDY, max_tokens=3))
        text = "".join(chunk.text for chunk in _run(scheduler)[whole])
        constraint: Any = DeadEnd(3)
        held_back = text[-1:] + "\x00"
        cut = scheduler.submit(Request(prompt, GREEDY, stops=(held_back,), constraint=constraint))
        chunks = _run(scheduler)[cut]
    assert chunks[-1].finish_reason is FinishReason.FAILED
    assert chunks[-1].stopped_by is None
    assert "".join(chunk.text for chunk in chunks) == text


# -- fed while it runs -------------------------------------------------------------------------------------------------


def _answers(generation: Generation) -> dict[int, list[int | None]]:
    answers: dict[int, list[int | None]] = {}
    for chunk in generation:
        answers.setdefault(chunk.request_id, []).append(chunk.token)
    return answers


def test_requests_are_fed_while_others_run(model: Model) -> None:
    prompts = [[*model.tokenize("the tin on a "), 40 + i] for i in range(9)]
    requests = [Request(prompt, GREEDY, max_tokens=2 + i % 4) for i, prompt in enumerate(prompts)]
    with model.scheduler(128, n_threads=1, is_exact=True) as scheduler:
        ids = [scheduler.submit(request) for request in requests]
        alone = _run(scheduler)
        expected = [_tokens(alone[request_id]) for request_id in ids]
    with model.scheduler(128, n_sequences=3, n_threads=1, is_exact=True) as scheduler:
        left, n_running = list(requests), []

        def feed() -> list[Chunk] | None:
            if not left:
                return None
            while left and scheduler.n_running + scheduler.n_waiting < scheduler.n_slots:
                n_running.append(scheduler.n_running)
                scheduler.submit(left.pop(0))
            return []

        answers = _answers(Generation(scheduler, feed))
    assert [answers[request_id] for request_id in sorted(answers)] == expected
    assert max(n_running) == 2, "the others went on"


def test_what_feeds_may_wait_while_nothing_runs(model: Model) -> None:
    """Requests come from another thread, the second when the first was answered."""
    rows: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    request = Request(model.tokenize("the tin"), GREEDY, max_tokens=3)
    with model.scheduler(128, n_threads=1) as scheduler:

        def feed() -> list[Chunk] | None:
            if not scheduler.is_idle:
                return []
            if (row := rows.get(timeout=30)) is None:
                return None
            scheduler.submit(row)
            return []

        rows.put(request)
        reasons = []
        for chunk in Generation(scheduler, feed):
            if chunk.finish_reason:
                reasons.append(chunk.finish_reason)
                rows.put(request if len(reasons) < 3 else None)
    assert reasons == [FinishReason.LENGTH] * 3


def test_what_feeds_can_give_chunks_of_its_own(model: Model) -> None:
    error = EngineError("no request could be made of it")
    own = [Chunk(-1, "", None, FinishReason.FAILED, error=error)]
    with model.scheduler(128, n_threads=1) as scheduler:
        feeds: list[list[Chunk] | None] = [own, [], None]
        chunks = list(Generation(scheduler, lambda: feeds.pop(0)))
    assert chunks == own
    assert feeds == []


def test_when_what_feeds_fails_the_iteration_does(model: Model) -> None:
    with model.scheduler(128, n_threads=1) as scheduler:
        scheduler.submit(Request(model.tokenize("the"), GREEDY))
        n_calls = 0

        def feed() -> list[Chunk] | None:
            nonlocal n_calls
            n_calls += 1
            if n_calls == 5:
                raise ZeroDivisionError("row 5")
            return []

        with pytest.raises(ZeroDivisionError, match="row 5"):
            list(Generation(scheduler, feed))
        assert n_calls == 5
        assert scheduler.n_running == 1


def test_leaving_the_iteration_stops_what_feeds_too(model: Model) -> None:
    request = Request(model.tokenize("the"), GREEDY)
    with model.scheduler(4096, n_sequences=2, n_threads=1) as scheduler:

        def feed() -> list[Chunk] | None:
            if scheduler.n_running + scheduler.n_waiting < 2:
                scheduler.submit(request)
            return []

        generation = Generation(scheduler, feed)
        for _ in generation:
            break
        rest = generation.rest()
        assert scheduler.is_idle
    assert {chunk.request_id for chunk in rest if chunk.finish_reason is FinishReason.CANCELLED} == {1, 2}


def test_cancelling_ends_what_waits_for_more(model: Model) -> None:
    with model.scheduler(128, n_threads=1) as scheduler:
        waits = threading.Event()

        def feed() -> list[Chunk] | None:
            waits.set()
            while not scheduler.is_cancelled:
                pass
            return []

        generation = Generation(scheduler, feed)
        canceller = threading.Thread(target=lambda: (waits.wait(30), generation.cancel()))
        canceller.start()
        assert list(generation) == []
        canceller.join()


# -- other work --------------------------------------------------------------------------------------------------------


def test_a_context_is_lent_only_when_nothing_runs(model: Model) -> None:
    with model.scheduler(64, n_threads=1) as scheduler:
        scheduler.submit(Request(model.tokenize("the"), GREEDY, max_tokens=1))
        with pytest.raises(EngineError, match="at work"), scheduler.borrow():
            pass
        _run(scheduler)
        with scheduler.borrow() as context:
            assert context.n_sequences == 1
    with pytest.raises(EngineError, match="closed"), scheduler.borrow():
        pass


def test_whoever_stops_waiting_cancels_the_work() -> None:
    cancelled = threading.Event()
    main = threading.main_thread().ident or 0

    def work() -> bool:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if "wait" in (frame.name for frame in traceback.extract_stack(sys._current_frames()[main])):
                break
        signal.pthread_kill(main, signal.SIGINT)
        return cancelled.wait(30)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            decoded(work, cancelled.set)
    finally:
        signal.signal(signal.SIGINT, before)
    assert cancelled.is_set()
    assert decoded(lambda: 5, cancelled.set) == 5
