"""Settings in layers: the later wins, and each value knows where it came from."""

import pytest

from owm.errors import UsageError
from owm.settings.keys import KEYS
from owm.settings.layers import Setting, environment, layer, resolve, rows, unset


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
    environ = {
        "OWM_TOP_K": "5", "OWM_TEMP": "1e-1", "OWM_UNKNOWN": "x", "TEMP": "/tmp", "OWM_MIN_P": "",
        "OWM_SYSTEM": "be kind", "OWM_THINK": "hide", "OWM_CTX_SIZE": "4096", "OWM_HOME": "/x",
    }  # fmt: skip
    assert environment(environ) == {
        "temp": Setting(0.1, "OWM_TEMP"),
        "top_k": Setting(5, "OWM_TOP_K"),
        "ctx_size": Setting(4096, "OWM_CTX_SIZE"),
        "system": Setting("be kind", "OWM_SYSTEM"),
        "think": Setting("hide", "OWM_THINK"),
    }


def test_the_environment_of_the_process_is_meant_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment() == {}
    monkeypatch.setenv("OWM_TOP_K", "9")
    assert environment() == {"top_k": Setting(9, "OWM_TOP_K")}
    assert environment({}) == {}


@pytest.mark.parametrize(
    ("name", "text"), [("TOP_K", "4.5"), ("TOP_K", "many"), ("TOP_K", " "), ("TOP_K", "x" * 1500), ("TEMP", "0,8")]
)
def test_what_is_no_number_names_the_variable(name: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        environment({f"OWM_{name}": text})
    assert str(caught.value) == f"OWM_{name} is not a number: {text}"
    assert caught.value.hint == f"unset OWM_{name} or give it another value"


def test_a_word_that_is_no_choice_names_the_variable_and_the_choices() -> None:
    with pytest.raises(UsageError, match=r"^OWM_EFFORT must be one of low, medium, high: hard$"):
        environment({"OWM_EFFORT": "hard"})


def test_rows_tell_name_value_and_origin() -> None:
    settings = resolve([unset(), layer({"temp": 0.5}, "default"), layer({"seed": 3}, "--{}")])
    told = rows(settings)
    assert [row["name"] for row in told] == list(KEYS)
    assert {"name": "temp", "value": 0.5, "origin": "default"} in told
    assert {"name": "seed", "value": 3, "origin": "--seed"} in told
    assert {"name": "system", "value": None, "origin": "default"} in told
