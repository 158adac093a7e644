"""Inputs of a batch: their forms, ids and failures, one row at a time and whatever the bytes are."""

import io
import json
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.batch import lines
from owm.batch.reading import MAX_ID_CHARS, InputForm, read_rows
from owm.batch.row import Row
from owm.engine.wishes import Wishes
from owm.errors import NotFound, OwmError, UsageError


def rows_of(raw: bytes | str, form: InputForm | None = None, **options: Any) -> list[Row]:
    """Read all rows that stand in a text."""
    stdin = io.BytesIO(raw.encode() if isinstance(raw, str) else raw)
    return list(read_rows(None, form=form, stdin=stdin, **options))


def row_of(value: object, **options: Any) -> Row:
    """Read one object of JSONL."""
    (row,) = rows_of(json.dumps(value), "jsonl", **options)
    return row


def failure_of(value: object, **options: Any) -> tuple[str, str]:
    """Return code and message of a row that has to be refused."""
    row = row_of(value, **options)
    assert row.failure is not None
    assert not row.turns
    assert row.prompt is None
    return row.failure.code, row.failure.message


def asked(row: Row) -> str | None:
    """Return the text that a row asks."""
    assert row.failure is None, row.failure
    return row.turns[-1]["content"] if row.turns else row.prompt


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("a.jsonl", '{"prompt": "hello"}', "jsonl"),
        ("a.NDJSON", '{"prompt": "hello"}', "jsonl"),
        ("a.csv", "prompt\nhello\n", "csv"),
        ("a.tsv", "prompt\tx\nhello\t1\n", "tsv"),
        ("a.txt", "hello", "lines"),
        ("a", "\n \n{}\n".replace("{}", '{"prompt": "hello"}'), "jsonl"),
        ("a.json", '{"prompt": "hello"}', "jsonl"),
        ("a", "\nhello\n", "lines"),
        ("a.md", "[hello]", "lines"),
    ],
)
def test_the_form_is_told_by_the_ending_and_else_by_the_first_line(
    tmp_path: Path, name: str, text: str, form: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with read_rows(path) as rows:
        assert rows.form == form
        assert [str(asked(row)).strip("[]") for row in rows] == ["hello"]
    if form in ("jsonl", "lines"):
        with path.open("rb") as stdin:
            assert read_rows(None, stdin=stdin).form == form


def test_a_form_that_is_asked_for_holds_whatever_the_ending_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('{"prompt": "hello"}\n')
    with read_rows(path, form="lines") as rows:
        assert [asked(row) for row in rows] == ['{"prompt": "hello"}']


def test_an_input_that_cannot_be_read_at_all_is_refused_before_the_first_row(tmp_path: Path) -> None:
    array = tmp_path / "rows.json"
    array.write_text('[{"prompt": "a"}]')
    for path, error, message in (
        (tmp_path / "none.jsonl", NotFound, "no such file"),
        (Path("a\0b"), NotFound, "no such file"),
        (tmp_path, UsageError, "is a folder, not a file with rows"),
        (array, UsageError, "is one JSON array, not one object a line"),
        (None, UsageError, "there is no stdin to read"),
    ):
        with pytest.raises(error, match=message):
            read_rows(path)
    with pytest.raises(UsageError, match="must be one of jsonl, csv, tsv, lines: xml"):
        read_rows(array, form="xml")  # type: ignore[arg-type]


def test_a_file_is_closed_after_use_and_stdin_is_not(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("a\nb\n")
    with read_rows(path) as rows:
        next(rows)
    with pytest.raises(ValueError, match="closed file"):
        next(rows)
    stdin = io.BytesIO(b"a\n")
    with read_rows(None, stdin=stdin) as rows:
        list(rows)
    assert not stdin.closed


def test_a_read_error_in_the_midst_is_an_error_that_names_the_file() -> None:
    class Failing(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OwmError, match="cannot read stdin: Input/output error"):
        list(read_rows(None, form="jsonl", stdin=Failing()))


def test_nothing_and_blank_lines_are_no_rows() -> None:
    for form in ("jsonl", "lines"):
        assert rows_of(b"", form) == rows_of(b"\n \r\n\t\n", form) == rows_of(b"\xef\xbb\xbf", form) == []


def test_rows_are_numbered_by_their_lines() -> None:
    read = rows_of('\ufeff\r\n{"prompt": "a"}\r\n\n\n{"prompt": "b"}', "jsonl")
    assert [(row.number, row.key, asked(row)) for row in read] == [(2, "#2", "a"), (5, "#5", "b")]
    read = rows_of("\ufeffa\n\n  b \r\nc", "lines")
    assert [(row.number, asked(row)) for row in read] == [(1, "a"), (3, "  b "), (4, "c")]


def test_a_plain_row_has_a_prompt_or_a_conversation() -> None:
    assert row_of({"prompt": " hello "}).turns == ({"role": "user", "content": " hello "},)
    assert row_of({"prompt": "hello", "system": "be brief"}).turns == (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
    )
    turns = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "user", "content": "b"}]
    assert [turn["content"] for turn in row_of({"messages": turns}).turns] == ["a", "b"]
    assert row_of({"prompt": None, "messages": turns, "system": "s"}).turns[0] == {"role": "system", "content": "s"}
    assert row_of({"prompt": "hello"}, is_raw=True).prompt == "hello"


def test_what_a_row_wishes_is_put_over_what_the_batch_wishes() -> None:
    row = row_of(
        {"prompt": "a", "temperature": 0, "top_k": 5.0, "seed": 7, "max_tokens": 9, "ignore_eos": True, "stop": "x"}
    )
    assert row.sampling == {"temp": 0.0, "top_k": 5, "seed": 7, "ignore_eos": True}
    wishes = row.over(Wishes(stops=("y",), n_ctx=99))
    assert (wishes.sampling.temp, wishes.max_tokens, wishes.stops, wishes.n_ctx) == (0.0, 9, ("x",), 99)
    assert row_of({"prompt": "a", "temp": None, "schema": None}).sampling == {}


def test_further_fields_pass_through_in_their_order() -> None:
    row = row_of({"topic": "n", "prompt": "a", "id": "x", "label": [1, {"y": None}], "temp": 1, "model": "m"})
    assert list(row.extra.items()) == [("topic", "n"), ("label", [1, {"y": None}]), ("model", "m")]
    assert row_of({"custom_id": "x", "id": 5, "prompt": "a"}).extra == {"id": 5}


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ({"q": "a"}, "invalid_row", "the row has neither a prompt nor messages"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "invalid_row", "both a prompt and messages"),
        ({"prompt": ["a"]}, "invalid_row", "prompt must be a text"),
        ({"prompt": ""}, "invalid_row", "prompt is empty"),
        ({"prompt": " \n"}, "invalid_row", "prompt is empty"),
        ({"prompt": "a", "system": 5}, "invalid_value", "system must be a text"),
        ({"messages": []}, "invalid_messages", "messages holds no turns"),
        (
            {"messages": [{"role": "human", "content": "a"}]},
            "invalid_messages",
            'messages, turn 1 has the role "human"',
        ),
        (
            {"messages": [{"role": "user", "content": " "}]},
            "invalid_messages",
            "the last turn of messages asks nothing",
        ),
        ({"messages": [{"role": "system", "content": "a"}]}, "invalid_messages", "asks nothing"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "invalid_messages", "so nothing is asked"),
        (
            {
                "system": "x",
                "messages": [{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}],
            },
            "invalid_messages",
            "are two system prompts",
        ),
        ({"prompt": "a", "temp": "hot"}, "invalid_value", "temp must be a number: 'hot'"),
    ],
)
def test_a_row_that_asks_nothing_sensible_is_a_failure_with_what_stands_beside_it(
    value: dict[str, Any], code: str, message: str
) -> None:
    row = row_of({"custom_id": "x", "topic": "n", **value})
    assert row.failure is not None
    assert row.failure.code == code
    assert message in row.failure.message
    assert (row.key, row.id, row.turns) == ("x", "x", ())
    assert row.extra["topic"] == "n"


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (b"{", "invalid_json", "the line is not JSON: expecting property name"),
        (b'{"prompt": "a"} x', "invalid_json", "the line is not JSON: extra data, column 17"),
        (b"[1]", "invalid_row", "the line is JSON but no object"),
        (b"null", "invalid_row", "the line is JSON but no object"),
        (b'{"prompt": "\xff"}', "invalid_utf8", "the line is not UTF-8 text (byte 12)"),
        (b"\0", "invalid_json", "the line is not JSON"),
    ],
)
def test_a_line_that_is_no_object_is_that_rows_failure(line: bytes, code: str, message: str) -> None:
    before, row, after = rows_of(b'{"prompt": "a"}\n' + line + b'\n{"prompt": "b"}\n', "jsonl")
    assert row.failure is not None
    assert (row.number, row.key, row.id, row.failure.code) == (2, "#2", None, code)
    assert row.failure.message.startswith(message)
    assert (asked(before), asked(after)) == ("a", "b")


def test_half_a_character_is_refused_and_the_rest_of_the_row_stays() -> None:
    (row,) = rows_of(r'{"id": "x", "topic": "\ud800", "prompt": "a"}', "jsonl")
    assert row.failure is not None
    assert (row.key, row.failure.code, row.extra) == ("x", "invalid_json", {"topic": "\ufffd"})


def test_an_unreadable_line_among_openai_rows_is_answered_in_their_form() -> None:
    chat = {"custom_id": "a", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "b"}]}}
    read = rows_of("\n".join(("{", json.dumps(chat), "{", '{"prompt": "a"}', "{")), "jsonl")
    assert [row.form for row in read] == ["plain", "chat", "chat", "plain", "plain"]


@pytest.mark.parametrize("form", get_args(InputForm))
def test_lines_of_any_length_take_no_more_memory_than_is_allowed(
    monkeypatch: pytest.MonkeyPatch, form: InputForm
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 40)
    monkeypatch.setattr("owm.batch.table.MAX_LINE_BYTES", 40)
    if form in ("csv", "tsv"):
        read = rows_of("prompt\nb\n" + "a" * 100 + "\nc\n", form)
        assert [row.failure and row.failure.code for row in read] == [None, "line_too_long"]
        return
    row = '{"prompt": "%s"}' if form == "jsonl" else "%s"
    fits = row % ("a" * (40 - len(row % "")))
    ends = ("\n", "\r\n")
    text = "".join(fits + end + row % ("a" * 41) + end for end in ends) + "  " * 40 + "\n" + row % "z"
    read = rows_of("\ufeff" + text, form)
    codes = [row.failure and row.failure.code for row in read]
    assert codes == [None, "line_too_long", None, "line_too_long", "line_too_long", None]
    assert [row.number for row in read] == [1, 2, 3, 4, 5, 6]


def test_rows_are_read_when_they_are_asked_for_and_none_is_kept() -> None:
    class Endless(io.RawIOBase):
        n_read = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            self.n_read += 1
            return b'{"id": %d, "prompt": "%s"}\n' % (self.n_read, b"x" * 10_000)

    stdin = Endless()
    rows = read_rows(None, stdin=stdin)  # type: ignore[arg-type]
    assert [row.id for row in islice(rows, 3)] == [1, 2, 3]
    assert stdin.n_read == 3
    tracemalloc.start()
    try:
        assert sum(1 for _ in islice(rows, 1000)) == 1000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # of 10 MB that were read
    finally:
        tracemalloc.stop()


def test_the_id_is_the_custom_id_or_the_id_and_else_the_number() -> None:
    read = rows_of(
        "\n".join(
            json.dumps({"prompt": "a", **names})
            for names in ({"custom_id": "x", "id": "y"}, {"custom_id": None, "id": "y"}, {"id": 1.5}, {"id": None})
        ),
        "jsonl",
    )
    assert [(row.id, row.key) for row in read] == [("x", "x"), ("y", "y"), (1.5, "1.5"), (None, "#4")]


def test_a_repeated_id_is_the_failure_of_the_later_row() -> None:
    first, second, third, fourth = rows_of(
        '{"id": 7, "prompt": "a"}\n{"id": "7", "prompt": "b", "topic": "n"}\n'
        '{"custom_id": "7", "prompt": "c"}\n{"id": "8", "prompt": "d"}',
        "jsonl",
    )
    assert (first.key, first.id, first.failure) == ("7", 7, None)
    assert second.failure is not None
    assert second.failure.code == "repeated_id"
    assert second.failure.message == "the row's id was there before, at line 1: 7"
    assert (second.key, second.id, second.extra) == ("#2", "7", {"topic": "n"})
    assert third.failure is not None
    assert fourth.failure is None


def test_no_id_is_the_key_of_a_row_without_one() -> None:
    read = rows_of('{"id": "#2", "prompt": "a"}\n{"prompt": "b"}\n{"id": "##2", "prompt": "c"}', "jsonl")
    assert len({row.key for row in read}) == 3
    assert [row.failure for row in read] == [None] * 3
    assert read[1].key == "#2"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (True, "neither a text nor a number"),
        (["a"], "neither a text nor a number"),
        ({}, "neither a text nor a number"),
        ("", "is empty"),
        ("x" * (MAX_ID_CHARS + 1), f"longer than {MAX_ID_CHARS} characters"),
        (10**MAX_ID_CHARS, f"longer than {MAX_ID_CHARS} characters"),
    ],
)
def test_what_is_no_id_is_refused(given: object, message: str) -> None:
    row = row_of({"id": given, "prompt": "a", "topic": "n"})
    assert row.failure is not None
    assert row.failure.code == "invalid_id"
    assert message in row.failure.message
    assert (row.id, row.key, row.extra) == (None, "#1", {"topic": "n"})


def test_the_digest_is_of_the_row_and_the_template_and_nothing_else() -> None:
    def digest(raw: bytes | str, form: InputForm = "jsonl", **options: Any) -> str:
        return rows_of(raw, form, **options)[-1].digest

    row = '{"prompt": "a", "x": 1}'
    assert digest(row) == digest(f"\n\n{row}\r\n") == digest('{"prompt": "b"}\n' + row)
    assert len(digest(row)) == 16
    different = [
        digest(row),
        digest(row.replace("1", "2")),
        digest(row, template="{x}"),
        digest(row, template="{x} "),
        digest("prompt,x\na,1\n", "csv"),
        digest("prompt,x\na1,\n", "csv"),
        digest("prompt,y\na,1\n", "csv"),
    ]
    assert len(set(different)) == len(different)
    assert digest("prompt,x\na,1\n", "csv") == digest('prompt,x\r\n"a","1"\r\n', "csv")


def test_a_template_is_filled_from_the_fields_of_an_object() -> None:
    row = row_of(
        {"id": 1, "topic": "tea", "list": [1, "ä"], "prompt": "p", "temp": 1, "system": "s"},
        template="{{About}} {topic}, {list}, {prompt}: {topic} {id}",
    )
    assert asked(row) == '{About} tea, [1, "ä"], p: tea 1'
    assert row.turns[0] == {"role": "system", "content": "s"}
    assert row.sampling == {"temp": 1.0}
    assert row.extra == {"topic": "tea", "list": [1, "ä"], "prompt": "p"}
    assert failure_of({"x": 1}, template="{topic} {y}") == (
        "invalid_row",
        "the row has no field for the prompt's topic, y",
    )


def test_with_a_template_an_openai_row_is_a_row_of_fields() -> None:
    row = row_of({"custom_id": "a", "url": "/v1/x", "body": {"n": 3}}, template="{url}: {body}")
    assert (row.form, row.key, asked(row)) == ("plain", "a", '/v1/x: {"n": 3}')


def test_a_template_of_lines_has_one_place() -> None:
    for template in ("Say: {line}!", "Say: {input}!"):
        assert [asked(row) for row in rows_of("a{b}\nc", "lines", template=template)] == ["Say: a{b}!", "Say: c!"]
    with pytest.raises(UsageError, match="not among the places of plain lines: row") as caught:
        read_rows(None, form="lines", template="{row}", stdin=io.BytesIO(b"a"))
    assert caught.value.hint == "there are: line, input"


def test_without_a_chat_template_there_is_no_place_for_a_conversation() -> None:
    turns = [{"role": "user", "content": "a"}]
    assert failure_of({"messages": turns}, is_raw=True)[1] == "--raw sends no template, so messages has no place"
    assert (
        failure_of({"prompt": "a", "system": "b"}, is_raw=True)[1] == "--raw sends no template, so system has no place"
    )
    assert [row.prompt for row in rows_of("a\nb", "lines", is_raw=True)] == ["a", "b"]


def test_a_table_asks_with_a_template_or_a_column_of_prompts() -> None:
    with read_rows(None, form="csv", stdin=io.BytesIO(b"name,age\nAnn,5\n"), template="{name} is {age}") as rows:
        assert rows.columns == ("name", "age")
        assert [asked(row) for row in rows] == ["Ann is 5"]
    assert [asked(row) for row in rows_of("prompt\tx\na\tb\n", "tsv")] == ["a"]
    with pytest.raises(UsageError, match="the table has no column `prompt`") as caught:
        rows_of("a,b\n1,2\n", "csv")
    assert "a, b" in str(caught.value.hint)
    with pytest.raises(UsageError, match="not among the columns: nam") as caught:
        read_rows(None, form="csv", stdin=io.BytesIO(b"name,age\n"), template="{nam}")
    assert caught.value.hint == "did you mean `{name}`? there are: name, age"


def test_only_few_columns_of_a_table_mean_something_and_all_pass_through() -> None:
    table = "custom_id,system,max_tokens,seed,temp,top_k,prompt\nx,be brief,64.0, 7 ,0.5,3,a\n,,,,,,b\n"
    full, bare = rows_of(table, "csv")
    assert (full.key, full.sampling, full.wishes) == ("x", {"seed": 7, "temp": 0.5}, {"max_tokens": 64})
    assert [turn["role"] for turn in full.turns] == ["system", "user"]
    assert list(full.extra) == ["custom_id", "system", "max_tokens", "seed", "temp", "top_k", "prompt"]
    assert full.extra["seed"] == " 7 "
    assert (bare.key, bare.id, bare.sampling, bare.wishes) == ("#2", None, {}, {})
    assert [turn["role"] for turn in bare.turns] == ["user"]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("max_tokens", "many", "max_tokens is not a number: many"),
        ("max_tokens", "1.5", "max_tokens must be a whole number: 1.5"),
        ("max_tokens", "0", "max_tokens must be positive: 0"),
        ("temp", "nan", "temp must be between 0 and 100: nan"),
        ("seed", "-1", "seed must be between 0 and 4294967294: -1"),
        ("seed", "9" * 5000, "seed must be a whole number: inf"),
        ("temp", "a\nb\x1b[2J", "temp is not a number: a b [2J"),
    ],
)
def test_a_wrong_value_in_a_table_is_named(column: str, value: str, message: str) -> None:
    (row,) = rows_of(f'prompt,{column}\na,"{value}"\n', "csv")
    assert row.failure is not None
    assert (row.failure.code, row.failure.message) == ("invalid_value", message)
    assert row.extra == {"prompt": "a", column: value}


def test_a_repeated_id_in_a_table_is_named_by_its_record() -> None:
    first, second = rows_of('id,prompt\n7,"a\n\nb"\n7,c\n', "csv")
    assert first.failure is None
    assert second.failure is not None
    assert second.failure.message == "the row's id was there before, at record 1: 7"
    assert second.extra == {"id": "7", "prompt": "c"}


_words = st.sampled_from(
    ["prompt", "id", "custom_id", "messages", "body", "url", "method", "schema", "stop", "logprobs", "effort", "choice"]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a", "POST"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words | st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_objects = st.dictionaries(_words | st.text(max_size=4), _values, max_size=5).map(lambda value: json.dumps(value))
_pieces = (
    st.binary(max_size=20)
    | st.sampled_from([b"\n", b"\r\n", b"\r", b'"', b",", b"\t", b"\0", b"prompt", b"\xef\xbb\xbf", b"{", b"id"])
    | _objects.map(lambda text: text.encode("utf-8", "surrogatepass") + b"\n")
)


def _read_or_refuse(raw: bytes, form: InputForm | None, *, template: str | None, is_raw: bool) -> Iterator[Row]:
    try:
        rows = read_rows(None, form=form, template=template, is_raw=is_raw, stdin=io.BytesIO(raw))
    except UsageError:
        return
    yield from rows


@given(
    st.lists(_pieces, max_size=12).map(b"".join),
    st.sampled_from([None, *get_args(InputForm)]),
    st.sampled_from([None, "{line}", "{prompt} {id}"]),
    st.booleans(),
)
def test_any_bytes_give_rows_and_never_an_error(
    raw: bytes, form: InputForm | None, template: str | None, is_raw: bool
) -> None:
    keys = []
    for head in (b"", b"id,prompt\n", b"id\tprompt\n"):
        for row in _read_or_refuse(head + raw, form, template=template, is_raw=is_raw):
            keys.append((head, row.key))
            assert (row.failure is None) == (bool(row.turns) or row.prompt is not None)
            said = json.dumps([row.id, row.extra, row.turns], ensure_ascii=False, allow_nan=False)
            said.encode()  # so it can be written
            assert len(row.digest) == 16
            if row.failure is not None:
                assert row.failure.message
                assert not set("\0\r\n\x1b") & set(row.failure.message)
    assert len(set(keys)) == len(keys)
