"""Schemas as people give them: files, inline JSON, and the short form."""

import json
from pathlib import Path
from typing import Any

import pytest

from owm.engine.schema import fields, read_schema
from owm.errors import NotFound, UsageError

STRING, INTEGER, NUMBER, BOOLEAN = ({"type": name} for name in ("string", "integer", "number", "boolean"))
STRINGS = {"type": "array", "items": STRING}


def test_the_short_form_is_an_object_of_required_properties() -> None:
    assert read_schema("name, age int, tags: list") == {
        "type": "object",
        "properties": {"name": STRING, "age": INTEGER, "tags": STRINGS},
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("a str, b int, c float, d bool, e list", {"a": STRING, "b": INTEGER, "c": NUMBER, "d": BOOLEAN, "e": STRINGS}),
        ("tags: list, n: int", {"tags": STRINGS, "n": INTEGER}),
        ("n int: how many", {"n": INTEGER | {"description": "how many"}}),
        ("bio: one line, no more\nage int", {"bio": STRING | {"description": "one line, no more"}, "age": INTEGER}),
        ("sizes list[int]", {"sizes": {"type": "array", "items": INTEGER}}),
        ("  a  ,  b  int  ,", {"a": STRING, "b": INTEGER}),
        ("straße, größe_2 int", {"straße": STRING, "größe_2": INTEGER}),
        ("first-name", {"first-name": STRING}),
    ],
)
def test_fields_have_names_types_and_descriptions(text: str, properties: dict[str, Any]) -> None:
    assert fields(text)["properties"] == properties


def test_lists_may_be_of_lists() -> None:
    grid = {"type": "array", "items": {"type": "array", "items": NUMBER}}
    assert fields("grid list[list[float]]")["properties"] == {"grid": grid}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no fields"),
        (" , ", "has no fields"),
        ("name, 2nd int", "not understood: 2nd int"),
        ("age integer", "age has a type that owm does not know: integer"),
        ("x list[text]", r"x has a type that owm does not know: list\[text\]"),
        ("a, b, a int", "the field a twice"),
        ("a b c", "not understood: a b c"),
        ("bio: one line, no more", "no has a type that owm does not know: more"),
    ],
)
def test_a_field_that_is_wrong_is_named(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        read_schema(text)


def test_json_is_taken_as_it_is() -> None:
    schema = {"type": "array", "items": {"enum": ["a", 1, None]}}
    assert read_schema(f"\n  {json.dumps(schema)} ") == schema
    assert read_schema("true") is True


def test_a_file_has_json_or_the_short_form(tmp_path: Path) -> None:
    for name, content in {
        "a.json": '{"type": "string"}',
        "b.json": "\ufeff{}",
        "c": ' {"type": "string"}',
        "d.txt": "x: a, b\ny int",
    }.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_schema(str(tmp_path / "a.json")) == {"type": "string"}
    assert read_schema(str(tmp_path / "b.json")) == {}
    assert read_schema(str(tmp_path / "c")) == {"type": "string"}
    described = read_schema(str(tmp_path / "d.txt"))
    assert isinstance(described, dict)
    assert described["properties"] == {"x": STRING | {"description": "a, b"}, "y": INTEGER}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"type": "string",\n "a" 1}', "line 2, column 6"),
        ('{"a": NaN}', "JSON has no NaN"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("{", "not valid JSON"),
    ],
)
def test_json_that_is_wrong_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        read_schema(text)


def test_a_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "schema.json"
    binary.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UsageError, match=r"not text in UTF-8: .*schema\.json"):
        read_schema(str(binary))
    binary.write_text("[1]", encoding="utf-8")
    with pytest.raises(UsageError, match=r"schema\.json is JSON but no schema"):
        read_schema(str(binary))
    binary.write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"schema\.json is not valid JSON"):
        read_schema(str(binary))
    binary.write_bytes(b" " * ((16 << 20) + 1))
    with pytest.raises(UsageError, match="larger than 16 MiB"):
        read_schema(str(binary))


@pytest.mark.parametrize("name", ["person.json", "./schema", "/no/such/file", "~/schema"])
def test_a_name_of_no_file_is_not_taken_for_a_field(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match="no such schema file"):
        read_schema(name)
