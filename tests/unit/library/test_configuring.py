"""Which settings hold for a model: by every name that it goes by, and by its repo's own advice."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from owm.engine.sampling import Sampling
from owm.errors import ModelNotFound, UsageError
from owm.library.configuring import effective, names_for, names_of
from owm.settings import config
from owm.store import manifest, refs
from owm.store.local import Store
from owm.store.manifest import FileRecord
from owm.store.model import StoredModel
from support.stored import put_model
from support.tiny_gguf import write_tiny_gguf

SMOLLM2 = "bartowski/SmolLM2-135M-Instruct-GGUF"
OF_SMOLLM2 = [SMOLLM2, "smollm2", "smollm2:135m"]
OF_ITS_Q8_0 = [*OF_SMOLLM2, f"{SMOLLM2}:Q8_0", "smollm2:Q8_0", "small", "smollm2:135m:Q8_0"]


@pytest.fixture
def stored(store: Store) -> Store:
    put_model(store, SMOLLM2, "Q4_K_M")
    put_model(store, SMOLLM2, "Q8_0")
    put_model(store, "acme/model-GGUF@v1", "UD-Q4_K_XL", name="Acme/Model-GGUF", revision="v1")
    put_model(store, "pypi:other==1.0", "Q4_1", source="pypi", name="other", revision="1.0", commit="1.0")
    return store


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("smollm2", OF_SMOLLM2),
        ("smollm2:135m", OF_SMOLLM2),
        (SMOLLM2.lower(), OF_SMOLLM2),
        ("smol", OF_SMOLLM2),
        ("smollm2:Q8_0", OF_ITS_Q8_0),
        ("smollm2:135m:Q8", OF_ITS_Q8_0),
        ("small", OF_ITS_Q8_0),
        ("acme/mod", ["Acme/Model-GGUF", "acme/model-GGUF@v1"]),
        ("acme/model-GGUF@v1", ["Acme/Model-GGUF", "acme/model-GGUF@v1"]),
        ("pypi:other==1.0", ["pypi:other==1.0"]),
        # not stored
        ("smollm2:360m", ["smollm2:360m"]),
        ("smollm2:360m:Q4_K_M", ["smollm2:360m", "smollm2:360m:Q4_K_M"]),
        ("some/where", ["some/where"]),
        ("some/where:q6_k", ["some/where", "some/where:q6_k"]),
        ("some/where:x-Q6_K.gguf", ["some/where", "some/where:Q6_K"]),
        ("far", ["some/where"]),
        ("qwen3:0.6b:Q8_0", ["qwen3", "qwen3:0.6b", "qwen3:Q8_0", "qwen3:0.6b:Q8_0"]),
        ("gpt2", ["gpt2", "gpt2:124m"]),
        ("https://host/m.gguf?key=1", None),
    ],
)
def test_a_model_is_configured_by_its_full_name(text: str, names: list[str] | None, stored: Store) -> None:
    stored.aliases.set("small", refs.parse("smollm2:135m:Q8_0"))
    stored.aliases.set("far", refs.parse("some/where"))
    found = names_for(text, stored)
    if names is None:
        assert "key=1" not in found[-1]
    else:
        assert found == names


def test_with_two_that_begin_so_and_for_unknown_names_nothing_is_guessed(stored: Store) -> None:
    put_model(stored, "bartowski/SmolLM2-360M-Instruct-GGUF", "Q8_0")
    with pytest.raises(ModelNotFound, match=r"^smol could be several stored models$"):
        names_for("smol", stored)
    for text in ("nosuch", "smollm2:9b"):
        with pytest.raises(ModelNotFound):
            names_for(text, stored)
    with pytest.raises(ModelNotFound, match=r"no such file: ./none.gguf"):
        names_for("./none.gguf", stored)


def test_a_file_is_configured_by_where_it_lies(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m-Q4_0.gguf").write_bytes(b"GGUF")
    where = [str(tmp_path / "m-Q4_0.gguf")]
    assert names_for("./m-Q4_0.gguf", store) == where
    assert names_for(os.path.join("..", tmp_path.name, "m-Q4_0.gguf"), store) == where
    model = store.find(refs.parse("m-Q4_0.gguf"))
    assert model is not None
    assert names_of(model, store) == where


def _model(store: Store, text: str) -> StoredModel:
    found = store.find(refs.parse(text))
    assert found is not None
    return found


def test_the_more_exact_a_name_the_stronger(stored: Store) -> None:
    path = config.default_path()
    config.change(path, None, {"temp": 0.1, "top_k": 1, "top_p": 0.1, "min_p": 0.1, "threads": 1})
    config.change(path, SMOLLM2, {"top_k": 2, "top_p": 0.2, "min_p": 0.2})
    config.change(path, "smollm2:135m", {"top_p": 0.3, "min_p": 0.3})
    config.change(path, "smollm2:135m:q8_0", {"min_p": 0.4})
    sampling, settings = effective(_model(stored, "smollm2:Q8_0"), stored, {"seed": 3})
    assert sampling == Sampling(temp=0.1, top_k=2, top_p=0.3, min_p=0.4, seed=3)
    assert [settings[name].origin for name in ("temp", "top_k", "top_p", "min_p", "threads", "seed")] == [
        "config.toml",
        f"config.toml [{SMOLLM2}]",
        "config.toml [smollm2:135m]",
        "config.toml [smollm2:135m:q8_0]",
        "config.toml",
        "--seed",
    ]
    assert effective(_model(stored, "smollm2:Q4_K_M"), stored, {})[0].min_p == 0.3
    assert effective(_model(stored, "pypi:other"), stored, {})[0].top_k == 1


def test_the_advice_of_the_repo_stands_between_the_file_and_the_config(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put_model(store, "o/r", "Q4_K_M")
    advice = store.hub / "models--o--r" / "snapshots" / "a" / "generation_config.json"
    advice.parent.mkdir(parents=True)
    advice.write_text('{"temperature": 0.6, "top_k": 20, "top_p": 0.9}')
    known = manifest.parse((folder / manifest.FILE_NAME).read_text(), folder)
    record = FileRecord(
        advice.relative_to(store.hub).as_posix(), "hub", advice.stat().st_size, "0" * 64, role="generation_config"
    )
    manifest.write(replace(known, generation_config=record), folder)
    config.change(config.default_path(), "o/r", {"top_p": 0.5})
    _, settings = effective(_model(store, "o/r"), store, {}, family={"temp": 0.7, "seed": 1})
    assert (settings["temp"].value, settings["temp"].origin) == (0.6, "generation_config.json")
    assert settings["top_k"].value == 20
    assert settings["top_p"].origin == "config.toml [o/r]"
    assert settings["seed"].origin == "model family"
    advice.unlink()
    assert effective(_model(store, "o/r"), store, {})[1]["temp"].origin == "default"


def test_the_file_s_own_settings_count_when_it_is_open(store: Store, tmp_path: Path) -> None:
    from owm.formats import gguf

    path = write_tiny_gguf(tmp_path / "tiny.gguf", metadata={"general.sampling.temp": 0.25})
    model = _model(store, str(path))
    assert effective(model, store, {})[1]["temp"].origin == "default"
    assert effective(model, store, {}, header=gguf.read_header(path))[1]["temp"].origin == "model file"


def test_a_broken_config_file_is_said_before_anything_else(store: Store, tmp_path: Path) -> None:
    path = config.default_path()
    path.parent.mkdir(parents=True)
    path.write_text("temp = hot\n")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=r"config.toml is not TOML: .* line 1"):
        effective(_model(store, str(tmp_path / "m.gguf")), store, {})
