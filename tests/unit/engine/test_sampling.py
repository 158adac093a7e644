"""Sampling settings: what may be, and which layer a value comes from."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine.sampling import KINDS, MAX_SEED, Sampling, resolve
from owm.errors import UsageError
from owm.formats.gguf import Header, LongArray, Value

RANGES: dict[str, tuple[float, float]] = {
    "temp": (0, 100),
    "top_k": (0, 1 << 30),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repeat_penalty": (0.01, 100),
    "repeat_last_n": (-1, 1 << 30),
    "presence_penalty": (-100, 100),
    "frequency_penalty": (-100, 100),
    "seed": (0, MAX_SEED),
}


def header(**metadata: Value) -> Header:
    keys = {f"general.sampling.{name}": value for name, value in metadata.items()}
    return Header(Path("model.gguf"), 3, keys, (), 32, 0, 0)


def test_the_defaults_are_those_of_llama_cpp() -> None:
    sampling, origins = resolve(header(), {})
    assert sampling == Sampling()
    assert asdict(sampling) == {
        "temp": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0, "repeat_last_n": 64,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": None, "ignore_eos": False,
    }  # fmt: skip
    assert {setting.origin for setting in origins.values()} == {"default"}


@pytest.mark.parametrize("name", RANGES)
def test_a_value_is_taken_up_to_its_bounds_and_not_beyond(name: str) -> None:
    low, high = RANGES[name]
    step = 1 if KINDS[name] is int else 1e-9
    for value in (low, high):
        assert getattr(Sampling(**{name: value}), name) == value
    for value in (low - step, high + step * 10**6, *([] if KINDS[name] is int else [math.inf, -math.inf, math.nan])):
        with pytest.raises(UsageError, match=f"^--{name.replace('_', '-')} must be between {low} and {high}: "):
            Sampling(**{name: value})


def test_a_number_beyond_every_float_is_refused_too() -> None:
    with pytest.raises(UsageError, match="--top-k must be between"):
        Sampling(top_k=10**400)


def test_each_layer_overrides_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    file = header(temp=0.6, top_k=20, top_p=0.5, penalty_repeat=1.1, penalty_last_n=-1)
    monkeypatch.setenv("OWM_TOP_K", "30")
    monkeypatch.setenv("OWM_TOP_P", "0.7")
    monkeypatch.setenv("OWM_SEED", "7")
    sampling, origins = resolve(file, {"top_p": 0.9, "min_p": 0.0, "temp": None, "ignore_eos": True})
    assert sampling == Sampling(
        temp=0.6, top_k=30, top_p=0.9, min_p=0.0, repeat_penalty=1.1, repeat_last_n=-1, seed=7, ignore_eos=True
    )
    assert {name: setting.origin for name, setting in origins.items()} == {
        "temp": "model file",
        "top_k": "OWM_TOP_K",
        "top_p": "--top-p",
        "min_p": "--min-p",
        "repeat_penalty": "model file",
        "repeat_last_n": "model file",
        "presence_penalty": "default",
        "frequency_penalty": "default",
        "seed": "OWM_SEED",
        "ignore_eos": "--ignore-eos",
    }


@pytest.mark.parametrize("variable", ["OWM_TEMP", "OWM_TOP_K", "OWM_REPEAT_LAST_N", "OWM_PRESENCE_PENALTY", "OWM_SEED"])
def test_a_bad_variable_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "-1000")
    with pytest.raises(UsageError, match=f"^{variable} must be between .*: -1000"):
        resolve(header(), {})
    monkeypatch.setenv(variable, "hot")
    with pytest.raises(UsageError, match=f"^{variable} is not a number: hot$"):
        resolve(header(), {})


def test_no_number_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWM_TEMP", "nan")
    with pytest.raises(UsageError, match=r"^OWM_TEMP must be between 0 and 100: nan$"):
        resolve(header(), {})


@pytest.mark.parametrize(
    "metadata",
    [
        {"temp": math.nan},
        {"temp": math.inf},
        {"temp": -0.1},
        {"temp": 1e30},
        {"temp": "0.5"},
        {"temp": True},
        {"temp": (0.5,)},
        {"temp": LongArray(6, 5000, 0)},
        {"top_k": -1},
        {"top_k": 2**63},
        {"top_k": math.inf},
        {"top_k": math.nan},
        {"top_p": 1.5},
        {"min_p": -1e-30},
        {"penalty_repeat": 0.0},
        {"penalty_last_n": -2},
        {"seed": 5},  # the file does not choose the seed
        {"ignore_eos": 1},
        {"presence_penalty": 50.0},
        {"xtc_probability": 0.5},
    ],
)
def test_what_the_file_may_not_say_is_left_out(metadata: dict[str, Value]) -> None:
    sampling, origins = resolve(header(**metadata), {})
    assert sampling == Sampling()
    assert {setting.origin for setting in origins.values()} == {"default"}


def test_one_bad_value_of_a_file_does_not_take_the_others_with_it() -> None:
    assert resolve(header(temp=math.nan, top_k=7.0, top_p=0.5), {})[0] == Sampling(top_k=7, top_p=0.5)


_anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.tuples(st.floats())


@given(
    st.dictionaries(st.sampled_from(["temp", "top_k", "top_p", "min_p", "penalty_repeat", "penalty_last_n"]), _anything)
)
def test_whatever_a_file_says_the_settings_are_valid(metadata: dict[str, Any]) -> None:
    sampling, _ = resolve(header(**metadata), {})
    for name, (low, high) in RANGES.items():
        value = getattr(sampling, name)
        assert value is None or (low <= value <= high and type(value) is KINDS[name])


def test_a_seed_is_drawn_once_and_kept() -> None:
    drawn = {Sampling().with_seed().seed for _ in range(8)}
    assert len(drawn) > 1
    assert all(seed is not None and 0 <= seed <= MAX_SEED for seed in drawn)
    assert Sampling(seed=5, temp=0.1).with_seed() == Sampling(seed=5, temp=0.1)
    kept = asdict(Sampling(temp=0.1, ignore_eos=True).with_seed())
    assert kept == {**asdict(Sampling(temp=0.1, ignore_eos=True)), "seed": kept["seed"]}
