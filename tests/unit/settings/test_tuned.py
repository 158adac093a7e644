"""Tuned values on disk: for one model, machine and build each, and what becomes of a file that is not what it was."""

import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.engine import tuning
from owm.errors import Damaged, StoreError, Unsupported
from owm.settings import keys, tuned
from owm.settings.layers import Setting
from owm.settings.tuned import Tuned

ONE = Tuned("a" * 64, "machine", "build", "smollm2", "A CPU", {"threads": 3, "flash_attn": "off"}, {"prompt": 1.5}, "t")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "tuned.json"


def place(machine: str = "machine", build: str = "build") -> Any:
    return lambda: (machine, build)


def test_what_is_saved_is_found_again(path: Path) -> None:
    assert tuned.load(path) == []
    tuned.save(path, ONE)
    assert tuned.load(path) == [ONE]
    assert tuned.find(tuned.load(path), ONE.model, place()) == ONE
    assert ONE.layer() == {"threads": Setting(3, "tuned"), "flash_attn": Setting("off", "tuned")}
    assert ONE.said() == "threads 3, flash-attn off"


def test_values_hold_for_one_model_machine_and_build(path: Path) -> None:
    others = [replace(ONE, model="b" * 64), replace(ONE, machine="other"), replace(ONE, build="other")]
    for each in (ONE, *others):
        tuned.save(path, each)
    entries = tuned.load(path)
    assert tuned.find(entries, ONE.model, place()) == ONE
    assert tuned.find(entries, ONE.model, place("other")) == others[1]
    assert tuned.find(entries, ONE.model, place("machine", "other")) == others[2]
    assert tuned.find(entries, ONE.model, place("other", "other")) is None
    assert tuned.find(entries, "c" * 64, place()) is None


def test_the_machine_is_not_looked_at_where_nothing_is_tuned_for_the_model(path: Path) -> None:
    tuned.save(path, ONE)

    def look() -> tuple[str, str]:
        raise AssertionError

    assert tuned.find(tuned.load(path), "b" * 64, look) is None


def test_tuning_again_takes_the_place_of_what_was(path: Path) -> None:
    tuned.save(path, ONE)
    tuned.save(path, replace(ONE, name="other"))
    again = replace(ONE, values={}, gain={})
    tuned.save(path, again)
    assert tuned.load(path) == [again]
    assert again.said() == "the defaults"


def test_what_is_removed_is_gone_and_the_rest_stays(path: Path) -> None:
    other = replace(ONE, model="b" * 64)
    tuned.save(path, ONE)
    tuned.save(path, other)
    assert tuned.remove(path, lambda one: one.model == ONE.model) == [ONE]
    assert tuned.remove(path, lambda one: one.model == ONE.model) == []
    assert tuned.load(path) == [other]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"[]", b"3", b'{"version": 1}', b'{"version": "1", "tuned": []}',
     b'{"version": 0, "tuned": []}', b'{"version": 1, "tuned": {}}'],
)  # fmt: skip
def test_a_damaged_file_is_told_of_and_not_written_over(content: bytes, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for act in (
        lambda: tuned.load(path),
        lambda: tuned.save(path, ONE),
        lambda: tuned.remove(path, lambda one: True),
    ):
        with pytest.raises(Damaged, match=r"is damaged, so no tuned values are used$") as caught:
            act()
        assert caught.value.hint == "`owm tune rm --all` begins anew"
    assert path.read_bytes() == content
    assert tuned.clear(path)
    assert not tuned.clear(path)
    tuned.save(path, ONE)


def test_the_file_of_a_newer_owm_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"version": 2, "tuned": []}')
    with pytest.raises(Unsupported, match="newer owm"):
        tuned.save(path, ONE)
    assert path.read_text() == '{"version": 2, "tuned": []}'


@pytest.mark.parametrize(
    "changes",
    [
        {"values": {"threads": 0}},
        {"values": {"threads": "2"}},
        {"values": {"threads": True}},
        {"values": {"temp": 0.5}},
        {"values": {"nothing": 1}},
        {"values": {"cache_type_k": "q2_k"}},
        {"values": []},
        {"gain": None},
        {"model": 3},
        {"name": None},
    ],
)
def test_an_entry_that_no_setting_takes_is_passed_over_and_kept(changes: dict[str, Any], path: Path) -> None:
    other = replace(ONE, model="b" * 64)
    tuned.save(path, ONE)
    raw = json.loads(path.read_text())
    raw["tuned"].append({**raw["tuned"][0], "machine": "m", **changes})
    path.write_text(json.dumps(raw))
    assert tuned.load(path) == [ONE]
    tuned.save(path, other)
    assert tuned.load(path) == [ONE, other]
    assert len(json.loads(path.read_text())["tuned"]) == 3


@pytest.mark.parametrize("times", [10**400, "1", -1, 0, math.nan, math.inf])
def test_a_gain_that_cannot_be_costs_no_value(times: Any, path: Path) -> None:
    tuned.save(path, ONE)
    raw = json.loads(path.read_text())
    raw["tuned"][0]["gain"]["answer"] = times
    path.write_text(json.dumps(raw))
    assert tuned.load(path) == [ONE]


def test_many_that_save_at_once_lose_nothing(path: Path) -> None:
    entries = [replace(ONE, model=f"{i:064}") for i in range(8)]
    threads = [threading.Thread(target=tuned.save, args=(path, entry)) for entry in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.model for entry in tuned.load(path)) == [entry.model for entry in entries]


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"^cannot write "):
        tuned.save(tmp_path / "file" / "tuned.json", ONE)


def test_only_settings_of_the_hardware_are_tuned() -> None:
    assert set(keys.HARDWARE_KEYS) <= set(keys.KEYS)
    assert not {"temp", "seed", "ctx_size", "max_tokens", "system"} & set(keys.HARDWARE_KEYS)


def test_types_of_the_cache_are_the_engines() -> None:
    assert keys.CACHE_TYPES == tuning.CACHE_TYPES
