"""Lines of bytes: their numbers and ends, and a bound on their length."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.batch import lines
from owm.batch.fields import Refused
from owm.batch.lines import Line, numbered


def test_lines_end_with_a_feed_or_both_and_the_last_with_neither() -> None:
    read = list(numbered(io.BytesIO(b"\xef\xbb\xbfa\r\nb\n\n\rc\r\xef\xbb\xbfd"), "a file"))
    assert read == [
        Line(1, b"a", "\r\n"),
        Line(2, b"b", "\n"),
        Line(3, b"", "\n"),
        Line(4, b"\rc\r\xef\xbb\xbfd"),
    ]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("length", range(5, 12))
def test_no_more_of_a_line_is_read_than_shows_that_it_is_too_long(
    monkeypatch: pytest.MonkeyPatch, begin: bytes, length: int, end: bytes
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 6)
    first, *rest = numbered(io.BytesIO(begin + b"x" * length + end + (b"z" if end else b"")), "a file")
    assert first.is_too_long == (length > 6)
    assert len(first.raw) <= 6 + 5
    assert rest == ([Line(2, b"z")] if end else [])
    if length > 6:
        with pytest.raises(Refused, match="the line is longer than 0 MiB"):
            first.text()
    else:
        assert first.text() == "x" * length


def test_a_line_is_blank_only_as_far_as_all_of_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 6)
    assert [line.is_blank for line in numbered(io.BytesIO(b" \t\r\n\nx\n        x"), "a file")] == [
        True,
        True,
        False,
        False,
    ]


@given(st.binary(max_size=60))
def test_lines_put_together_are_the_file_without_its_mark(raw: bytes) -> None:
    read = list(numbered(io.BytesIO(raw), "a file"))
    assert b"".join(line.raw + line.end.encode() for line in read) == raw.removeprefix(b"\xef\xbb\xbf")
    assert [line.number for line in read] == list(range(1, len(read) + 1))
