"""The shape that a row wishes for its answer. Rows mostly wish the same, so what was made once is kept."""

import functools
import json
from typing import TYPE_CHECKING, Any

from owm.batch.fields import Refused
from owm.errors import OwmError

if TYPE_CHECKING:
    from owm.engine.constrain import Constraint

CACHED_SHAPES = 256
MAX_CACHED_CHARS = 1 << 16  # larger ones would fill the memory


def read_shape(kind: str, value: Any, name: str) -> "Constraint":
    """Make a constraint of the kind `schema`, `choice`, `regex` or `grammar`.

    A schema may be a text with one or with fields in the short form, but never the name of a file: rows are not the
    user's own words. `name` is for messages.

    Raises:
        Refused: it is none, or cannot be enforced.
    """
    if isinstance(value, str):
        made = _make(kind, value, is_text=True)
    elif kind == "schema" and isinstance(value, dict | bool):
        made = _make(kind, json.dumps(value, ensure_ascii=False, separators=(",", ":")), is_text=False)
    elif kind == "choice" and isinstance(value, list) and all(isinstance(label, str) for label in value):
        made = _make(kind, json.dumps(value, ensure_ascii=False), is_text=False)
    else:
        wanted = {"schema": "a JSON Schema or its short form", "choice": "a list of texts, or labels as `a,b`"}
        raise Refused("invalid_shape", f"{name} must be {wanted.get(kind, 'a text')}")
    if isinstance(made, str):
        raise Refused("invalid_shape", made)
    return made


def _make(kind: str, text: str, *, is_text: bool) -> "Constraint | str":
    make = _make_cached if len(text) <= MAX_CACHED_CHARS else _make_cached.__wrapped__
    return make(kind, text, is_text)


@functools.lru_cache(maxsize=CACHED_SHAPES)
def _make_cached(kind: str, text: str, is_text: bool) -> "Constraint | str":
    """Make a constraint, or say why there is none: that too is to be found out only once."""
    from owm.engine.constrain import Constraint, split_labels
    from owm.engine.schema import fields, read_schema

    try:
        if kind == "regex":
            return Constraint.regex(text)
        if kind == "grammar":
            return Constraint.grammar(text)
        if kind == "choice":
            return Constraint.choice(split_labels(text) if is_text else json.loads(text))
        if not is_text:
            return Constraint.json_schema(json.loads(text))
        is_json = text.strip().startswith("{") or text.strip() in ("true", "false")
        return Constraint.json_schema(read_schema(text) if is_json else fields(text))
    except OwmError as error:
        return str(error)
