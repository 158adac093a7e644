"""What comes in: JSONL, CSV, TSV or plain lines, read as it is needed and never whole, one `Row` at a time.

What is wrong with a row is that row's failure. Only what is wrong with all of them is raised, before the first.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, get_args

from owm.batch import jsonl, openai, table
from owm.batch.fields import FIELDS, Asking, Refused, check_template, conversation, question, read_overrides
from owm.batch.lines import Line, numbered
from owm.batch.pattern import Pattern
from owm.batch.row import Failure, Form, Row
from owm.batch.table import TableRecord
from owm.errors import NotFound, OwmError, UsageError

InputForm = Literal["jsonl", "csv", "tsv", "lines"]

MAX_ID_CHARS = 1024
_ENDINGS: dict[str, InputForm] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "lines",
}
_LINE_NAMES = ("line", "input")
_TABLE_FIELDS = ("max_tokens", "seed", "temp")  # further columns are the user's own
_ROW_FIELDS_BESIDE_PATTERN = frozenset((*FIELDS, "system"))
_ROW_FIELDS = _ROW_FIELDS_BESIDE_PATTERN | {"prompt", "messages"}

_Named = tuple[int, str, str | int | float | None, Failure | None]  # number, key and id, and what is wrong with it


class Rows(Iterator[Row]):
    """The rows of an input, each read when it is asked for. Leaving it as a context closes the file.

    Attributes:
        form: of the input, as it was asked for or found out.
        columns: of a table, in their order.
    """

    def __init__(self, rows: Iterator[Row], form: InputForm, columns: tuple[str, ...], close: Callable[[], None]):
        self.form = form
        self.columns = columns
        self.close = close
        self._rows = rows

    def __next__(self) -> Row:
        return next(self._rows)

    def __enter__(self) -> "Rows":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_rows(
    path: Path | None,
    *,
    form: InputForm | None = None,
    template: str | None = None,
    is_raw: bool = False,
    stdin: BinaryIO | None = None,
) -> Rows:
    """Open an input; its form is found out by its ending, else by its first line.

    Args:
        path: None for stdin, which stays open.
        template: the rows' prompt, with places for their fields.
        is_raw: prompts are sent without a chat template.

    Raises:
        NotFound: there is no such file.
        UsageError: it is a folder, or the template does not fit the input.
        OwmError: it cannot be read. That may come with any row.
    """
    pattern = None if template is None else Pattern(template)
    if form is not None and form not in get_args(InputForm):
        raise UsageError(f"the input's form must be one of {', '.join(get_args(InputForm))}: {form}")
    name = "stdin" if path is None else str(path)
    file = _open(path, stdin)
    # Closing a pipe waits for whoever reads from it.
    close: Callable[[], None] = file.close if path is not None and path.is_file() else _stay_open
    try:
        lines = numbered(file, name)
        form = form or (_ENDINGS.get(path.suffix.lower()) if path is not None else None)
        if form is None:
            form, lines = _find_form(lines, path)
        reader = _Reader(pattern, form, is_raw=is_raw)
        if form in ("csv", "tsv"):
            columns, records = table.open_table(lines, "\t" if form == "tsv" else ",", name)
            return Rows(reader.of_table(columns, records), form, columns, close)
        if form == "lines":
            return Rows(reader.of_lines(lines), form, (), close)
        return Rows(reader.of_jsonl(lines), form, (), close)
    except BaseException:
        close()
        raise


def _open(path: Path | None, stdin: BinaryIO | None) -> BinaryIO:
    if path is None:
        if stdin is None:
            raise UsageError("there is no stdin to read", hint="name a file with rows")
        return stdin
    try:
        return path.open("rb", buffering=1 << 20)
    except FileNotFoundError as error:
        raise NotFound(f"no such file: {path}", hint="check the path") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a folder, not a file with rows") from error
    except OSError as error:
        raise OwmError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in the path
        raise NotFound(f"no such file: {path}") from error


def _stay_open() -> None:
    """Leave stdin to whoever opened it."""


def _find_form(lines: Iterator[Line], path: Path | None) -> tuple[InputForm, Iterator[Line]]:
    for line in lines:
        if line.is_blank:
            continue
        begin = line.raw.lstrip()[:1]
        if begin == b"[" and path is not None and path.suffix.lower() == ".json":
            raise UsageError(f"{path} is one JSON array, not one object a line", hint=f"`jq -c '.[]' {path}`")
        return ("jsonl" if begin == b"{" else "lines"), chain((line,), lines)
    return "lines", lines


class _Reader:
    """Makes rows of what the forms have read, and knows the ids that were there."""

    def __init__(self, pattern: Pattern | None, form: InputForm, *, is_raw: bool) -> None:
        self._pattern = pattern
        self._is_raw = is_raw
        self._unit = "line"
        self._form: Form = "plain"  # of the last object
        self._numbers: dict[str, int] = {}  # of the first row with a key
        self._hash = hashlib.blake2b(form.encode(), digest_size=8)
        if pattern is not None:
            self._hash.update(b"%d\0" % len(pattern.text) + pattern.text.encode())

    def of_lines(self, lines: Iterator[Line]) -> Iterator[Row]:
        """Take each line for a prompt.

        Raises:
            UsageError: the pattern has a place for something else; at once.
        """
        if self._pattern is not None:
            self._pattern.check(_LINE_NAMES, "places of plain lines")
        return (self._of_line(line) for line in lines if not line.is_blank)

    def of_jsonl(self, lines: Iterator[Line]) -> Iterator[Row]:
        """Take each line for an object: a plain row, or one of OpenAI's."""
        return (self._of_json(line) for line in lines if not line.is_blank)

    def of_table(self, columns: tuple[str, ...], records: Iterator[TableRecord]) -> Iterator[Row]:
        """Take each record for a plain row; only few of its columns mean something by themselves.

        Raises:
            UsageError: the pattern names other columns, or there is neither a pattern nor a prompt; at once.
        """
        if self._pattern is not None:
            self._pattern.check(columns, "columns")
        elif "prompt" not in columns:
            raise UsageError(
                "the table has no column `prompt`",
                hint=f'`--prompt "… {{column}} …"` makes one of: {", ".join(filter(None, columns))}',
            )
        self._unit = "record"
        self._hash.update(repr(columns).encode())
        return (self._of_record(record) for record in records)

    def _of_line(self, line: Line) -> Row:
        digest, key = self._digest(line.raw), f"#{line.number}"
        try:
            text = line.text()
            if self._pattern is not None:
                text = self._pattern.fill(dict.fromkeys(_LINE_NAMES, text))
            asking = question(text, None, is_raw=self._is_raw)
        except Refused as error:
            return Row(line.number, key, digest=digest, failure=error.failure)
        return Row(line.number, key, turns=asking.turns, prompt=asking.prompt, digest=digest)

    def _of_json(self, line: Line) -> Row:
        digest = self._digest(line.raw)
        try:
            value, refused = jsonl.parse(line.text())
        except Refused as error:
            # Most likely it was to be what the others are, and whoever reads the output expects their form.
            return Row(line.number, f"#{line.number}", form=self._form, digest=digest, failure=error.failure)
        id_name = "id" if value.get("custom_id") is None else "custom_id"
        named = self._named(value.get(id_name), line.number)
        if self._pattern is None and openai.is_row(value):
            self._form = openai.form_of(value)
            return self._made(
                named, self._form, {}, digest, refused, lambda: openai.read_asking(value, is_raw=self._is_raw)
            )
        self._form = "plain"
        fields = _ROW_FIELDS if self._pattern is None else _ROW_FIELDS_BESIDE_PATTERN
        extra = {name: item for name, item in value.items() if name not in fields and name != id_name}
        return self._made(named, "plain", extra, digest, refused, lambda: self._plain(value))

    def _of_record(self, record: TableRecord) -> Row:
        fields = record.fields
        named = self._named(fields.get("custom_id") or fields.get("id") or None, record.number)
        digest = self._digest(record.raw)
        return self._made(named, "plain", fields, digest, record.refused, lambda: self._recorded(fields))

    def _made(
        self,
        named: _Named,
        form: Form,
        extra: Mapping[str, Any],
        digest: str,
        refused: Refused | None,
        ask: Callable[[], Asking],
    ) -> Row:
        number, key, row_id, failure = named
        if refused is not None:
            failure = refused.failure
        if failure is None:
            try:
                turns, prompt, sampling, wishes = ask()
                return Row(number, key, row_id, form, turns, prompt, sampling, wishes, extra, digest)
            except Refused as error:
                failure = error.failure
        return Row(number, key, row_id, form, extra=extra, digest=digest, failure=failure)

    def _plain(self, value: Mapping[str, Any]) -> Asking:
        system = value.get("system")
        if self._pattern is not None:
            asking = question(self._pattern.fill(value), system, is_raw=self._is_raw)
        else:
            prompt, messages = value.get("prompt"), value.get("messages")
            if prompt is None and messages is None:
                raise Refused("invalid_row", "the row has neither a prompt nor messages")
            if messages is None:
                asking = question(prompt, system, is_raw=self._is_raw)
            elif prompt is None:
                check_template(is_raw=self._is_raw, given={"messages": messages})
                asking = Asking(conversation(messages, system, "messages"))
            else:
                raise Refused("invalid_row", "the row has both a prompt and messages")
        if FIELDS.keys().isdisjoint(value):
            return asking
        sampling, wishes = read_overrides({name: item for name, item in value.items() if name in FIELDS})
        return Asking(asking.turns, asking.prompt, sampling, wishes)

    def _recorded(self, fields: Mapping[str, str]) -> Asking:
        text = fields["prompt"] if self._pattern is None else self._pattern.fill(fields)
        asking = question(text, fields.get("system") or None, is_raw=self._is_raw)
        said = {name: _number(fields[name], name) for name in _TABLE_FIELDS if fields.get(name, "").strip()}
        if not said:
            return asking
        sampling, wishes = read_overrides(said)
        return Asking(asking.turns, asking.prompt, sampling, wishes)

    def _named(self, given: Any, number: int) -> _Named:
        """Return the row's number, key and id, and what is wrong with the id."""
        key = f"#{number}"
        if given is None:
            return number, key, None, None
        if isinstance(given, bool) or not isinstance(given, str | int | float):
            return number, key, None, Failure("invalid_id", "the row's id is neither a text nor a number")
        name = str(given)
        if not name or len(name) > MAX_ID_CHARS:
            wrong = f"longer than {MAX_ID_CHARS} characters" if name else "empty"
            return number, key, None, Failure("invalid_id", f"the row's id is {wrong}")
        # A row without an id has `#` and its number for a key, which an id must not be as well.
        name = f"#{name}" if name.startswith("#") else name
        before = self._numbers.setdefault(name, number)
        if before != number:
            refused = Refused("repeated_id", f"the row's id was there before, at {self._unit} {before}: {given}")
            return number, key, given, refused.failure
        return number, name, given, None

    def _digest(self, raw: bytes) -> str:
        state = self._hash.copy()
        state.update(raw)
        return state.hexdigest()


def _number(text: str, name: str) -> float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise Refused("invalid_value", f"{name} is not a number: {text}")
