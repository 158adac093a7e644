"""Names of quantization types and tensor types: what llama.cpp makes, however it is spelled."""

import pytest

from owm.errors import UsageError
from owm.formats.gguf import TENSOR_TYPES
from owm.native import quants
from owm.quantize import types


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Q4_K_M", "Q4_K_M"), ("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("q3_k", "Q3_K_M"), ("q5_k", "Q5_K_M"),
        ("iq2-xs", "IQ2_XS"), ("mxfp4", "MXFP4_MOE"), ("fp16", "F16"), ("bf16", "BF16"), ("fp32", "F32"),
        ("tq1_0", "TQ1_0"),
    ],
)  # fmt: skip
def test_a_type_is_known_however_it_is_written(text: str, name: str) -> None:
    assert types.file_type(text) == name


def test_every_type_of_the_issue_is_there() -> None:
    wanted = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ1_S IQ1_M "
    wanted += "IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4_MOE F16 BF16 F32"
    assert set(wanted.split()) <= set(types.FILE_TYPE_IDS)


@pytest.mark.parametrize(
    ("text", "near"), [("Q4_K_N", "Q4_K_M"), ("q9_0", "Q8_0"), ("iq2xs", "IQ2_XS"), ("Q4", "Q4_0")]
)
def test_an_unknown_type_is_refused_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"unknown quantization type: {text}") as caught:
        types.file_type(text)
    assert caught.value.hint is not None
    suggested = caught.value.hint.partition("?")[0]
    assert near.rpartition("_")[0][:2] in suggested or near in suggested
    assert "Q8_0" in caught.value.hint


@pytest.mark.parametrize("text", ["", "nothing like it at all", "NVFP4", "Q8_K"])
def test_what_the_quantizer_does_not_make_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unknown quantization type"):
        types.file_type(text)


def test_tensor_types_are_those_that_ggml_makes() -> None:
    assert {"F32", "F16", "BF16", "Q4_K", "IQ1_S", "TQ2_0", "MXFP4", "Q8_0"} <= set(types.tensor_types())
    assert not {"Q8_1", "Q8_K", "I32", "F64"} & set(types.tensor_types())
    assert types.tensor_type("q6_k") == "Q6_K"
    with pytest.raises(UsageError, match="unknown tensor type: Q4_K_M"):
        types.tensor_type("Q4_K_M")


def test_the_table_of_formats_has_the_sizes_that_ggml_has() -> None:
    traits = {name: quants._traits(name) for name in quants.type_ids()}
    for name, values, size in TENSOR_TYPES.values():
        if name in traits:
            assert (traits[name].block_values, traits[name].block_bytes) == (values, size), name
