"""How a model was made: what is written into a manifest is read back, and nothing else is believed."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import Damaged
from owm.library import recipes
from owm.library.recipes import Options
from owm.quantize.quantization import Layout
from owm.quantize.recipe import Overrides

TYPES = st.sampled_from(["Q8_0", "Q4_K", "F16"])
OPTIONS = st.builds(
    Options,
    st.builds(
        Overrides,
        st.lists(st.tuples(st.sampled_from(["attn_v", "ffn_.*=x"]), TYPES), max_size=3).map(tuple),
        st.none() | TYPES,
        st.none() | TYPES,
        is_pure=st.booleans(),
        pruned=st.lists(st.integers(0, 99), max_size=3).map(tuple),
    ),
    st.booleans(),
    st.builds(Layout, st.none() | st.integers(1, 1 << 40), st.booleans()),
    st.none() | st.just("gpt-2"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["action", "type", "by", "versions", "options", "imatrix", "recipe", "tensor_types"])


@given(OPTIONS)
def test_options_are_read_back_as_written(options: Options) -> None:
    made_from = {"type": "Q8_0", **recipes.about(recipes.QUANTIZE, options)}
    found = recipes.read(made_from, "tiny")
    assert found.options == options
    assert found.versions == recipes.versions()


@given(KEYS, JSON)
def test_any_value_is_a_recipe_or_an_error_of_ours(key: str, value: Any) -> None:
    made_from: dict[str, Any] = {"type": "Q8_0", **recipes.about(recipes.QUANTIZE), key: value}
    with contextlib.suppress(Damaged):
        assert recipes.read(made_from, "tiny").type_name


@pytest.mark.parametrize(
    ("made_from", "action"),
    [
        ({"type": "Q8_0", "tensor_types": {}, "by": "owm 0.0.1"}, recipes.QUANTIZE),
        ({"type": "BF16", "by": "owm 0.0.1"}, recipes.CONVERT),
        ({"type": "BF16", "by": "/llama.cpp/convert_hf_to_gguf.py"}, recipes.FOREIGN),
    ],
)
def test_what_an_older_owm_wrote_is_told_by_what_it_has(made_from: dict[str, Any], action: str) -> None:
    found = recipes.read(made_from, "tiny")
    assert (found.action, found.options, found.versions) == (action, None, None)
