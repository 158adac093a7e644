"""What of a JSON Schema can be enforced while an answer is made: a schema is checked, and narrowed for a model's sake.

Whatever satisfies the narrowed schema satisfies the schema. It is stricter in two ways:
- an object with `properties` has no others, unless `additionalProperties` says so: small models go on inventing some
- integers are at most 2^53 - 1, which every reader of JSON keeps exact, so that no answer is lost in endless digits
ref: https://json-schema.org/draft/2020-12/json-schema-core, grammars/README.md of llama.cpp (additionalProperties)
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from owm.errors import Unsupported, UsageError
from owm.units import is_number

LIMIT = 2**53 - 1
_MAX_COUNT = 1_000_000
_MAX_PARTS = 20_000
_MAX_FACTOR = 2**16 - 1  # of `multipleOf`: llguidance multiplies two of them in 32 bits

_DRAFTS = {
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    *(f"http://json-schema.org/draft-0{number}/schema" for number in (4, 6, 7)),
}
_TYPES = {"null", "boolean", "integer", "number", "string", "array", "object"}
_IN_PLACE = ("allOf", "anyOf", "oneOf", "$ref")
_BOUNDS = {"minimum": -1, "exclusiveMinimum": -1, "maximum": 1, "exclusiveMaximum": 1}
_OF_OBJECTS = {
    "properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties",
}  # fmt: skip

# Keywords that cannot be enforced, each with the values that ask for nothing.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "not": (False,),
    "if": (),
    "then": (),
    "else": (),
    "contains": (),
    "minContains": (),
    "maxContains": (),
    "uniqueItems": (False,),
    "propertyNames": (True, {}),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "$dynamicRef": (),
    "$dynamicAnchor": (),
    "$recursiveRef": (),
    "$recursiveAnchor": (False,),
}
# Keywords that ask for nothing without another.
_IDLE_WITHOUT = {"then": ("if",), "else": ("if",), "if": ("then", "else")} | dict.fromkeys(
    ("minContains", "maxContains"), ("contains",)
)


def _is_count(value: Any) -> bool:
    return is_number(value) and value >= 0 and value == int(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_type(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return len(names) > 0 and all(isinstance(name, str) and name in _TYPES for name in names)


_COUNT = (_is_count, "a whole number, 0 or more")
_TEXT = (lambda value: isinstance(value, str), "a text")
_SCHEMAS = (_is_list, "a list of schemas")
_MAP = (lambda value: isinstance(value, dict), "an object")
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_is_type, f"one of {', '.join(sorted(_TYPES))}, or a list of them"),
    "enum": (_is_list, "a list of values"),
    "multipleOf": (lambda value: is_number(value) and value > 0, "a number above 0"),
    "required": (_is_texts, "a list of names"),
    **dict.fromkeys(("minimum", "maximum"), (is_number, "a number")),
    **dict.fromkeys(
        ("exclusiveMinimum", "exclusiveMaximum"),
        (lambda value: is_number(value) or isinstance(value, bool), "a number"),
    ),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _COUNT),
    **dict.fromkeys(("pattern", "format", "$ref"), _TEXT),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _SCHEMAS),
    **dict.fromkeys(("properties", "patternProperties"), _MAP),
}


@dataclass(frozen=True, slots=True)
class Narrowed:
    """A schema ready to be enforced.

    Attributes:
        document: a JSON Schema that takes nothing that the given one does not.
        has_open_objects: names of properties matter in an object that may have any others.
        parts: every subschema that counts, with its place as a JSON pointer, the innermost first.
    """

    document: dict[str, Any] | bool
    has_open_objects: bool
    parts: tuple[tuple[str, dict[str, Any]], ...]


def narrow(schema: Mapping[str, Any] | bool) -> Narrowed:
    """Check a schema, and narrow it.

    Raises:
        UsageError: it is no valid schema; the message has the keyword and its place.
        Unsupported: it asks for what cannot be enforced while the answer is made.
    """
    try:
        document = json.loads(json.dumps(schema if isinstance(schema, bool) else dict(schema)))
        if isinstance(document, dict):
            document.pop("x-guidance", None)  # would set llguidance's own options
            if str(document.get("$schema", "")).rstrip("#") not in _DRAFTS:
                document.pop("$schema", None)
        walk = _Walk(document)
        walk.visit(document, "#", is_alone=True)
    except RecursionError as error:
        raise UsageError("the schema is nested too deeply") from error
    return walk.result()


@dataclass(slots=True)
class _Walk:
    """Visits what the root refers to. A subschema is alone if no other describes the same value."""

    root: Any
    parts: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    seen: set[tuple[int, bool]] = field(default_factory=set)
    merged: set[int] = field(default_factory=set)
    inlined: list[str] = field(default_factory=list)
    is_blind: bool = False  # a reference leads where this does not follow

    def result(self) -> Narrowed:
        for key, (_, node) in self.parts.items():
            if key not in self.merged and not self.is_blind and _can_be_closed(node):
                node["additionalProperties"] = False
        has_open_objects = self.is_blind or any(_is_open(node) for _, node in self.parts.values())
        parts = sorted(self.parts.values(), key=lambda part: -part[0].count("/"))
        return Narrowed(self.root, has_open_objects, tuple(parts))

    def visit(self, node: Any, where: str, *, is_alone: bool) -> None:
        if isinstance(node, bool) or (id(node), is_alone) in self.seen:
            return
        if not isinstance(node, dict):
            raise UsageError(f"the schema is not valid at {where}: a schema is an object, or true or false")
        self.seen.add((id(node), is_alone))
        if len(self.parts) > _MAX_PARTS:
            raise Unsupported(f"the schema is made of more than {_MAX_PARTS} others")
        if id(node) not in self.parts:
            _check(node, where)
            self.parts[id(node)] = (where, node)
            base = node.get("$id")
            self.is_blind |= where != "#" and isinstance(base, str) and not base.startswith("#")
        if not is_alone:
            self.merged.add(id(node))
        self._visit_in_place(node, where, is_alone)
        self._visit_children(node, where, is_alone and not any(key in node for key in _IN_PLACE))

    def _visit_in_place(self, node: dict[str, Any], where: str, is_alone: bool) -> None:
        found = [key for key in _IN_PLACE if key in node]
        are_alone = is_alone and len(found) == 1 and not _OF_OBJECTS & node.keys()
        for key in ("allOf", "anyOf"):
            options = node.get(key, ())
            for number, option in enumerate(options):
                can_be_alone = are_alone and (key == "anyOf" or len(options) == 1)
                self.visit(option, f"{where}/{key}/{number}", is_alone=can_be_alone)
        for number in range(len(node.get("oneOf", ()))):
            self._visit_choice(node["oneOf"], number, f"{where}/oneOf/{number}", are_alone)
        if "$ref" in node and (target := self._follow(node["$ref"], where)):
            self.visit(*target, is_alone=are_alone)

    def _visit_children(self, node: dict[str, Any], where: str, are_alone: bool) -> None:
        for key in ("properties", "patternProperties"):
            for name, child in node.get(key, {}).items():
                # A pattern may take in a name that `properties` has too.
                is_alone = are_alone and "patternProperties" not in node
                self.visit(child, f"{where}/{key}/{_escape(name)}", is_alone=is_alone)
        for key in ("additionalProperties", "items", "additionalItems", "prefixItems"):
            child = node.get(key, True)
            if isinstance(child, list) and key in ("items", "prefixItems"):
                for number, item in enumerate(child):
                    self.visit(item, f"{where}/{key}/{number}", is_alone=are_alone)
            else:
                self.visit(child, f"{where}/{key}", is_alone=are_alone)

    def _follow(self, reference: str, where: str) -> tuple[Any, str] | None:
        """Return what a reference leads to, and its place; None if it is not a JSON pointer into this schema."""
        base = self.root.get("$id")
        pointer = (reference.removeprefix(base.rstrip("#")) if isinstance(base, str) else reference) or "#"
        if self.is_blind or not (pointer == "#" or pointer.startswith("#/")):
            self.is_blind = True
            return None
        found = self.root
        for step in pointer.split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                raise UsageError(f"the schema is not valid at {where}: there is no {reference}")
        return found, pointer

    def _visit_choice(self, options: list[Any], number: int, where: str, is_alone: bool) -> None:
        """Visit an option of `oneOf`. What it refers to takes its place: llguidance tells options apart by no other."""
        option = options[number]
        is_reference = isinstance(option, dict) and option.keys() == {"$ref"} and isinstance(option["$ref"], str)
        target = self._follow(option["$ref"], where) if is_reference else None
        if target is None or target[1] in self.inlined:
            self.visit(option, where, is_alone=is_alone)
            return
        options[number] = json.loads(json.dumps(target[0]))
        self.inlined.append(target[1])
        self.visit(options[number], target[1], is_alone=is_alone)
        self.inlined.pop()


def _check(node: dict[str, Any], where: str) -> None:
    """Check the values of a subschema's keywords, bring them to a form that llguidance takes, drop what asks nothing.

    Raises:
        UsageError: a value is not of its keyword's form.
        Unsupported: a keyword cannot be enforced.
    """
    for key in list(node):
        value = node[key]
        if key in _UNSUPPORTED:
            is_idle = key in _IDLE_WITHOUT and not any(other in node for other in _IDLE_WITHOUT[key])
            if not is_idle and not any(value is idle or (idle == {} == value) for idle in _UNSUPPORTED[key]):
                raise Unsupported(
                    f"the schema has `{key}` at {where}, which cannot be enforced while an answer is made",
                    hint="leave it out, and check the answer afterwards",
                )
            del node[key]
        elif key in _FORMS and not _FORMS[key][0](value):
            raise UsageError(
                f"the schema is not valid at {where}: `{key}` must be {_FORMS[key][1]}, and is {_shown(value)}"
            )
        elif key in ("const", "enum"):
            _check_numbers(value, f"{where}/{key}")
        elif key in _FORMS and _FORMS[key] is _COUNT:
            node[key] = _count(key, int(value), where)
        elif key in _BOUNDS and not isinstance(value, bool):
            node[key] = _bound(key, value, where)
    _check_factor(node, where)
    _check_min_properties(node, where)
    _bound_integers(node)


def _check_numbers(value: Any, where: str) -> None:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_numbers(item, where)
    elif isinstance(value, int | float) and not (abs(value) <= LIMIT or isinstance(value, float)):
        raise Unsupported(f"the schema has a number at {where} that cannot be kept exact: {value}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"the schema is not valid at {where}: a number is too large")


def _count(key: str, value: int, where: str) -> int:
    if key.startswith("min") and value > _MAX_COUNT:
        raise Unsupported(f"the schema asks for too much at {where}: `{key}` is {value}")
    return min(value, _MAX_COUNT)


def _bound(key: str, value: float, where: str) -> float:
    side = _BOUNDS[key]
    if value * -side > LIMIT:
        raise Unsupported(f"the schema asks for numbers at {where} that cannot be kept exact: `{key}` is {value}")
    return value if abs(value) <= LIMIT else side * LIMIT


def _check_factor(node: dict[str, Any], where: str) -> None:
    factor = Decimal(str(node.get("multipleOf", 1)))
    if int("".join(map(str, factor.as_tuple().digits))) > _MAX_FACTOR:
        raise Unsupported(f"the schema's `multipleOf` at {where} has too many digits: {node['multipleOf']}")


def _check_min_properties(node: dict[str, Any], where: str) -> None:
    # Names that the schema does not have can be repeated in an answer, and then count once.
    n_sure = len(set(node.get("required", ()))) + 1
    if node.get("minProperties", 0) > n_sure and node.get("additionalProperties") is not False:
        raise Unsupported(
            f"the schema has a `minProperties` at {where} that cannot be enforced while an answer is made",
            hint="name the properties in `required`",
        )


def _bound_integers(node: dict[str, Any]) -> None:
    types = [node["type"]] if isinstance(node.get("type"), str) else node.get("type", [])
    if "integer" in types and "number" not in types:
        if "minimum" not in node and "exclusiveMinimum" not in node:
            node["minimum"] = -LIMIT
        if "maximum" not in node and "exclusiveMaximum" not in node:
            node["maximum"] = LIMIT


def _can_be_closed(node: dict[str, Any]) -> bool:
    names = node.get("properties") or {}
    return (
        bool(names)
        and not any(key in node for key in ("additionalProperties", "patternProperties", *_IN_PLACE))
        and set(node.get("required", ())) <= names.keys()
        and node.get("minProperties", 0) <= len(names)
    )


def _is_open(node: dict[str, Any]) -> bool:
    has_names = bool(node.get("properties") or node.get("required"))
    has_patterns = bool(node.get("patternProperties"))
    is_closed = node.get("additionalProperties") is False
    return (has_names and has_patterns) or ((has_names or has_patterns) and not is_closed)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
