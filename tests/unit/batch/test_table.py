"""Tables: headers, and records of which a broken one does not break the others."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.batch.lines import numbered
from owm.batch.table import TableRecord, open_table, unique_names
from owm.errors import UsageError


def table(raw: bytes | str, delimiter: str = ",") -> tuple[tuple[str, ...], list[TableRecord]]:
    """Read a whole table."""
    encoded = raw.encode() if isinstance(raw, str) else raw
    columns, records = open_table(numbered(io.BytesIO(encoded), "a.csv"), delimiter, "a.csv")
    return columns, list(records)


def test_records_have_their_fields_by_column_and_are_counted() -> None:
    columns, records = table('\ufeff\r\n a , b\r\n1,"x, ""y""\r\n\nz"\r\n\r\n   \n3,\n')
    assert columns == ("a", "b")
    assert [(record.number, record.fields, record.refused) for record in records] == [
        (1, {"a": "1", "b": 'x, "y"\r\n\nz'}, None),
        (2, {"a": "3", "b": ""}, None),
    ]


def test_tabs_part_the_fields_of_a_tsv_file() -> None:
    assert table('a\tb\n1,5\tsay "x"\n', "\t")[1][0].fields == {"a": "1,5", "b": 'say "x"'}


def test_an_empty_field_is_a_record_where_there_is_only_one_column() -> None:
    assert [record.fields for record in table('a\n""\n\n \nb\n')[1]] == [{"a": ""}, {"a": " "}, {"a": "b"}]


def test_columns_of_one_name_and_of_none_are_told_apart() -> None:
    assert table(",a,a,,a_2\n")[0] == ("", "a", "a_2", "_2", "a_2_2")


@given(st.lists(st.sampled_from(["a", "a_2", "a_2_2", "b", ""])))
def test_unique_names_are_as_many_as_there_were_and_the_first_of_each_stays(names: list[str]) -> None:
    unique = unique_names(names)
    assert len(set(unique)) == len(names)
    assert all(new.startswith(old) for old, new in zip(names, unique, strict=True))
    assert all(unique[names.index(name)] == name for name in names if "_" not in name)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "a.csv is empty"),
        (b"\n\r\n", "a.csv is empty"),
        (b"a,\xff\n1,2\n", "the header of a.csv cannot be read: the line is not UTF-8 text"),
        (b'a,"b\n1,2\n', "the header of a.csv cannot be read: a quote in it is never closed"),
        (b'a,"b"c\n', "the header of a.csv cannot be read: ',' expected after '\"'"),
    ],
)
def test_without_a_header_nothing_can_be_asked(raw: bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        table(raw)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"1", "the record has 1 fields, the header has 2"),
        (b"1,2,3", "the record has 3 fields, the header has 2"),
        (b"1,\xff", "the line is not UTF-8 text (byte 2)"),
        (b'1,"a\n\xff"', "the line is not UTF-8 text (byte 0)"),
        (b'1,"2"3', "the record cannot be read: ',' expected after '\"'"),
        (b"1,a\rb", "the record cannot be read: new-line character seen in unquoted field"),
    ],
)
def test_a_broken_record_is_one_record_and_the_next_is_read(broken: bytes, message: str) -> None:
    _, (before, record, after) = table(b"a,b\nx,y\n" + broken + b"\nv,w\n")
    assert (before.refused, after.refused) == (None, None)
    assert str(record.refused) == message
    assert (record.number, after.number, after.fields) == (2, 3, {"a": "v", "b": "w"})


def test_fields_of_a_broken_record_are_kept_as_far_as_they_go() -> None:
    assert table("a,b\n1\n")[1][0].fields == {"a": "1"}
    assert table(b"a,b\n1,\xff\n")[1][0].fields == {"a": "1", "b": "\ufffd"}


def test_a_quote_that_is_never_closed_says_so() -> None:
    _, (_, lost) = table('a,b\n1,2\n3,"4\n5,6\n')
    assert str(lost.refused) == (
        "the record cannot be read: a quote in it is never closed, so all that follows is part of it"
    )


def test_a_record_without_end_takes_no_more_memory_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owm.batch.table.MAX_LINE_BYTES", 20)
    _, (_, lost) = table('a,b\n1,2\n3,"' + "x\n" * 50 + '"\n5,6\n')
    assert str(lost.refused) == "the record is longer than 0 MiB, so no more records are read"


def test_what_a_record_says_is_the_same_however_it_is_quoted() -> None:
    raws = [table(f"a,b\n{record}\n")[1][0].raw for record in ("1,2", '"1",2', "12,", ",12", '"1,2",')]
    assert raws[0] == raws[1]
    assert len(set(raws)) == 4


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=2)), st.sampled_from([",", "\t"]))
def test_what_the_csv_module_writes_is_read_unchanged(records: list[list[str]], delimiter: str) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([["a", "b"], *records])
    assert [(record.fields["a"], record.fields["b"]) for record in table(file.getvalue(), delimiter)[1]] == [
        tuple(record) for record in records
    ]


@given(st.binary(max_size=40).map(lambda raw: b"a,b\n" + raw.replace(b"x", b'"').replace(b"y", b",")))
def test_any_bytes_are_records_or_failures(raw: bytes) -> None:
    _, records = table(raw)
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert all(record.refused or len(record.fields) == 2 for record in records)
