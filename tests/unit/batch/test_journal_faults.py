"""The journal through kills, power cuts, damage and full disks: a row is there unchanged, or it is not there."""

import errno
import os
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.batch.journal import SYNC_SECONDS, Journal, journal_path, write_error
from owm.batch.record_line import HEADER, mark_line, record_line
from owm.batch.row import Record
from owm.errors import Damaged, NotEnoughDisk, OwmError, StoreError
from support.journals import CHILD, FAILED, child, read, record, said, write
from support.run import run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return journal_path(tmp_path / "out.jsonl")


@pytest.fixture
def sure_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk a thousand times."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


# -- kills and power cuts ----------------------------------------------------------------------------------------------


def test_every_record_that_was_appended_outlives_a_kill(path: Path) -> None:
    code = """
with Journal.open(path) as journal:
    for number in range(journal.n_records + 1, 10**9):
        journal.append(record(number, n_bytes=number % 3 * 5_000))
        print(number, flush=True)
"""
    chance = random.Random(6)
    n_before = 0
    for _ in range(6):
        with child(path, code) as process:
            for _ in range(chance.randrange(1, 200)):
                last = said(process)
        found = read(path)
        assert int(last) <= len(found)
        assert n_before < len(found)
        assert found == [record(number, n_bytes=number % 3 * 5_000) for number in range(1, len(found) + 1)]
        n_before = len(found)


@pytest.mark.parametrize("n_bytes", range(len(HEADER)))
@pytest.mark.parametrize("zeros", [0, 1, 4096, 2 << 20])
def test_a_journal_that_was_only_begun_is_begun_anew(n_bytes: int, zeros: int, path: Path) -> None:
    if n_bytes > 2 and zeros > 1:
        n_bytes = len(HEADER) - 1
    path.write_bytes(HEADER[:n_bytes] + b"\0" * zeros)
    assert read(path) == []
    assert path.read_bytes() == HEADER


@pytest.mark.parametrize("tail", [b"{", record_line(record(3))[:-1], b"\0" * 5000, b"\0" * (3 << 20), b"x" * (2 << 20)])
def test_a_last_line_without_its_end_is_cut_off(tail: bytes, path: Path) -> None:
    write(path, record(1), record(2))
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    with Journal.open(path) as journal:
        assert (journal.n_records, journal.n_damaged) == (2, 0)
        assert path.read_bytes() == whole
        journal.append(record(3))
    assert read(path) == [record(1), record(2), record(3)]


def test_a_huge_tail_of_zeros_is_cut_off_without_being_held(path: Path) -> None:
    write(path, record(1))
    os.truncate(path, 256 << 20)
    tracemalloc.start()
    try:
        assert read(path) == [record(1)]
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_zeros_in_the_midst_cost_the_records_they_cover(path: Path) -> None:
    offsets = write(path, *map(record, range(1, 9)))
    content = bytearray(path.read_bytes())
    content[offsets[2] + 30 : offsets[4] + 30] = bytes(offsets[4] - offsets[2])
    path.write_bytes(content)
    with Journal.open(path) as journal:
        assert [each.number for _, each in journal.scan()] == [1, 2, 6, 7, 8]
        assert (journal.n_records, journal.n_damaged) == (5, 1)
        with pytest.raises(Damaged, match=r"holds no whole row at byte \d+") as caught:
            journal.read(offsets[3])
        assert "computes the row anew" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "wrong", [b"", b"{", HEADER.replace(b"1", b"3", 1), HEADER[1:], b"\0" * 36 + b"\n", b"\xef\xbb\xbf" + HEADER]
)
def test_a_damaged_first_line_costs_no_record(wrong: bytes, path: Path) -> None:
    write(path, record(1), record(2))
    content = wrong + path.read_bytes()[len(HEADER) :]
    path.write_bytes(content)
    assert [each.number for each in read(path)] == ([2] if wrong == b"{" else [1, 2])
    assert path.read_bytes() == content
    write(path, record(3))
    assert read(path)[-1] == record(3)


def test_line_breaks_that_another_program_has_made_cr_lf_cost_nothing(path: Path) -> None:
    write(path, record(1), record(2))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    write(path, record(3))
    with Journal.open(path) as journal:
        found = list(journal.scan())
        assert [journal.read(offset) for offset, _ in found] == [record(1), record(2), record(3)]
        assert journal.n_damaged == 0


def test_two_records_outlive_a_wrong_line_break_between_them(path: Path) -> None:
    offsets = write(path, record(1), record(2), record(3))
    content = bytearray(path.read_bytes())
    content[offsets[1] - 1] ^= 4
    path.write_bytes(content)
    with Journal.open(path) as journal:
        assert list(journal.scan()) == [(offset, record(n)) for n, offset in enumerate(offsets, 1)]
        assert [journal.read(offset) for offset in offsets] == [record(1), record(2), record(3)]


# -- damage by chance --------------------------------------------------------------------------------------------------


def _journal_of(chance: random.Random) -> tuple[bytes, dict[int, Record]]:
    """Make a journal of some records and marks, and say which record lies where."""
    content, records = HEADER, {}
    for number in range(1, chance.randrange(2, 12)):
        each = record(number, text=chance.choice(["", "Grüße", '\n\\"\u2028', "{}" * 40]), n_bytes=chance.randrange(60))
        records[len(content)] = chance.choice([each, each, replace(FAILED, number=number)])
        content += record_line(records[len(content)])
        if chance.random() < 0.2:
            content += mark_line({"form": "csv"})
    return content, records


def _check(path: Path, content: bytes, kept: dict[int, Record], records: dict[int, Record]) -> None:
    """Hold a damaged file against what is to be left of it, and go on with it."""
    path.write_bytes(content)
    try:
        journal = Journal.open(path)
    except OwmError:
        assert not kept
        assert path.read_bytes() == content
        return
    with journal:
        found = [each for _, each in journal.scan()]
        assert all(each in records.values() for each in found)
        assert [each for each in found if each in kept.values()] == list(kept.values())
        assert journal.n_records == len(found)
        assert len(found) + 1 >= len(kept)
        assert [journal.read(offset) for offset, _ in journal.scan()] == found
        offset = journal.append(record(99))
        assert [each for _, each in journal.scan()] == [*found, record(99)]
        assert journal.read(offset) == record(99)


@pytest.mark.usefixtures("sure_disk")
def test_a_journal_cut_anywhere_keeps_every_record_before_the_cut(path: Path) -> None:
    chance = random.Random(1)
    for _ in range(1000):
        content, records = _journal_of(chance)
        end = chance.randrange(len(content) + 1)
        kept = {at: each for at, each in records.items() if at + len(record_line(each)) <= end}
        _check(path, content[:end], kept, records)


@pytest.mark.usefixtures("sure_disk")
@pytest.mark.parametrize("is_bit", [True, False])
def test_a_flipped_byte_anywhere_costs_at_most_its_own_record(is_bit: bool, path: Path) -> None:
    chance = random.Random(2)
    for _ in range(1000):
        content, records = _journal_of(chance)
        place = chance.randrange(len(content))
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8) if is_bit else chance.randrange(1, 256)
        # The last line's break is what makes the line whole; all others may be any byte.
        is_torn = place == len(content) - 1
        kept = {
            at: each for at, each in records.items() if not at <= place < at + len(record_line(each)) - (not is_torn)
        }
        _check(path, bytes(flipped), kept, records)


@pytest.mark.usefixtures("sure_disk")
def test_many_flipped_bytes_leave_no_wrong_record_and_cost_no_record_apart_from_them(path: Path) -> None:
    chance = random.Random(3)
    for _ in range(500):
        content, records = _journal_of(chance)
        places = [chance.randrange(len(content)) for _ in range(chance.randrange(2, 9))]
        damaged = bytearray(content)
        for place in places:
            damaged[place] = chance.choice([0, 10, 13, 32, 34, 44, 123, 125, chance.randrange(256)])
        kept = {
            at: each
            for at, each in records.items()
            if not any(at - 1 <= place < at + len(record_line(each)) for place in places)
        }
        _check(path, bytes(damaged), kept, records)


# -- full disks and failing ones ---------------------------------------------------------------------------------------


def test_a_disk_that_is_full_refuses_a_record_and_keeps_all_before_it(path: Path) -> None:
    code = """
with Journal.open(path) as journal:
    for number in (1, 2):
        journal.append(record(number))
    size = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, resource.RLIM_INFINITY))
    for _ in range(2):
        try:
            journal.append(record(3, n_bytes=5_000))
        except OwmError as error:
            print(type(error).__name__, error, error.needed > 5_000, path.stat().st_size - size)
    print(journal.append(record(4)) - size, journal.n_records)
    try:
        journal.mark_written({"x": "x" * 2_000})
    except OwmError as error:
        print(type(error).__name__, journal.last_written)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.append(record(5, n_bytes=5_000))
"""
    done = run(["-c", CHILD + code, path])
    assert (done.exit_code, done.stderr) == (0, "")
    full, again, *rest = done.splitlines()
    assert full == again
    assert full.startswith(f"NotEnoughDisk the limit on the size of a file is reached: {path} (")
    assert full.endswith(" free, 2 rows are kept) True 0")
    assert rest == ["0 3", "NotEnoughDisk None"]
    assert read(path) == [record(1), record(2), record(4), record(5, n_bytes=5_000)]


@pytest.mark.parametrize("room", [0, 1, len(HEADER) - 1])
def test_a_disk_without_room_for_the_first_line_refuses_and_leaves_an_empty_file(room: int, path: Path) -> None:
    code = f"""
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY))
try: Journal.open(path)
except OwmError as error: print(type(error).__name__)
"""
    assert run(["-c", CHILD + code, path]) == "NotEnoughDisk\n"
    assert path.read_bytes() == b""
    write(path, record(1))
    assert read(path) == [record(1)]


def test_a_restart_on_a_full_disk_is_made_good_by_the_next_record(path: Path) -> None:
    write(path, record(1))
    code = """
with Journal.open(path) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, resource.RLIM_INFINITY))
    try: journal.restart()
    except OwmError as error: print(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(journal.append(record(2)))
"""
    assert run(["-c", CHILD + code, path]) == f"NotEnoughDisk\n{len(HEADER)}\n"
    assert read(path) == [record(2)]


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, NotEnoughDisk, "the disk is full: {} ("),
        (errno.EDQUOT, NotEnoughDisk, "the disk quota is used up: {} ("),
        (errno.EFBIG, NotEnoughDisk, "the limit on the size of a file is reached: {} ("),
        (errno.EIO, StoreError, "cannot write {}: Input/output error (3 rows are kept)"),
        (errno.EROFS, StoreError, "cannot write {}: Read-only file system (3 rows are kept)"),
    ],
)
def test_a_failed_write_says_what_is_wrong_what_is_kept_and_what_to_do(
    number: int, kind: type[OwmError], message: str, path: Path
) -> None:
    error = write_error(OSError(number, os.strerror(number)), path, n_bytes=7, note="3 rows are kept")
    assert type(error) is kind
    assert str(error).startswith(message.format(path))
    assert "3 rows are kept)" in str(error)
    assert error.hint
    if isinstance(error, NotEnoughDisk):
        assert error.needed > error.free > 0


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_record_that_the_disk_does_not_take_is_left_behind_nowhere(
    number: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    with Journal.open(path) as journal:
        journal.append(record(1))
        journal._synced_at -= 2 * SYNC_SECONDS
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OwmError, match="1 row is kept"):
                journal.append(record(2))
            with pytest.raises(OwmError, match="1 row is kept"):
                journal.mark_written({})
            with pytest.raises(OwmError, match="1 row is kept"):
                journal.sync()
        assert [each for _, each in journal.scan()] == [record(1)]
        journal.append(record(2))
    assert read(path) == [record(1), record(2)]


def test_what_can_neither_be_written_nor_cut_off_is_cut_off_by_the_next_record(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write

    def half(fd: int, rest: memoryview) -> int:
        if len(rest) < 100:
            raise KeyboardInterrupt
        return real_write(fd, rest[: len(rest) // 2])

    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Journal.open(path) as journal:
        journal.append(record(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half)
            patch.setattr(os, "ftruncate", fail)
            with pytest.raises(KeyboardInterrupt):
                journal.append(record(2))
        assert path.stat().st_size > journal._end
        assert [each for _, each in journal.scan()] == [record(1)]
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, rest: real_write(fd, rest[:7]))
            journal.append(record(3))
    assert read(path) == [record(1), record(3)]


def test_a_journal_that_another_program_cuts_short_takes_no_more(path: Path) -> None:
    with Journal.open(path) as journal:
        offset = journal.append(record(1))
        os.truncate(path, len(HEADER) + 5)
        with pytest.raises(StoreError, match=r"another program has cut .* short"):
            journal.append(record(2))
        with pytest.raises(Damaged):
            journal.read(offset)
    assert read(path) == []


def test_what_another_program_adds_is_cut_off(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append(record(1))
        with path.open("ab") as other:
            other.write(b"foreign\n")
        assert [each for _, each in journal.scan()] == [record(1)]
        journal.append(record(2))
    assert read(path) == [record(1), record(2)]
