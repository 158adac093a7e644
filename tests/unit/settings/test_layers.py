"""Settings in layers: the later wins, and each value knows where it came from."""

import pytest

from owm.errors import UsageError
from owm.settings.layers import Setting, environment, layer, resolve


def test_a_later_layer_wins_and_an_earlier_one_shows_through() -> None:
    weak = {"a": Setting(1, "default"), "b": Setting(2, "default")}
    strong = {"b": Setting(3, "OWM_B"), "c": Setting(4, "OWM_C")}
    assert resolve([weak, strong]) == {
        "a": Setting(1, "default"),
        "b": Setting(3, "OWM_B"),
        "c": Setting(4, "OWM_C"),
    }
    assert resolve([strong, weak])["b"] == Setting(2, "default")
    assert resolve([]) == {}
    assert weak == {"a": Setting(1, "default"), "b": Setting(2, "default")}


def test_a_layer_leaves_out_what_was_not_given_but_keeps_what_is_false() -> None:
    made = layer({"top_k": 0, "temp": None, "raw": False, "name": ""}, "--{}")
    assert made == {"top_k": Setting(0, "--top-k"), "raw": Setting(False, "--raw"), "name": Setting("", "--name")}
    assert layer({"top_k": 1}, "model file") == {"top_k": Setting(1, "model file")}


def test_the_environment_is_read_by_kind() -> None:
    environ = {"OWM_TOP_K": "5", "OWM_TEMP": "1e-1", "OWM_UNKNOWN": "x", "TEMP": "/tmp", "OWM_MIN_P": ""}
    assert environment({"top_k": int, "temp": float, "min_p": float, "seed": int}, environ) == {
        "top_k": Setting(5, "OWM_TOP_K"),
        "temp": Setting(0.1, "OWM_TEMP"),
    }


def test_the_environment_of_the_process_is_meant_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment({"top_k": int}) == {}
    monkeypatch.setenv("OWM_TOP_K", "9")
    assert environment({"top_k": int}) == {"top_k": Setting(9, "OWM_TOP_K")}
    assert environment({"top_k": int}, {}) == {}


@pytest.mark.parametrize(("kind", "text"), [(int, "4.5"), (int, "many"), (int, " "), (int, "1" * 5000), (float, "0,8")])
def test_what_is_no_number_names_the_variable(kind: type, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        environment({"top_k": kind}, {"OWM_TOP_K": text})
    assert str(caught.value) == f"OWM_TOP_K is not a number: {text}"
    assert caught.value.hint == "unset OWM_TOP_K or give it a number"
