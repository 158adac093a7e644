"""What a journal tells of the rows of a batch: which are open, which are not, and in which order they come out."""

from dataclasses import replace
from pathlib import Path

import pytest

from owm.batch.journal import Journal
from owm.batch.ledger import Ledger
from owm.batch.row import Failure, Record, Row
from support.journals import record

MODELS = ("m", "other")


def _row(number: int, **changes: str) -> Row:
    return replace(Row(number, f"row {number}", number, digest=f"{number:016x}"), **changes)


def _failure(number: int, message: str = "no") -> Record:
    return replace(record(number), answer=None, failure=Failure("invalid", message))


def _open(ledger: Ledger, rows: list[Row], model: str = "m", *, is_first: bool = True) -> list[int]:
    return [row.number for row in ledger.open_rows(iter(rows), model, is_first=is_first)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.journal"


def test_open_are_rows_that_are_new_changed_or_failed(path: Path) -> None:
    with Journal.open(path) as journal:
        for each in (record(1), record(2), record(3), _failure(4), replace(record(5), model="gone")):
            journal.append(each)
        ledger = Ledger(journal, MODELS)
        rows = [_row(1), _row(2, digest="f" * 16), _row(3), _row(4), _row(5), _row(6)]
        assert _open(ledger, rows) == [2, 4, 5, 6]
        assert (ledger.n_done("m"), ledger.n_done("other")) == (3, 0)
        assert ledger.n_changed == {"m": 1, "other": 0}
        assert _open(ledger, rows, "other", is_first=False) == [1, 2, 3, 4, 5, 6]
        assert ledger.keys == [f"row {i}" for i in range(1, 7)]
        assert ledger.runs == {"m": {"0" * 16}, "other": set()}


def test_the_last_record_of_a_row_holds(path: Path) -> None:
    with Journal.open(path) as journal:
        for each in (record(1), _failure(1), _failure(2), record(2)):
            journal.append(each)
        ledger = Ledger(journal, MODELS)
        assert _open(ledger, [_row(1), _row(2)]) == [1]
        assert (ledger.n_done("m"), ledger.n_failed()) == (1, 1)
        ledger.put(record(1, text="again"))
        assert ledger.n_failed() == 0
        assert [each.answer and each.answer["text"] for (each,) in ledger.rows(as_done=False)] == ["again", "Grüße"]


def test_a_failure_that_is_known_is_not_written_again(path: Path) -> None:
    with Journal.open(path) as journal:
        ledger = Ledger(journal, MODELS)
        ledger.put(_failure(1))
        assert journal.n_records == 1
        ledger.put(_failure(1))
        assert journal.n_records == 1
        for n, other in enumerate((_failure(1, "why"), replace(_failure(1, "why"), run="1" * 16)), 2):
            ledger.put(other)
            assert journal.n_records == n
        ledger.put(replace(_failure(1), model="other"))
        ledger.put(record(1))
        ledger.put(_failure(1))
        assert journal.n_records == 6


def test_rows_come_in_the_order_of_the_input_or_of_the_journal(path: Path) -> None:
    with Journal.open(path) as journal:
        ledger = Ledger(journal, MODELS)
        for each in (record(3), record(1), record(9), replace(record(3), model="other"), _failure(2)):
            ledger.put(each)
        _open(ledger, [_row(1), _row(2), _row(3)])

        def rows(*, as_done: bool) -> list[list[tuple[str, int]]]:
            return [[(each.model, each.number) for each in several] for several in ledger.rows(as_done=as_done)]

        assert rows(as_done=False) == [[("m", 1)], [("m", 2)], [("m", 3), ("other", 3)]]
        assert rows(as_done=True) == [[("m", 1)], [("m", 3), ("other", 3)], [("m", 2)]]


def test_the_fingerprint_stands_for_rows_and_their_order(path: Path) -> None:
    def fingerprint(*rows: Row) -> str:
        with Journal.open(path) as journal:
            ledger = Ledger(journal, MODELS)
            _open(ledger, list(rows))
            _open(ledger, list(rows), "other", is_first=False)
            return ledger.fingerprint()

    one, two = _row(1), _row(2)
    assert fingerprint(one, two) == fingerprint(one, two)
    others = [fingerprint(), fingerprint(two, one), fingerprint(one), fingerprint(one, replace(two, digest="a"))]
    assert len({fingerprint(one, two), *others}) == 5
    assert fingerprint(replace(one, key="\udcff"))


def test_a_row_without_a_digest_is_a_row(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append(replace(record(1), digest=""))
        assert _open(Ledger(journal, MODELS), [_row(1, digest="")]) == []
