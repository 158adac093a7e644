"""Conversations from files: the three forms, and errors that name the turn."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine.turns import ROLES, check_turns, read_turns
from owm.errors import UsageError

TURNS = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TURNS),
        json.dumps({"messages": TURNS, "model": "any"}, indent=1),
        "\n".join(map(json.dumps, TURNS)) + "\n\n",
    ],
)
def test_a_list_an_object_and_lines_are_one_conversation(text: str) -> None:
    assert list(read_turns(text, "chat.json")) == TURNS


def test_one_turn_alone_is_a_conversation() -> None:
    assert list(read_turns('{"role": "user", "content": "hello"}', "chat.json")) == TURNS[1:]


def test_parts_of_text_stand_under_each_other_and_other_keys_are_kept() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}, "three"]
    turns = read_turns(json.dumps([{"role": "user", "content": parts, "name": "Ann"}]), "chat.json")
    assert turns == ({"role": "user", "content": "one\ntwo\nthree", "name": "Ann"},)


def test_a_turn_that_only_calls_tools_has_no_text() -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    assert read_turns(json.dumps([turn]), "chat.json") == ({**turn, "content": ""},)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "chat.json is not JSON: line 1, column 1: expecting value"),
        ("[1,\n2,]", "chat.json is not JSON: line 2"),
        ('{"role": "user", "content": "a"}\n{"role": ', "chat.json is not JSON: line 2, column 10: expecting value"),
        ("[" * 100_000, "chat.json is nested too deeply"),
        ('{"role": "user", "content": ' + "9" * 5000 + "}", "chat.json holds a number that is too long"),
        ("[]", "chat.json holds no turns"),
        ('{"messages": {}}', "chat.json is no list of turns, it is an object"),
        ('"hello"', "chat.json is no list of turns, it is a text"),
        ('["hello"]', "chat.json, turn 1 is no object, it is a text"),
        ('[{"content": "a"}]', "chat.json, turn 1 has no role"),
        ('[{"role": "user", "content": "a"}, {"role": "human"}]', 'chat.json, turn 2 has the role "human"'),
        ('[{"role": ["user"], "content": "a"}]', r'turn 1 has the role \["user"\]'),
        ('[{"role": "user"}]', "turn 1 holds no text, it has no content"),
        ('[{"role": "user", "content": null}]', "turn 1 holds no text, its content is null"),
        ('[{"role": "user", "content": 5}]', "turn 1 holds no text, its content is a number"),
        ('[{"role": "user", "content": [{"type": "image_url"}]}]', 'turn 1, part 1 is of the type "image_url"'),
        ('[{"role": "user", "content": ["a", 1]}]', "turn 1, part 2 is no text"),
        ('[{"role": "user", "content": "\\ud800"}]', r"turn 1 holds half a character \(\\ud800\)"),
    ],
)
def test_what_is_no_conversation_is_refused_at_its_place(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_turns(text, "chat.json")


def test_a_conversation_that_is_read_already_is_checked_alike() -> None:
    assert list(check_turns(TURNS, "messages")) == TURNS
    for value, message in ((None, "messages is no list of turns, it is null"), ([1], "messages, turn 1 is no object")):
        with pytest.raises(UsageError, match=message):
            check_turns(value, "messages")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner),
    max_leaves=8,
)
_turn = st.fixed_dictionaries({"role": st.sampled_from([*ROLES, "x"]), "content": st.text(max_size=5) | _json})


@given(st.lists(_turn | _json, max_size=4) | _json)
def test_any_json_is_a_conversation_or_one_error(value: object) -> None:
    try:
        turns = read_turns(json.dumps(value), "chat.json")
    except UsageError:
        return
    assert all(turn["role"] in ROLES and isinstance(turn["content"], str) for turn in turns)
