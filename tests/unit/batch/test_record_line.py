"""A line of the journal: what is written is read back, and of what is not as it was written nothing is believed."""

import json
import time
from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.batch.record_line import HEADER, mark_line, mark_of, record_line, record_of, sealed_parts, version_of
from owm.batch.row import Failure, Record

ANSWER: dict[str, Any] = {"text": "Hi\n", "finish_reason": "stop", "usage": {"total_tokens": 3}, "seed": None}
GOOD = Record(7, "a", "a", "plain", "0" * 16, "m:135m", "1" * 16, {"topic": "Zürich"}, ANSWER)
FAILED = replace(GOOD, key="#8", id=None, answer=None, failure=Failure("too_long", "the row is too long"))


def sealed(body: bytes) -> bytes:
    """Seal what owm would not write."""
    return body + b',"crc32":"%08x"}' % crc32(body)


def changed(**changes: Any) -> bytes:
    members = json.loads(record_line(GOOD))
    del members["crc32"]
    return sealed(json.dumps({**members, **changes}).encode()[:-1])


_texts = st.text() | st.text(st.characters(categories=["Cs", "Cc", "Zl"]))
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)
_members = st.dictionaries(_texts | st.sampled_from(["number", "crc32", "written", "failure"]), _json, max_size=4)
_records = st.builds(
    Record,
    number=st.integers(1),
    key=_texts,
    id=st.none() | _texts | st.integers() | st.floats(allow_nan=False),
    form=st.sampled_from(["plain", "chat", "completion"]),
    digest=st.text("0123456789abcdef", max_size=16),
    model=_texts,
    run=_texts,
    extra=_members,
    answer=st.none() | st.builds(lambda members, text: {**members, **ANSWER, "text": text}, _members, _texts),
    failure=st.none() | st.builds(Failure, _texts, _texts),
)


@given(_records)
def test_a_record_is_one_line_of_json_that_is_read_back_as_written(record: Record) -> None:
    line = record_line(record)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert list(json.loads(line.decode("utf-8", "surrogatepass")))[-1] == "crc32"
    assert sealed_parts(line[:-1]) == [(0, line[:-1])]
    assert record_of(line[:-1]) == record
    assert mark_of(line[:-1]) is None


@given(_members)
def test_a_mark_is_read_back_as_written_and_is_no_record(about: dict[str, Any]) -> None:
    line = mark_line(about)[:-1]
    assert sealed_parts(line) == [(0, line)]
    assert mark_of(line) == about
    assert record_of(line) is None


@pytest.mark.parametrize("record", [GOOD, FAILED])
def test_no_changed_lost_or_added_byte_is_believed(record: Record) -> None:
    line = record_line(record)[:-1]
    for place in range(len(line)):
        for byte in {line[place] ^ 1, line[place] ^ 0x80, 0, 10, 32, 34} - {line[place]}:
            assert sealed_parts(line[:place] + bytes([byte]) + line[place + 1 :]) == []
        assert sealed_parts(line[:place]) == []
        assert sealed_parts(line[:place] + line[place + 1 :]) == []
        assert sealed_parts(line[:place] + b" " + line[place:]) == []


@pytest.mark.parametrize("wrong_break", [b"\0", b"\r", b" ", b"{", b'"', b"\x8a", b"\x0b"])
@pytest.mark.parametrize("then", [record_line(FAILED)[:-1], mark_line({"form": "csv"})[:-1]])
def test_two_lines_are_found_where_the_break_between_them_has_become_another_byte(
    wrong_break: bytes, then: bytes
) -> None:
    for first in (HEADER[:-1], record_line(GOOD)[:-1], mark_line({})[:-1]):
        assert sealed_parts(first + wrong_break + then) == [(0, first), (len(first) + 1, then)]
        assert sealed_parts(first[1:] + wrong_break + then) == [(len(first), then)]
        assert sealed_parts(first + wrong_break + then[:-1]) == [(0, first)]


def test_a_line_whose_break_has_become_cr_lf_is_found() -> None:
    line = record_line(GOOD)[:-1]
    assert sealed_parts(line + b"\r") == [(0, line)]
    assert sealed_parts(line + b"\r\r") == []


def test_a_row_that_holds_whole_lines_cannot_pass_them_off_where_its_own_line_is_damaged() -> None:
    forged = json.loads(record_line(replace(GOOD, key="victim")))
    decoy: dict[str, Any] = {"crc32": "00000000"}
    line = record_line(replace(GOOD, extra={"a": [{"x": 1, **decoy}, forged, {"number": 0, **decoy}, forged]}))[:-1]
    for place in (2, len(line) // 2, len(line) - 3):
        for byte in (0, 0x20, 0x7D):
            damaged = line[:place] + bytes([byte]) + line[place + 1 :]
            for around in (damaged, record_line(GOOD)[:-1] + b"X" + damaged, damaged + b"X" + record_line(GOOD)[:-1]):
                assert {part for _, part in sealed_parts(around)} <= {record_line(GOOD)[:-1]}


def test_a_large_damaged_line_is_refused_in_no_time() -> None:
    began = time.process_time()
    assert sealed_parts(b'{"number":' * 400_000) == []
    assert sealed_parts(b',"crc32":"11111111"}' * 200_000) == []
    assert sealed_parts(b',"crc32":"11111111"} {"number":' * 100_000) == []
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "line",
    [
        b"",
        sealed(b'{"number":1'),
        sealed(b'{"number":1}'),
        sealed(b'{"number":'),
        sealed(b'{"number":\xff'),
        sealed(b'{"number":' + b"[" * 100_000),
        sealed(b'{"number":' + b"9" * 10_000),
        changed(number="1"),
        changed(number=True),
        changed(number=None),
        changed(key=1),
        changed(id=[]),
        changed(id=True),
        changed(form="xml"),
        changed(form=["plain"]),
        changed(digest=None),
        changed(model=1),
        changed(run={}),
        changed(extra=[]),
        changed(extra=None),
        changed(answer="text"),
        changed(failure="text"),
        changed(failure={"code": "x"}),
        changed(failure={"code": "x", "message": None}),
        changed(failure=[1]),
        HEADER[:-1],
        mark_line({})[:-1],
    ],
)
def test_a_sealed_line_that_is_no_record_gives_none(line: bytes) -> None:
    assert record_of(line) is None


@pytest.mark.parametrize("line", [b"", sealed(b'{"written":1'), sealed(b'{"written":{}'), sealed(b'{"written":{')])
def test_a_sealed_line_that_is_no_mark_gives_none(line: bytes) -> None:
    assert mark_of(line) == ({} if line.startswith(b'{"written":{},') else None)


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (HEADER, 1),
        (b'{"owm_batch": 2}', 2),
        (b'{"owm_batch": 2, "x": []}', 2),
        (b'{"owm_batch": "2"}', None),
        (b'{"owm_batch": true}', None),
        (b'{"owm": 2}', None),
        (b'["owm_batch"]', None),
        (b"3", None),
        (b"", None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (b'{"owm_batch": ' + b"9" * 10_000 + b"}", None),
    ],
)
def test_a_first_line_names_its_version_or_none(line: bytes, version: int | None) -> None:
    assert version_of(line) == version
