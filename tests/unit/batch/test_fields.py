"""The fields by which a row differs from its batch: what they may be, and errors that name them."""

from typing import Any

import pytest

from owm.batch.fields import FIELDS, MAX_MESSAGE_CHARS, Refused, conversation, question, read_overrides
from owm.engine.constrain import Constraint
from owm.engine.sampling import SAMPLING_KEYS
from owm.engine.template import Thinking
from owm.engine.wishes import MAX_LOGPROBS, Wishes


@pytest.mark.parametrize(
    ("said", "sampling", "wishes"),
    [
        ({"temp": 0}, {"temp": 0.0}, {}),
        ({"temperature": 0.5, "temp": 0.5}, {"temp": 0.5}, {}),
        ({"top_k": 4, "top_p": 1, "min_p": 0}, {"top_k": 4, "top_p": 1.0, "min_p": 0.0}, {}),
        ({"repeat_penalty": 1.1, "repeat_last_n": -1}, {"repeat_penalty": 1.1, "repeat_last_n": -1}, {}),
        (
            {"presence_penalty": -2, "frequency_penalty": 2},
            {"presence_penalty": -2.0, "frequency_penalty": 2.0},
            {},
        ),
        ({"seed": 0, "ignore_eos": False}, {"seed": 0, "ignore_eos": False}, {}),
        ({"max_tokens": 64.0}, {}, {"max_tokens": 64}),
        ({"max_completion_tokens": 64, "max_tokens": 64}, {}, {"max_tokens": 64}),
        ({"stop": "a"}, {}, {"stops": ("a",)}),
        ({"stop": ["a", "b"]}, {}, {"stops": ("a", "b")}),
        ({"stop": []}, {}, {"stops": ()}),
        ({"logprobs": 0}, {}, {"n_logprobs": 0}),
        ({"effort": "low"}, {}, {"thinking": Thinking(effort="low")}),
        ({"temp": None, "stop": None, "schema": None, "effort": None}, {}, {}),
        ({"schema": None, "choice": "yes,no"}, {}, {"constraint": Constraint.choice(["yes", "no"])}),
        ({"regex": "a+"}, {}, {"constraint": Constraint.regex("a+")}),
    ],
)
def test_a_field_goes_where_it_belongs(said: dict[str, Any], sampling: dict[str, Any], wishes: dict[str, Any]) -> None:
    assert read_overrides(said) == (sampling, wishes)


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        ({"temp": True}, "invalid_value", "temp must be a number: True"),
        ({"temperature": "0"}, "invalid_value", "temperature must be a number: '0'"),
        ({"temperature": 101}, "invalid_value", "temperature must be between 0 and 100: 101"),
        ({"top_k": 1.5}, "invalid_value", "top_k must be a whole number: 1.5"),
        ({"top_p": [1]}, "invalid_value", "top_p must be a number: [1]"),
        ({"seed": -1}, "invalid_value", "seed must be between 0 and 4294967294: -1"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens must be positive: 0"),
        ({"max_completion_tokens": 0}, "invalid_value", "max_completion_tokens must be positive: 0"),
        ({"ignore_eos": 1}, "invalid_value", "ignore_eos must be true or false"),
        ({"stop": 5}, "invalid_value", "stop must be a text or a list of texts"),
        ({"stop": ["a", 5]}, "invalid_value", "stop must be a text or a list of texts"),
        ({"stop": ""}, "invalid_value", "stop holds an empty text, which would stop everything"),
        ({"logprobs": True}, "invalid_value", "logprobs must be a whole number between 0 and 100: True"),
        ({"logprobs": MAX_LOGPROBS + 1}, "invalid_value", "logprobs must be a whole number between 0 and 100: 101"),
        ({"effort": "huge"}, "invalid_value", "effort must be one of low, medium, high: huge"),
        ({"effort": 3}, "invalid_value", "effort must be a text: 3"),
        ({"temp": 0, "temperature": 1}, "invalid_value", "temp and temperature contradict each other"),
        (
            {"max_tokens": 1, "max_completion_tokens": 2},
            "invalid_value",
            "max_tokens and max_completion_tokens contradict each other",
        ),
        ({"schema": "name", "regex": "a"}, "invalid_shape", "an answer has one shape, not two: schema and regex"),
        ({"choice": "a,b", "grammar": 5}, "invalid_shape", "an answer has one shape, not two: choice and grammar"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(said: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(Refused) as caught:
        read_overrides(said)
    assert (caught.value.code, str(caught.value)) == (code, message)


def test_every_setting_of_sampling_is_a_field_and_every_field_fits_the_wishes() -> None:
    assert set(SAMPLING_KEYS) <= FIELDS.keys()
    for field in FIELDS.values():
        assert hasattr(Wishes().sampling if field.group == "sampling" else Wishes(), field.target)


def test_an_error_is_one_short_line_whatever_it_quotes() -> None:
    with pytest.raises(Refused) as caught:
        read_overrides({"temp": "x" * 10_000_000})
    assert len(str(caught.value)) == MAX_MESSAGE_CHARS + 1
    assert str(Refused("code", "x" * MAX_MESSAGE_CHARS)) == "x" * MAX_MESSAGE_CHARS
    assert str(Refused("code", "a\r\n\tb\x1b[2J\x9b1m")) == "a b [2J 1m"
    assert Refused("code", "a").failure.code == "code"


def test_a_question_is_a_turn_and_without_a_template_a_prompt() -> None:
    assert question("a", None, is_raw=False).turns == ({"role": "user", "content": "a"},)
    assert question("a", "", is_raw=False).turns[0] == {"role": "system", "content": ""}
    assert question("a", None, is_raw=True).prompt == "a"
    with pytest.raises(Refused, match="--raw sends no template, so system has no place"):
        question("a", "b", is_raw=True)


def test_a_conversation_may_end_with_what_a_tool_said() -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "tool", "content": "5"},
    ]
    assert [turn["content"] for turn in conversation(turns, "s", "messages")] == ["s", "a", "", "5"]
