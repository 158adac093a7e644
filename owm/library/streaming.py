"""Batches without a journal: rows from anywhere to answers on stdout, each written as soon as its turn has come."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from owm.batch.row import Record, Row
from owm.batch.runner import Runner
from owm.batch.writing import find_form, write_rows
from owm.errors import UsageError
from owm.library.batch_files import ErrorsFile, count_rows, is_file
from owm.library.batching import (
    Batch,
    BatchModel,
    Outcome,
    Progress,
    Tell,
    check_batch,
    open_rows,
    seed_of_run,
    terms_of,
    too_many,
)

if TYPE_CHECKING:
    from typing import BinaryIO


def stream_batch(
    batch: Batch,
    model: BatchModel,
    file: TextIO,
    *,
    stdin: "BinaryIO | None" = None,
    note: Callable[[str], None] = lambda message: None,
    warn: Callable[[str], None] = lambda message: None,
    tell: Tell = lambda progress: None,
) -> Outcome:
    """Answer all rows into an open file.

    Args:
        warn: is told of failed rows where the output has no place for that.

    Raises:
        OwmError: as `owm.library.batching.run_batch`.
    """
    check_batch(batch, n_models=1)
    seed = seed_of_run(batch, None)
    with ExitStack() as stack:
        rows = stack.enter_context(open_rows(batch, stdin))
        form = batch.output_form or find_form(None, rows.form)
        fields = _fields(batch) if form in ("csv", "tsv") and not rows.columns else ()
        errors = None if batch.errors is None else stack.enter_context(ErrorsFile(batch.errors))
        opened = stack.enter_context(model.open())
        progress = Progress(model.name, count_rows(batch.source, rows))
        queue = _Queue(is_ordered=batch.order == "input")

        def tick() -> None:
            progress.seconds = time.monotonic() - progress.began
            tell(progress)

        runner = Runner(
            opened,
            replace(terms_of(batch, model, run="", seed=seed), is_streamed=batch.order == "input"),
            progress.tally,
            note=note,
            tick=tick,
            n_late=queue.n_late,
        )

        has_breaks = False
        n_failed = 0  # of the rows that were given out
        n_cut = 0

        def say_what_a_line_cannot(record: Record) -> None:
            nonlocal has_breaks
            if record.failure is not None and errors is None:
                warn(f"line {record.number} has no answer: {record.failure.message}")
            elif record.answer is not None and not has_breaks and "\n" in record.answer["text"]:
                has_breaks = True
                note("line breaks inside answers are written as \\n")

        def ready(record: Record) -> Iterator[list[Record]]:
            if form == "lines":
                say_what_a_line_cannot(record)
            nonlocal n_failed, n_cut
            n_cut += record.answer is not None and bool(record.answer.get("is_cut"))
            for each in queue.put(record):
                yield [each]
                n_failed += each.failure is not None
                if each.failure is not None and batch.max_errors is not None and n_failed >= batch.max_errors:
                    file.flush()
                    raise too_many(n_failed, each)
            file.flush()

        def answered() -> Generator[list[Record]]:
            with closing(runner.answers(queue.expect(rows))) as records:
                try:
                    for record in records:
                        yield from ready(record)
                except KeyboardInterrupt:
                    for record in runner.rest():
                        yield from ready(record)
                    raise

        with closing(answered()) as given:  # before the model is, which its thread reads prompts with
            write_rows(given, file, form, columns=rows.columns or None, fields=fields, errors=errors)
        file.flush()
    tally = progress.tally
    return Outcome(tally.n_rows, tally.n_failed, n_cut, seed, (progress,))


def _fields(batch: Batch) -> tuple[str, ...]:
    """Return the fields of all rows, which are the columns of a table: read before the first of them is answered.

    Raises:
        UsageError: the rows can be read only once.
    """
    if not is_file(batch.source):
        raise UsageError(
            "the columns of a table have to be known before its first row", hint="name a file with `-o`, or read one"
        )
    with open_rows(batch, None) as rows:
        return tuple(dict.fromkeys(name for row in rows for name in row.extra))


class _Queue:
    """Records, given out in the order of their rows or as they come."""

    def __init__(self, *, is_ordered: bool) -> None:
        self._is_ordered = is_ordered
        self._expected: deque[str] = deque()
        self._late: dict[str, Record] = {}

    def expect(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Pass rows on, and remember their order."""
        for row in rows:
            if self._is_ordered:
                self._expected.append(row.key)
            yield row

    def put(self, record: Record) -> Iterator[Record]:
        """Take a record; yield all whose turn has come."""
        if not self._is_ordered:
            yield record
            return
        self._late[record.key] = record
        while self._expected and (found := self._late.pop(self._expected[0], None)) is not None:
            self._expected.popleft()
            yield found

    def n_late(self) -> int:
        """Count the records whose turn has not come."""
        return len(self._late)
