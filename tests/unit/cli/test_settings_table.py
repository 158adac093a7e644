"""The table of settings: each value with its origin, as a table and as JSON."""

import json

import pytest

from owm.cli.output import Output
from owm.cli.settings_table import show_settings
from owm.engine.sampling import resolve
from owm.settings.keys import KEYS
from owm.settings.layers import Setting, layer


def test_every_setting_is_shown_with_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    config = [layer({"system": "a\nb", "top_k": 3}, "config.toml [m]")]
    _, settings = resolve(None, {"temp": 0.5}, config=config)
    settings["overflow"] = Setting("error", "default")
    show_settings(settings, Output())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["SETTING", "VALUE", "FROM"]
    shown = {line.split()[0]: line for line in lines[1:]}
    assert set(shown) == {*KEYS, "ignore_eos", "overflow"}
    assert shown["temp"].split() == ["temp", "0.5", "--temp"]
    assert shown["system"].split(maxsplit=2) == ["system", "a\\nb", "config.toml [m]"]
    assert shown["seed"].split(maxsplit=1)[1].startswith("(drawn anew for each answer)")
    assert shown["overflow"].split() == ["overflow", "error", "default"]


def test_the_json_has_the_keys_that_programs_rely_on(capsys: pytest.CaptureFixture[str]) -> None:
    show_settings(resolve(None, {"temp": 0.5})[1], Output(as_json=True))
    rows = json.loads(capsys.readouterr().out)
    assert all(set(row) == {"name", "value", "origin"} for row in rows)
    assert {"name": "temp", "value": 0.5, "origin": "--temp"} in rows
    assert {"name": "ctx_size", "value": None, "origin": "default"} in rows
