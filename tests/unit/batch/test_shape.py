"""Shapes that rows wish for their answers: what may say one, and that none of them is the name of a file."""

from pathlib import Path
from typing import Any

import pytest

from owm.batch import shape
from owm.batch.fields import Refused
from owm.batch.shape import read_shape
from owm.engine.constrain import Constraint

NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize(
    ("kind", "value", "made"),
    [
        ("schema", NAMED, Constraint.json_schema(NAMED)),
        ("schema", True, Constraint.json_schema(True)),
        ("schema", ' {"type": "integer"}', Constraint.json_schema({"type": "integer"})),
        ("schema", "name", Constraint.json_schema({**NAMED, "additionalProperties": False})),
        ("choice", ["a", "b,c"], Constraint.choice(["a", "b,c"])),
        ("choice", r"a, b\,c", Constraint.choice(["a", "b,c"])),
        ("choice", ' ["a"]', Constraint.choice(['["a"]'])),
        ("regex", "[0-9]+", Constraint.regex("[0-9]+")),
        ("grammar", 'root ::= "a"', Constraint.grammar('root ::= "a"')),
    ],
)
def test_a_shape_may_be_said_in_these_ways(kind: str, value: Any, made: Constraint) -> None:
    assert read_shape(kind, value, kind) == made


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("schema", 5, "schema must be a JSON Schema or its short form"),
        ("schema", ["name"], "schema must be a JSON Schema or its short form"),
        ("schema", {"type": "no type"}, "the schema"),
        ("schema", {"$ref": "file:///etc/passwd"}, "the schema refers to another document"),
        ("schema", "{", "the schema is not valid JSON"),
        ("schema", "", "the schema has no fields"),
        ("schema", '{"items":' * 3000 + "{}" + "}" * 3000, "the schema is nested too deeply"),
        ("choice", [], "a choice needs labels"),
        ("choice", [1], "choice must be a list of texts, or labels as `a,b`"),
        ("choice", "a,a", "a choice has a label twice: a"),
        ("choice", {}, "choice must be a list of texts"),
        ("regex", "(", "the regex cannot be used"),
        ("regex", ["a"], "regex must be a text"),
        ("grammar", "{}", "the grammar is JSON"),
        ("grammar", 'start: "a', "the grammar has an error in line 1"),
        ("grammar", "root ::= " + "(" * 5000, "the grammar has an error in line 1"),
    ],
)
def test_what_is_no_shape_is_refused_each_time(kind: str, value: Any, message: str) -> None:
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            read_shape(kind, value, kind)
        assert caught.value.code == "invalid_shape"
        assert str(caught.value).startswith(message)


def test_a_text_is_never_taken_for_the_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "name").write_text('{"type": "integer"}')
    assert read_shape("schema", "name", "schema") == Constraint.json_schema({**NAMED, "additionalProperties": False})
    (tmp_path / "schema.json").write_text('{"type": "integer"}')
    with pytest.raises(Refused, match=r"a field that is not understood: schema\.json"):
        read_shape("schema", "schema.json", "schema")


def test_what_many_rows_wish_is_made_once_unless_it_is_huge(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_shape("schema", dict(NAMED), "schema") is read_shape("schema", dict(NAMED), "schema")
    assert read_shape("choice", "true", "choice") != read_shape("regex", "true", "regex")
    monkeypatch.setattr(shape, "MAX_CACHED_CHARS", 3)
    assert read_shape("regex", "abcdef", "regex") is not read_shape("regex", "abcdef", "regex")
