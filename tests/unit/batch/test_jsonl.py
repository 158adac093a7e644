"""Lines of JSON: strict, of whole characters, and of a depth at which they can be written again."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.batch.fields import Refused
from owm.batch.jsonl import MAX_DEPTH, parse


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the line is not JSON: expecting value, column 1"),
        ('{"a": 1,}', "the line is not JSON: "),
        ("{'a': 1}", "the line is not JSON: expecting property name enclosed in double quotes, column 2"),
        ('{"a": NaN}', "the line holds NaN, an infinite number or one of thousands of digits"),
        ('{"a": -Infinity}', "the line holds NaN, an infinite number or one of thousands of digits"),
        ('{"a": 1e999}', "the line holds NaN, an infinite number or one of thousands of digits"),
        ('{"a": ' + "9" * 5000 + "}", "the line holds NaN, an infinite number or one of thousands of digits"),
        ("[]", "the line is JSON but no object"),
        ('"a"', "the line is JSON but no object"),
        ('{"a":' * 100_000, "the line nests deeper than 100 levels"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "the line nests deeper than 100 levels"),
    ],
)
def test_what_is_no_object_is_refused(text: str, message: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(text)
    assert str(caught.value).startswith(message)


def test_depth_is_counted_and_width_is_not() -> None:
    deepest = '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH
    assert parse(deepest)[1] is None
    assert parse(json.dumps({"a": [[]] * 1000}))[1] is None


@pytest.mark.parametrize(
    ("text", "value", "is_refused"),
    [
        (r'{"a": "\ud83d\ude00"}', "\U0001f600", False),
        (r'{"a": "\\ud83d"}', r"\ud83d", False),
        (r'{"a": "x\uD83D"}', "x\ufffd", True),
        (r'{"a": "\ude00\ud83d"}', "\ufffd\ufffd", True),
    ],
)
def test_half_a_character_is_refused_and_a_whole_one_is_not(text: str, value: str, is_refused: bool) -> None:
    read, refused = parse(text)
    assert read == {"a": value}
    assert (refused is not None) == is_refused
    if refused is not None:
        assert str(refused).startswith("the line holds half a character (\\ud")


def test_half_a_character_in_a_name_is_refused_as_well() -> None:
    read, refused = parse(r'{"\ud800": {"\udfff": 1}}')
    assert (read, refused is not None) == ({"\ufffd": {"\ufffd": 1}}, True)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=3), inner),
    max_leaves=10,
)


@given(_json)
def test_any_json_is_an_object_that_can_be_written_or_one_error(value: object) -> None:
    try:
        read, refused = parse(json.dumps(value))
    except Refused:
        assert not isinstance(value, dict) or not _is_finite(value)
        return
    json.dumps(read, ensure_ascii=False, allow_nan=False).encode()
    if refused is None:
        assert read == value


def _is_finite(value: object) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)
