"""The prompt that rows have in common: its places, and what stands in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.batch.fields import Refused
from owm.batch.pattern import Pattern
from owm.errors import UsageError


def test_places_are_filled_with_texts_as_they_are_and_with_json() -> None:
    pattern = Pattern("{a}{b c}: { a } {größe}\n{d.e}")
    assert pattern.names == ("a", "b c", "größe", "d.e")
    values = {"a": "{b c}", "b c": ["ä", None], "größe": 1.5, "d.e": True, "unused": 1}
    assert pattern.fill(values) == '{b c}["ä", null]: {b c} 1.5\ntrue'


def test_doubled_braces_are_braces() -> None:
    assert Pattern('{{"a": {a}}}').fill({"a": 1}) == '{"a": 1}'
    assert Pattern("{{a}} {a} {{{a}}}").fill({"a": "x"}) == "{a} x {x}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the prompt has no placeholder, so every row would ask the same"),
        ("{{a}}", "the prompt has no placeholder"),
        ("{a} {", "a brace in line 1 of the prompt belongs to no placeholder: {"),
        ("{a}\n}", "a brace in line 2 of the prompt belongs to no placeholder: }"),
        ("{}", "a brace in line 1 of the prompt belongs to no placeholder: {"),
        ("{ }", "a brace in line 1 of the prompt belongs to no placeholder: {"),
        ("{a\nb}", "a brace in line 1 of the prompt belongs to no placeholder: {"),
        ("{a} \udcff", "the prompt is not UTF-8 text"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Pattern(text)
    assert str(caught.value).startswith(message)


def test_places_that_no_row_can_fill_are_named_with_what_there_is() -> None:
    Pattern("{a}").check(("a", "b"), "columns")
    with pytest.raises(UsageError) as caught:
        Pattern("{a} {titel} {x}").check(("a", "title", ""), "columns")
    assert str(caught.value) == "the prompt names what is not among the columns: titel, x"
    assert caught.value.hint == "did you mean `{title}`? there are: a, title"


def test_a_row_without_a_field_is_refused_by_the_names_that_it_lacks() -> None:
    with pytest.raises(Refused, match="the row has no field for the prompt's b, c") as caught:
        Pattern("{a} {b} {c} {b}").fill({"a": None})
    assert caught.value.code == "invalid_row"
    assert Pattern("{a}").fill({"a": None}) == "null"


@given(st.lists(st.text(st.characters(codec="utf-8"))), st.text(st.characters(codec="utf-8")))
def test_any_text_stands_between_places_unchanged(texts: list[str], value: str) -> None:
    escaped = [text.replace("{", "{{").replace("}", "}}") for text in [*texts, ""]]
    assert Pattern("{a}" + "{a}".join(escaped)).fill({"a": value}) == value + value.join([*texts, ""])


@given(st.text(st.sampled_from("{} ab\n")))
def test_any_text_is_a_prompt_or_one_error(text: str) -> None:
    try:
        pattern = Pattern(text)
    except UsageError:
        return
    assert all(name.strip() for name in pattern.names)
    assert "b" * 9 in pattern.fill(dict.fromkeys(pattern.names, "b" * 9))
