"""One line of the journal of a batch, which carries its own checksum: the first line, a record, or a mark."""

import json
import re
from collections.abc import Mapping
from typing import Any, get_args

from owm.batch.row import Failure, Form, Record
from owm.formats import sealed_lines
from owm.formats.sealed_lines import content_of, seal

VERSION = 1

_RECORD_BEGIN = b'{"number":'
_MARK_BEGIN = b'{"written":'
_HEADER_BEGIN = b'{"owm_batch":'
_WRONG_BREAK = sealed_lines.wrong_break("number", "written")
_FORMS = frozenset(get_args(Form))

_DIGITS = re.compile(r"[0-9a-f]{0,64}")

HEADER = seal({"owm_batch": VERSION})


def record_line(record: Record) -> bytes:
    """Write a record as a line, its line break included."""
    members: dict[str, Any] = {
        "number": record.number,
        "key": record.key,
        "id": record.id,
        "form": record.form,
        "digest": record.digest,
        "model": record.model,
        "run": record.run,
        "extra": dict(record.extra),
    }
    if record.answer is not None:
        members["answer"] = dict(record.answer)
    if record.failure is not None:
        members["failure"] = {"code": record.failure.code, "message": record.failure.message}
    return seal(members)


def mark_line(about: Mapping[str, Any]) -> bytes:
    """Write the mark that the output holds all records before it as a line, its line break included."""
    return seal({"written": dict(about)})


def sealed_parts(line: bytes) -> list[tuple[int, bytes]]:
    """Return what of a line, without its line break, is as it was written, and where in it that begins.

    No row can pass for a line in this way, whatever it says.
    """
    return sealed_lines.sealed_parts(line, _WRONG_BREAK)


def is_record(line: bytes) -> bool:
    """Tell whether a sealed line claims to be a record."""
    return line.startswith(_RECORD_BEGIN)


def is_header(line: bytes) -> bool:
    """Tell whether a sealed line is the first one of a journal of any version."""
    return line.startswith(_HEADER_BEGIN)


def version_of(line: bytes) -> int | None:
    """Return the version that the first line of a file names, sealed or not; None if it names none."""
    try:
        version = json.loads(line)["owm_batch"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return version if type(version) is int else None


def mark_of(line: bytes) -> dict[str, Any] | None:
    """Return what a sealed line says as a mark, None for any other line."""
    if not line.startswith(_MARK_BEGIN):
        return None
    about = (content_of(line) or {}).get("written")
    return about if isinstance(about, dict) else None


def record_of(line: bytes) -> Record | None:
    """Return the record of a sealed line, None for any other line."""
    found = content_of(line) if line.startswith(_RECORD_BEGIN) else None
    if found is None:
        return None
    try:
        failure = found.get("failure")
        record = Record(
            found["number"],
            found["key"],
            found["id"],
            found["form"],
            found["digest"],
            found["model"],
            found["run"],
            found["extra"],
            found.get("answer"),
            None if failure is None else Failure(failure["code"], failure["message"]),
        )
        return record if _is_sound(record) else None
    except (LookupError, TypeError):
        return None


def _is_sound(record: Record) -> bool:
    """Tell whether every member is what it has to be.

    Raises:
        TypeError: one is not.
    """
    failure = record.failure
    return (
        type(record.number) is int
        and (record.id is None or type(record.id) in (str, int, float))
        and type(record.key) is type(record.digest) is type(record.model) is type(record.run) is str
        and record.form in _FORMS
        and type(record.extra) is dict
        and _DIGITS.fullmatch(record.digest) is not None
        and (record.answer is None or _is_answer(record.answer))
        and (failure is None or type(failure.code) is type(failure.message) is str)
    )


def _is_answer(answer: Any) -> bool:
    """Tell whether an answer has what outputs are made of."""
    if type(answer) is not dict or not {"text", "finish_reason", "usage"} <= answer.keys():
        return False
    usage, logprobs = answer["usage"], answer.get("logprobs")
    return (
        type(answer["text"]) is type(answer["finish_reason"]) is str
        and isinstance(answer.get("reasoning"), str | None)
        and type(usage) is dict
        and all(type(count) is int for count in usage.values())
        and (logprobs is None or (type(logprobs) is list and all(map(_is_logprob, logprobs))))
    )


def _is_logprob(found: Any) -> bool:
    """Tell whether something is a token, its probability, and those of the likeliest beside it."""
    if type(found) is not dict or type(found.get("top_logprobs")) is not list:
        return False
    return all(
        type(each) is dict and type(each.get("token")) is str and type(each.get("logprob")) in (int, float)
        for each in (found, *found["top_logprobs"])
    )
