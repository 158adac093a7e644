"""Which beginnings of prompts are worth reading once: cases made by hand, and what holds for any prompts."""

import time
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from owm.engine.prefixes import LEAST_SAVED, LEAST_TOKENS, plan_prefixes

A, B, C, D = list(range(100)), list(range(100, 200)), list(range(200, 300)), list(range(300, 400))


def test_what_two_prompts_share_is_split_off() -> None:
    plan = plan_prefixes([[*A, 1, 2], [*A, 3]])
    assert plan.splits == ((100,), (100,))
    assert plan.order == (0, 1)


def test_groups_inside_groups_are_split_where_each_begins_to_differ() -> None:
    prompts = [A + B + C, A + B + D, A + C + [1], A + C + [2], [*A, 7]]
    assert plan_prefixes(prompts).splits == ((100, 200), (100, 200), (100, 200), (100, 200), (100,))


def test_of_identical_prompts_one_token_is_left_to_read() -> None:
    assert plan_prefixes([A, A, A]).splits == ((99,),) * 3


def test_of_a_prompt_that_begins_another_one_token_is_left_to_read() -> None:
    assert plan_prefixes([A, A + B, A + C]).splits == ((99,),) * 3


def test_prompts_that_share_nothing_are_left_alone() -> None:
    plan = plan_prefixes([A, B, C, D])
    assert plan.splits == ((),) * 4
    assert plan.order == (0, 1, 2, 3)


def test_no_prompts_make_an_empty_plan() -> None:
    plan = plan_prefixes([])
    assert (plan.splits, plan.order) == ((), ())
    assert plan_prefixes([A]).splits == ((),)
    assert plan_prefixes([[], []]).splits == ((), ())


def test_a_little_is_worth_it_only_for_many() -> None:
    n_few = LEAST_SAVED // LEAST_TOKENS  # prompts, of which all but one save the least that a split may save

    def splits(n_tokens: int, n_prompts: int) -> set[tuple[int, ...]]:
        return set(plan_prefixes([[*A[:n_tokens], 900 + i] for i in range(n_prompts)]).splits)

    assert splits(LEAST_TOKENS, n_few) == {()}
    assert splits(LEAST_TOKENS, n_few + 1) == {(LEAST_TOKENS,)}
    assert splits(LEAST_TOKENS - 1, 100) == {()}
    assert splits(LEAST_SAVED - 1, 2) == {()}
    assert splits(LEAST_SAVED, 2) == {(LEAST_SAVED,)}
    assert plan_prefixes([[*A, 1], [*A, 2]], least=101).splits == ((), ())


def test_what_is_held_is_taken_for_nothing() -> None:
    """Also by one prompt alone, and where it is too short to be worth reading apart."""
    assert plan_prefixes([A + B, C + D], held=[tuple(A), tuple(C[:3]), tuple(D)]).splits == ((100,), (3,))


def test_a_held_prefix_that_is_the_whole_prompt_is_not_taken() -> None:
    """The last token gives the logits."""
    assert plan_prefixes([A], held=[tuple(A)]).splits == ((),)
    assert plan_prefixes([[*A, 1]], held=[tuple(A)]).splits == ((100,),)


def test_splits_keep_to_what_is_held() -> None:
    """Where prompts share hardly more than is held, that little is not split off again."""
    near = [A + B[:3] + C, A + B[:3] + D]
    assert plan_prefixes(near).splits == ((103,), (103,))
    assert plan_prefixes(near, held=[tuple(A)]).splits == ((100,), (100,))
    far = [A + B + C, A + B + D]
    assert plan_prefixes(far, held=[tuple(A)]).splits == ((100, 200), (100, 200))
    assert plan_prefixes(far, held=[tuple(A + B), tuple(A)]).splits == ((100, 200), (100, 200))


def test_lengths_are_multiples_of_a_piece() -> None:
    prompts = [A + B + C, A + B + D, A + C]
    assert plan_prefixes(prompts, piece=32).splits == ((96, 192), (96, 192), (96,))
    assert plan_prefixes(prompts, piece=150).splits == ((150,), (150,), ())
    assert plan_prefixes(prompts, piece=1000).splits == ((), (), ())
    assert plan_prefixes([A[:96]] * 3, piece=32).splits == ((64,),) * 3, "the 96th token has to be read by each"


def test_those_that_share_are_neighbours_and_else_the_order_is_kept() -> None:
    prompts = [D, A + B + [1], C, A + C + [2], A + B + [3], [*A, 4], A + C + [5], [*C, 6], D[::-1]]
    plan = plan_prefixes(prompts)
    assert plan.splits[1] == (100, 200)
    # What shares A is together, and in it what shares A + B and what shares A + C; each comes where its first one was.
    assert plan.order == (0, 1, 4, 3, 6, 5, 2, 7, 8)


def test_a_batch_of_long_prompts_is_planned_at_once() -> None:
    common = [i % 991 for i in range(1000)]
    prompts = [common + [(7 * i + k) % 1009 for k in range(32)] for i in range(512)]
    began = time.perf_counter()
    plan = plan_prefixes(prompts)
    assert time.perf_counter() - began < 5
    assert all(lengths and lengths[0] == 1000 for lengths in plan.splits)


# -- any prompts -------------------------------------------------------------------------------------------------------

# Prompts of few kinds of parts, so that they share much.
_parts = st.lists(st.sampled_from([A[:9], A[:40], A, B[:20], B[:70], C[:33], [1], [2]]), max_size=5)
_prompts = _parts.map(lambda parts: [token for part in parts for token in part])


def _begins(prefix: Sequence[int], prompt: Sequence[int]) -> bool:
    return list(prompt[: len(prefix)]) == list(prefix)


@given(
    st.lists(_prompts, max_size=24),
    st.lists(_prompts.filter(bool), max_size=3),
    st.sampled_from([None, 1, 8, 32]),
)
def test_splits_are_beginnings_that_somebody_else_has_too(
    prompts: list[list[int]], held: list[list[int]], piece: int | None
) -> None:
    plan = plan_prefixes(prompts, held=held, piece=piece)
    assert sorted(plan.order) == list(range(len(prompts)))
    assert len(plan.splits) == len(prompts)
    for prompt, lengths in zip(prompts, plan.splits, strict=True):
        assert list(lengths) == sorted(set(lengths))
        assert all(0 < length < len(prompt) for length in lengths)
        for length in lengths:
            prefix = prompt[:length]
            if prefix in held:
                continue
            assert piece is None or length % piece == 0
            users = [other for other, its in zip(prompts, plan.splits, strict=True) if length in its]
            assert sum(_begins(prefix, other) for other in users) > 1


@given(st.lists(_prompts, max_size=24))
def test_prompts_with_a_split_in_common_are_neighbours(prompts: list[list[int]]) -> None:
    plan = plan_prefixes(prompts)
    places: dict[tuple[int, ...], list[int]] = {}
    for place, i in enumerate(plan.order):
        for length in plan.splits[i]:
            places.setdefault(tuple(prompts[i][:length]), []).append(place)
    assert all(each == list(range(each[0], each[0] + len(each))) for each in places.values())


@given(st.lists(_prompts, max_size=24))
def test_a_prompt_that_begins_many_others_is_split_for_them(prompts: list[list[int]]) -> None:
    """What any two neighbours in the plan share beyond their splits is less than is worth reading apart."""
    plan = plan_prefixes(prompts)
    for i, lengths in enumerate(plan.splits):
        for k, others in enumerate(plan.splits):
            if i < k:
                n_common = next(
                    (n for n, (a, b) in enumerate(zip(prompts[i], prompts[k], strict=False)) if a != b),
                    min(len(prompts[i]), len(prompts[k])),
                )
                shared = max((n for n in lengths if n in others and n <= n_common), default=0)
                assert n_common - 1 - shared < LEAST_SAVED


@given(st.lists(_prompts, max_size=24))
def test_each_split_saves_more_than_copying_costs(prompts: list[list[int]]) -> None:
    plan = plan_prefixes(prompts)
    steps: set[tuple[int, ...]] = set()
    n_read = 0
    for prompt, lengths in zip(prompts, plan.splits, strict=True):
        n_read += len(prompt) - max(lengths, default=0)
        for before, length in pairwise((0, *lengths)):
            if tuple(prompt[:length]) not in steps:
                steps.add(tuple(prompt[:length]))
                n_read += length - before
    assert n_read <= sum(map(len, prompts)) - LEAST_SAVED * len(steps)
