"""Speeds predicted from headers and made-up rates: what they depend on, and in which direction."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.fit.memory import retyped
from owm.fit.speed import predict, type_names
from owm.fit.work import work_of
from owm.formats.gguf import TENSOR_TYPES, Header, TensorEntry, read_header
from owm.hardware.matvec import Attention, Line, Product, Rates, Rest
from support.tiny_moe import write_tiny_moe
from support.tiny_recurrent import write_tiny_hybrid, write_tiny_mamba
from support.tiny_sliding import write_tiny_gemma3

IDS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}


def product(gigabytes_per_second: float, bytes_per_value: float = 0.5) -> Product:
    """A type that comes from memory at some rate, from caches twice as fast, and computes ten times as fast."""
    each = bytes_per_value / gigabytes_per_second / 1e9
    return Product(Line(0.0, each), Line(0.0, each / 2), Line(0.0, each / 10), is_packed=True)


RATES = Rates(
    n_threads=2,
    cache_bytes=32 << 20,
    bytes_per_second=25e9,
    rest=Rest(1e-6, 3e-7, 2e-10, 2e-9, 2e-10),
    products={"Q4_K": product(20), "F16": product(20, 2.0), "F32": product(20, 4.0)},
    attention={"F16": Attention(Line(1e-8, 1e-11), Line(1e-9, 2e-12))},
)


def tensor(name: str, *shape: int, type_name: str = "Q4_K") -> TensorEntry:
    number = IDS[type_name]
    _, n_values, n_bytes = TENSOR_TYPES[number]
    n = 1
    for size in shape:
        n *= size
    return TensorEntry(name, shape, number, 0, n // n_values * n_bytes)


def header(*tensors: TensorEntry, architecture: str = "llama", **keys: Any) -> Header:
    metadata = {f"{architecture}.{key.replace('__', '.')}": value for key, value in keys.items()}
    return Header(Path("m.gguf"), 3, {"general.architecture": architecture, **metadata}, tensors, 32, 0, 0)


def dense(n_layers: int = 16, n_embd: int = 2048, *, n_inner: int = 8192, is_tied: bool = True, **keys: Any) -> Header:
    """A Llama of about a billion weights."""
    n_kv = n_embd // 4
    tensors = [tensor("token_embd.weight", n_embd, 32768), tensor("output_norm.weight", n_embd, type_name="F32")]
    if not is_tied:
        tensors.append(tensor("output.weight", n_embd, 32768))
    for i in range(n_layers):
        for name, shape in (
            ("attn_q", (n_embd, n_embd)), ("attn_k", (n_embd, n_kv)), ("attn_v", (n_embd, n_kv)),
            ("attn_output", (n_embd, n_embd)), ("ffn_gate", (n_embd, n_inner)), ("ffn_up", (n_embd, n_inner)),
            ("ffn_down", (n_inner, n_embd)),
        ):  # fmt: skip
            tensors.append(tensor(f"blk.{i}.{name}.weight", *shape))
        tensors += [tensor(f"blk.{i}.{name}_norm.weight", n_embd, type_name="F32") for name in ("attn", "ffn")]
    facts = {
        "block_count": n_layers, "embedding_length": n_embd, "feed_forward_length": n_inner,
        "attention__head_count": n_embd // 64, "attention__head_count_kv": n_kv // 64,
    }  # fmt: skip
    return header(*tensors, **{**facts, **keys})


def mixture(n_experts: int = 32, n_used: int = 4, router: str = "Q4_K") -> Header:
    tensors = [tensor("token_embd.weight", 1024, 32768), tensor("output.weight", 1024, 32768)]
    for i in range(16):
        tensors += [tensor(f"blk.{i}.{name}.weight", 1024, 1024) for name in ("attn_q", "attn_output")]
        tensors += [tensor(f"blk.{i}.{name}.weight", 1024, 256) for name in ("attn_k", "attn_v")]
        tensors.append(tensor(f"blk.{i}.ffn_gate_inp.weight", 1024, n_experts, type_name=router))
        tensors += [tensor(f"blk.{i}.ffn_{name}_exps.weight", 1024, 512, n_experts) for name in ("gate", "up")]
        tensors.append(tensor(f"blk.{i}.ffn_down_exps.weight", 512, 1024, n_experts))
    return header(
        *tensors, architecture="qwen3moe", block_count=16, embedding_length=1024, expert_used_count=n_used,
        expert_count=n_experts, expert_feed_forward_length=512, attention__head_count=16, attention__head_count_kv=4,
    )  # fmt: skip


def tg(model: Header, rates: Rates = RATES, **settings: Any) -> float:
    found = predict([model], rates, **settings)
    assert found is not None
    return found.tg_per_second


def test_a_large_model_is_as_fast_as_its_bytes_come_from_memory() -> None:
    model = dense()
    found = predict([model], RATES)
    assert found is not None
    n_values = sum(each.n_elements for each in model.tensors if len(each.shape) == 2)
    alone = 1 / (n_values * RATES.products["Q4_K"].streamed.per_value)
    assert 0.85 * alone < found.tg_per_second < alone
    assert found.limited_by == "memory"
    assert 5 * found.tg_per_second < found.pp_per_second < 12 * found.tg_per_second


def test_twice_the_layers_take_twice_the_time() -> None:
    assert tg(dense(32, is_tied=False)) == pytest.approx(tg(dense(16, is_tied=False)) / 1.9, rel=0.1)


def test_weights_that_caches_hold_are_not_read_from_memory() -> None:
    small = dense(2, 512, n_inner=1024)
    large_cache = replace(RATES, cache_bytes=1 << 30)
    tiny_cache = replace(RATES, cache_bytes=1 << 20)
    assert tg(small, large_cache) > 1.5 * tg(small, tiny_cache)
    assert tg(dense(), large_cache) > tg(dense())


def test_a_product_takes_time_whatever_its_rows() -> None:
    small, slow = dense(30, 512, n_inner=1024), replace(product(20), streamed_once=5e-6)
    tiny_cache = replace(RATES, cache_bytes=1 << 20)
    rates = replace(tiny_cache, products={"Q4_K": slow})
    n_products = 7 * 30 + 1
    assert 1 / tg(small, rates) - 1 / tg(small, tiny_cache) == pytest.approx(5e-6 * n_products, rel=0.01)
    cached = replace(rates, cache_bytes=1 << 30)
    assert tg(small, cached) == tg(small, replace(RATES, cache_bytes=1 << 30))


def test_a_type_that_computes_slowly_is_said_to_be_limited_by_that() -> None:
    found = predict([dense()], replace(RATES, products={"Q4_K": product(5)}))
    assert found is not None
    assert found.limited_by == "compute"


def test_a_long_context_takes_time_until_attention_takes_most_of_it() -> None:
    model = dense()
    speeds = [predict([model], RATES, n_ctx_filled=n) for n in (0, 4096, 65536)]
    assert [each and each.limited_by for each in speeds] == ["memory", "memory", "attention"]
    rates = [(each.tg_per_second, each.pp_per_second) for each in speeds if each]
    assert rates == sorted(rates, reverse=True)


def test_a_cache_that_is_large_is_read_at_the_rate_of_memory() -> None:
    free = replace(RATES, attention={"F16": Attention(Line(0.0, 1e-16), Line(0.0, 1e-16))})
    n_bytes = 16 * 2 * 2 * 512 * 65536  # layers, keys and values, bytes, values
    assert 1 / tg(dense(), free, n_ctx_filled=65536) - 1 / tg(dense(), free) == pytest.approx(n_bytes / 25e9, rel=0.01)


def test_a_window_bounds_what_a_long_context_takes() -> None:
    keys = {"attention__sliding_window": 512, "architecture": "gemma3"}
    assert tg(dense(**keys), n_ctx_filled=65536) > 2 * tg(dense(), n_ctx_filled=65536)
    assert tg(dense(attention__sliding_window=512), n_ctx_filled=9999) == tg(
        dense(), n_ctx_filled=9999
    )  # Llama has none


def test_answers_side_by_side_share_the_reading_of_weights() -> None:
    model = dense()
    one, eight = tg(model), tg(model, n_parallel=8)
    assert 2 * one < eight < 8 * one
    assert tg(model, n_parallel=64) < 64 * one


def test_of_experts_those_that_are_used_count() -> None:
    few, all_ = mixture(n_used=4), mixture(n_used=32)
    assert tg(few) > 2.5 * tg(all_)
    assert tg(mixture(64)) == pytest.approx(tg(mixture(32)), rel=0.05)  # more of them, of which as many are used
    # Side by side other experts are read as well.
    assert tg(few, n_parallel=4) < 3 * tg(few)


def test_prompts_are_read_with_all_experts() -> None:
    few, all_ = (predict([mixture(n_used=n)], RATES) for n in (4, 32))
    assert few is not None
    assert all_ is not None
    assert 1.5 * all_.pp_per_second < few.pp_per_second < 8 * all_.pp_per_second


def test_experts_whose_type_has_no_order_of_its_own_are_multiplied_column_by_column() -> None:
    plain = replace(RATES, products={"Q4_K": replace(product(20), is_packed=False)})
    one, other = (predict([mixture()], rates) for rates in (RATES, plain))
    assert one is not None
    assert other is not None
    assert other.pp_per_second < 0.7 * one.pp_per_second
    assert other.tg_per_second == one.tg_per_second
    dense_one, dense_other = (predict([dense()], rates) for rates in (RATES, plain))
    assert dense_one == dense_other


def test_a_type_without_a_rate_gives_no_prediction_unless_there_is_next_to_nothing_of_it() -> None:
    assert predict([dense()], replace(RATES, products={"F16": product(20)})) is None
    assert predict([dense()], replace(RATES, products={})) is None
    assert predict([dense()], replace(RATES, rest=None)) is None
    assert predict([dense()], replace(RATES, attention={})) is None
    without = replace(RATES, products={"Q4_K": product(20)})
    little = dense()
    little = replace(little, tensors=(*little.tensors, tensor("blk.0.ffn_gate_inp.weight", 2048, 64, type_name="F32")))
    assert type_names([little]) == ("Q4_K",)
    assert tg(little, without) == pytest.approx(tg(dense()), rel=0.01)
    assert predict([mixture(router="F32")], without) is None


def test_what_was_measured_beside_other_work_makes_a_speed_uncertain() -> None:
    def is_uncertain(*step: str) -> bool:
        found = predict([dense()], replace(RATES, disturbed={(step[0], step[1]): 1.0}))
        assert found is not None
        return found.is_uncertain

    assert [is_uncertain("product", "Q4_K"), is_uncertain("rest", ""), is_uncertain("attention", "F16")] == [True] * 3
    assert not is_uncertain("product", "F16"), "the model has nothing of it"


def test_the_types_to_measure_are_the_most_used_first() -> None:
    model = dense()
    tensors = tuple(
        each if "ffn" in each.name or len(each.shape) < 2 else tensor(each.name, *each.shape, type_name="F16")
        for each in model.tensors
    )
    assert type_names([replace(model, tensors=tensors)]) == ("F16", "Q4_K")


def test_a_header_with_other_types_is_predicted_by_them() -> None:
    model = dense()
    other = {each.name: "F16" for each in model.tensors if len(each.shape) == 2}
    (changed,) = retyped([model], other)
    assert type_names([changed]) == ("F16",)
    assert tg(changed) == pytest.approx(tg(model) / 4, rel=0.15)
    odd = header(tensor("blk.0.ffn_up.weight", 33, 32, type_name="F32"))
    (same,) = retyped([odd], {"blk.0.ffn_up.weight": "Q4_K"})
    assert same.tensors == odd.tensors  # which its rows do not allow


def test_weights_that_are_smaller_than_their_header_says_are_faster() -> None:
    assert tg(dense(), size_share=0.5) == pytest.approx(2 * tg(dense()), rel=0.15)


def test_files_of_one_model_are_one_model() -> None:
    model = dense()
    parts = [replace(model, tensors=model.tensors[:40]), replace(model, metadata={}, tensors=model.tensors[40:])]
    assert predict(parts, RATES) == predict([model], RATES)


def test_layers_that_only_guess_further_tokens_do_not_count() -> None:
    assert tg(dense(16, block_count=16, nextn_predict_layers=8)) > 1.5 * tg(dense(16))


def test_output_that_is_not_the_embeddings_is_read_in_their_place() -> None:
    assert work_of([dense(is_tied=False)]).n_bytes == work_of([dense()]).n_bytes


def test_attention_of_all_heads_to_one_that_they_share_is_counted_for_each() -> None:
    keys = {
        "architecture": "deepseek2", "attention__key_length": 576, "attention__value_length": 512,
        "attention__key_length_mla": 192, "attention__head_count": 128, "attention__head_count_kv": 128,
    }  # fmt: skip
    layer = work_of([dense(**keys)]).layers[0]
    assert (layer.n_heads, layer.n_kv_heads, layer.size) == (128, 1, 544)


def test_a_header_that_says_nothing_breaks_nothing() -> None:
    assert predict([header()], RATES) is None
    bare = replace(dense(), metadata={})
    assert predict([bare], RATES) is not None
    odd = dense(attention__head_count=0)
    assert work_of([odd]).layers == ()


@pytest.mark.parametrize("make", [write_tiny_mamba, write_tiny_hybrid, write_tiny_gemma3, write_tiny_moe])
def test_models_of_all_kinds_have_a_speed(make: Any, tmp_path: Path) -> None:
    model = read_header(make(tmp_path / "m.gguf"))
    found = predict([model], RATES)
    assert found is not None
    assert 0 < found.tg_per_second < found.pp_per_second < 1e7
    filled = predict([model], RATES, n_ctx_filled=100_000)
    assert filled is not None
    has_attention = bool(work_of([model]).layers)
    assert (filled.tg_per_second < found.tg_per_second) == has_attention


def test_recurrent_states_count(tmp_path: Path) -> None:
    work = work_of([read_header(write_tiny_mamba(tmp_path / "m.gguf"))])
    assert work.n_decaying > 0
    assert work.layers == ()
