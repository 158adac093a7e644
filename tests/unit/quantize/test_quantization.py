"""From a plan to a quantized one: importance for every matrix, types that are kept, what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from owm.errors import UsageError
from owm.formats.imatrix import Entry, Imatrix
from owm.native import quants
from owm.native.guard import Child
from owm.pipeline.plan import Plan, PlannedTensor
from owm.pipeline.rows import MemoryRows
from owm.quantize.quantization import Layout, Quantization, apply_recipe, default_type, plan_quantizations
from owm.quantize.recipe import Choice, Overrides, Recipe
from support.tiny_plan import tiny_plan


def quantized(plan: Plan, type_name: str, child: Child, **options: Any) -> Quantization:
    return plan_quantizations(plan, [type_name], child, **options)[0]


def importance(plan: Plan, *, n_experts: int = 0, left_out: str | None = None) -> Imatrix:
    random = np.random.default_rng(1)
    entries = {}
    for tensor in plan.tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1 and "inp" not in tensor.name:
            n = n_experts if "exps" in tensor.name else 1
            if tensor.name != left_out:
                sums = random.random((n, tensor.shape[0])).astype(np.float32)
                entries[tensor.name] = Entry(sums, np.arange(1, n + 1, dtype=np.int64))
    return Imatrix(entries, ("prose.txt",), 3, 512)


def with_rows(plan: Plan, name: str, type_name: str) -> Plan:
    """Let a tensor be quantized already."""
    tensors = []
    for tensor in plan.tensors:
        if tensor.name == name:
            matrix = tensor.rows.read(0, tensor.n_rows)
            raw = quants.quantize(matrix, type_name)
            rows = MemoryRows(raw)
            rows.shape, rows.dtype, rows._matrix = tensor.rows.shape, type_name, raw  # type: ignore[assignment]
            tensor = PlannedTensor(name, rows, type_name, "as it is")
        tensors.append(tensor)
    return replace(plan, tensors=tuple(tensors))


def test_the_plan_says_what_the_file_is(child: Child) -> None:
    made = quantized(tiny_plan(), "Q4_K_M", child, metadata={"a.key": "a value"})
    assert made.label == "Q4_K_M"
    assert made.plan.metadata["general.file_type"] == 15
    assert made.plan.metadata["general.quantization_version"] == 2
    assert made.plan.metadata["a.key"] == "a value"
    assert next(iter(made.plan.metadata)) == "general.architecture"
    assert [tensor.name for tensor in made.plan.tensors] == [tensor.name for tensor in tiny_plan().tensors]


def test_each_expert_has_its_own_importance(child: Child) -> None:
    source = tiny_plan(n_experts=3)
    imatrix = importance(source, n_experts=3)
    made = quantized(source, "IQ2_XS", child, imatrix=imatrix)
    by_name = {tensor.name: tensor for tensor in made.plan.tensors}
    experts = by_name["blk.0.ffn_up_exps.weight"].weights
    wanted = imatrix.weights("blk.0.ffn_up_exps.weight", width=256)
    assert experts is not None
    assert wanted is not None
    assert experts.shape == (3, 256)
    assert (experts == wanted).all()
    assert by_name["blk.0.attn_q.weight"].weights is not None
    assert by_name["output_norm.weight"].weights is None
    assert by_name["output.weight"].weights is None  # the matrix has nothing for it, and it needs none
    about = {key: value for key, value in made.plan.metadata.items() if "imatrix" in key}
    assert about == {
        "quantize.imatrix.entries_count": len(imatrix.entries),
        "quantize.imatrix.dataset": "prose.txt",
        "quantize.imatrix.chunks_count": 3,
    }


def test_pruned_layers_take_their_importance_with_them(child: Child) -> None:
    source = tiny_plan(n_blocks=3)
    imatrix = importance(source)
    made = quantized(source, "Q4_K_M", child, imatrix=imatrix, overrides=Overrides(pruned=(0,)))
    (found,) = [tensor.weights for tensor in made.plan.tensors if tensor.name == "blk.0.attn_q.weight"]
    wanted = imatrix.weights("blk.1.attn_q.weight", width=256)
    assert found is not None
    assert wanted is not None
    assert (found == wanted).all()


def test_a_type_that_needs_importance_is_refused_without(child: Child) -> None:
    with pytest.raises(UsageError, match="IQ2_XS needs an importance matrix") as caught:
        quantized(tiny_plan(), "IQ2_XS", child)
    assert "--imatrix auto" in str(caught.value.hint)


def test_a_tensor_that_needs_importance_and_has_none_is_named(child: Child) -> None:
    source = tiny_plan()
    imatrix = importance(source, left_out="blk.1.ffn_up.weight")
    with pytest.raises(UsageError, match=r"blk\.1\.ffn_up\.weight"):
        quantized(source, "IQ2_XXS", child, imatrix=imatrix)
    assert quantized(source, "Q4_0", child, imatrix=imatrix).plan.tensors  # llama.cpp's quantizer goes on too


def test_an_override_may_need_importance_too(child: Child) -> None:
    wanted = Overrides((("blk.0.attn_q", "IQ1_S"),))
    with pytest.raises(UsageError, match=r"importance matrix"):
        quantized(tiny_plan(), "Q4_K_M", child, overrides=wanted)


def test_another_models_importance_is_refused(child: Child) -> None:
    with pytest.raises(UsageError, match="importance matrix"):
        quantized(tiny_plan(n_blocks=2), "Q4_K_M", child, imatrix=importance(tiny_plan(n_blocks=3)))
    with pytest.raises(UsageError, match="importance matrix"):
        quantized(tiny_plan(), "Q4_K_M", child, imatrix=importance(tiny_plan(width=512)))


def test_the_importance_is_a_part_of_what_names_the_file(child: Child) -> None:
    source = tiny_plan()
    with_one = quantized(source, "Q4_K_M", child, imatrix=importance(source))
    other = importance(source)
    entry = other.entries["blk.0.attn_q.weight"]
    other.entries["blk.0.attn_q.weight"] = Entry(entry.sums * 2 + 1, entry.counts)  # type: ignore[index]
    with_other = quantized(source, "Q4_K_M", child, imatrix=other)
    assert with_one.weights_sha256 != with_other.weights_sha256
    assert with_one.plan.digest() != with_other.plan.digest()
    assert with_one.plan.digest() == quantized(source, "Q4_K_M", child, imatrix=importance(source)).plan.digest()


def test_experts_published_as_mxfp4_stay_what_they_are(child: Child) -> None:
    source = with_rows(tiny_plan(n_experts=2), "blk.0.ffn_up_exps.weight", "MXFP4")
    assert default_type(source) == "MXFP4_MOE"
    assert default_type(tiny_plan()) == "Q4_K_M"
    made = {tensor.name: tensor for tensor in quantized(source, "Q4_K_M", child).plan.tensors}
    kept = made["blk.0.ffn_up_exps.weight"]
    assert (kept.type_name, kept.reason) == ("MXFP4", "kept as published")
    assert made["blk.1.ffn_up_exps.weight"].type_name == "Q4_K"
    again = {t.name: t for t in quantized(source, "Q4_K_M", child, allow_requantize=True).plan.tensors}
    assert again["blk.0.ffn_up_exps.weight"].type_name == "Q4_K"


def test_quantizing_again_is_refused_unless_it_is_allowed(child: Child) -> None:
    source = with_rows(tiny_plan(), "blk.0.attn_q.weight", "Q8_0")
    with pytest.raises(UsageError, match=r"blk\.0\.attn_q\.weight is quantized already \(Q8_0\)") as caught:
        quantized(source, "Q4_K_M", child)
    assert "--allow-requantize" in str(caught.value.hint)
    made = {tensor.name: tensor for tensor in quantized(source, "Q4_K_M", child, allow_requantize=True).plan.tensors}
    assert made["blk.0.attn_q.weight"].reason.endswith("quantized again")
    assert quantized(source, "Q8_0", child).plan.tensors  # it is that already


def test_several_files_are_laid_out(child: Child) -> None:
    made = quantized(tiny_plan(), "Q8_0", child, layout=Layout(split_max_bytes=12_000))
    assert len(made.plan.files) > 1
    assert all(file.n_bytes <= 12_000 for file in made.plan.files)


def test_an_unusual_alignment_counts_towards_the_size_of_a_file(child: Child) -> None:
    source = tiny_plan(metadata={"general.alignment": 4096})
    made = quantized(source, "Q8_0", child, layout=Layout(split_max_bytes=40_000))
    assert [file.alignment for file in made.plan.files] == [4096, 32]
    assert all(file.n_bytes <= 40_000 for file in made.plan.files)


def test_an_override_of_experts_kept_as_published_is_not_passed_over(child: Child) -> None:
    source = with_rows(tiny_plan(), "blk.0.ffn_up.weight", "MXFP4")
    kept = {tensor.name: tensor.type_name for tensor in quantized(source, "Q8_0", child).plan.tensors}
    assert kept["blk.0.ffn_up.weight"] == "MXFP4"
    overrides = Overrides(tensor_types=(("ffn_up", "Q4_0"),))
    with pytest.raises(UsageError, match=r"blk\.0\.ffn_up\.weight is quantized already"):
        quantized(source, "Q8_0", child, overrides=overrides)


def test_a_recipe_of_another_model_is_refused() -> None:
    recipe = Recipe("Q8_0", {"token_embd.weight": Choice("Q8_0", "recipe")})
    with pytest.raises(UsageError, match=r"the recipe has nothing for a tensor of this model: blk\.0\."):
        apply_recipe(tiny_plan(), recipe)
