"""Schemas as people give them: a JSON Schema in a file or inline, or a short form such as `name, age int, tags: list`.

What a schema means, and what of it can be enforced, is `owm.engine.narrowing`'s to know.
"""

import json
import re
from pathlib import Path
from typing import Any

from owm.errors import NotFound, UsageError

_MAX_BYTES = 16 << 20
_TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "list": {"type": "array", "items": {"type": "string"}},
}
_FIELD = re.compile(r"(?P<name>[^\W\d][\w-]*)(?:\s+(?P<type>[^\s:]+))?\s*(?::\s*(?P<description>.*))?", re.DOTALL)
_SHORT_FORM = "the short form is `name, age int, tags list`, each with a `: description` if you like"


def read_schema(given: str) -> dict[str, Any] | bool:
    """Read a schema: the name of a file with one, a JSON Schema itself, or fields in the short form.

    Raises:
        NotFound: it looks like the name of a file, and there is none.
        UsageError: it is not JSON, or not the short form either.
    """
    text = given.strip()
    if text.startswith("{") or text in ("true", "false"):
        return _json(text, "the schema")
    path = Path(given)
    if "\n" not in given and _is_file(path):
        return _file(path)
    if text.endswith(".json") or (text.startswith((".", "/", "~")) and "," not in text):
        raise NotFound(f"no such schema file: {given}", hint=_SHORT_FORM)
    return fields(text)


def fields(text: str) -> dict[str, Any]:
    """Make the schema of an object from its fields: names with a type (`str` if none is given) and a description.

    Fields are separated by newlines, or by commas if there is only one line. All of them are required. Types are
    str, int, float, bool and list (of texts); `list[int]` and the like say of what.

    Raises:
        UsageError: a field is not understood, or there are none.
    """
    separator = "\n" if "\n" in text.strip() else ","
    properties: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(separator))):
        found = _FIELD.fullmatch(part)
        if found is None:
            raise UsageError(f"the schema has a field that is not understood: {part}", hint=_SHORT_FORM)
        name, kind, description = found["name"], found["type"], (found["description"] or "").strip()
        if kind is None and _type(description) is not None:  # `tags: list`
            kind, description = description, ""
        schema = _type(kind or "str")
        if schema is None:
            raise UsageError(
                f"the schema's field {name} has a type that owm does not know: {kind}",
                hint=f"the types are {', '.join(_TYPES)} and `list[…]` of one of them",
            )
        if name in properties:
            raise UsageError(f"the schema has the field {name} twice")
        properties[name] = schema | ({"description": description} if description else {})
    if not properties:
        raise UsageError("the schema has no fields", hint=_SHORT_FORM)
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _type(name: str) -> dict[str, Any] | None:
    if found := re.fullmatch(r"list\[(.+)\]", name):
        items = _type(found[1])
        return items and {"type": "array", "items": items}
    return _TYPES.get(name)


def _is_file(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):  # too long a name, or a NUL in it
        return False


def _file(path: Path) -> dict[str, Any] | bool:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"the schema file is larger than {_MAX_BYTES >> 20} MiB: {path}")
        text = path.read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise UsageError(f"the schema file cannot be read: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the schema file is not text in UTF-8: {path}") from error
    is_json = path.suffix == ".json" or text.startswith("{")
    return _json(text, str(path)) if is_json else fields(text)


def _json(text: str, what: str) -> dict[str, Any] | bool:
    try:
        schema = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"{what} is not valid JSON: {error.msg} in {where}", hint=_SHORT_FORM) from error
    except ValueError as error:
        raise UsageError(f"{what} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{what} is nested too deeply") from error
    if not isinstance(schema, dict | bool):
        raise UsageError(f'{what} is JSON but no schema: a schema is an object such as {{"type": "string"}}')
    return schema


def _refuse_constant(name: str) -> float:
    raise ValueError(f"JSON has no {name}")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has the key {next(n for n in names if names.count(n) > 1)!r} twice")
    return found
