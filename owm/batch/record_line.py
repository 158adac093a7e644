"""One line of the journal of a batch: a JSON object whose last member is the CRC-32 of all that stands before it.

A line is believed only whole: of a line that is not as it was written, nothing is read.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, get_args
from zlib import crc32

from owm.batch.row import Failure, Form, Record

VERSION = 1

_RECORD_BEGIN = b'{"number":'
_MARK_BEGIN = b'{"written":'
_HEADER_BEGIN = b'{"owm_batch":'
_SEAL = b',"crc32":"%08x"}'
_SEAL_BYTES = len(_SEAL % 0)
# Where one byte stands for the line break between two lines.
_WRONG_BREAK = re.compile(rb',"crc32":"[0-9a-f]{8}"\}(.)(?=\{"(?:number|written)":)', re.DOTALL)
_FORMS = frozenset(get_args(Form))
# A lone surrogate is no character, but JSON can spell one: what a row holds comes back just as it was.
_SURROGATES = "surrogatepass"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode


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
    return _seal(members)


def mark_line(about: Mapping[str, Any]) -> bytes:
    """Write the mark that the output holds all records before it as a line, its line break included."""
    return _seal({"written": dict(about)})


def sealed_parts(line: bytes) -> list[tuple[int, bytes]]:
    """Return what of a line, without its line break, is as it was written, and where in it that begins.

    That is all of it or nothing, but for a line whose break has become CR LF, and for two lines whose break has become
    another byte. No row can pass for a line in this way: a part begins or ends with the line, and what a row says
    stands in the middle of one.
    """
    if _is_sealed(line):
        return [(0, line)]
    line = line.removesuffix(b"\r")
    breaks = [found.start(1) for found in _WRONG_BREAK.finditer(line)]
    parts = [(0, line[: breaks[0]]), (breaks[-1] + 1, line[breaks[-1] + 1 :])] if breaks else [(0, line)]
    return [(begin, part) for begin, part in parts if _is_sealed(part)]


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
    about = (_content(line) or {}).get("written")
    return about if isinstance(about, dict) else None


def record_of(line: bytes) -> Record | None:
    """Return the record of a sealed line, None for any other line."""
    found = _content(line) if line.startswith(_RECORD_BEGIN) else None
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
            failure and Failure(failure["code"], failure["message"]),
        )
        return record if _is_sound(record) else None
    except (LookupError, TypeError):
        return None


def _seal(members: Mapping[str, Any]) -> bytes:
    body = _encode(members)[:-1].encode("utf-8", _SURROGATES)
    return body + _SEAL % crc32(body) + b"\n"


def _is_sealed(line: bytes) -> bool:
    return line[-_SEAL_BYTES:] == _SEAL % crc32(memoryview(line)[:-_SEAL_BYTES])


HEADER = _seal({"owm_batch": VERSION})


def _content(line: bytes) -> dict[str, Any] | None:
    """Return the members of a sealed line, None if it is not JSON, which owm never sealed."""
    try:
        text = line.decode("utf-8", _SURROGATES)
        found, end = _decode(text)
    except (ValueError, RecursionError):
        return None
    return found if end == len(text) else None


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
        and (record.answer is None or type(record.answer) is dict)
        and (failure is None or type(failure.code) is type(failure.message) is str)
    )
