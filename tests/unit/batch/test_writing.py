"""Outputs of a batch: every form, with every text of the answers in it unchanged."""

import csv
import io
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.batch.reading import InputForm, read_rows
from owm.batch.row import Failure, Form, Record
from owm.batch.writing import OutputForm, find_form, write_rows

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "reasoning_tokens": 0}
FAILURE = Failure("too_long", "the prompt is too long")

_texts = st.text(st.characters(codec="utf-8"))
_values = _texts | st.none() | st.integers() | st.booleans() | st.lists(st.integers(), max_size=2)


def answered(text: str = "hello", *, number: int = 1, row_id: str | int | None = None, **fields: Any) -> Record:
    """Make the record of an answered row."""
    said: dict[str, Any] = {
        "key": f"#{number}" if row_id is None else str(row_id),
        "form": "plain",
        "digest": "d" * 16,
        "model": "m",
        "run": "r" * 16,
        "extra": {},
        "answer": {"text": text, "reasoning": "", "finish_reason": "stop", "usage": USAGE, "seed": None},
    }
    return Record(**{"number": number, "id": row_id, **said, **fields})


def failed(**fields: Any) -> Record:
    """Make the record of a failed row."""
    return answered(answer=None, failure=FAILURE, **fields)


def written(rows: Iterable[list[Record]], form: OutputForm, **options: Any) -> str:
    """Write rows into a text."""
    file = io.StringIO(newline="")
    rows = list(rows)
    models = list(dict.fromkeys(record.model for records in rows for record in records))
    write_rows(rows, file, form, models=models if len(models) > 1 else (), **options)
    return file.getvalue()


def objects(text: str) -> list[dict[str, Any]]:
    """Read JSONL as programs do: by lines that end with a feed."""
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.split("\n")[:-1]]


def cells(text: str, delimiter: str = ",") -> list[list[str]]:
    """Read a table."""
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jsonl", "jsonl"),
        ("a.NDJSON", "jsonl"),
        ("a.csv", "csv"),
        ("a.TSV", "tsv"),
        ("a.txt", "lines"),
        ("a.out", "csv"),
        ("csv", "csv"),
        (None, "csv"),
    ],
)
def test_the_form_is_told_by_the_ending_and_else_by_the_input(name: str | None, form: str) -> None:
    assert find_form(None if name is None else Path(name), "csv") == form


def test_every_form_of_an_input_is_one_of_an_output() -> None:
    assert set(get_args(InputForm)) <= set(get_args(OutputForm))


@pytest.mark.parametrize("form", get_args(OutputForm))
def test_no_rows_are_an_empty_output_or_a_header(form: OutputForm) -> None:
    assert written([], form) == {
        "csv": "id,answer,finish_reason,error\r\n",
        "tsv": "id\tanswer\tfinish_reason\terror\r\n",
    }.get(form, "")


def test_a_plain_row_has_its_id_what_it_brought_and_the_answer() -> None:
    row = answered("hi\u2028\x85", row_id="x", extra={"topic": "ä", "label": [1]})
    assert written([[row]], "jsonl") == (
        '{"id": "x", "topic": "ä", "label": [1], "text": "hi\u2028\x85", "finish_reason": "stop", '
        '"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "reasoning_tokens": 0}, '
        '"model": "m"}\n'
    )


def test_thoughts_seed_and_probabilities_are_there_only_if_there_are_any() -> None:
    bare = answered()
    full = answered(answer={**(bare.answer or {}), "reasoning": "hm", "seed": 0, "logprobs": []})
    first, second = objects(written([[bare], [full]], "jsonl"))
    assert not {"reasoning", "seed", "logprobs"} & first.keys()
    assert (second["reasoning"], second["seed"], second["logprobs"]) == ("hm", 0, [])


def test_the_id_is_as_it_was_given_and_else_the_number() -> None:
    rows = [[answered(row_id=7)], [answered(row_id="7")], [answered(number=3)], [failed(number=4)]]
    assert [row["id"] for row in objects(written(rows, "jsonl"))] == [7, "7", 3, 4]


def test_fields_that_clash_with_owms_own_are_renamed_and_none_is_lost() -> None:
    extra = {"text": 1, "input_text": 2, "model": 3, "id": 4, "answers": 5, "topic": 6}
    (row,) = objects(written([[answered(row_id="x", extra=extra)]], "jsonl"))
    assert {name: row[name] for name in row if name.startswith("input_") or name == "topic"} == {
        "input_text": 1,
        "input_input_text": 2,
        "input_model": 3,
        "input_id": 4,
        "input_answers": 5,
        "topic": 6,
    }
    assert (row["id"], row["text"], row["model"]) == ("x", "hello", "m")


def test_a_failed_row_keeps_what_it_brought() -> None:
    assert objects(written([[failed(row_id="x", extra={"topic": "n"})]], "jsonl")) == [
        {"id": "x", "topic": "n", "error": {"code": "too_long", "message": "the prompt is too long"}}
    ]


def test_several_models_answer_beside_each_other() -> None:
    row = [answered("a", model="m:1"), failed(model="m:2")]
    (read,) = objects(written([row], "jsonl"))
    assert read["answers"]["m:1"]["text"] == "a"
    assert read["answers"]["m:2"] == {"error": {"code": "too_long", "message": "the prompt is too long"}}
    assert "text" not in read
    assert [each["response"] and each["response"]["body"]["model"] for each in objects(written([row], "openai"))] == [
        "m:1",
        None,
    ]
    assert cells(written([row], "csv")) == [
        ["id", "m:1", "m:2", "error"],
        ["1", "a", "", "m:2: the prompt is too long"],
    ]
    assert written([row], "lines") == "a\t\n"


def test_in_jsonl_each_row_has_the_form_that_it_came_in() -> None:
    forms: tuple[Form, ...] = ("plain", "chat", "completion")
    rows = [[answered(number=number, form=form)] for number, form in enumerate(forms)]
    plain, chat, completion = objects(written(rows, "jsonl"))
    assert plain["text"] == "hello"
    assert chat["response"]["body"]["object"] == "chat.completion"
    assert completion["response"]["body"]["object"] == "text_completion"
    assert ["response" in row for row in objects(written(rows, "openai"))] == [True] * 3


def test_a_table_has_its_own_columns_and_then_the_answer() -> None:
    columns = ("id", "answer", "error")
    extra = {"id": "x", "answer": "old", "error": ""}
    text = written([[answered("a,b", row_id="x", extra=extra)], [failed(extra={"id": "y"})]], "csv", columns=columns)
    assert cells(text) == [
        ["id", "answer", "error", "answer_2", "finish_reason", "error_2"],
        ["x", "old", "", "a,b", "stop", ""],
        ["y", "", "", "", "", "the prompt is too long"],
    ]


def test_a_table_of_objects_has_the_fields_of_all_rows() -> None:
    rows = [
        [failed(number=1)],
        [answered("a", row_id="x", extra={"topic": "n", "list": [1, "ä"]})],
        [answered("b", number=3, extra={"more": None, "flag": True})],
    ]
    assert cells(written(rows, "tsv", fields=["topic", "list", "more", "flag"]), "\t") == [
        ["id", "topic", "list", "more", "flag", "answer", "finish_reason", "error"],
        ["1", "", "", "", "", "", "", "the prompt is too long"],
        ["x", "n", '[1, "ä"]', "", "", "a", "stop", ""],
        ["3", "", "", "", "true", "b", "stop", ""],
    ]


def test_an_answer_is_one_line_and_a_failure_an_empty_one() -> None:
    rows = [[answered("a\nb\r\nc\td")], [failed()], [answered("")]]
    assert written(rows, "lines") == "a\\nb\\r\\nc\td\n\n\n"
    assert written([[answered("a\tb", model="m:1"), answered("c", model="m:2")]], "lines") == "a\\tb\tc\n"


@pytest.mark.parametrize("form", get_args(OutputForm))
def test_failures_go_to_their_own_file(form: OutputForm) -> None:
    rows = [[answered("a")], [failed(number=2, row_id="x", extra={"topic": "n"})], [answered("b", number=3)]]
    errors = io.StringIO()
    text = written(rows, form, errors=errors)
    assert objects(errors.getvalue()) == [
        {
            "id": "x",
            "line": 2,
            "model": "m",
            "error": {"code": "too_long", "message": "the prompt is too long"},
        }
    ]
    assert "too_long" not in text
    assert "too long" not in text
    if form == "lines":
        assert text == "a\n\nb\n"
    elif form in ("csv", "tsv"):
        assert [row[-3] for row in cells(text, "\t" if form == "tsv" else ",")[1:]] == ["a", "b"]
    else:
        assert len(objects(text)) == 2


def test_failures_of_openai_s_rows_have_its_form() -> None:
    errors = io.StringIO()
    row = failed(row_id="x", form="chat")
    inside = objects(written([[row]], "jsonl"))
    assert written([[row]], "jsonl", errors=errors) == ""
    assert objects(errors.getvalue()) == inside
    assert (inside[0]["custom_id"], inside[0]["response"]) == ("x", None)


def test_of_several_models_only_the_failed_answer_is_left_out() -> None:
    rows = [
        [answered("a", model="m:1"), failed(model="m:2")],
        [failed(number=2, model="m:1"), failed(number=2, model="m:2")],
    ]
    errors = io.StringIO()
    (row,) = objects(written(rows, "jsonl", errors=errors))
    assert list(row["answers"]) == ["m:1"]
    assert [(error["line"], error["model"]) for error in objects(errors.getvalue())] == [
        (1, "m:2"),
        (2, "m:1"),
        (2, "m:2"),
    ]
    assert cells(written(rows, "csv", errors=io.StringIO()))[1:] == [["1", "a", "", ""]]
    assert written(rows, "lines", errors=io.StringIO()) == "a\t\n\t\n"


@pytest.mark.parametrize("form", get_args(OutputForm))
def test_rows_are_written_as_they_come_and_none_is_kept(form: OutputForm, tmp_path: Path) -> None:
    rows = ([answered("x" * 10_000, number=number)] for number in range(2000))
    with (tmp_path / "out").open("w", newline="") as file:
        tracemalloc.start()
        try:
            write_rows(rows, file, form)
            assert tracemalloc.get_traced_memory()[1] < 5 << 20  # of 20 MB that were written
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("form", ["jsonl", "openai", "lines"])
def test_a_row_is_written_before_the_next_is_there(form: OutputForm) -> None:
    file = io.StringIO()

    def rows() -> Iterator[list[Record]]:
        for number in range(1, 4):
            yield [answered("x", number=number)]
            assert file.getvalue().count("\n") == number

    write_rows(rows(), file, form)


@given(st.lists(st.tuples(_texts, st.dictionaries(_texts, _values, max_size=3)), max_size=5))
def test_what_is_written_as_jsonl_is_read_unchanged(rows: list[tuple[str, dict[str, Any]]]) -> None:
    read = objects(written([[answered(text, extra=extra)] for text, extra in rows], "jsonl"))
    for (text, extra), row in zip(rows, read, strict=True):
        assert row["text"] == text
        assert len(row) == len(extra) + 5
        assert [
            value for name, value in row.items() if name not in ("id", "text", "finish_reason", "usage", "model")
        ] == (list(extra.values()))
    read = objects(written([[answered(text)] for text, _ in rows], "openai"))
    contents = [row["response"]["body"]["choices"][0]["message"]["content"] for row in read]
    assert contents == [text for text, _ in rows]


@given(st.lists(st.tuples(_texts, _texts), max_size=5), st.sampled_from(["csv", "tsv"]), st.booleans())
def test_what_is_written_as_a_table_is_read_unchanged(
    rows: list[tuple[str, str]], form: OutputForm, has_columns: bool
) -> None:
    records = [[answered(text, row_id=key, extra={"topic": key})] for text, key in rows]
    named_by = "columns" if has_columns else "fields"
    text = written(records, form, **{named_by: ["topic"]})
    header, *read = cells(text, "\t" if form == "tsv" else ",")
    for (answer, key), row in zip(rows, read, strict=True):
        named = dict(zip(header, row, strict=True))
        assert (named["answer"], named.get("topic")) == (answer, key)
        assert has_columns or named["id"] == key


@given(st.lists(_texts.filter(lambda text: "\\" not in text), max_size=5))
def test_what_is_written_as_lines_is_read_unchanged(texts: list[str]) -> None:
    lines = written([[answered(text)] for text in texts], "lines").split("\n")[:-1]
    assert [line.replace("\\n", "\n").replace("\\r", "\r") for line in lines] == texts


def test_a_table_that_came_in_goes_out_with_its_own_columns_unchanged() -> None:
    raw = b'id,a,a,\r\n7,"x\r\ny",,"""q"""\r\n'
    with read_rows(None, form="csv", template="{a} {a_2}", stdin=io.BytesIO(raw)) as rows:
        records = [[answered("z", number=row.number, row_id="7", extra=row.extra)] for row in rows]
        assert cells(written(records, "csv", columns=rows.columns)) == [
            ["id", "a", "a_2", "", "answer", "finish_reason", "error"],
            ["7", "x\r\ny", "", '"q"', "z", "stop", ""],
        ]
    assert objects(written(records, "jsonl"))[0]["id"] == "7"
    assert "input_id" not in objects(written(records, "jsonl"))[0]
