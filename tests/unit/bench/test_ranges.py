"""Lists and ranges as llama-bench takes them, and the cases that they make."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.bench.case import Case, Subject
from owm.bench.ranges import MAX_CASES, Grid, parse_numbers, parse_pairs, parse_switches, parse_types
from owm.engine.tuning import Tuning
from owm.errors import UsageError

SUBJECT = Subject("m", (Path("m.gguf"),))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["512"], [512]),
        (["1,2,4"], [1, 2, 4]),
        (["1-4"], [1, 2, 3, 4]),
        (["512-2048+512"], [512, 1024, 1536, 2048]),
        (["128-1024*2"], [128, 256, 512, 1024]),
        (["1-10*3"], [1, 3, 9]),
        (["4,1-2", "8"], [4, 1, 2, 8]),
        ([" 1 , 2 "], [1, 2]),
        (["3-3"], [3]),
        (["0"], [0]),
        ([], []),
    ],
)
def test_numbers_lists_and_ranges_are_read_in_order(texts: list[str], expected: list[int]) -> None:
    assert parse_numbers(texts, "-p") == expected


@pytest.mark.parametrize(
    "text", ["", "x", "1,", "1-", "-", "1-2-3", "1-8/2", "1.5", "8-1", "0-8*2", "1-8*1", "1-8+0", "-5", "1-99999999"]
)
def test_what_is_no_range_or_never_ends_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="-p"):
        parse_numbers([text], "-p")


def test_numbers_below_the_least_are_refused_and_minus_one_can_be_allowed() -> None:
    assert parse_numbers(["-1,0,5"], "-ngl", least=-1) == [-1, 0, 5]
    with pytest.raises(UsageError, match="-t must be 1 or more: 0"):
        parse_numbers(["0"], "-t", least=1)


@given(st.integers(1, 500), st.integers(0, 500), st.integers(1, 50))
def test_a_range_with_a_step_is_what_python_counts(first: int, more: int, step: int) -> None:
    assert parse_numbers([f"{first}-{first + more}+{step}"], "-p") == list(range(first, first + more + 1, step))


def test_pairs_switches_and_types_are_read_or_refused() -> None:
    assert parse_pairs(["512,128", " 1 , 2 "], "-pg") == [(512, 128), (1, 2)]
    assert parse_switches(["on,off", "auto", "1,0,-1"], "-fa") == [True, False, None, True, False, None]
    assert parse_types(["f16,Q8_0"], "-ctk") == ["f16", "q8_0"]
    for text in ("512", "512,", "0,1", "1,0", "1,2,3"):
        with pytest.raises(UsageError, match="-pg takes two numbers"):
            parse_pairs([text], "-pg")
    with pytest.raises(UsageError, match="-fa must be on, off or auto: maybe"):
        parse_switches(["maybe"], "-fa")
    with pytest.raises(UsageError, match="-ctk must be one of f32, f16"):
        parse_types(["q6_k"], "-ctk")


def test_cases_come_in_the_order_of_llama_bench() -> None:
    grid = Grid(n_prompt=[16], n_gen=[4], pairs=[(8, 2)], n_depth=[0, 8], n_ubatch=[32, 64], n_threads=[1, 2])
    cases = grid.cases(SUBJECT)
    assert len(cases) == 24
    assert [case.test for case in cases[:6]] == ["pp16", "tg4", "pp8+tg2", "pp16 @ d8", "tg4 @ d8", "pp8+tg2 @ d8"]
    assert [(case.tuning.n_ubatch, case.tuning.n_threads) for case in cases[::6]] == [
        (32, 1),
        (32, 2),
        (64, 1),
        (64, 2),
    ]


def test_what_a_grid_does_not_say_stays_as_it_would_run() -> None:
    base = Tuning(n_threads=3, type_k="q8_0")
    assert [case.tuning for case in Grid(n_batch=[64]).cases(SUBJECT, base)] == [
        Tuning(n_threads=3, type_k="q8_0", n_batch=64)
    ] * 2
    assert [
        case.tuning.flash_attention for case in Grid(n_gen=[], flash_attention=[None, True]).cases(SUBJECT, base)
    ] == [
        None,
        True,
    ]


def test_zero_leaves_a_test_out_and_the_same_case_is_measured_once() -> None:
    assert [case.test for case in Grid(n_prompt=[0], n_gen=[4, 4]).cases(SUBJECT)] == ["tg4"]
    with pytest.raises(UsageError, match="nothing to measure"):
        Grid(n_prompt=[0], n_gen=[0]).cases(SUBJECT)


def test_a_real_prompt_takes_the_place_of_random_tokens() -> None:
    cases = Grid(n_prompt=[512], n_gen=[4], pairs=[(512, 8)]).cases(SUBJECT, prompt=(1, 2, 3))
    assert [case.test for case in cases] == ["pp3", "tg4 @ d3", "pp3+tg8"]
    assert [case.n_depth_in_all for case in cases] == [0, 3, 0]


def test_too_many_combinations_are_refused_before_they_are_made() -> None:
    with pytest.raises(UsageError, match=f"the most is {MAX_CASES}"):
        Grid(n_batch=range(1, 9000), n_ubatch=range(1, 9000), n_threads=range(1, 100)).cases(SUBJECT)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_prompt": 0, "n_gen": 0}, "nothing to measure"),
        ({"n_prompt": -1, "n_gen": 0}, "n_prompt must be 0 or more"),
        ({"n_prompt": 1, "n_gen": 0, "n_parallel": 0}, "n_parallel must be 1 or more"),
        ({"n_prompt": 1, "n_gen": 0, "n_depth": 8, "n_parallel": 2}, "only answers"),
        ({"n_prompt": 2, "n_gen": 0, "prompt": (1,)}, "the prompt has 1 tokens, not 2"),
    ],
)
def test_a_case_that_cannot_be_measured_is_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Case(SUBJECT, **values)  # type: ignore[arg-type]


def test_a_case_is_named_as_llama_bench_names_it() -> None:
    assert Case(SUBJECT, 8, 2, 16).test == "pp8+tg2 @ d16"
    assert Case(SUBJECT, 0, 2, 16, n_parallel=4).test == "tg2 @ d16 × 4"
    assert Case(SUBJECT, 8, 2, n_parallel=4).n_tokens == 40
