"""What goes out: the answers to a batch's rows as JSONL, in OpenAI's form, as a table or as plain lines.

The rows come as the journal has them, each with a record for every model, in the order that the output is to have.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

from owm.batch import openai
from owm.batch.reading import InputForm
from owm.batch.row import Record
from owm.batch.table import unique_names

OutputForm = Literal["jsonl", "openai", "csv", "tsv", "lines"]
Answered = Sequence[Record]  # one row's, of every model

_ENDINGS: dict[str, OutputForm] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "lines",
}
_OWN_NAMES = frozenset(
    ("id", "text", "reasoning", "finish_reason", "usage", "seed", "model", "logprobs", "error", "answers")
)
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_LINE_ESCAPES = str.maketrans({"\n": "\\n", "\r": "\\r"})
_FIELD_ESCAPES = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})


def find_form(path: Path | None, input_form: InputForm) -> OutputForm:
    """Return the form that an output has by its ending, else the input's."""
    return ending_form(path) or input_form


def ending_form(path: Path | None) -> OutputForm | None:
    """Return the form that a name's ending stands for, None if it says nothing."""
    return None if path is None else _ENDINGS.get(path.suffix.lower())


def write_rows(
    rows: Iterable[Answered],
    file: TextIO,
    form: OutputForm,
    *,
    models: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    fields: Sequence[str] = (),
    errors: TextIO | None = None,
) -> None:
    """Write rows one after another; none of them is kept.

    In `jsonl`, each row has the form that it came in: plain or OpenAI's; in `openai`, all have OpenAI's. In `lines`,
    breaks of lines inside an answer become `\\n` and `\\r`, and the answers of several models are parted by tabs.

    Args:
        file: opened with `newline=""`.
        models: that answered, if there are several.
        columns: of the table that came in.
        fields: of rows that came in as no table, which are the columns of one that goes out.
        errors: takes failed answers as JSONL. They are then left out of the output, but for an empty line in `lines`.

    Raises:
        OSError: a file cannot be written.
    """
    kept = rows if errors is None else _without_failures(rows, errors, has_gaps=form == "lines")
    if form == "lines":
        for records in kept:
            file.write(_line(records))
    elif form in ("csv", "tsv"):
        table = _Table(models, fields if columns is None else columns, has_id=columns is None)
        _write_table(kept, file, table, "\t" if form == "tsv" else ",")
    else:
        for records in kept:
            for row in _objects(records, is_several=len(models) > 1, is_openai=form == "openai"):
                file.write(_ENCODER.encode(row) + "\n")


def _without_failures(rows: Iterable[Answered], errors: TextIO, *, has_gaps: bool) -> Iterator[Answered]:
    """Move failed answers to `errors`; rows of nothing else are left out too, unless they are to leave a gap."""
    for records in rows:
        for record in records:
            if record.answer is None:
                errors.write(_ENCODER.encode(_failed(record)) + "\n")
        answered = [record for record in records if record.answer is not None]
        if has_gaps:
            yield records
        elif answered:
            yield answered


def _failed(record: Record) -> Mapping[str, Any]:
    """Say a failed row in the form that it came in."""
    if record.form != "plain":
        return openai.output_row(record)
    return {"id": _id(record), "line": record.number, "model": record.model, "error": _error(record)}


def _objects(records: Answered, *, is_several: bool, is_openai: bool) -> Iterator[Mapping[str, Any]]:
    first = records[0]
    if is_openai or first.form != "plain":
        yield from map(openai.output_row, records)
        return
    row = {"id": _id(first)}
    for name, value in first.extra.items():
        if name == "id" and str(value) == str(first.id):
            continue  # a table's own column of ids
        while name in _OWN_NAMES or name in row:
            name = f"input_{name}"
        row[name] = value
    if is_several:
        yield row | {"answers": {record.model: _answer(record) for record in records}}
    else:
        yield row | _answer(first) | ({"model": first.model} if first.answer is not None else {})


def _answer(record: Record) -> dict[str, Any]:
    """Say an answer, or why there is none, without what there is nothing to say of."""
    if record.answer is None:
        return {"error": _error(record)}
    optional = {name: record.answer.get(name) for name in ("seed", "logprobs")}
    return {
        "text": record.answer["text"],
        **({"reasoning": record.answer["reasoning"]} if record.answer.get("reasoning") else {}),
        **{name: record.answer[name] for name in ("finish_reason", "usage")},
        **{name: value for name, value in optional.items() if value is not None},
    }


class _Table:
    """The columns of an output table, and what each row has in them."""

    def __init__(self, models: Sequence[str], fields: Sequence[str], *, has_id: bool) -> None:
        self._models = models
        self._fields = fields
        self._has_id = has_id
        own = [*models, "error"] if len(models) > 1 else ["answer", "finish_reason", "error"]
        self.header = unique_names([*(["id"] if has_id else []), *fields, *own])

    def cells(self, records: Answered) -> list[Any]:
        """Return the cells of a row."""
        first = records[0]
        cells = [_id(first)] if self._has_id else []
        cells += [_cell(first.extra.get(name)) for name in self._fields]
        if len(self._models) < 2:
            if first.answer is None:
                return [*cells, "", "", _error(first)["message"]]
            return [*cells, first.answer["text"], first.answer["finish_reason"], ""]
        texts = {record.model: record.answer["text"] for record in records if record.answer is not None}
        wrong = [f"{record.model}: {_error(record)['message']}" for record in records if record.answer is None]
        return [*cells, *(texts.get(model, "") for model in self._models), "; ".join(wrong)]


def _write_table(rows: Iterable[Answered], file: TextIO, table: _Table, delimiter: str) -> None:
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(table.header)
    writer.writerows(map(table.cells, rows))


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else _ENCODER.encode(value)


def _line(records: Answered) -> str:
    escapes = _LINE_ESCAPES if len(records) == 1 else _FIELD_ESCAPES
    texts = (record.answer["text"] if record.answer is not None else "" for record in records)
    return "\t".join(text.translate(escapes) for text in texts) + "\n"


def _id(record: Record) -> str | int | float:
    return record.number if record.id is None else record.id


def _error(record: Record) -> dict[str, str]:
    failure = record.failure
    return {"code": failure.code, "message": failure.message} if failure else {"code": "unknown", "message": ""}
