"""A line of JSONL as an object that can be written again: strict JSON, of reasonable depth, of whole characters."""

import json
import math
import re
from typing import Any

from owm.batch.fields import Refused

MAX_DEPTH = 100  # what nests deeper may be read here and fail where it is written or checked
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
_LONE = re.compile("[\ud800-\udfff]")


def parse(text: str) -> tuple[dict[str, Any], Refused | None]:
    """Return the object, and why its row is refused for all that it could be read.

    Raises:
        Refused: it is no JSON object.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        said = f"{error.msg[:1].lower()}{error.msg[1:]}, column {error.colno}"
        raise Refused("invalid_json", f"the line is not JSON: {said}") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # from below, or a number of thousands of digits
        raise Refused("invalid_json", "the line holds NaN, an infinite number or one of thousands of digits") from error
    if not isinstance(value, dict):
        raise Refused("invalid_row", "the line is JSON but no object")
    if text.count("{") + text.count("[") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise _too_deep()
    if "\\u" in text and _HALF_CHARACTER.search(text):  # mostly a pair of them, which is a whole one
        again = _ENCODER.encode(value)
        if lone := _LONE.search(again):
            whole = json.loads(_LONE.sub("\ufffd", again))
            return whole, Refused("invalid_json", f"the line holds half a character (\\u{ord(lone[0]):04x})")
    return value, None


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    return any(isinstance(each, dict | list) for each in level)


def _too_deep() -> Refused:
    return Refused("invalid_json", f"the line nests deeper than {MAX_DEPTH} levels")


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
_ENCODER = json.JSONEncoder(ensure_ascii=False)
