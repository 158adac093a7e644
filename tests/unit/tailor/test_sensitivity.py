import numpy as np
import pytest

from owm.pipeline.plan import Plan, PlannedTensor, make_plan
from owm.pipeline.rows import MemoryRows
from owm.tailor import sensitivity
from owm.tailor.sensitivity import kind, measure

Array = np.ndarray


def _plan(weights: Array | None = None, **tensors: Array) -> Plan:
    planned = [PlannedTensor(name, MemoryRows(array), "Q8_0", "", weights) for name, array in tensors.items()]
    return make_plan({"general.architecture": "llama"}, planned)


def _normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_more_bits_lose_less() -> None:
    errors = measure(_plan(a=_normal(64, 512)), {"a"})["a"].by_type
    assert set(errors) == set(sensitivity.TYPES)
    assert errors["Q2_K"] > errors["Q3_K"] > errors["Q4_K"] > errors["Q5_K"] > errors["Q6_K"] > errors["Q8_0"] > 0
    assert errors["Q4_0"] == pytest.approx(0.008, rel=0.3)  # of normal values; ref: 4.5 bpw, some 21 dB


def test_rows_that_no_k_type_fits() -> None:
    errors = measure(_plan(narrow=_normal(8, 96), odd=_normal(8, 50)), {"narrow", "odd"})
    assert set(errors) == {"narrow"}
    assert set(errors["narrow"].by_type) == {"IQ4_NL", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}


def test_only_the_tensors_asked_for() -> None:
    assert set(measure(_plan(a=_normal(8, 32), b=_normal(8, 32)), {"b"})) == {"b"}


def test_errors_count_by_the_importance_of_columns() -> None:
    """Half the columns carry nothing: what is lost there is free, and the type cannot hide it elsewhere."""
    block = _normal(32, 256)
    block[:, :128] *= 100
    weights = np.ones((1, 256), np.float32)
    weights[:, :128] = 0
    plain = measure(_plan(a=block), {"a"})["a"].by_type["Q8_0"]
    weighted = measure(_plan(weights, a=block), {"a"})["a"].by_type["Q8_0"]
    alone = measure(_plan(a=block[:, 128:].copy()), {"a"})["a"].by_type["Q8_0"]
    assert weighted == pytest.approx(alone, rel=1e-3)
    assert plain != pytest.approx(alone, rel=1e-3)


def test_experts_have_their_own_importance() -> None:
    experts = np.stack([_normal(16, 64), _normal(16, 64, seed=1)])
    weights = np.ones((2, 64), np.float32)
    weights[1] = 0  # what the second one loses is free
    both = measure(_plan(weights, e=experts), {"e"})["e"]
    first = measure(_plan(weights[:1], e=experts[0]), {"e"})["e"]
    assert both.by_type["Q4_0"] == pytest.approx(first.by_type["Q4_0"])
    assert both.n_rows == 32


def test_a_sample_is_spread_over_the_tensor() -> None:
    block = _normal(4096, 32)
    block[2048:] *= 10
    whole = measure(_plan(a=block), {"a"})["a"].by_type
    sample = measure(_plan(a=block), {"a"}, sample_values=256 * 32)["a"].by_type
    assert sample["Q4_0"] == pytest.approx(whole["Q4_0"], rel=0.1)


def test_rounding_of_activations_is_coarser_in_large_blocks_beside_a_large_one() -> None:
    block, even = _normal(32, 256), np.ones((1, 256), np.float32)
    uneven = even.copy()
    uneven[0, 7] = 10_000
    flat, peaked = (measure(_plan(w, a=block), {"a"})["a"].rounding for w in (even, uneven))
    assert flat is not None
    assert peaked is not None
    assert flat[0] == pytest.approx(6 / 127**2 / 12, rel=1e-6)
    assert flat[1] == pytest.approx(flat[0])
    assert peaked[1] > 5 * peaked[0]
    assert measure(_plan(a=block), {"a"})["a"].rounding is None


def test_zeros_lose_nothing() -> None:
    assert set(measure(_plan(a=np.zeros((4, 32), np.float32)), {"a"})["a"].by_type.values()) == {0.0}


def test_kinds() -> None:
    assert kind("blk.12.attn_q.weight") == "attn_q.weight"
    assert kind("token_embd.weight") == "token_embd.weight"


def test_bytes_are_those_of_the_file() -> None:
    plan = _plan(a=_normal(3, 32), b=_normal(1, 32))
    errors = measure(plan, {"a", "b"})
    assert sum(error.n_bytes("Q8_0") for error in errors.values()) == plan.n_bytes - len(plan.files[0].header)


def test_one_column_that_is_always_large_does_not_hide_the_others() -> None:
    block = _normal(64, 256)
    even = np.ones((1, 256), np.float32)
    uneven = even.copy()
    uneven[0, 7] = 100_000
    plain, peaked = (measure(_plan(w, a=block), {"a"})["a"].by_type["Q4_0"] for w in (even, uneven))
    # Its importance makes its quant blocks fit it, and the rest fit worse: that has to show.
    assert peaked > plain
