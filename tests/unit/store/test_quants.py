"""Quants in the file names of real repos: labels, grouping, and which one is meant."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import QuantNotFound
from owm.store.quants import choose, is_model_file, label_of, variants


@dataclass(frozen=True)
class File:
    path: str
    size_bytes: int | None = 1000


def files(*paths: str) -> list[File]:
    return [File(path, 1000 + i) for i, path in enumerate(paths)]


def labels(*paths: str) -> list[str]:
    return sorted(variant.label for variant in variants(files(*paths)))


@pytest.mark.parametrize(
    ("path", "label"),
    [
        # bartowski
        ("SmolLM2-135M-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("SmolLM2-135M-Instruct-IQ3_XXS.gguf", "IQ3_XXS"),
        ("Llama-3.2-1B-Instruct-Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("Llama-3.2-1B-Instruct-Q3_K_XL.gguf", "Q3_K_XL"),
        ("Llama-3.2-1B-Instruct-f16.gguf", "F16"),
        ("microsoft_Phi-4-mini-instruct-IQ4_NL.gguf", "IQ4_NL"),
        # unsloth
        ("Qwen3-0.6B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("Qwen3-0.6B-UD-IQ1_S.gguf", "UD-IQ1_S"),
        ("Qwen3-0.6B-BF16.gguf", "BF16"),
        ("UD-Q2_K_XL/DeepSeek-R1-UD-Q2_K_XL-00001-of-00005.gguf", "UD-Q2_K_XL"),
        ("BF16/gpt-oss-120b-BF16-00002-of-00002.gguf", "BF16"),
        # mradermacher
        ("Some-Model-7B.i1-IQ3_XS.gguf", "i1-IQ3_XS"),
        ("Some-Model-7B.Q6_K.gguf", "Q6_K"),
        # MaziyarPanahi, TheBloke
        ("Mistral-7B-Instruct-v0.3.Q4_K_M.gguf", "Q4_K_M"),
        ("Mistral-7B-Instruct-v0.3.fp16.gguf", "F16"),
        # ggml-org, Qwen and the publishers
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("gpt-oss-120b-mxfp4-00001-of-00003.gguf", "MXFP4"),
        ("gemma-3-1b-it-Q8_0.gguf", "Q8_0"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("ggml-model-q4_0.gguf", "Q4_0"),
        ("granite-3.3-2b-instruct-f32.gguf", "F32"),
        ("bitnet-b1.58-2B-4T-TQ2_0.gguf", "TQ2_0"),
        # the quant is only the folder's name
        ("Q4_K_M/model.gguf", "Q4_K_M"),
        ("gguf/q5_k_s/model-00001-of-00002.gguf", "Q5_K_S"),
        # none
        ("model.gguf", None),
        ("ggml-vocab.gguf", None),
        ("AQ4_K_Mx.gguf", None),
    ],
)
def test_the_label_in_a_name(path: str, label: str | None) -> None:
    assert label_of(path) == label


@pytest.mark.parametrize(
    ("path", "is_model"),
    [
        ("model-Q4_K_M.gguf", True),
        ("model.GGUF", True),
        ("mmproj-model-f16.gguf", False),
        ("gemma-3-4b-it.mmproj-Q8_0.gguf", False),
        ("SmolLM2-135M-Instruct-imatrix.gguf", False),
        ("imatrix.dat", False),
        ("imatrix_unsloth.gguf", False),
        ("model-lora-f16.gguf", False),
        ("ggml-vocab-only.gguf", False),
        ("model.safetensors", False),
        ("README.md", False),
        ("model.gguf.part1of2", False),
        ("Alora-7B-Q4_0.gguf", True),
        ("x-lora-merged-Q4_0.gguf", True),
        ("qwen-draft-0.5b-Q8_0.gguf", True),
        ("m-draft.gguf", True),
        ("lora-x-Q4_0.gguf", False),
        ("x.lora.gguf", False),
        ("m-vocab-only.gguf", False),
        ("no-mmproj-here-Q4_0.gguf", True),
    ],
)
def test_what_is_a_model_to_run(path: str, is_model: bool) -> None:
    assert is_model_file(path) is is_model


def test_shards_make_one_model_in_their_order() -> None:
    paths = [f"UD-Q2_K_XL/R1-UD-Q2_K_XL-{i:05d}-of-00003.gguf" for i in (2, 1, 3)]
    (only,) = variants(files(*paths))
    assert only.label == "UD-Q2_K_XL"
    assert [file.path[-19:-14] for file in only.files] == ["00001", "00002", "00003"]
    assert only.size_bytes == 3003


def test_a_set_with_a_missing_shard_is_not_offered() -> None:
    assert labels("m-Q8_0-00001-of-00003.gguf", "m-Q8_0-00003-of-00003.gguf", "m-Q4_0.gguf") == ["Q4_0"]


def test_size_is_unknown_if_one_file_tells_none() -> None:
    (only,) = variants([File("m-Q8_0-00001-of-00002.gguf", 5), File("m-Q8_0-00002-of-00002.gguf", None)])
    assert only.size_bytes is None


def test_a_file_without_a_quant_goes_by_its_name() -> None:
    assert labels("folder/tiny-model.gguf", "config.json") == ["tiny-model"]


def test_two_models_of_one_quant_go_by_their_paths() -> None:
    assert labels("a-Q4_0.gguf", "b-Q4_0.gguf", "b-Q8_0.gguf") == ["Q8_0", "a-Q4_0", "b-Q4_0"]
    assert labels("x/m-Q4_0.gguf", "y/m-Q4_0.gguf") == ["x/m-Q4_0", "y/m-Q4_0"]


BARTOWSKI = files(
    "X-IQ3_M.gguf", "X-IQ4_XS.gguf", "X-Q4_0.gguf", "X-Q4_K_L.gguf", "X-Q4_K_M.gguf", "X-Q4_K_S.gguf", "X-Q8_0.gguf",
    "X-f16.gguf", "X-imatrix.gguf", "README.md",
)  # fmt: skip
UNSLOTH = files(
    "X-Q4_K_M.gguf", "X-UD-Q4_K_XL.gguf", "X-UD-Q2_K_XL.gguf", "X-Q8_0.gguf", "X-BF16.gguf", "mmproj-F16.gguf"
)


@pytest.mark.parametrize(
    ("repo", "asked", "label"),
    [
        (BARTOWSKI, None, "Q4_K_M"),
        (BARTOWSKI, "q4_k_m", "Q4_K_M"),
        (BARTOWSKI, "F16", "F16"),
        (BARTOWSKI, "iq4_xs", "IQ4_XS"),
        (UNSLOTH, "Q4_K_XL", "UD-Q4_K_XL"),
        (UNSLOTH, "ud-q2_k_xl", "UD-Q2_K_XL"),
        (UNSLOTH, "bf16", "BF16"),
        (UNSLOTH, None, "Q4_K_M"),
        (files("m-Q2_K.gguf", "m-Q8_0.gguf"), None, "Q8_0"),
        (files("m-mxfp4.gguf", "m-F16.gguf"), None, "MXFP4"),
        (files("m.i1-Q4_K_M.gguf", "m.i1-Q6_K.gguf"), None, "i1-Q4_K_M"),
        (files("m-UD-Q4_K_M.gguf", "m-Q4_K_M.gguf"), "Q4_K_M", "Q4_K_M"),
        (files("m-UD-Q4_K_M.gguf", "m-Q4_K_M.gguf"), None, "Q4_K_M"),
        (files("a-Q4_0.gguf", "b-Q4_0.gguf"), "b-q4_0", "b-Q4_0"),
        (files("model.gguf"), None, "model"),
    ],
)
def test_the_quant_that_is_meant(repo: list[File], asked: str | None, label: str) -> None:
    assert choose(variants(repo), asked, where="o/r").label == label


@pytest.mark.parametrize(
    ("asked", "suggestion"),
    [("Q4_KM", "Q4_K_M"), ("q4km", "Q4_K_M"), ("Q8", "Q8_0"), ("IQ4XS", "IQ4_XS"), ("fp16", "F16")],
)
def test_a_misspelt_quant_suggests_the_nearest_and_lists_all(asked: str, suggestion: str) -> None:
    with pytest.raises(QuantNotFound, match=f"no quant {asked} in o/r") as caught:
        choose(variants(BARTOWSKI), asked, where="o/r")
    assert caught.value.available == ("IQ3_M", "IQ4_XS", "Q4_0", "Q4_K_L", "Q4_K_M", "Q4_K_S", "Q8_0", "F16")
    assert caught.value.hint is not None
    assert f"did you mean `{suggestion}`?" in caught.value.hint
    assert ", ".join(caught.value.available) in caught.value.hint


def test_a_word_that_fits_two_quants_is_refused() -> None:
    repo = files("m-UD-Q4_K_M.gguf", "m.i1-Q4_K_M.gguf")
    with pytest.raises(QuantNotFound) as caught:
        choose(variants(repo), "Q4_K_M", where="o/r")
    assert set(caught.value.available) == {"UD-Q4_K_M", "i1-Q4_K_M"}


def test_nonsense_suggests_nothing() -> None:
    with pytest.raises(QuantNotFound) as caught:
        choose(variants(BARTOWSKI), "xyzzy", where="o/r")
    assert caught.value.hint is not None
    assert "did you mean" not in caught.value.hint


_parts = st.sampled_from(
    ["m", "Q4_K_M", "UD-Q4_K_M", "i1-IQ3_XS", "q8_0", "f16", "mmproj", "-00001-of-00002", "-00002-of-00002", "/"]
)


@given(
    st.lists(
        st.lists(_parts, min_size=1, max_size=4).map("-".join).map(lambda s: s.strip("/-") + ".gguf"),
        max_size=6,
        unique=True,
    )
)
def test_every_model_file_is_in_at_most_one_variant_and_every_label_finds_its_own(paths: list[str]) -> None:
    found = variants(files(*paths))
    members = [file.path for variant in found for file in variant.files]
    assert len(members) == len(set(members))
    assert len({variant.label for variant in found}) == len(found)
    for variant in found:
        assert choose(found, variant.label, where="o/r") == variant
