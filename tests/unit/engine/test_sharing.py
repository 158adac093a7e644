"""Beginnings that prompts share, in a real scheduler: read once, kept, given to others, and never seen in an answer."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from owm.engine.model import Model
from owm.engine.prefixes import PrefixPlan, plan_prefixes
from owm.engine.sampling import Sampling
from owm.engine.scheduler import Chunk, FinishReason, Request, Scheduler
from support.tiny_gguf import write_tiny_gguf
from support.tiny_recurrent import write_tiny_hybrid, write_tiny_mamba
from support.tiny_sliding import write_tiny_falcon_h1, write_tiny_gemma3

GREEDY = Sampling(temp=0, ignore_eos=True)
WRITERS = [write_tiny_gguf, write_tiny_mamba, write_tiny_hybrid, write_tiny_gemma3, write_tiny_falcon_h1]
NONE = PrefixPlan(((),) * 100, tuple(range(100)))
LONG = [token % 50 + 10 for token in range(100)]


@pytest.fixture(scope="module", params=WRITERS, ids=lambda write: write.__name__.removeprefix("write_tiny_"))
def each_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    write: Callable[[Path], Path] = request.param
    with Model([write(tmp_path_factory.mktemp("m") / "tiny.gguf")], n_gpu_layers=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf", n_ctx_train=4096)
    with Model([path], n_gpu_layers=0) as opened:
        yield opened


@dataclass
class Counted:
    """A scheduler's work.

    Attributes:
        chunks: by request.
        sizes: tokens in the batch of each step.
        steps: the chunks of each step.
    """

    chunks: dict[int, list[Chunk]]
    sizes: list[int]
    steps: list[list[Chunk]]

    @property
    def n_tokens(self) -> int:
        return sum(self.sizes)

    def tokens(self, request_id: int) -> list[int | None]:
        return [chunk.token for chunk in self.chunks[request_id]]


def work(scheduler: Scheduler) -> Counted:
    """Step until idle, with a bound."""
    done = Counted({}, [], [])
    for _ in range(5000):
        if scheduler.is_idle:
            return done
        n_before = scheduler.n_decoded
        chunks = scheduler.step()
        done.steps.append(chunks)
        done.sizes.append(scheduler.n_decoded - n_before)
        for chunk in chunks:
            done.chunks.setdefault(chunk.request_id, []).append(chunk)
    raise AssertionError("the scheduler does not end")


def submit(scheduler: Scheduler, requests: Sequence[Request], plan: PrefixPlan = NONE) -> list[int]:
    """Queue requests in the order of a plan; return their ids in their own order."""
    ids = {i: scheduler.submit(replace(requests[i], splits=plan.splits[i])) for i in plan.order if i < len(requests)}
    return [ids[i] for i in range(len(requests))]


def related(model: Model, n: int, seed: int = 8) -> list[Request]:
    """Make requests whose prompts share much with some and less with others, and some that are the same."""
    dice = random.Random(seed)
    vocabulary = model.tokenize("the tin on a er in")
    base = [dice.choice(vocabulary) for _ in range(70)]
    other = base[:40] + [dice.choice(vocabulary) for _ in range(40)]
    deep = other + [dice.choice(vocabulary) for _ in range(30)]
    begins = [base, other, deep]
    requests = []
    for i in range(n):
        rest = [dice.choice(vocabulary) for _ in range(dice.randrange(1, 20))]
        prompt = rest if i % 7 == 6 else begins[dice.randrange(3)] + rest
        requests.append(Request(prompt, GREEDY, max_tokens=3 + 9 * (i % 5)))
    return [*requests[:-1], requests[0]]


# -- answers -----------------------------------------------------------------------------------------------------------


Answer = list[tuple[int | None, float]]


def with_logprobs(done: Counted, ids: Sequence[int]) -> list[Answer]:
    """Return each answer's tokens, and how likely the fifth best of each was: the best is certain in some models."""
    answers = []
    for request_id in ids:
        chunks = done.chunks[request_id]
        assert all(chunk.logprobs is not None for chunk in chunks)
        answers.append([(chunk.token, chunk.logprobs.likeliest[4].logprob) for chunk in chunks if chunk.logprobs])
    return answers


@pytest.fixture(scope="module")
def answered(each_model: Model) -> tuple[list[Request], list[Answer], int]:
    """Requests, what each is answered when nothing else runs, and how many tokens that takes."""
    requests = [replace(request, n_logprobs=5) for request in related(each_model, 16)]
    with each_model.scheduler(192, n_threads=1, is_exact=True) as scheduler:
        ids = submit(scheduler, requests)
        done = work(scheduler)
    answers = with_logprobs(done, ids)
    assert len({round(answer[0][1], 4) for answer in answers}) > 10, "the prompts matter"
    return requests, answers, done.n_tokens


@pytest.mark.parametrize("width", [1, 2, 5, 16])
def test_answers_are_the_same_with_and_without_sharing(
    each_model: Model, answered: tuple[list[Request], list[Answer], int], width: int
) -> None:
    """Also of states that cannot be taken back, and of windows that are much shorter than what was read."""
    requests, expected, n_tokens = answered
    prompts = [request.prompt for request in requests]
    plan = plan_prefixes(prompts)
    assert {len(lengths) for lengths in plan.splits} == {0, 2, 3}
    for n_holders, its_plan in ((0, NONE), (3, plan), (0, plan))[width == 1 :]:
        with each_model.scheduler(192, n_sequences=width, n_holders=n_holders, n_threads=1, is_exact=True) as scheduler:
            ids = submit(scheduler, requests, its_plan)
            done = work(scheduler)
        _check_agree(with_logprobs(done, ids), expected)
        if its_plan is NONE:
            assert done.n_tokens == n_tokens
        elif n_holders:
            assert n_tokens - done.n_tokens == _saved(prompts, plan)


def _check_agree(answers: list[Answer], expected: list[Answer]) -> None:
    """Compare up to where rounding decides between two tokens that are equally likely, which may never be."""
    n_compared = 0
    for answer, its_expected in zip(answers, expected, strict=True):
        for (token, logprob), (its_token, its_logprob) in zip(answer, its_expected, strict=True):
            assert logprob == pytest.approx(its_logprob, abs=0.02)
            n_compared += 1
            if token != its_token:
                break
    assert n_compared > 0.9 * sum(map(len, expected))


def _saved(prompts: Sequence[Sequence[int]], plan: PrefixPlan) -> int:
    """Return how many tokens need not be read if each beginning is read once."""
    n_all = n_once = 0
    seen = set()
    for prompt, lengths in zip(prompts, plan.splits, strict=True):
        for before, length in zip((0, *lengths), lengths, strict=False):
            n_all += length - before
            if (prefix := tuple(prompt[:length])) not in seen:
                seen.add(prefix)
                n_once += length - before
    return n_all - n_once


def test_a_split_too_many_changes_nothing(each_model: Model) -> None:
    """Beginnings that nobody else has, one token apart, at the end of the prompt."""
    requests = related(each_model, 6)
    with each_model.scheduler(192, n_sequences=3, n_threads=1, is_exact=True) as scheduler:
        ids = submit(scheduler, requests)
        done = work(scheduler)
        expected = [done.tokens(request_id) for request_id in ids]
    splits = tuple((1, 2, 3, len(each.prompt) - 1) if len(each.prompt) > 4 else () for each in requests)
    with each_model.scheduler(192, n_sequences=3, n_holders=1, n_threads=1, is_exact=True) as scheduler:
        ids = submit(scheduler, requests, PrefixPlan(splits, tuple(range(len(requests)))))
        done = work(scheduler)
    assert [done.tokens(request_id) for request_id in ids] == expected


def test_a_prompt_of_which_everything_is_shared_is_answered_all_the_same(model: Model) -> None:
    """No plan has this, but a request can: there are no logits where a kept prefix ends, or another reads on."""
    prompt = model.tokenize("the tin on a ") * 4
    n = len(prompt)
    requests = [Request(prompt, GREEDY, max_tokens=4, splits=splits) for splits in [(n,), (0, n), (9, 9), (n + 5, 9)]]
    longer = Request([*prompt, 5], GREEDY, max_tokens=4, splits=(n,))
    with model.scheduler(128, n_sequences=3, n_holders=1, n_threads=1, is_exact=True) as scheduler:
        ids = [scheduler.submit(request) for request in (longer, *requests, longer)]
        done = work(scheduler)
        later = scheduler.submit(requests[0])
        again = work(scheduler)
    assert len({tuple(done.tokens(request_id)) for request_id in ids[1:-1]} | {tuple(again.tokens(later))}) == 1
    assert done.tokens(ids[0]) == done.tokens(ids[-1])


def test_drafts_in_a_context_that_keeps_prefixes_draw_from_logits_each_time(model: Model) -> None:
    prompt = model.tokenize("the tin on a ") * 4
    with model.scheduler(128, n_sequences=2, n_shared=1, n_holders=1, n_threads=1) as scheduler:
        answers = []
        for _ in range(3):
            ids = scheduler.submit_drafts(Request(prompt, GREEDY, max_tokens=4), 2)
            done = work(scheduler)
            answers += [done.tokens(request_id) for request_id in ids]
    assert answers == answers[:1] * 6


# -- what is kept ------------------------------------------------------------------------------------------------------


def _with_rest(prompt: list[int], rest: int, **options: object) -> Request:
    return Request([*prompt, rest, rest], GREEDY, max_tokens=2, splits=(len(prompt),), **options)  # type: ignore[arg-type]


def test_a_prefix_is_kept_for_requests_that_come_later(each_model: Model) -> None:
    prompt = each_model.tokenize("the tin on a ") * 4
    n = len(prompt)
    with each_model.scheduler(128, n_holders=1, n_threads=1, is_exact=True) as scheduler:
        answers, sizes = [], []
        for rest in (5, 9, 5, 40):
            request_id = scheduler.submit(_with_rest(prompt, rest))
            done = work(scheduler)
            answers.append(done.tokens(request_id))
            sizes.append(done.n_tokens)
            assert scheduler.held_prefixes == (tuple(prompt),)
        plain = scheduler.submit(replace(_with_rest(prompt, 40), splits=()))
        assert work(scheduler).tokens(plain) == answers[3]
    assert sizes == [n + 3, 3, 3, 3]
    assert answers[0] == answers[2]


def test_the_prefix_that_was_used_least_lately_gives_way(model: Model) -> None:
    prompts = [[token] * 30 for token in (10, 20, 30)]
    with model.scheduler(128, n_holders=2, n_threads=1) as scheduler:

        def n_read(which: int) -> int:
            scheduler.submit(_with_rest(prompts[which], 7))
            return work(scheduler).n_tokens

        assert [n_read(0), n_read(1), n_read(0)] == [33, 33, 3]
        assert scheduler.held_prefixes == (tuple(prompts[1]), tuple(prompts[0]))
        assert n_read(2) == 33, "takes the place of 1"
        assert scheduler.held_prefixes == (tuple(prompts[0]), tuple(prompts[2]))
        assert [n_read(0), n_read(2), n_read(1)] == [3, 3, 33], "1 takes the place of 0"
        assert [n_read(2), n_read(0)] == [3, 33]


def test_the_longest_prefix_that_is_kept_is_taken(model: Model) -> None:
    long = [10] * 30 + [20] * 30
    with model.scheduler(128, n_holders=2, n_threads=1) as scheduler:
        scheduler.submit(replace(_with_rest(long, 7), splits=(30, 60)))
        assert work(scheduler).n_tokens == 63
        assert scheduler.held_prefixes == (tuple(long[:30]), tuple(long))
        scheduler.submit(replace(_with_rest(long, 8), splits=(30, 60)))
        assert work(scheduler).n_tokens == 3
        scheduler.submit(replace(_with_rest(long, 8), splits=(30,)))
        assert work(scheduler).n_tokens == 33


@pytest.mark.parametrize("n_holders", [0, 1])
def test_those_that_run_at_the_same_time_share_without_a_place_to_keep_it(model: Model, n_holders: int) -> None:
    prompt = model.tokenize("the tin on a ") * 4
    n = len(prompt)
    with model.scheduler(128, n_sequences=4, n_holders=n_holders, n_threads=1) as scheduler:
        for rest in range(5, 9):
            scheduler.submit(_with_rest(prompt, rest))
        assert work(scheduler).sizes == [n, 4 * 2, 4]
        assert len(scheduler.held_prefixes) == n_holders
        scheduler.submit(_with_rest(prompt, 5))
        assert work(scheduler).n_tokens == (3 if n_holders else n + 3)


def test_one_that_comes_while_a_prefix_is_read_waits_for_it(model: Model) -> None:
    with model.scheduler(128, n_sequences=2, n_threads=1, piece=32) as scheduler:
        scheduler.submit(_with_rest(LONG, 7))
        assert scheduler.step() == []
        scheduler.submit(_with_rest(LONG, 8))
        assert work(scheduler).sizes == [32, 32, 4, 2 * 2, 2]


def test_nested_prefixes_have_readers_in_turn(model: Model) -> None:
    """A chain: the first reads what all share; one of each pair reads on while its partner waits again."""
    trunk, left, right = [10] * 32, [20] * 32, [30] * 32
    prompts = [trunk + left + [5], trunk + right + [6], trunk + left + [7], trunk + right + [8, 8], [*trunk, 9]]
    plan = PrefixPlan(((32, 64), (32, 64), (32, 64), (32, 64), (32,)), tuple(range(5)))
    requests = [Request(prompt, GREEDY, max_tokens=6) for prompt in prompts]
    with model.scheduler(128, n_threads=1, is_exact=True) as scheduler:
        ids = submit(scheduler, requests)
        done = work(scheduler)
        expected = [done.tokens(request_id) for request_id in ids]
    with model.scheduler(128, n_sequences=5, n_threads=1, is_exact=True) as scheduler:
        ids = submit(scheduler, requests, plan)
        done = work(scheduler)
    # The trunk; both branches, and the end of the last prompt; what is left of the others, one of which answers.
    assert done.sizes[:3] == [32, 32 + 32 + 1, 1 + 1 + 1 + 2 + 1]
    assert [done.tokens(request_id) for request_id in ids] == expected


def test_a_reader_that_gives_its_prefix_may_itself_go_on_from_another(each_model: Model) -> None:
    """Its sequence is copied to those that waited, and in the same step another is copied over it."""
    trunk, rest = LONG[:40], LONG[40:64]
    prompts = [[*trunk, *rest, 5], [*trunk, *rest, 6], [*trunk, *rest, 7], [*trunk, 8, 8]]
    splits = ((64,), (40, 64), (40, 64), (40,))
    requests = [Request(prompt, GREEDY, max_tokens=6, n_logprobs=5) for prompt in prompts]
    with each_model.scheduler(128, n_threads=1, is_exact=True) as scheduler:
        ids = submit(scheduler, requests)
        expected = with_logprobs(work(scheduler), ids)
    with each_model.scheduler(128, n_sequences=4, n_holders=1, n_threads=1, piece=32, is_exact=True) as scheduler:
        ids = submit(scheduler, requests[:1], PrefixPlan(splits, (0,)))
        scheduler.step()
        ids += submit(scheduler, requests[1:], PrefixPlan(splits[1:], (0, 1, 2)))
        done = work(scheduler)
    # The first reads the long prefix, the second is not so far with the short one, which the third and fourth wait for.
    assert done.sizes[:2] == [32 + 32, 1 + 8]
    _check_agree(with_logprobs(done, ids), expected)


# -- readers that do not get to the end --------------------------------------------------------------------------------


@pytest.mark.parametrize("has_begun_to_wait", [False, True])
def test_when_a_reader_leaves_one_of_those_that_wait_goes_on(model: Model, has_begun_to_wait: bool) -> None:
    """From the beginning: what the reader read is gone with its sequence."""
    with model.scheduler(128, n_sequences=4, n_holders=1, n_threads=1, piece=32) as scheduler:
        scheduler.submit(_with_rest(LONG, 7))
        scheduler.step()
        ids = [scheduler.submit(_with_rest(LONG, rest)) for rest in (8, 9)]
        if has_begun_to_wait:
            scheduler.step()
            assert [running.awaits is None for running in scheduler._running] == [True, False, False]
        scheduler._release(scheduler._running[0])
        done = work(scheduler)
    assert sorted(done.chunks) == ids
    assert done.sizes == [32, 32, 32, 4, 2 * 2, 2]


def test_when_one_that_waits_leaves_the_others_still_get_the_prefix(model: Model) -> None:
    """And the next in its sequence does not."""
    other = Request(LONG[50:], GREEDY, max_tokens=8)
    with model.scheduler(128, n_sequences=3, n_threads=1, piece=32, is_exact=True) as scheduler:
        alone = scheduler.submit(other)
        expected = work(scheduler).tokens(alone)
        ids = [scheduler.submit(_with_rest(LONG, rest)) for rest in (7, 8, 9)]
        scheduler.step()
        scheduler._release(scheduler._running[1])
        ids[1] = scheduler.submit(other)
        done = work(scheduler)
    assert sorted(done.chunks) == sorted(ids)
    assert done.tokens(ids[1]) == expected
    # The other's prompt and answer go on beside the prefix, and beside what the two readers have after it.
    assert done.sizes == [32 + 32, 32 + 18, 4 + 1, 4 + 1, 2 + 1, *[1] * 4]


def test_a_reader_that_leaves_amid_nested_prefixes_leaves_no_one_behind(model: Model) -> None:
    requests = [replace(_with_rest(LONG, rest), splits=(32, 100)) for rest in (7, 8, 9)]
    with model.scheduler(128, n_threads=1, is_exact=True) as scheduler:
        plain = submit(scheduler, requests)
        done = work(scheduler)
        expected = [done.tokens(request_id) for request_id in plain]
    with model.scheduler(128, n_sequences=4, n_threads=1, piece=32, is_exact=True) as scheduler:
        ids = [scheduler.submit(request) for request in requests]
        scheduler.step()
        scheduler.step()
        scheduler._release(scheduler._running[0])  # it has read the first prefix for all, and a part of the next
        done = work(scheduler)
    assert sorted(done.chunks) == ids[1:]
    assert [done.tokens(request_id) for request_id in ids[1:]] == expected[1:]
    assert done.sizes == [32, 32, 4, 2 * 2, 2]


def test_cancelling_ends_those_that_wait_for_a_prefix_too(model: Model) -> None:
    with model.scheduler(128, n_sequences=3, n_holders=1, n_threads=1, piece=32) as scheduler:
        ids = [scheduler.submit(_with_rest(LONG, rest)) for rest in (7, 8, 9, 10)]
        scheduler.step()
        scheduler.cancel()
        done = work(scheduler)
    assert sorted(done.chunks) == ids
    assert {each[-1].finish_reason for each in done.chunks.values()} == {FinishReason.CANCELLED}


def test_prefixes_are_forgotten_when_the_context_is_lent(model: Model) -> None:
    """Whoever borrows it may write into the sequences that kept them."""
    prompt = model.tokenize("the tin on a ") * 4
    with model.scheduler(128, n_holders=1, n_threads=1) as scheduler:
        scheduler.submit(_with_rest(prompt, 5))
        first = work(scheduler)
        with scheduler.borrow():
            pass
        assert scheduler.held_prefixes == ()
        scheduler.submit(_with_rest(prompt, 5))
        again = work(scheduler)
    assert first.n_tokens == again.n_tokens == len(prompt) + 3
    assert first.tokens(1) == again.tokens(2)


# -- pieces ------------------------------------------------------------------------------------------------------------


def _exactly(model: Model, requests: Sequence[Request], held: int) -> list[list[object]]:
    """Answer one after the other as a batch does that promises the same bits; return tokens and probabilities."""
    plan = plan_prefixes([request.prompt for request in requests], piece=32)
    with model.scheduler(192, n_holders=held, piece=32, n_threads=1) as scheduler:
        ids = submit(scheduler, [replace(request, n_logprobs=3) for request in requests], plan)
        done = work(scheduler)
    return [[(chunk.token, chunk.logprobs) for chunk in done.chunks[request_id]] for request_id in ids]


def test_in_pieces_answers_do_not_depend_on_what_went_before_by_a_single_bit(each_model: Model) -> None:
    requests = [replace(request, max_tokens=6) for request in related(each_model, 12)]
    whole = _exactly(each_model, requests, held=2)
    assert all(logprobs is not None for answer in whole for _, logprobs in answer)  # type: ignore[attr-defined]
    assert _exactly(each_model, requests[::2], held=2) == whole[::2]
    assert _exactly(each_model, requests[::-1], held=2) == whole[::-1]
    for i in (0, 5, 11):
        assert _exactly(each_model, requests[i : i + 1], held=2) == whole[i : i + 1]
    assert _exactly(each_model, requests, held=1) == whole


# -- sequences side by side --------------------------------------------------------------------------------------------


def test_sequences_close_up_when_nothing_waits(each_model: Model) -> None:
    prompts = [each_model.tokenize("the tin on a ") * (1 + i % 3) + [40 + i] for i in range(6)]
    requests = [Request(prompt, GREEDY, max_tokens=4 + 30 * (i in (3, 5))) for i, prompt in enumerate(prompts)]
    with each_model.scheduler(128, n_threads=1, is_exact=True) as scheduler:
        ids = submit(scheduler, requests)
        done = work(scheduler)
        expected = [done.tokens(request_id) for request_id in ids]
    with each_model.scheduler(128, n_sequences=6, n_threads=1, is_exact=True) as scheduler:
        ids = submit(scheduler, requests)
        steps = [scheduler.step() for _ in range(5)]
        assert sorted(running.slot for running in scheduler._running) == [0, 1]
        assert scheduler._free == [2, 3, 4, 5]
        late = scheduler.submit(requests[1])  # into a slot that another has left
        done = work(scheduler)
    early = [[chunk.token for chunks in steps for chunk in chunks if chunk.request_id == each] for each in ids]
    answers = [
        before + (done.tokens(each) if each in done.chunks else []) for before, each in zip(early, ids, strict=True)
    ]
    assert answers == expected
    assert done.tokens(late) == expected[1]


def test_sequences_stay_where_they_are_while_others_wait_for_slots(model: Model) -> None:
    prompt = model.tokenize("the tin")
    with model.scheduler(128, n_sequences=2, n_threads=1) as scheduler:
        for n in (2, 20, 20):
            scheduler.submit(Request(prompt, GREEDY, max_tokens=n))
        for _ in range(3):
            scheduler.step()
        assert [running.slot for running in scheduler._running] == [1, 0]


# -- long prompts beside answers ---------------------------------------------------------------------------------------


def test_a_long_prompt_does_not_stop_an_answer_under_way(model: Model) -> None:
    long = [token % 50 + 10 for token in range(1500)]
    with model.scheduler(1600, n_sequences=2, n_threads=1) as scheduler:
        answer = scheduler.submit(Request(model.tokenize("the tin"), GREEDY, max_tokens=8))
        scheduler.step()
        reading = scheduler.submit(Request(long, GREEDY, max_tokens=3))
        done = work(scheduler)
    assert done.sizes == [512 + 1, 512 + 1, 1500 - 1024 + 1, 2, 2, 1, 1]
    assert [sum(chunk.request_id == answer for chunk in chunks) for chunks in done.steps] == [1] * 7
    assert [sum(chunk.request_id == reading for chunk in chunks) for chunks in done.steps] == [0, 0, 1, 1, 1, 0, 0]


def test_a_long_prompt_alone_is_read_as_fast_as_it_goes_and_the_first_of_several_waits_for_none(model: Model) -> None:
    long = [token % 50 + 10 for token in range(1500)]
    with model.scheduler(1600, n_sequences=2, n_threads=1) as scheduler:
        scheduler.submit(Request(long, GREEDY, max_tokens=1))
        assert work(scheduler).sizes == [1500]
    with model.scheduler(1600, n_sequences=2, n_threads=1) as scheduler:
        for _ in range(2):
            scheduler.submit(Request(long, GREEDY, max_tokens=1))
        sizes = work(scheduler).sizes
    # Until the first answers, little is read at a time; then the rest at once.
    assert sizes[:6] == [256] * 6
    assert sum(sizes) == 3000
    assert len(sizes) < 9
