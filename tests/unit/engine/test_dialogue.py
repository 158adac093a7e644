"""A conversation in one context: only what is new is read, and every answer is what it would have been."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from owm.engine import checkpoints, dialogue, generate, retained
from owm.engine.dialogue import Dialogue, Keeping, open_dialogue
from owm.engine.model import Model
from owm.engine.sampling import Sampling
from owm.engine.scheduler import FinishReason, Request, Scheduler
from owm.engine.snapshots import Snapshots
from owm.errors import EngineError
from owm.events import Event, Warned
from support.tiny_gguf import write_tiny_gguf
from support.tiny_recurrent import write_tiny_hybrid, write_tiny_mamba
from support.tiny_sliding import WINDOW, write_tiny_falcon_h1, write_tiny_gemma3

GREEDY = Sampling(temp=0, ignore_eos=True)
RANDOM = Sampling(temp=8, top_k=0, top_p=1.0, min_p=0.0, seed=7, ignore_eos=True)
WRITERS = [write_tiny_gguf, write_tiny_mamba, write_tiny_hybrid, write_tiny_gemma3, write_tiny_falcon_h1]
N_CTX = 512
N = 9  # tokens of an answer

Tokens = list[int]


@pytest.fixture(autouse=True)
def quick_handover(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "HANDOVER_SECONDS", 0.001)


@pytest.fixture(scope="module", params=WRITERS, ids=lambda write: write.__name__.removeprefix("write_tiny_"))
def each_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    write: Callable[[Path], Path] = request.param
    with Model([write(tmp_path_factory.mktemp("m") / "tiny.gguf")], n_gpu_layers=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf")], n_gpu_layers=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_hybrid(tmp_path_factory.mktemp("m") / "tiny.gguf")], n_gpu_layers=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_gemma3(tmp_path_factory.mktemp("m") / "tiny.gguf")], n_gpu_layers=0) as opened:
        yield opened


def words(seed: int, n: int = 20) -> Tokens:
    """Return what a user says."""
    chance = random.Random(seed)
    return [chance.randrange(10, 250) for _ in range(n)]


class Talk:
    """A dialogue whose every answer is checked: what is fed is the prompt, and no more is read than has to be.

    Attributes:
        n_read: tokens of the last prompt that were read.
    """

    def __init__(self, opened: Dialogue) -> None:
        self.dialogue = opened
        self.n_read = 0

    def ask(self, prompt: Tokens, n: int = N, **more: Any) -> Tokens:
        n_before = self.dialogue.n_decoded
        chunks = list(self.dialogue.answer(Request(prompt, GREEDY, max_tokens=n, **more)))
        answer = [chunk.token for chunk in chunks if chunk.token is not None]
        assert len(answer) == n
        assert list(self.dialogue.held()) == [*prompt, *answer[:-1]]
        timings = chunks[-1].timings
        assert timings is not None
        self.n_read = self.dialogue.n_decoded - n_before - (n - 1)
        assert timings.n_held == len(prompt) - self.n_read
        return answer


@contextmanager
def talk(model: Model, keeping: Keeping | None = None, **more: Any) -> Iterator[Talk]:
    with open_dialogue(model, N_CTX, keeping=keeping, **more) as opened:
        yield Talk(opened)


def unbroken(model: Model, *prompts: Tokens) -> list[Tokens]:
    """Return the answers of a context in which nothing is ever undone."""
    with talk(model) as other:
        return [other.ask(prompt) for prompt in prompts]


def keeping(folder: Path, told: list[Event] | None = None) -> Keeping:
    kept = Snapshots(folder, sink=(lambda event: None) if told is None else told.append)
    return Keeping(kept, "a" * 64, "tiny")


def test_going_on_reads_only_what_is_new(each_model: Model) -> None:
    with talk(each_model) as one:
        prompt = words(1, 60)
        answer = one.ask(prompt)
        assert one.n_read == 60
        for turn in range(2, 5):
            prompt = [*prompt, *answer, *words(turn)]
            answer = one.ask(prompt)
            assert one.n_read == 1 + 20  # the last token of an answer is drawn, but not read


def test_going_on_is_the_same_as_in_one_long_answer(each_model: Model) -> None:
    """A turn that adds nothing but the drawn token goes on as the same answer would have."""
    prompt = words(1, 40)
    with talk(each_model) as one:
        whole = one.ask(prompt, 2 * N)
    with talk(each_model) as one:
        first = one.ask(prompt)
        assert one.ask([*prompt, *first]) == whole[N:]
        assert one.n_read == 1


def test_after_an_undo_the_answer_is_that_of_a_conversation_without_it(each_model: Model) -> None:
    first = words(1, 60)
    with talk(each_model) as one:
        held = [*first, *one.ask(first)]
        one.ask([*held, *words(2)])
        other = [*held, *words(3)]
        answer = one.ask(other)
        assert one.n_read == (20 if one.dialogue.can_cut else 21)
    assert answer == unbroken(each_model, first, other)[1]


def test_trying_again_reads_one_token(each_model: Model) -> None:
    first = words(1, 60)
    with talk(each_model) as one:
        second = [*first, *one.ask(first), *words(2)]
        answer = one.ask(second)
        assert one.ask(second) == answer
        assert one.n_read == 1
        assert one.ask(second) == answer
    assert answer == unbroken(each_model, first, second)[1]


def test_a_fork_and_a_switch_back_answer_as_if_there_were_one_branch_each(each_model: Model) -> None:
    first = words(1, 60)
    with talk(each_model) as one:
        stem = [*first, *one.ask(first)]
        left = [*stem, *words(2)]
        left_more = [*left, *one.ask(left), *words(3)]
        before = one.ask(left_more)
        right = [*stem, *words(4)]
        right_more = [*right, *one.ask(right), *words(5)]
        there = one.ask(right_more)
        back = one.ask(left_more)
        assert one.n_read <= len(left_more) - len(stem) + 1
        assert back == before
        assert one.ask(right_more) == there
    assert unbroken(each_model, first, left, left_more)[2] == before
    assert unbroken(each_model, first, right, right_more)[2] == there


def test_editing_the_first_turn_reads_all_anew(each_model: Model) -> None:
    first, other = words(1, 60), words(2, 50)
    with talk(each_model) as one:
        one.ask([*first, *one.ask(first), *words(3)])
        answer = one.ask(other)
        assert one.n_read == 50
    assert answer == unbroken(each_model, other)[0]


def test_a_thought_that_is_dropped_from_the_history_is_dropped_from_memory(each_model: Model) -> None:
    """The next prompt has the answer without its first half."""
    first = words(1, 60)
    with talk(each_model) as one:
        answer = one.ask(first, splits=(55,))
        second = [*first, *answer[N // 2 :], *words(2)]
        one.ask(second)
        assert one.n_read <= len(second) - 59
        third = [*first[:57], *words(3)]
        there = one.ask(third)
        assert one.n_read == (20 if one.dialogue.can_cut else 22)
    assert unbroken(each_model, third)[0] == there


def test_a_conversation_goes_on_from_disk_as_if_it_had_never_stopped(each_model: Model, tmp_path: Path) -> None:
    first = words(1, 60)
    with talk(each_model, keeping(tmp_path)) as one:
        second = [*first, *one.ask(first), *words(2)]
        path = one.dialogue.save()
        assert path is not None
        assert one.dialogue.save() is None  # nothing is new
        expected = one.ask(second)
    with talk(each_model, keeping(tmp_path)) as one:
        assert one.dialogue.held() == ()
        assert one.ask(second) == expected
        assert one.n_read == 1 + 20
        third = [*second, *expected, *words(3)]
        answer = one.ask(third)
    assert unbroken(each_model, first, second, third)[1:] == [expected, answer]


def test_an_undo_right_after_a_return(each_model: Model, tmp_path: Path) -> None:
    first = words(1, 60)
    with talk(each_model, keeping(tmp_path)) as one:
        second = [*first, *one.ask(first), *words(2)]
        one.ask(second)
        one.dialogue.save()
    other = [*second[:-20], *words(3)]
    with talk(each_model, keeping(tmp_path)) as one:
        answer = one.ask(other)
        if each_model.native.is_recurrent or each_model.header.architecture == "gemma3":
            assert one.n_read == len(other)
        else:
            assert one.n_read == 20
    assert answer == unbroken(each_model, first, other)[1] or answer == unbroken(each_model, other)[0]


def test_a_snapshot_of_the_prompt_serves_models_that_cannot_be_cut(hybrid: Model, tmp_path: Path) -> None:
    first = words(1, 60)
    with talk(hybrid, keeping(tmp_path)) as one:
        one.ask(first)
        assert one.dialogue.save(first) is not None
        assert one.dialogue.held() == tuple(first[:-1])
    second = [*first, *words(2)]
    with talk(hybrid, keeping(tmp_path)) as one:
        answer = one.ask(second)
        assert one.n_read == 21
    assert answer == unbroken(hybrid, second)[0]


def test_a_window_that_slides_is_cut_only_where_it_is_whole(gemma: Model, tmp_path: Path) -> None:
    first = words(1, 200)
    with talk(gemma, keeping(tmp_path)) as one:
        answer = one.ask(first)
        one.dialogue.save()
        one.ask([*first[:100], *words(2)])  # all is there still: llama.cpp keeps more than the window
        assert one.n_read == 20
    held = [*first, *answer[:-1]]
    with talk(gemma, keeping(tmp_path)) as one:
        assert one.dialogue.prepare([*held, 1] * 2) == len(held)
        assert one.dialogue.n_held([*held[:-1], 1, 2]) == len(held) - 1
        for n in (WINDOW // 2, WINDOW, 100):
            assert one.dialogue.n_held([*held[:-n], 1, 2]) == 0
        other = [*held[:-WINDOW], *words(4)]
        there = one.ask(other)
    assert there == unbroken(gemma, other)[0]


def test_a_private_conversation_leaves_nothing_on_disk(model: Model, tmp_path: Path) -> None:
    with talk(model) as one:
        one.ask(words(1, 60))
        assert one.dialogue.save() is None
    assert not list(tmp_path.iterdir())


def test_snapshots_of_other_settings_are_not_loaded(model: Model, tmp_path: Path) -> None:
    first = words(1, 60)
    with talk(model, keeping(tmp_path)) as one:
        one.ask(first)
        one.dialogue.save()
    others = [
        Keeping(Snapshots(tmp_path), "b" * 64),
        Keeping(Snapshots(tmp_path), "a" * 64, adapters=(("c" * 64, 1.0),)),
    ]
    for other in others:
        with talk(model, other) as one:
            assert one.dialogue.prepare([*first, *first]) == 0
    with model.scheduler(N_CTX, is_exact=True, retains=True) as scheduler:
        assert Dialogue(model, scheduler, keeping(tmp_path)).prepare([*first, *first]) == 0
    with talk(model, keeping(tmp_path)) as one:
        assert one.dialogue.prepare([*first, *first]) == 60


def test_another_size_of_the_context_goes_on_too_if_the_tokens_fit(model: Model, tmp_path: Path) -> None:
    first = words(1, 300)
    with talk(model, keeping(tmp_path)) as one:
        one.ask(first)
        one.dialogue.save()
    for n_ctx, n_held in ((256, 0), (1024, 300)):
        with open_dialogue(model, n_ctx, keeping=keeping(tmp_path)) as opened:
            assert opened.prepare([*first, *first]) == n_held


def test_llama_never_sees_a_damaged_snapshot(
    each_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = words(1, 60)
    with talk(each_model, keeping(tmp_path)) as one:
        second = [*first, *one.ask(first), *words(2)]
        path = one.dialogue.save()
        assert path is not None
        expected = one.ask(second)
    whole = path.read_bytes()
    seen: list[bytearray] = []
    load = retained.state.load_state

    def spy(context: Any, sequence: int, saved: bytearray, **more: Any) -> bool:
        seen.append(saved)
        return load(context, sequence, saved, **more)

    monkeypatch.setattr(retained.state, "load_state", spy)
    chance = random.Random(3)
    told: list[Event] = []
    with talk(each_model, keeping(tmp_path, told)) as one:
        for number in range(40):
            damaged = bytearray(whole)
            if number % 2:
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            else:
                del damaged[chance.randrange(len(damaged)) :]
            path.write_bytes(damaged)
            assert one.dialogue.prepare(second) == 0
            assert not path.exists()
            assert len(told) == number + 1
        assert seen == []
        assert all(isinstance(event, Warned) for event in told)
        path.write_bytes(whole)
        assert one.ask(second) == expected
        assert len(seen) == 1


def test_bytes_that_llama_refuses_leave_an_empty_sequence(model: Model, tmp_path: Path) -> None:
    first = words(1, 60)
    with talk(model) as one:
        expected = one.ask(first)
    with talk(model, keeping(tmp_path)) as one:
        one.dialogue._keeping.snapshots.save(  # type: ignore[union-attr]
            one.dialogue._fingerprint(one.dialogue._scheduler._context, keeping(tmp_path)), first, bytearray(5000)
        )
        assert one.dialogue.prepare([*first, *first]) == 0
        assert one.dialogue.held() == ()
        assert one.ask(first) == expected


def test_drafts_read_the_prompt_once_and_the_one_that_is_chosen_goes_on(each_model: Model) -> None:
    first = words(1, 60)
    with talk(each_model, n_drafts=3) as one:
        stem = [*first, *one.ask(first), *words(2)]
        n_before = one.dialogue.n_decoded
        generation, ids = one.dialogue.answers(Request(stem, RANDOM, max_tokens=N), 3)
        answers: dict[int, Tokens] = {i: [] for i in ids}
        for chunk in generation:
            assert chunk.token is not None
            answers[chunk.request_id].append(chunk.token)
        assert one.dialogue.n_decoded - n_before == 21 + 3 * (N - 1)
        assert len({tuple(answer) for answer in answers.values()}) == 3, answers
        chosen = [*stem, *answers[ids[2]], *words(3)]
        n_before = one.dialogue.n_decoded
        chunks = list(one.dialogue.answer(Request(chosen, GREEDY, max_tokens=N)))
        assert one.dialogue.n_decoded - n_before == 21 + N - 1
        assert max(map(len, map(one.dialogue.held, range(3)))) == len(chosen) + N - 1
        assert sum(bool(one.dialogue.held(slot)) for slot in range(3)) == 1
    with talk(each_model) as one:
        assert one.ask(chosen) == [chunk.token for chunk in chunks]


def test_drafts_end_where_the_context_does(model: Model) -> None:
    first = words(1, 400)
    with talk(model, n_drafts=4) as one:
        for _ in range(2):
            generation, _ = one.dialogue.answers(Request(first, RANDOM), 4)
            ends = [chunk for chunk in generation if chunk.finish_reason is not None]
            assert [chunk.hit_context_end for chunk in ends] == [True] * 4
            assert all(400 < len(one.dialogue.held(slot)) <= 400 + 112 // 4 for slot in range(4))


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came(each_model: Model) -> None:
    first = words(1, 60)
    with talk(each_model) as one:
        generation = one.dialogue.answer(Request(first, GREEDY))
        made: Tokens = []
        for chunk in generation:
            made += [] if chunk.token is None else [chunk.token]
            if len(made) == 5:
                generation.cancel()
            last = chunk
        assert last.finish_reason in (FinishReason.CANCELLED, FinishReason.LENGTH)
        held = list(one.dialogue.held())
        assert held == [*first, *made][: len(held)]
        second = [*first, *made[:5], *words(2)]
        answer = one.ask(second)
        assert one.n_read <= 60 + 25
        assert one.ask(second) == answer
    with talk(each_model) as one:
        assert one.ask(first, 5) == made[:5]
        assert one.ask(second) == answer


def test_a_decode_that_is_broken_off_leaves_nothing_wrong(each_model: Model) -> None:
    first = words(1, 60)
    with talk(each_model) as one:
        second = [*first, *one.ask(first), *words(2)]
        one.ask(second)
        scheduler = one.dialogue._scheduler
        third = [*second[:-20], *words(3)]
        scheduler.submit(Request(third, GREEDY, max_tokens=N))
        scheduler._context._cancel_flag[0] = b"\x01"  # it comes when the decode has begun
        [chunk] = scheduler.step()
        assert chunk.finish_reason is FinishReason.CANCELLED
        answer = one.ask(third)
        assert one.n_read <= 1 + 20 or each_model.native.is_recurrent
    assert answer == unbroken(each_model, first, third)[1]


def test_a_step_that_fails_costs_what_was_held_and_no_more(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = words(1, 60)
    with talk(model) as one:
        answer = one.ask(first)
        with monkeypatch.context() as patch:
            patch.setattr(type(one.dialogue._scheduler._context), "decode", lambda self: 1)
            with pytest.raises(EngineError, match="no room"):
                list(one.dialogue.answer(Request([*first, *words(2)], GREEDY, max_tokens=N)))
        assert one.ask(first) == answer
        assert one.n_read == 60


def test_a_prompt_that_does_not_fit_changes_nothing(model: Model) -> None:
    first = words(1, 60)
    with talk(model) as one:
        answer = one.ask(first)
        with pytest.raises(EngineError, match="does not fit"):
            one.dialogue.answer(Request(words(2, N_CTX), GREEDY))
        assert list(one.dialogue.held()) == [*first, *answer[:-1]]


def test_a_long_walk_over_branches_never_goes_astray(each_model: Model, tmp_path: Path) -> None:
    """Prompts that begin as any text did that was ever read; each answer is that of an empty context."""
    chance = random.Random(11)
    texts: list[Tokens] = [words(0, 30)]
    with talk(each_model, keeping(tmp_path)) as one, talk(each_model) as fresh:
        for number in range(40):
            base = chance.choice(texts)
            prompt = [*base[: chance.randint(1, len(base))], *words(100 + number, chance.randint(1, 30))]
            if len(prompt) > 300:
                continue
            answer = one.ask(prompt, 3)
            fresh.dialogue._scheduler._empty()
            assert answer == fresh.ask(prompt, 3), number
            texts.append([*prompt, *answer])
            if number % 5 == 0:
                one.dialogue.save()
            if number % 13 == 0:
                one.dialogue._scheduler._empty()  # as another process would find it


def test_checkpoints_stay_within_their_room(hybrid: Model) -> None:
    kept = checkpoints.Checkpoints(100)
    for i in range(5):
        kept.add(checkpoints.Checkpoint((1, 2, i), bytearray(40), True))
    assert len(kept) == 2
    oldest = kept.find([1, 2, 3, 4], 3, 0)
    assert oldest is not None
    kept.use(oldest)
    kept.add(checkpoints.Checkpoint((9,), bytearray(40), True))
    assert (1, 2, 3) in kept
    assert (1, 2, 4) not in kept
    kept.add(checkpoints.Checkpoint((8,), bytearray(400), True))
    assert len(kept) == 1
    assert kept.find([8], 0, 0) is None


def test_only_a_scheduler_that_retains_makes_a_dialogue(model: Model) -> None:
    with model.scheduler(64) as scheduler, pytest.raises(EngineError, match="retains"):
        Dialogue(model, scheduler)


def test_what_is_lent_is_emptied_and_then_read_anew(model: Model) -> None:
    first = words(1, 60)
    with talk(model) as one:
        answer = one.ask(first)
        scheduler: Scheduler = one.dialogue._scheduler
        with scheduler.borrow():
            pass
        assert one.dialogue.held() == ()
        assert one.ask(first) == answer
        assert one.n_read == 60


def test_little_more_on_disk_than_in_memory_is_not_loaded(model: Model, tmp_path: Path) -> None:
    first = words(1, 60)
    with talk(model, keeping(tmp_path)) as one:
        one.ask(first, 2)
        one.dialogue.save()
    with talk(model, keeping(tmp_path)) as one:
        one.ask(first[: 61 - dialogue.LEAST_GAIN], 1)
        one.ask([*first, *first], 1)
        assert one.n_read == 60 + dialogue.LEAST_GAIN - 1
