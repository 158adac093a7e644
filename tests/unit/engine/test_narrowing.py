"""Schemas checked and narrowed: where a problem is, what is closed and what stays open."""

import re
from typing import Any

import pytest

from owm.engine.narrowing import LIMIT, narrow
from owm.errors import Unsupported, UsageError

CLOSED = {"additionalProperties": False}
INTEGER = {"type": "integer", "minimum": -LIMIT, "maximum": LIMIT}


def document(schema: Any) -> Any:
    return narrow(schema).document


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "strin"}, 'at #: `type` must be one of .*string.*, and is "strin"'),
        ({"type": []}, "`type` must be"),
        ({"type": ["string", ["integer"]]}, "`type` must be"),
        ({"properties": {"a": {"minimum": "5"}}}, 'at #/properties/a: `minimum` must be a number, and is "5"'),
        ({"properties": {"a/b~c": {"minimum": True}}}, "at #/properties/a~1b~0c: `minimum` must be a number"),
        ({"items": {"maxItems": -1}}, "at #/items: `maxItems` must be a whole number, 0 or more, and is -1"),
        ({"prefixItems": [{}, {"minLength": 1.5}]}, "at #/prefixItems/1: `minLength` must be a whole number"),
        ({"anyOf": [{"pattern": 1}]}, "at #/anyOf/0: `pattern` must be a text"),
        ({"anyOf": []}, "`anyOf` must be a list of schemas"),
        ({"required": True}, "`required` must be a list of names"),
        ({"properties": ["a"]}, r'`properties` must be an object, and is \["a"\]'),
        ({"properties": {"a": 1}}, "at #/properties/a: a schema is an object, or true or false"),
        ({"additionalProperties": {"items": None}}, "at #/additionalProperties/items: a schema is an object"),
        ({"patternProperties": {"^x": {"enum": 3}}}, r"at #/patternProperties/\^x: `enum` must be a list"),
        ({"multipleOf": 0}, "`multipleOf` must be a number above 0"),
        ({"maximum": float("inf")}, "`maximum` must be a number"),
        ({"const": [float("nan")]}, "a number is too large"),
        ({"$ref": "#/$defs/a", "$defs": {"b": {}}}, r"at #: there is no #/\$defs/a"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"maxLength": "x"}}}, r"at #/\$defs/a: `maxLength` must be"),
    ],
)
def test_an_invalid_schema_is_refused_with_keyword_and_place(schema: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        narrow(schema)


@pytest.mark.parametrize(
    "keyword",
    [
        "not", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "dependentRequired",
        "dependentSchemas", "dependencies", "$dynamicRef", "$recursiveRef", "$dynamicAnchor",
    ],
)  # fmt: skip
def test_a_keyword_that_cannot_be_enforced_is_refused_by_name(keyword: str) -> None:
    schema = {"$defs": {"x": {keyword: {"a": []}}}, "items": {"$ref": "#/$defs/x"}}
    with pytest.raises(Unsupported, match=re.escape(f"has `{keyword}` at #/$defs/x, which cannot be enforced")):
        narrow(schema)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"uniqueItems": True}, "`uniqueItems` at #"),
        ({"if": {}, "else": False}, "`if` at #"),
        ({"contains": {}, "minContains": 2}, "`contains` at #"),
        ({"enum": [1, [{"a": LIMIT + 2}]]}, f"number at #/enum that cannot be kept exact: {LIMIT + 2}"),
        ({"minimum": 1e300}, r"at # that cannot be kept exact: `minimum` is 1e\+300"),
        ({"exclusiveMaximum": -1e17}, "cannot be kept exact: `exclusiveMaximum`"),
        ({"minItems": 2_000_000}, "asks for too much at #: `minItems` is 2000000"),
        ({"multipleOf": 0.123456}, "`multipleOf` at # has too many digits: 0.123456"),
        ({"minProperties": 2}, "`minProperties` at #"),
        ({"minProperties": 3, "required": ["a"], "additionalProperties": {}}, "`minProperties` at #"),
    ],
)
def test_what_cannot_be_enforced_is_refused(schema: Any, problem: str) -> None:
    with pytest.raises(Unsupported, match=problem):
        narrow(schema)


@pytest.mark.parametrize(
    "idle",
    [
        {"uniqueItems": False}, {"not": False}, {"if": {}}, {"then": {}, "else": {}}, {"minContains": 2},
        {"maxContains": 0}, {"propertyNames": True}, {"unevaluatedProperties": {}}, {"unevaluatedItems": True},
        {"dependentRequired": {}}, {"dependentSchemas": {}}, {"dependencies": {}}, {"x-guidance": {"lenient": True}},
        {"$schema": "https://example.com/my-dialect"},
    ],
)  # fmt: skip
def test_keywords_that_ask_for_nothing_are_dropped(idle: dict[str, Any]) -> None:
    assert document({"type": "string"} | idle) == {"type": "string"}


def test_definitions_that_nothing_refers_to_do_not_matter() -> None:
    assert document({"type": "string", "$defs": {"x": {"not": {}}, "y": 7}})["type"] == "string"


A, B = {"properties": {"a": {}}}, {"properties": {"b": {}}}


@pytest.mark.parametrize(
    ("schema", "narrowed"),
    [
        (A, A | CLOSED),
        (A | {"required": ["a"], "minProperties": 1}, A | {"required": ["a"], "minProperties": 1} | CLOSED),
        ({"items": A}, {"items": A | CLOSED}),
        ({"prefixItems": [A, B]}, {"prefixItems": [A | CLOSED, B | CLOSED]}),
        ({"additionalProperties": A}, {"additionalProperties": A | CLOSED}),
        ({"properties": {"x": A}}, {"properties": {"x": A | CLOSED}} | CLOSED),
        ({"patternProperties": {"^x": A}}, {"patternProperties": {"^x": A}}),
        ({"anyOf": [A, B]}, {"anyOf": [A | CLOSED, B | CLOSED]}),
        ({"type": "object", "anyOf": [A, B]}, {"type": "object", "anyOf": [A | CLOSED, B | CLOSED]}),
        ({"oneOf": [A, {"type": "null"}]}, {"oneOf": [A | CLOSED, {"type": "null"}]}),
        ({"allOf": [A], "description": "one"}, {"allOf": [A | CLOSED], "description": "one"}),
        ({"$ref": "#/$defs/a", "$defs": {"a": A}}, {"$ref": "#/$defs/a", "$defs": {"a": A | CLOSED}}),
        ({"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}} | CLOSED),
    ],
)
def test_an_object_with_properties_is_closed(schema: Any, narrowed: Any) -> None:
    assert document(schema) == narrowed
    assert document(narrowed) == narrowed


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        A | {"additionalProperties": True},
        A | {"additionalProperties": {"type": "null"}},
        A | {"patternProperties": {"^x": {}}},
        A | {"required": ["b"]},
        {"allOf": [A, B]},
        A | {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        A | {"$ref": "#/$defs/b", "$defs": {"b": B}},
        {"allOf": [{"items": A}, {"items": B}]},
        {"anyOf": [A, B], "oneOf": [A, {"type": "null"}]},
    ],
)
def test_an_object_that_more_is_said_about_stays_open(schema: Any) -> None:
    assert document(schema) == schema


def test_what_is_referred_to_from_two_sides_is_closed_only_if_both_are_alone() -> None:
    alone = {"prefixItems": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": A}}
    assert document(alone)["$defs"]["a"] == A | CLOSED
    merged = {"prefixItems": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a", "required": ["b"]}], "$defs": {"a": A}}
    assert document(merged) == merged


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#here", "$defs": {"a": A | {"$anchor": "here"}}},
        {"$ref": "https://example.com/other", "$defs": {"a": A | {"$id": "https://example.com/other"}}},
        {"items": {"$id": "https://example.com/inner", "$ref": "#/$defs/a", "$defs": {"a": A}}},
    ],
)
def test_where_references_cannot_be_followed_nothing_is_closed(schema: Any) -> None:
    found = narrow(schema)
    assert found.document == schema
    assert found.has_open_objects


def test_references_are_json_pointers_with_the_schema_s_own_address() -> None:
    schema = {"$id": "https://example.com/s", "$ref": "https://example.com/s#/$defs/a~1b%25", "$defs": {"a/b%": A}}
    assert document(schema)["$defs"]["a/b%"] == A | CLOSED


def test_integers_are_bounded_where_they_are_not() -> None:
    assert document({"type": "integer"}) == INTEGER
    assert document({"type": ["integer", "null"]}) == INTEGER | {"type": ["integer", "null"]}
    assert document({"type": "integer", "minimum": 3, "exclusiveMaximum": 9})["minimum"] == 3
    assert "maximum" not in document({"type": "integer", "minimum": 3, "exclusiveMaximum": 9})
    assert document({"type": "integer", "maximum": 2**63 - 1, "minimum": -(2**63)}) == INTEGER
    assert document({"type": ["integer", "number"]}) == {"type": ["integer", "number"]}
    assert document({"type": "number"}) == {"type": "number"}


def test_counts_become_whole_and_are_bounded() -> None:
    assert document({"minLength": 2.0, "maxLength": 1e18}) == {"minLength": 2, "maxLength": 1_000_000}


def test_options_of_one_of_are_put_in_the_place_of_references() -> None:
    schema = {
        "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a", "description": "not alone"}],
        "$defs": {"a": {"properties": {"next": {"$ref": "#"}}}},
    }
    found = document(schema)
    assert found["oneOf"][0] == {"properties": {"next": {"$ref": "#"}}} | CLOSED
    assert found["oneOf"][1] == schema["oneOf"][1]


def test_options_that_refer_to_each_other_end() -> None:
    one, two = {"anyOf": [{"oneOf": [{"$ref": "#/$defs/two"}]}]}, {"anyOf": [{"oneOf": [{"$ref": "#/$defs/one"}]}]}
    assert document({"oneOf": [{"$ref": "#/$defs/one"}], "$defs": {"one": one, "two": two}})


def test_a_union_that_grows_without_end_is_refused() -> None:
    definitions = {
        f"n{number}": {"anyOf": [{"oneOf": [{"$ref": f"#/$defs/n{number + 1}"}]} for _ in range(4)]}
        for number in range(12)
    }
    schema = {"oneOf": [{"$ref": "#/$defs/n0"}], "$defs": definitions | {"n12": {"type": "null"}}}
    with pytest.raises(Unsupported, match="more than 20000"):
        narrow(schema)


@pytest.mark.parametrize(
    ("schema", "is_open"),
    [
        ({"type": "object"}, False),
        (A, False),
        (A | {"additionalProperties": True}, True),
        ({"items": A | {"additionalProperties": {"type": "null"}}}, True),
        ({"required": ["a"]}, True),
        ({"patternProperties": {"^x": {}}}, True),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, False),
        (A | {"patternProperties": {"^x": {}}, "additionalProperties": False}, True),
        ({"allOf": [A, B]}, True),
    ],
)
def test_whether_known_names_could_come_again(schema: Any, is_open: bool) -> None:
    assert narrow(schema).has_open_objects is is_open


def test_parts_have_their_places_the_innermost_first() -> None:
    parts = narrow({"properties": {"a": {"items": {"$ref": "#/$defs/x"}}}, "$defs": {"x": {"type": "null"}}}).parts
    assert [where for where, _ in parts] == ["#/properties/a/items", "#/properties/a", "#/$defs/x", "#"]


def test_the_given_schema_is_left_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    narrow(schema)
    assert schema == {"type": "object", "properties": {"a": {"type": "integer"}}}


def test_a_schema_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(2000):
        schema = {"items": schema}
    with pytest.raises(UsageError, match="nested too deeply"):
        narrow(schema)
