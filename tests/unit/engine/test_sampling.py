"""Sampling settings: what may be, and which layer a value comes from."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine.sampling import SAMPLING_KEYS, Sampling, resolve
from owm.errors import UsageError
from owm.formats.gguf import Header, LongArray, Value
from owm.settings.keys import KEYS, MAX_SEED
from owm.settings.layers import Setting, layer

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
    assert set(SAMPLING_KEYS) == set(RANGES)


def test_every_setting_is_told_of_also_one_that_nobody_has_set() -> None:
    _, settings = resolve(None, {"threads": 2})
    assert {*KEYS, "ignore_eos"} == set(settings)
    assert settings["threads"] == Setting(2, "--threads")
    for name in ("seed", "ctx_size", "max_tokens", "gpu_layers", "system", "think", "effort"):
        assert settings[name] == Setting(None, "default")


@pytest.mark.parametrize("name", RANGES)
def test_a_value_is_taken_up_to_its_bounds_and_not_beyond(name: str) -> None:
    low, high = RANGES[name]
    step = 1 if KEYS[name].kind is int else 1e-9
    for value in (low, high):
        assert getattr(Sampling(**{name: value}), name) == value
    for value in (
        low - step,
        high + step * 10**6,
        *([] if KEYS[name].kind is int else [math.inf, -math.inf, math.nan]),
    ):
        with pytest.raises(UsageError, match=f"^--{name.replace('_', '-')} must be between {low} and {high}: "):
            Sampling(**{name: value})


def test_a_number_beyond_every_float_is_refused_too() -> None:
    with pytest.raises(UsageError, match="--top-k must be between"):
        Sampling(top_k=10**400)


def test_each_layer_overrides_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    order = [
        "temp", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty",
    ]  # fmt: skip
    # Each layer sets one setting fewer than the one before it, so that every layer has one that holds.
    family = dict.fromkeys(order[:7], 1)
    file = header(temp=2, top_k=2, top_p=0.2, min_p=0.2, penalty_repeat=2, penalty_last_n=2)
    advised = {"temp": 3, "top_k": 3, "top_p": 0.3, "min_p": 0.3, "repeat_penalty": 3}
    everywhere = {"temp": 4, "top_k": 4, "top_p": 0.4, "min_p": 0.4}
    of_model = {"temp": 5, "top_k": 5, "top_p": 0.5}
    config = [layer(everywhere, "config.toml"), layer(of_model, "config.toml [m]")]
    monkeypatch.setenv("OWM_TEMP", "6")
    monkeypatch.setenv("OWM_TOP_K", "6")
    sampling, origins = resolve(file, {"temp": 7.0, "top_k": None}, family=family, advised=advised, config=config)
    assert {name: origins[name].origin for name in order} == {
        "temp": "--temp",
        "top_k": "OWM_TOP_K",
        "top_p": "config.toml [m]",
        "min_p": "config.toml",
        "repeat_penalty": "generation_config.json",
        "repeat_last_n": "model file",
        "presence_penalty": "model family",
        "frequency_penalty": "default",
    }
    assert sampling == Sampling(
        temp=7, top_k=6, top_p=0.5, min_p=0.4, repeat_penalty=3, repeat_last_n=2, presence_penalty=1
    )
    assert origins["ignore_eos"] == Setting(False, "default")
    assert resolve(file, {"ignore_eos": True})[1]["ignore_eos"] == Setting(True, "--ignore-eos")


def test_a_value_of_the_config_file_is_checked_by_its_origin() -> None:
    with pytest.raises(UsageError, match=r"^config.toml \[m\] must be between 0 and 100: 500$"):
        resolve(None, {}, config=[{"temp": Setting(500, "config.toml [m]")}])


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
        assert value is None or (low <= value <= high and type(value) is KEYS[name].kind)


def test_a_seed_is_drawn_once_and_kept() -> None:
    drawn = {Sampling().with_seed().seed for _ in range(8)}
    assert len(drawn) > 1
    assert all(seed is not None and 0 <= seed <= MAX_SEED for seed in drawn)
    assert Sampling(seed=5, temp=0.1).with_seed() == Sampling(seed=5, temp=0.1)
    kept = asdict(Sampling(temp=0.1, ignore_eos=True).with_seed())
    assert kept == {**asdict(Sampling(temp=0.1, ignore_eos=True)), "seed": kept["seed"]}
