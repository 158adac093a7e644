from collections.abc import Mapping

import numpy as np
import pytest

from owm.errors import UsageError
from owm.pipeline.plan import Plan, PlannedTensor, make_plan
from owm.pipeline.rows import MemoryRows
from owm.tailor.choice import Rated, rate

WIDTH = 64


def _base() -> Plan:
    generator = np.random.default_rng(0)
    tensors = [
        PlannedTensor(f"blk.{layer}.{kind}.weight", MemoryRows(block), "Q8_0", "recipe")
        for layer in range(8)
        for kind in ("attn_v", "ffn_up")
        for block in [generator.standard_normal((64, WIDTH)).astype(np.float32)]
    ]
    norm = PlannedTensor("output_norm.weight", MemoryRows(np.ones(WIDTH, np.float32)), "F32", "norm")
    return make_plan({"general.architecture": "llama"}, [*tensors, norm])


def _measure(types: Mapping[str, str]) -> float:
    """A model in which the values of attention count a hundred times as much."""
    lost = {"Q4_0": 1.0, "IQ4_NL": 0.7, "Q4_1": 0.8, "Q5_0": 0.25, "Q5_1": 0.2, "Q8_0": 0.004}
    return sum(lost[type_name] * (100 if "attn_v" in name else 1) for name, type_name in types.items()) / 10_000


@pytest.fixture(scope="module")
def rated() -> Rated:
    return rate(_base(), _measure)


def _size(types: Mapping[str, str]) -> int:
    base = _base()
    tensors = [
        PlannedTensor(tensor.name, tensor.rows, types.get(tensor.name, tensor.type_name), "") for tensor in base.tensors
    ]
    return make_plan(base.metadata, tensors).n_bytes


@pytest.mark.parametrize("share", [0.56, 0.7, 0.9, 1.0])
def test_the_file_is_as_large_as_said_and_never_larger(rated: Rated, share: float) -> None:
    target = int(_base().n_bytes * share)
    chosen = rated.choose(target)
    assert _size(chosen.types) == chosen.n_bytes <= target == chosen.target_bytes
    assert target - chosen.n_bytes <= 4 * 64 * 2 * WIDTH // 32  # a step of the smallest tensor


def test_bytes_go_to_what_loses_most(rated: Rated) -> None:
    table = {row.kind: row for row in rated.choose(int(_base().n_bytes * 0.75)).table}
    assert table["attn_v.weight"].bpw > 6 > table["ffn_up.weight"].bpw
    assert sum(table["attn_v.weight"].types.values()) == 8
    assert table["attn_v.weight"].slope > 10 * table["ffn_up.weight"].slope


def test_other_tensors_stay(rated: Rated) -> None:
    assert "output_norm.weight" not in rated.choose(_base().n_bytes).types


def test_a_target_that_is_too_small_says_the_smallest(rated: Rated) -> None:
    with pytest.raises(UsageError, match=rf"smallest possible is .*\({rated.smallest_bytes} bytes\)"):
        rated.choose(rated.smallest_bytes - 1)
    assert rated.choose(rated.smallest_bytes).n_bytes == rated.smallest_bytes


def test_a_stock_recipe_that_really_loses_less_is_taken(rated: Rated) -> None:
    """Whatever was predicted: nothing that is chosen may lose more than llama.cpp's own recipe of that size."""
    stock = dict.fromkeys(rated.losses.errors, "Q5_0")

    def measure(types: Mapping[str, str]) -> float:
        return 0.001 if set(types.values()) == {"Q5_0"} else 0.5

    contrary = Rated(rated.losses, rated.fixed_bytes, measure)
    chosen = contrary.choose(_size(stock), {"Q5_0": stock, "Q8_0": dict.fromkeys(stock, "Q8_0")})
    assert chosen.types == stock
    assert chosen.measured_kld == 0.001
    assert "Q5_0" in chosen.notes[0]


def test_nothing_to_choose() -> None:
    norm = PlannedTensor("output_norm.weight", MemoryRows(np.ones(4, np.float32)), "F32", "norm")
    with pytest.raises(UsageError, match="no tensor"):
        rate(make_plan({"general.architecture": "llama"}, [norm]), _measure)
