"""Rows that begin alike: one memory for all of them, with never too little room in it."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from owm.batch.preparation import Prepared, Terms
from owm.batch.room import LEAST_SHARED, STEP_TOKENS, Room, room_for
from owm.batch.row import Record, Row
from owm.batch.runner import Runner, Tally
from owm.engine import context
from owm.engine.model import Model
from owm.engine.request import Request
from owm.engine.sampling import Sampling
from owm.engine.wishes import Wishes
from owm.native.state import state_size
from support.tiny_gguf import write_tiny_gguf
from support.tiny_recurrent import write_tiny_hybrid, write_tiny_mamba
from support.tiny_sliding import write_tiny_falcon_h1, write_tiny_gemma3

GREEDY = Sampling(temp=0, ignore_eos=True)
TERMS = Terms("m", "run", Wishes(sampling=GREEDY, max_tokens=6, n_threads=1, is_raw=True), 0, n_parallel=4)
LONG = "the tin on the mat " * 90


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf", n_ctx_train=4096)]) as opened:
        yield opened


def _prepared(prompt: tuple[int, ...], *splits: int, n_answer: int = 50) -> Prepared:
    request = Request(prompt, GREEDY, splits=splits)
    return Prepared(Row(1, "#1", prompt="x"), request, len(prompt) + n_answer)


def _room(rows: list[Prepared], *, is_for_all: bool = False, can_share: bool = True) -> Room:
    return room_for(rows, is_for_all=is_for_all, can_share=can_share)


def _runner(model: Model, terms: Terms = TERMS, **hooks: Any) -> Runner:
    return Runner(model, terms, Tally(), **hooks)


def _rows(prompts: list[str]) -> list[Row]:
    return [Row(i, f"#{i}", prompt=text, digest=f"{i:x}") for i, text in enumerate(prompts, 1)]


def _texts(model: Model, prompts: list[str], terms: Terms = TERMS) -> list[str]:
    found: dict[int, Record] = {record.number: record for record in _runner(model, terms).answers(iter(_rows(prompts)))}
    assert all(record.answer is not None for record in found.values()), found
    return [str((record.answer or {})["text"]) for _, record in sorted(found.items())]


def _contexts(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    scheduler = model.scheduler

    def spy(n_ctx: int, **options: Any) -> AbstractContextManager[Any]:
        made.append({"n_ctx": n_ctx, **options})
        return scheduler(n_ctx, **options)

    monkeypatch.setattr(model, "scheduler", spy)
    return made


def test_most_rows_decide_what_is_kept_once() -> None:
    shared = tuple(range(400))
    same = [_prepared((*shared, 1000 + i), 400) for i in range(7)]
    other = _prepared((5, 6, 7))
    longer = [_prepared((*shared, 2000, 3000 + i), 400, 401) for i in range(2)]
    assert _room([*same, other]) == Room(451, shared)
    assert _room([*same, *longer]).shared == shared
    assert _room([*same, other], is_for_all=True).shared == ()
    assert _room([*same, other, other, other]).shared == (), "too many others"
    assert _room(same, is_for_all=True) == Room(451, shared)
    assert _room(same, can_share=False) == Room(2 * STEP_TOKENS)
    room = _room([*same, other])
    assert (room.n_own, [room.takes(row) for row in (same[0], other, longer[0])]) == (51, [True, False, False])


def test_a_short_beginning_is_copied_and_one_row_shares_with_nobody() -> None:
    few = tuple(range(LEAST_SHARED - 1))
    assert _room([_prepared((*few, 1000 + i), len(few)) for i in range(9)]).shared == ()
    some = tuple(range(LEAST_SHARED))
    assert _room([_prepared((*some, 1000 + i), len(some)) for i in range(9)]).shared == some
    long_answers = [_prepared((*some, 1000 + i), len(some), n_answer=9000) for i in range(9)]
    assert _room(long_answers).shared == (), "it is little of all that is kept"
    assert _room([_prepared((*some, 1000), len(some))]).shared == ()


def test_rows_that_begin_alike_have_one_memory(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [f"{LONG}{i} on" for i in range(20)]
    alone = [_texts(model, [each])[0] for each in prompts[:5]]
    made = _contexts(model, monkeypatch)
    runner = _runner(model)
    found = {record.number: record for record in runner.answers(iter(_rows(prompts)))}
    assert [(found[i].answer or {})["text"] for i in range(1, 6)] == alone
    n_prompt = (found[1].answer or {})["usage"]["prompt_tokens"]
    assert len(made) == 1
    assert made[0]["n_shared"] > 0.9 * n_prompt
    assert runner.tally.n_decoded < 1.2 * n_prompt + 20 * 16, "the beginning was read once"


def test_rows_that_do_not_are_answered_as_well_and_in_a_context_of_their_own(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _contexts(model, monkeypatch)
    prompts = [f"{LONG}{i} on" if i % 6 else f"mat {i}" for i in range(40)]
    texts = _texts(model, prompts)
    assert [bool(each["n_shared"]) for each in made] == [True, False]
    for i in (0, 1, 6, 7):
        assert texts[i] == _texts(model, [prompts[i]])[0]


def test_a_beginning_of_some_gives_way_to_that_of_all(model: Model) -> None:
    """Whatever is kept besides: if what all begin with were forgotten, there would be no room to read it again."""
    random.seed(5)
    middles = [" ".join(random.choices(["tin", "mat", "on", "the"], k=60)) for _ in range(6)]
    prompts = [f"{LONG}{random.choice(middles)} {i} {'on ' * random.randrange(9)}" for i in range(60)]
    texts = _texts(model, prompts)
    for i in (0, 17, 59):
        assert texts[i] == _texts(model, [prompts[i]])[0]


@pytest.mark.parametrize("write", [write_tiny_mamba, write_tiny_gemma3])
def test_models_that_forget_keep_a_memory_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any) -> None:
    with Model([write(tmp_path / "tiny.gguf")]) as model:
        made = _contexts(model, monkeypatch)
        text = "the tin " * 130
        _texts(model, [f"{text}{i}" for i in range(5)])
        assert {each["n_shared"] for each in made} == {0}


@pytest.mark.parametrize("write", [write_tiny_gguf, write_tiny_mamba, write_tiny_hybrid, write_tiny_falcon_h1])
def test_memory_is_budgeted_for_states_as_well_as_for_keys_and_values(tmp_path: Path, write: Any) -> None:
    """What is counted is what llama.cpp keeps of a sequence, or somewhat more."""
    n = 64
    with Model([write(tmp_path / "tiny.gguf")]) as model, model.scheduler(n, n_threads=1) as scheduler:
        with scheduler.borrow() as native:
            for position in range(n):
                native.batch.add(5, position, 0, wants_logits=False)
            assert native.decode() == 0
            kept = state_size(native, 0)
        counted = n * context.kv_bytes_per_token(model.header) + context.state_bytes(model.header)
    assert 0.9 * kept < counted < 2.5 * kept
