"""Tuned values as a layer of settings: weaker than what the user says, for this machine and these bytes only."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from owm.engine.tuning import Tuning
from owm.errors import UsageError
from owm.hardware.machine import this_machine
from owm.library.configuring import effective, identity_of, said_tuned, settings_of, tuned_for, tuning_of
from owm.settings import config, keys, tuned
from owm.settings.layers import Setting
from owm.settings.tuned import Tuned
from owm.store import refs
from owm.store.local import Store
from owm.store.model import StoredModel, at_path
from support.stored import put_model
from support.tiny_gguf import write_tiny_gguf

VALUES = {"threads": 3, "ubatch_size": 64}


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    return at_path(refs.parse(str(path)))


def entry(stored: StoredModel) -> Tuned:
    machine = this_machine()
    return Tuned(identity_of(stored), machine.fingerprint, machine.build, "tiny", machine.cpu, VALUES)


def test_tuned_values_hold_for_the_model_on_this_machine(stored: StoredModel, store: Store) -> None:
    tuned.save(tuned.default_path(), entry(stored))
    _, settings = effective(stored, store, {})
    assert settings["threads"] == Setting(3, "tuned")
    assert settings["ubatch_size"] == Setting(64, "tuned")
    assert settings["gpu_layers"] == Setting(None, "default")
    assert said_tuned(settings) == "tuned for this model and machine: threads 3, ubatch-size 64"
    assert tuning_of({name: setting.value for name, setting in settings.items()}) == Tuning(n_threads=3, n_ubatch=64)


def test_what_the_user_says_is_stronger(stored: StoredModel, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned.save(tuned.default_path(), entry(stored))
    config.change(config.default_path(), None, {"threads": 1})
    assert effective(stored, store, {})[1]["threads"] == Setting(1, "config.toml")
    monkeypatch.setenv("OWM_UBATCH_SIZE", "32")
    assert effective(stored, store, {})[1]["ubatch_size"] == Setting(32, "OWM_UBATCH_SIZE")
    settings = effective(stored, store, {"threads": 2})[1]
    assert settings["threads"] == Setting(2, "--threads")
    assert said_tuned(settings) is None


@pytest.mark.parametrize("changes", [{"machine": "0" * 12}, {"build": "llama-cpp-python 0 (0)"}, {"model": "b" * 64}])
def test_values_of_another_machine_build_or_model_are_not_used(
    changes: dict[str, str], stored: StoredModel, store: Store
) -> None:
    tuned.save(tuned.default_path(), replace(entry(stored), **changes))
    notes: list[str] = []
    _, settings = effective(stored, store, {}, note=notes.append)
    assert settings["threads"] == Setting(None, "default")
    assert said_tuned(settings) is None
    assert notes == []


def test_values_of_a_file_that_has_changed_are_not_used(stored: StoredModel) -> None:
    tuned.save(tuned.default_path(), entry(stored))
    assert tuned_for(stored) is not None
    os.utime(stored.path, ns=(1, 1))
    assert tuned_for(stored) is None


def test_a_stored_model_is_known_by_its_bytes_wherever_it_lies(store: Store) -> None:
    put_model(store, "acme/one-GGUF", "Q8_0", content=b"x" * 64)
    put_model(store, "acme/two-GGUF", "Q8_0", content=b"x" * 64)
    put_model(store, "acme/three-GGUF", "Q8_0", content=b"y" * 64)
    identities = [identity_of(model) for model in sorted(store.models(), key=lambda model: model.name)]
    assert len(set(identities)) == 2
    assert all(len(identity) == 64 for identity in identities)


def test_a_damaged_file_is_told_of_and_the_defaults_hold(stored: StoredModel, store: Store) -> None:
    path = tuned.default_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{")
    notes: list[str] = []
    _, settings = effective(stored, store, {}, note=notes.append)
    assert settings["threads"] == Setting(None, "default")
    assert notes == [f"{path} is damaged, so no tuned values are used"]


def test_every_setting_of_the_hardware_says_how_to_compute() -> None:
    values = {
        "threads": 2,
        "gpu_layers": -1,
        "batch_size": 1024,
        "ubatch_size": 128,
        "flash_attn": "on",
        "cache_type_k": "q8_0",
        "cache_type_v": "q4_0",
        "parallel": 8,
    }
    assert set(values) == set(keys.HARDWARE_KEYS)
    found = tuning_of(values)
    assert found == Tuning(2, 1024, 128, True, "q8_0", "q4_0", 8, -1)
    assert settings_of(found) == values
    assert settings_of(Tuning(flash_attention=False)) == {"flash_attn": "off"}
    assert settings_of(Tuning()) == {}
    assert tuning_of({}) == Tuning()


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="needs flash attention"):
        tuning_of({"flash_attn": "off", "cache_type_v": "q8_0"})
