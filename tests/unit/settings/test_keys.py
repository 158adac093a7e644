"""The table of settings: what each takes, and how it says no."""

import pytest

from owm.errors import UsageError
from owm.hardware import probe
from owm.settings.keys import KEYS, MAX_THREADS, Value, check_flags, find


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temp", "0.7", 0.7),
        ("temp", "1", 1.0),
        ("top_k", "40", 40),
        ("repeat_last_n", "-1", -1),
        ("gpu_layers", "-1", -1),
        ("max_tokens", "1", 1),
        ("ctx_size", "1000000", 1_000_000),
        ("system", "", ""),
        ("system", "a = b\nc", "a = b\nc"),
        ("think", "only", "only"),
        ("effort", "high", "high"),
    ],
)
def test_a_text_is_read_as_its_setting_takes_it(name: str, text: str, value: Value) -> None:
    read = KEYS[name].read(text, name)
    assert (read, type(read)) == (value, KEYS[name].kind)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("temp", "hot", "temp is not a number: hot"),
        ("temp", "-1", "temp must be between 0 and 100: -1.0"),
        ("top_k", "1.5", "top_k is not a number: 1.5"),
        ("max_tokens", "0", "max_tokens must be positive: 0"),
        ("ctx_size", "-5", "ctx_size must be positive: -5"),
        ("gpu_layers", "-2", "gpu_layers must be -1 or more: -2"),
        ("threads", "0", "threads must be positive: 0"),
        ("threads", "100000", f"threads must be between 1 and {MAX_THREADS}: 100000"),
        ("think", "shwo", "think must be one of show, hide, only, off: shwo"),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_range(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        KEYS[name].read(text, name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value"),
    [("temp", "0.5"), ("temp", True), ("top_k", 1.0), ("top_k", None), ("system", 3), ("think", ["show"])],
)
def test_a_value_of_another_kind_is_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{name} must be a "):
        KEYS[name].check(value, name)


def test_a_near_choice_is_suggested() -> None:
    with pytest.raises(UsageError) as caught:
        KEYS["think"].check("shwo", "think")
    assert caught.value.hint == "did you mean `show`?"


@pytest.mark.parametrize("spelled", ["top_k", "top-k", "Top-K", "TOP_K", " top-k "])
def test_a_setting_is_found_in_every_spelling(spelled: str) -> None:
    assert find(spelled) == "top_k"


def test_an_unknown_setting_suggests_the_nearest_or_lists_all() -> None:
    with pytest.raises(UsageError, match=r"^no such setting: max-token$") as caught:
        find("max-token")
    assert caught.value.hint == "did you mean `max_tokens`?"
    with pytest.raises(UsageError) as caught:
        find("zzz")
    assert caught.value.hint == f"there are: {', '.join(KEYS)}"


def test_flags_are_checked_by_their_own_names() -> None:
    check_flags({"temp": 0.5, "max_tokens": None, "stop": ["x"], "ignore_eos": True})
    with pytest.raises(UsageError, match=r"^--max-tokens must be positive: 0$"):
        check_flags({"temp": 0.5, "max_tokens": 0})


def test_as_many_threads_as_the_engine_takes() -> None:
    assert MAX_THREADS == probe.MAX_THREADS


def test_what_may_be_unset_says_what_holds_then() -> None:
    from owm.engine.sampling import Sampling

    defaults = Sampling()
    for name, key in KEYS.items():
        assert key.unset or getattr(defaults, name) is not None
