"""Conversations in files: JSON lists of turns with `role` and `content`, checked before a template sees them."""

import json
from typing import Any

from owm.errors import UsageError

ROLES = ("system", "developer", "user", "assistant", "tool")
_HINT = '`[{"role": "user", "content": "…"}, …]`, one such turn a line, or `{"messages": […]}`'


def read_turns(text: str, name: str) -> tuple[dict[str, Any], ...]:
    """Read a list of turns, `{"messages": […]}`, or one turn a line (JSONL).

    Content may be a text or a list of text parts, which are put under each other; further keys of a turn are kept.

    Raises:
        UsageError: it is none of that; the message names the turn, counted from 1.
    """
    value = _parse(text, name)
    if isinstance(value, dict) and "messages" in value:
        value = value["messages"]
    elif isinstance(value, dict):
        value = [value]
    return check_turns(value, name)


def check_turns(value: Any, name: str) -> tuple[dict[str, Any], ...]:
    """Return the turns of a list that was read from JSON, each content made one text.

    Raises:
        UsageError: it is no list of turns; the message names the turn, counted from 1.
    """
    if not isinstance(value, list):
        raise UsageError(f"{name} is no list of turns, it is {_article(value)}", hint=_HINT)
    if not value:
        raise UsageError(f"{name} holds no turns", hint=_HINT)
    return tuple(_turn(turn, f"{name}, turn {number}") for number, turn in enumerate(value, 1))


def _parse(text: str, name: str) -> Any:
    try:
        return _loads(text, name)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise _no_json(name, error, error.lineno) from error
    turns = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                turns.append(_loads(line, name))
            except json.JSONDecodeError as error:
                raise _no_json(name, error, number) from error
    return turns


def _loads(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply") from error
    except ValueError as error:  # Python reads no numbers of thousands of digits
        raise UsageError(f"{name} holds a number that is too long") from error


def _no_json(name: str, error: json.JSONDecodeError, line: int) -> UsageError:
    message = error.msg[:1].lower() + error.msg[1:]
    return UsageError(f"{name} is not JSON: line {line}, column {error.colno}: {message}", hint=_HINT)


def _turn(turn: Any, where: str) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise UsageError(f"{where} is no object, it is {_article(turn)}", hint=_HINT)
    role = turn.get("role")
    if role not in ROLES:
        said = f"has the role {json.dumps(role)}" if "role" in turn else "has no role"
        raise UsageError(f"{where} {said}", hint=f"roles are {', '.join(ROLES[:-1])} and {ROLES[-1]}")
    content = turn.get("content")
    if content is None and role == "assistant" and turn.get("tool_calls"):
        content = ""
    if isinstance(content, list):
        content = "\n".join(_part(part, f"{where}, part {number}") for number, part in enumerate(content, 1))
    if not isinstance(content, str):
        said = f"its content is {_article(content)}" if "content" in turn else "it has no content"
        raise UsageError(f"{where} holds no text, {said}", hint=_HINT)
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} holds half a character (\\u{ord(content[error.start]):04x})") from error
    return {**turn, "content": content}


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else None
    said = f"is of the type {json.dumps(kind)}" if kind is not None else "is no text"
    raise UsageError(f"{where} {said}", hint="only parts of text are taken")


def _article(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")
