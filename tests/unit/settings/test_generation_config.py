"""generation_config.json: what its makers advise is taken, whatever else a stranger writes is not."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine.sampling import Sampling
from owm.settings.generation_config import MAX_BYTES, read


def written(folder: Path, content: object) -> Path:
    path = folder / "generation_config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def test_its_names_become_ours(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {
            "_from_model_config": True, "bos_token_id": 1, "eos_token_id": [2, 3], "do_sample": True,
            "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0, "repetition_penalty": 1.05,
            "transformers_version": "4.51.0",
        },
    )  # fmt: skip
    assert read(path) == {"temp": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0, "repeat_penalty": 1.05}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '"temperature"', "[" * 100_000, '{"temperature": ' + "9" * 5000 + "}", "\ud7ff\0"],
)
def test_what_is_no_object_advises_nothing(content: str, tmp_path: Path) -> None:
    assert read(written(tmp_path, content)) == {}


def test_a_file_that_is_not_there_advises_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "generation_config.json") == {}


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    assert read(written(tmp_path, {"temperature": 0.5, "padding": "x" * MAX_BYTES})) == {}


def test_one_bad_value_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    stated = {"temperature": -1, "top_k": True, "top_p": "0.5", "min_p": None, "repetition_penalty": 1.1}
    assert read(written(tmp_path, stated)) == {"repeat_penalty": 1.1}


_anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.floats())


@given(
    st.dictionaries(st.sampled_from(["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "x"]), _anything)
)
def test_whatever_it_says_the_settings_are_valid(tmp_path_factory: pytest.TempPathFactory, stated: Any) -> None:
    Sampling(**read(written(tmp_path_factory.mktemp("repo"), stated)))
