"""Figures of importance matrices, by hand."""

import math

import numpy as np
import pytest

from owm.formats.imatrix import Entry, Imatrix
from owm.quality.activity import activities


def entry(*sums: list[float], counts: list[int]) -> Entry:
    return Entry(np.array(sums, np.float32), np.array(counts, np.int64))


def test_the_figures_of_a_tensor() -> None:
    imatrix = Imatrix(
        {
            "output.weight": entry([2.0, 2.0], counts=[2]),
            "blk.10.attn_q.weight": entry([3.0, 4.0, 0.0, 0.0], counts=[1]),
            "blk.9.attn_q.weight": entry([4.0, 8.0, 0.0, 4.0], counts=[2]),
        }
    )
    found = activities(imatrix)
    assert [one.name for one in found] == ["blk.9.attn_q.weight", "blk.10.attn_q.weight", "output.weight"]
    nine, ten, output = found
    assert (nine.n_values, nine.total, nine.minimum, nine.maximum, nine.mean) == (4, 8.0, 0.0, 4.0, 2.0)
    assert nine.deviation == pytest.approx(math.sqrt(2))
    assert nine.active == 0.75
    assert nine.entropy == pytest.approx(1.5)
    assert nine.evenness == pytest.approx(0.75)
    assert nine.z_share == 0.25
    assert nine.similarity is None
    assert ten.similarity == pytest.approx((12 + 32) / (5 * math.sqrt(96)))
    assert (output.deviation, output.z_share, output.evenness) == (0.0, 0.0, 1.0)


def test_experts_without_data_are_left_out() -> None:
    experts = entry([2.0, 6.0], [0.0, 0.0], [8.0, 0.0], counts=[2, 0, 4])
    never = entry([0.0], [0.0], counts=[0, 0])
    (found,) = activities(Imatrix({"blk.0.ffn_up_exps.weight": experts, "blk.0.never": never}))
    assert (found.n_values, found.n_unhit) == (4, 1)
    assert (found.minimum, found.maximum, found.total) == (0.0, 3.0, 6.0)


def test_a_tensor_that_nothing_passes() -> None:
    (found,) = activities(Imatrix({"blk.0.a": entry([0.0, 0.0], counts=[5])}))
    assert (found.entropy, found.active, found.deviation) == (0.0, 0.0, 0.0)
