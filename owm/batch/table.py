"""CSV and TSV: a header and records, of which a broken one does not break the others."""

import csv
from collections.abc import Iterator
from typing import NamedTuple

from owm.batch.fields import Refused
from owm.batch.lines import MAX_LINE_BYTES, Line
from owm.errors import UsageError


class TableRecord(NamedTuple):
    """The fields of a record by column, as far as there are any, and why its row is refused."""

    number: int
    fields: dict[str, str]
    raw: bytes
    refused: Refused | None = None


def open_table(lines: Iterator[Line], delimiter: str, name: str) -> tuple[tuple[str, ...], Iterator[TableRecord]]:
    """Read the header; return its columns and, unread, the records.

    Raises:
        UsageError: there is no header, or none that can be read.
    """
    # The limit is one for the whole program; lines are bounded, so a field is as well.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    source = _Source(lines)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        while not header:
            header = next(reader)
    except StopIteration:
        raise UsageError(f"{name} is empty", hint="its first line has to name the columns") from None
    except csv.Error as error:
        raise UsageError(f"the header of {name} cannot be read: {_said(error)}") from error
    except Refused as error:
        raise UsageError(f"the header of {name} cannot be read: {error}") from error
    if source.refused is not None:
        raise UsageError(f"the header of {name} cannot be read: {source.refused}")
    columns = unique_names([column.strip() for column in header])
    return columns, _records(source, iter(reader), columns)


def unique_names(names: list[str]) -> tuple[str, ...]:
    """Return the names, those that are taken with `_2`, `_3`, … at their end."""
    found: dict[str, None] = {}
    numbers: dict[str, int] = {}
    for name in names:
        free = name
        while free in found:
            numbers[name] = numbers.get(name, 1) + 1
            free = f"{name}_{numbers[name]}"
        found[free] = None
    return tuple(found)


def _records(source: "_Source", reader: Iterator[list[str]], columns: tuple[str, ...]) -> Iterator[TableRecord]:
    number = 0
    while True:
        source.begin()
        fields: list[str] = []
        refused: Refused | None = None
        try:
            fields = next(reader)
            if not fields or (len(fields) == 1 < len(columns) and not fields[0].strip()):  # a blank line
                continue
        except StopIteration:
            return
        except csv.Error as error:
            refused = Refused("invalid_record", f"the record cannot be read: {_said(error)}")
        except Refused as error:
            refused = error
        number += 1
        refused = source.refused or refused
        if refused is None and len(fields) != len(columns):
            refused = Refused("invalid_record", f"the record has {len(fields)} fields, the header has {len(columns)}")
        # Lengths before the fields, so that no two records are the same bytes.
        raw = f"{[len(field) for field in fields]}{''.join(fields)}".encode()
        yield TableRecord(number, dict(zip(columns, fields, strict=False)), raw, refused)
        if source.is_lost:
            return


def _said(error: csv.Error) -> str:
    text = str(error)
    if text == "unexpected end of data":
        return "a quote in it is never closed, so all that follows is part of it"
    return text.partition(" - ")[0]


class _Source(Iterator[str]):
    """Lines for the CSV reader, and what was wrong with those of the record at hand."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.is_lost = False
        self.begin()

    def begin(self) -> None:
        """Forget the lines of the record before."""
        self.refused: Refused | None = None
        self._n_bytes = 0

    def __next__(self) -> str:
        line = next(self._lines)
        self._n_bytes += len(line.raw)
        if self._n_bytes > MAX_LINE_BYTES:
            # Where a record of this size would end is a guess, and what comes after it would be another.
            self.is_lost = True
            raise Refused(
                "line_too_long", f"the record is longer than {MAX_LINE_BYTES >> 20} MiB, so no more records are read"
            )
        try:
            return line.text() + line.end
        except Refused as error:
            self.refused = error
            return line.raw.decode("utf-8", "replace") + line.end
