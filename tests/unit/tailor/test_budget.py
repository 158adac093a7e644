import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.tailor import budget
from owm.tailor.budget import Option, assign, smallest_bytes


def _options(*pairs: tuple[int, float]) -> list[Option]:
    return [Option(f"T{n_bytes}", n_bytes, loss) for n_bytes, loss in pairs]


def _total(chosen: dict[str, Option]) -> tuple[int, float]:
    return sum(option.n_bytes for option in chosen.values()), sum(option.loss for option in chosen.values())


def test_bytes_go_where_they_save_most() -> None:
    options = {"a": _options((10, 1.0), (20, 0.9)), "b": _options((10, 1.0), (20, 0.1))}
    chosen = assign(options, 30)
    assert (chosen["a"].n_bytes, chosen["b"].n_bytes) == (10, 20)


def test_one_large_tensor_is_worth_several_small_ones() -> None:
    """A greedy choice by gain per byte would raise the small ones first, and have no room for the large one."""
    small = {f"s{number}": _options((0, 0.2), (10, 0.0)) for number in range(3)}
    chosen = assign({**small, "large": _options((0, 1.0), (100, 0.0))}, 105)
    assert chosen["large"].n_bytes == 100


def test_with_room_for_all_every_tensor_loses_least() -> None:
    options = {"a": _options((10, 1.0), (20, 0.5), (30, 0.7)), "b": _options((5, 1.0))}
    assert _total(assign(options, 1000)) == (25, 1.5)


def test_too_few_bytes() -> None:
    options = {"a": _options((10, 1.0), (20, 0.5))}
    assert smallest_bytes(options) == 10
    with pytest.raises(ValueError, match="too few"):
        assign(options, 9)


def test_rounding_up_to_steps_leaves_nothing_unspent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "N_STEPS", 4)
    options = {f"t{number}": _options((100, 1.0), (109, 0.5), (117, 0.1)) for number in range(40)}
    n_bytes, _ = _total(assign(options, 4400))
    assert 4400 * 0.995 <= n_bytes <= 4400


PAIRS = st.tuples(st.integers(0, 40), st.integers(0, 20))


@given(st.lists(st.lists(PAIRS, min_size=1, max_size=4), min_size=1, max_size=4), st.integers(0, 120))
def test_no_assignment_is_better(sizes: list[list[tuple[int, int]]], spare: int) -> None:
    options = {str(number): _options(*((size, float(loss)) for size, loss in row)) for number, row in enumerate(sizes)}
    most = smallest_bytes(options) + spare
    best = min(
        sum(option.loss for option in combination)
        for combination in itertools.product(*options.values())
        if sum(option.n_bytes for option in combination) <= most
    )
    n_bytes, loss = _total(assign(options, most))
    assert n_bytes <= most
    assert loss == pytest.approx(best)
