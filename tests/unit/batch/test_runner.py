"""Answering rows with one model: what runs when, what a row gets, and what an interruption leaves."""

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.batch.preparation import Terms, seed_of
from owm.batch.row import Failure, Record, Row
from owm.batch.runner import MAX_DEFERRED_ROWS, MAX_LATE_ROWS, Runner, Tally
from owm.engine.context import ROOM_FOR_ANSWER
from owm.engine.model import Model
from owm.engine.request import Chunk, Request
from owm.engine.sampling import Sampling
from owm.engine.wishes import Wishes
from owm.errors import EngineError
from owm.settings.keys import MAX_SEED
from support.tiny_gguf import write_tiny_gguf
from support.tiny_recurrent import write_tiny_mamba
from support.tiny_sliding import write_tiny_falcon_h1, write_tiny_gemma3

GREEDY = Sampling(temp=0, ignore_eos=True)
WISHES = Wishes(sampling=GREEDY, max_tokens=5, n_threads=1, is_raw=True)
TERMS = Terms("m", "run", WISHES, 0, n_parallel=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf", n_ctx_train=4096)]) as opened:
        yield opened


def _row(number: int, text: str = "", **wishes: Any) -> Row:
    sampling = {name: wishes.pop(name) for name in ("temp", "seed", "ignore_eos") if name in wishes}
    prompt = text or f"the tin {number}"
    return Row(number, f"#{number}", prompt=prompt, sampling=sampling, wishes=wishes, digest=f"{number:x}")


def _failed(number: int) -> Row:
    return Row(number, f"#{number}", failure=Failure("invalid_row", "no"))


def _runner(model: Model, terms: Terms = TERMS, **hooks: Any) -> Runner:
    return Runner(model, terms, Tally(), **hooks)


def _answers(model: Model, rows: Iterable[Row], terms: Terms = TERMS) -> dict[int, Record]:
    found = list(_runner(model, terms).answers(iter(rows)))
    by_number = {record.number: record for record in found}
    assert len(by_number) == len(found), "a row was answered twice"
    return by_number


def _text(record: Record) -> str:
    assert record.answer is not None, record.failure
    return str(record.answer["text"])


# -- what a row gets --------------------------------------------------------------------------------------------------


def test_each_row_is_answered_once_whatever_becomes_of_its_neighbours(model: Model) -> None:
    rows = [_failed(i) if i % 3 == 0 else _row(i) for i in range(1, 40)]
    runner = _runner(model)
    found = {record.number: record for record in runner.answers(iter(rows))}
    assert sorted(found) == list(range(1, 40))
    assert all((record.failure is not None) == (number % 3 == 0) for number, record in found.items())
    tally = runner.tally
    assert (tally.n_rows, tally.n_failed, tally.n_generated, tally.n_slots) == (39, 13, 26 * 5, 2)
    assert tally.n_decoded <= tally.n_prompt + tally.n_generated


class _DeadEnd:
    """A constraint that fails at once, with its first token, or when it is asked for."""

    is_finished = is_complete = False

    def __init__(self, when: str) -> None:
        self._when = when

    def matcher(self, vocabulary: object) -> "_DeadEnd":
        if self._when == "submit":
            raise EngineError("no such thing")
        return self

    def forced(self) -> list[int]:
        if self._when == "begin":
            raise EngineError("it cannot begin")
        return []

    def allows(self, token: int) -> bool:
        return False

    def accept(self, token: int) -> None:
        raise AssertionError("nothing was allowed")

    def mask(self) -> Any:
        import numpy as np

        return np.zeros(1000, np.bool_)


@pytest.mark.parametrize("when", ["submit", "begin", "sample"])
def test_a_constraint_that_cannot_be_met_fails_its_row_alone(model: Model, when: str) -> None:
    rows = [_row(1), _row(2, constraint=_DeadEnd(when)), _row(3)]
    found = _answers(model, rows)
    failure = found[2].failure
    assert failure is not None
    assert failure.code == "engine_error"
    expected = _answers(model, [rows[0], rows[2]])
    assert [_text(found[i]) for i in (1, 3)] == [_text(expected[i]) for i in (1, 3)]


def test_a_prompt_that_is_too_long_and_one_that_is_empty_are_failures_of_their_rows(model: Model) -> None:
    found = _answers(model, [_row(1, "the " * 5000), _row(2), replace(_row(3), prompt="")])
    assert [found[i].failure and found[i].failure.code for i in (1, 2)] == ["too_long", None]  # type: ignore[union-attr]
    assert found[3].failure is not None


def test_an_open_end_is_bounded_by_the_row_alone(tmp_path: Path) -> None:
    """However little room its neighbours leave: the same answer with them and without."""
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf", n_blocks=1, n_ctx_train=8192)]) as model:
        terms = replace(TERMS, wishes=replace(WISHES, max_tokens=None))
        found = _answers(model, [_row(1)], terms)
        assert found[1].answer is not None
        assert found[1].answer["usage"]["completion_tokens"] == ROOM_FOR_ANSWER == 2048
        assert found[1].answer["finish_reason"] == "length"


def test_seeds_are_each_row_s_own_and_spread(model: Model) -> None:
    seeds = [seed_of(run, f"row {i}") for run in (0, 1) for i in range(500)]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
    assert seed_of(1, "1\0x") != seed_of(11, "\0x")
    assert isinstance(seed_of(0, "\udcff"), int)
    found = _answers(model, [_row(1, temp=1.0), _row(2, temp=1.0, seed=9), _row(3)], replace(TERMS, seed=4))
    seeds_said = [found[i].answer["seed"] for i in (1, 2, 3)]  # type: ignore[index]
    assert seeds_said == [seed_of(4, "#1"), 9, None]


@pytest.mark.parametrize("write", [write_tiny_gemma3, write_tiny_falcon_h1, write_tiny_mamba])
def test_models_that_forget_answer_the_same_at_every_width(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    beginning = "the tin on a the tin on a the tin "
    rows = [_row(i, (beginning if i % 2 else "in ") + str(i) * i) for i in range(1, 9)]
    with Model([write(tmp_path / "m.gguf")]) as model:
        found = [
            [_text(record) for _, record in sorted(_answers(model, rows, replace(TERMS, **terms)).items())]
            for terms in ({"n_parallel": 1}, {"n_parallel": 3}, {"is_deterministic": True}, {"n_parallel": None})
        ]
    assert found == [found[0]] * 4
    assert len(set(found[0])) > 1


def test_a_deterministic_answer_depends_on_nothing_but_its_row(model: Model) -> None:
    """Down to the last digit, whether or not there were others with the same beginning."""
    terms = replace(TERMS, is_deterministic=True, wishes=replace(WISHES, n_logprobs=5))
    rows = [_row(i, "the tin on a " * 60 + f"{i} " * i) for i in range(1, 7)]
    found = _answers(model, rows, terms)
    for few in (rows[:1], rows[3:4], rows[::-1][:3], rows[1::2]):
        again = _answers(model, few, terms)
        assert again == {number: found[number] for number in again}


# -- what runs when ---------------------------------------------------------------------------------------------------


def test_a_row_that_needs_more_room_waits_for_a_context_of_its_own(model: Model) -> None:
    rows = [_row(i) for i in range(1, 30)]
    rows.insert(3, _row(99, "the tin " * 400))
    runner = _runner(model)
    found = [record.number for record in runner.answers(iter(rows))]
    assert sorted(found) == [*range(1, 30), 99]
    assert found[-1] == 99
    assert runner.tally.n_failed == 0


def test_rows_behind_a_deferred_one_do_not_wait_for_ever(model: Model) -> None:
    """Where answers go out in order, only so many can wait for one before them; the long row has to get its turn."""
    waiting: set[int] = set()
    long = 5
    rows = (_row(i, "in", max_tokens=1) if i != long else _row(i, "the tin " * 400) for i in itertools.count(1))
    runner = _runner(model, replace(TERMS, is_streamed=True, n_parallel=8), n_late=lambda: len(waiting))
    latest = time.monotonic() + 60
    with closing(runner.answers(rows)) as records:
        for record in records:
            if record.number == long:
                break
            if record.number > long:
                waiting.add(record.number)
            assert time.monotonic() < latest
    assert MAX_LATE_ROWS <= len(waiting) < 4 * MAX_LATE_ROWS


def test_many_long_rows_get_their_turn_amid_endless_short_ones(model: Model) -> None:
    texts = itertools.chain(["in"] * 40, itertools.cycle(["the tin " * 200, *["in"] * 30]))
    rows = (_row(i, text, max_tokens=1) for i, text in enumerate(texts, 1))
    n_short = 0
    with closing(_runner(model, replace(TERMS, n_parallel=8)).answers(rows)) as records:
        for record in records:
            if record.answer is not None and record.answer["usage"]["prompt_tokens"] > 100:
                break
            n_short += 1
            assert n_short < 40 * MAX_DEFERRED_ROWS + 1000
    assert n_short > 40


def test_a_row_that_comes_late_is_answered_at_once(model: Model) -> None:
    goes_on, has_answer = threading.Event(), threading.Event()

    def rows() -> Iterator[Row]:
        for i in range(1, 4):
            yield _row(i)
            assert has_answer.wait(20), f"row {i} waits for the next one"
            has_answer.clear()
        goes_on.set()

    for record in _runner(model).answers(rows()):
        assert record.answer is not None
        has_answer.set()
    assert goes_on.is_set()


def test_rows_that_trickle_are_not_gathered_for_long(model: Model) -> None:
    """Each comes before the patience with it is over; together they would keep the first waiting."""
    n_read = 0

    def rows() -> Iterator[Row]:
        nonlocal n_read
        for i in range(1, 120):
            n_read = i
            yield _row(i, max_tokens=1)
            time.sleep(0.02)

    with closing(_runner(model).answers(rows())) as records:
        next(records)
        assert n_read < 80


def test_thousands_of_rows_that_cannot_run_are_quick_and_need_no_context(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_context(*args: object, **kwargs: object) -> None:
        raise AssertionError("there is nothing to run")

    monkeypatch.setattr(model, "scheduler", no_context)
    began = time.monotonic()
    numbers = [record.number for record in _runner(model).answers(_failed(i) for i in range(1, 5001))]
    assert numbers == list(range(1, 5001))
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_nothing_is_kept_of_rows_that_are_done(model: Model) -> None:
    def n_alive() -> int:
        gc.collect()
        return sum(isinstance(each, Row | Record | Request | Chunk) for each in gc.get_objects())

    counts: dict[int, int] = {}
    rows = (_row(i, "in", max_tokens=1) for i in itertools.count(1))
    with closing(_runner(model, replace(TERMS, n_parallel=8)).answers(rows)) as records:
        for n, _ in enumerate(records, 1):
            if n in (2000, 5000):
                counts[n] = n_alive()
            if n == 5000:
                break
    # Were they kept, 3,000 rows would be 6,000 objects or more; how many are on their way varies.
    assert 10 < counts[5000] < counts[2000] + 4000


def test_what_reading_raises_is_raised(model: Model) -> None:
    def rows() -> Iterator[Row]:
        yield _row(1)
        raise EngineError("the disk is gone")

    with pytest.raises(EngineError, match="the disk is gone"):
        list(_runner(model).answers(rows()))


def test_no_rows_are_no_work(model: Model) -> None:
    assert _answers(model, []) == {}


def test_what_memory_does_not_allow_is_said_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    rows = [_row(i) for i in range(1, 30)]
    rows.insert(3, _row(99, "the tin " * 400))
    list(_runner(model, replace(TERMS, n_parallel=1000), note=notes.append).answers(iter(rows)))
    assert notes == ["128 rows at a time instead of 1000: that is the most"]
    notes.clear()
    monkeypatch.setattr(model, "free_bytes", lambda: 800_000)
    found = list(_runner(model, replace(TERMS, n_parallel=64), note=notes.append).answers(iter(rows[:3])))
    assert len(found) == 3
    assert len(notes) == 1
    assert notes[0].endswith("there is no memory for more")
    failed = list(_runner(model, note=notes.append).answers(iter([_row(1, "the " * 1500)])))
    assert failed[0].failure is not None
    assert failed[0].failure.code == "not_enough_memory"


# -- interruptions ----------------------------------------------------------------------------------------------------


N_INTERRUPTED = 600


@pytest.fixture(scope="module")
def uninterrupted(model: Model) -> dict[int, Record]:
    return _answers(model, [_row(i, max_tokens=4 + i % 5) for i in range(1, N_INTERRUPTED)])


@pytest.mark.parametrize("at", [1, 7, 16, 23, 60])
@pytest.mark.parametrize("where", ["tick", "record"])
def test_an_interruption_leaves_only_whole_answers(
    model: Model, uninterrupted: dict[int, Record], at: int, where: str
) -> None:
    """Wherever it strikes: a chunk that nobody took must not be missing from an answer that counts as one."""
    counts = {"tick": 0, "record": 0}

    def strike(here: str) -> None:
        counts[here] += 1
        if here == where and counts[here] == at:
            time.sleep(0.05)  # meanwhile more is decoded
            raise KeyboardInterrupt

    runner = _runner(model, replace(TERMS, n_parallel=4), tick=lambda: strike("tick"))
    kept: list[Record] = []
    rows = (_row(i, max_tokens=4 + i % 5) for i in range(1, N_INTERRUPTED))
    with closing(runner.answers(rows)) as records:
        try:
            for record in records:
                kept.append(record)
                strike("record")
        except KeyboardInterrupt:
            kept += runner.rest()
    assert len({record.number for record in kept}) == len(kept) < N_INTERRUPTED - 1
    for record in kept:
        assert record == uninterrupted[record.number]


def test_after_an_interruption_before_anything_ran_there_is_nothing(model: Model) -> None:
    runner = _runner(model)
    assert runner.rest() == []


def test_leaving_early_ends_the_threads(model: Model) -> None:
    with closing(_runner(model).answers(_row(i) for i in itertools.count(1))) as records:
        next(records)
    latest = time.monotonic() + 5
    while any(thread.name == "owm-rows" for thread in threading.enumerate()):
        assert time.monotonic() < latest, "the rows are still read"
        time.sleep(0.02)
