"""Recipes: llama.cpp's own, what the user wants otherwise, and what the shape does not allow."""

from pathlib import Path

import pytest

from owm.errors import Damaged, UsageError
from owm.native.guard import Child
from owm.pipeline.plan import Plan
from owm.quantize.recipe import Overrides, Recipe, check_overrides, parse_tensor_type, stock_recipes
from support.tiny_plan import tiny_plan


def stock(
    plan: Plan, type_name: str, child: Child, *, has_imatrix: bool = False, overrides: Overrides | None = None
) -> Recipe:
    (recipe,) = stock_recipes(plan, [type_name], overrides or Overrides(), child, has_imatrix=has_imatrix)
    return recipe


def types(recipe: Recipe) -> dict[str, str]:
    return {name: choice.type_name for name, choice in recipe.choices.items()}


def test_a_mixture_gives_important_tensors_more_bits(child: Child) -> None:
    found = types(stock(tiny_plan(n_blocks=2), "Q4_K_M", child))
    assert found["blk.0.attn_q.weight"] == found["blk.0.ffn_up.weight"] == "Q4_K"
    assert found["blk.1.attn_v.weight"] == found["blk.1.ffn_down.weight"] == found["output.weight"] == "Q6_K"
    assert found["blk.0.attn_norm.weight"] == found["output_norm.weight"] == "F32"
    assert found.keys() == {tensor.name for tensor in tiny_plan().tensors}


def test_several_types_come_in_the_order_asked_for(child: Child) -> None:
    recipes = stock_recipes(tiny_plan(), ["Q8_0", "F16", "Q4_0"], Overrides(), child, has_imatrix=False)
    assert [recipe.type_name for recipe in recipes] == ["Q8_0", "F16", "Q4_0"]
    assert [types(recipe)["blk.0.attn_q.weight"] for recipe in recipes] == ["Q8_0", "F16", "Q4_0"]


def test_rows_that_no_block_divides_fall_back_and_say_why(child: Child) -> None:
    recipe = stock(tiny_plan(width=96, metadata={"llama.rope.dimension_count": 24}), "Q4_K_M", child)
    choice = recipe.choices["blk.0.attn_q.weight"]
    assert choice.type_name == "Q5_0"
    assert choice.reason == "fallback from Q4_K, blocks of 256"
    assert recipe.choices["blk.0.ffn_down.weight"].reason == "recipe"


def test_rows_that_nothing_falls_back_for_are_refused_with_a_reason(child: Child) -> None:
    narrow = tiny_plan(width=96, metadata={"llama.rope.dimension_count": 24})
    with pytest.raises(UsageError, match=r"Q1_0 cannot be made of this model.*no tensor type fallback.*q1_0") as caught:
        stock(narrow, "Q1_0", child)
    assert "--tensor-type" in str(caught.value.hint)
    wanted = Overrides((("attn_|ffn_(gate|up)|output|token_embd", "Q8_0"),))
    assert types(stock(narrow, "Q1_0", child, overrides=wanted))["blk.0.ffn_down.weight"] == "Q1_0"


def test_experts_become_mxfp4_and_the_rest_does_not(child: Child) -> None:
    found = types(stock(tiny_plan(n_experts=2), "MXFP4_MOE", child))
    assert found["blk.0.ffn_up_exps.weight"] == "MXFP4"
    assert found["blk.0.attn_q.weight"] == "Q8_0"
    assert found["blk.0.ffn_gate_inp.weight"] == "F32"


@pytest.mark.parametrize(("type_name", "needs"), [("IQ2_XS", True), ("Q2_K_S", True), ("IQ4_XS", False)])
def test_a_recipe_says_whether_it_needs_an_importance_matrix(type_name: str, needs: bool, child: Child) -> None:
    assert stock(tiny_plan(), type_name, child).needs_imatrix is needs
    assert not stock(tiny_plan(), type_name, child, has_imatrix=True).needs_imatrix


def test_the_recipe_knows_whether_there_is_an_importance_matrix(child: Child) -> None:
    plan = tiny_plan(n_blocks=8)
    assert types(stock(plan, "IQ3_M", child)) == types(stock(plan, "IQ3_M", child, has_imatrix=True))
    without, having = (types(stock(plan, "IQ4_XS", child, has_imatrix=has)) for has in (False, True))
    assert without["blk.0.ffn_down.weight"] == "Q5_K"
    assert having["blk.0.ffn_down.weight"] == "IQ4_XS"


def test_overrides_win_and_the_first_that_fits(child: Child) -> None:
    wanted = Overrides((("blk.0.attn_v", "Q8_0"), ("attn_v", "Q5_K")), output_type="Q5_0", embedding_type="F16")
    recipe = stock(tiny_plan(), "Q4_K_M", child, overrides=wanted)
    assert recipe.choices["blk.0.attn_v.weight"].type_name == "Q8_0"
    assert recipe.choices["blk.0.attn_v.weight"].reason == "override"
    assert recipe.choices["blk.1.attn_v.weight"].type_name == "Q5_K"
    assert recipe.choices["output.weight"].type_name == "Q5_0"
    assert recipe.choices["token_embd.weight"].type_name == "F16"
    assert recipe.choices["blk.0.attn_q.weight"].type_name == "Q4_K"


def test_pure_means_one_type(child: Child) -> None:
    found = types(stock(tiny_plan(), "Q4_K_M", child, overrides=Overrides(is_pure=True)))
    assert {name: kind for name, kind in found.items() if kind != "F32"} == dict.fromkeys(
        (name for name in found if "norm" not in name), "Q4_K"
    )


def test_names_are_those_after_pruning(child: Child) -> None:
    recipe = stock(tiny_plan(n_blocks=3), "Q8_0", child, overrides=Overrides(pruned=(0,)))
    assert "blk.1.attn_q.weight" in recipe.choices
    assert "blk.2.attn_q.weight" not in recipe.choices


@pytest.mark.parametrize("text", ["attn_v", "=Q4_K", "", "attn_v=", "attn_v=Q99"])
def test_a_line_that_is_no_override_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_tensor_type(text)


def test_an_override_may_hold_an_equals_sign() -> None:
    assert parse_tensor_type("(?=a)b=q6_k") == ("(?=a)b", "Q6_K")


def test_an_override_that_fits_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"fits no tensor of this model: atn_v=Q6_K"):
        check_overrides(Overrides((("atn_v", "Q6_K"),)), tiny_plan())


def test_a_pattern_that_is_no_regular_expression_is_refused(child: Child) -> None:
    wanted = Overrides((("attn_[v", "Q6_K"),))
    check_overrides(wanted, tiny_plan())  # llama.cpp has the last word: its expressions are not Python's
    with pytest.raises(UsageError, match="--tensor-type"):
        stock(tiny_plan(), "Q4_K_M", child, overrides=wanted)
    assert stock(tiny_plan(), "Q8_0", child).type_name == "Q8_0"  # and the child still answers


@pytest.mark.parametrize(("pruned", "word"), [((2,), "no layer 2, the model has 2"), ((0, 1), "would leave no layer")])
def test_layers_that_cannot_go_are_refused(pruned: tuple[int, ...], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        check_overrides(Overrides(pruned=pruned), tiny_plan())


def test_a_header_that_llama_cpp_does_not_take_is_damaged(child: Child) -> None:
    with pytest.raises(Damaged, match=r"llama\.cpp has no recipe for this model"):
        stock(tiny_plan(metadata={"general.architecture": "nobody"}), "Q8_0", child)


def test_nothing_is_left_of_the_headers(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stock(tiny_plan(), "Q8_0", child)
    assert list(tmp_path.iterdir()) == []
