"""The journal: what was appended is told again, and nothing that is no journal is touched."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.batch import journal as journal_module
from owm.batch.journal import SYNC_PAUSE_SECONDS, SYNC_RECORDS, SYNC_SECONDS, Journal, journal_path
from owm.batch.record_line import HEADER, mark_line, record_line
from owm.errors import Damaged, MalformedFile, OwmError, StoreError
from owm.formats.sealed_lines import seal
from support.journals import CHILD, FAILED, child, read, record, said, write
from support.run import run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return journal_path(tmp_path / "out.jsonl")


# -- what it holds -----------------------------------------------------------------------------------------------------


def test_the_journal_lies_beside_the_output(tmp_path: Path) -> None:
    assert journal_path(tmp_path / "out.csv") == tmp_path / "out.csv.journal"


def test_a_new_journal_holds_its_first_line_alone(path: Path) -> None:
    with Journal.open(path) as journal:
        assert (journal.n_records, journal.n_damaged, journal.last_written) == (0, 0, None)
        assert list(journal.scan()) == []
    assert path.read_bytes() == HEADER
    assert HEADER.startswith(b'{"owm_batch":1,')


def test_what_was_appended_is_told_in_its_order_with_its_places(path: Path) -> None:
    records = [record(1), FAILED, record(1), replace(record(2), id=None, form="chat", extra={})]
    with Journal.open(path) as journal:
        offsets = [journal.append(each) for each in records]
        assert list(journal.scan()) == list(zip(offsets, records, strict=True))
        assert [journal.read(offset) for offset in reversed(offsets)] == records[::-1]
    with Journal.open(path) as journal:
        assert (journal.n_records, journal.n_damaged) == (4, 0)
        assert list(journal.scan()) == list(zip(offsets, records, strict=True))
        assert journal.append(record(3)) == offsets[-1] + len(record_line(records[-1]))
        assert journal.n_records == 5


def test_a_scan_under_way_ends_where_the_journal_ended_when_it_began(path: Path) -> None:
    write(path, record(1), record(2))
    with Journal.open(path) as journal:
        scan = journal.scan()
        first = next(scan)
        journal.append(record(3))
        assert [each.number for _, each in (first, *scan)] == [1, 2]
        assert [each.number for _, each in journal.scan()] == [1, 2, 3]


@pytest.mark.parametrize("n_bytes", [0, 3_500, 5_000, 1 << 20, (3 << 20) + 1])
def test_records_larger_than_what_is_read_at_once_are_read(n_bytes: int, path: Path) -> None:
    records = [record(number, n_bytes=n_bytes) for number in range(1, 4)]
    offsets = write(path, *records)
    with Journal.open(path) as journal:
        assert [each for _, each in journal.scan()] == records
        assert [journal.read(offset) for offset in offsets] == records


@pytest.mark.parametrize("place", [-1, 0, 1, len(HEADER) + 1, 10_000])
def test_a_place_where_no_record_begins_is_damage(place: int, path: Path) -> None:
    write(path, record(1), record(2))
    with Journal.open(path) as journal, pytest.raises(OwmError) as caught:
        journal.read(place)
    assert isinstance(caught.value, Damaged if place >= 0 else StoreError)


def test_a_mark_holds_until_the_next_record(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append(record(1))
        journal.mark_written({"form": "csv", "models": ("a", "b")})
        assert journal.last_written == {"form": "csv", "models": ["a", "b"]}
    with Journal.open(path) as journal:
        assert journal.last_written == {"form": "csv", "models": ["a", "b"]}
        assert [each.number for _, each in journal.scan()] == [1]
        journal.append(record(2))
        assert journal.last_written is None
    with Journal.open(path) as journal:
        assert (journal.last_written, journal.n_records) == (None, 2)
        journal.mark_written({})
        assert journal.last_written == {}
    path.write_bytes(path.read_bytes() + record_line(record(3))[:-1])
    with Journal.open(path) as journal:
        assert journal.last_written == {}


def test_a_mark_before_a_damaged_line_holds_no_more(path: Path) -> None:
    path.write_bytes(HEADER + mark_line({}) + b"?\n")
    with Journal.open(path) as journal:
        assert (journal.last_written, journal.n_damaged) == (None, 1)


def test_a_restart_forgets_everything(path: Path) -> None:
    write(path, record(1), record(2))
    with Journal.open(path) as journal:
        journal.mark_written({})
        journal.restart()
        assert (journal.n_records, journal.last_written, list(journal.scan())) == (0, None, [])
        journal.append(record(3))
    assert read(path) == [record(3)]


def test_a_journal_may_be_closed_twice(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append(record(1))
        journal.close()
    assert read(path) == [record(1)]


def test_the_error_that_ends_a_batch_is_told_though_the_disk_fails_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def end(error: BaseException | None) -> None:
        with Journal.open(path) as journal:
            journal.append(record(1))
            monkeypatch.setattr(os, "fsync", fail)
            if error:
                raise error

    for error, kind in ((KeyError(), KeyError), (None, StoreError)):
        with monkeypatch.context() as monkeypatch, pytest.raises(kind):
            end(error)
    assert read(path) == [record(1), record(1)]


# -- files that are no journal -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"\n",
        b"{}\n",
        b"hello",
        b"\xff\xfe\x00",
        b'{"prompt": "Hi"}\n' * 10_000,
        b'{"owm_batch": 0}\n',
        b'{"owm_batch": "1"}\n',
        b'{"owm_batch": 1}\n{"number": 1}\n',
        b"\n" + HEADER[:-2] + b"\n",
        b"\0" * 100 + b"x",
        b"\0" * (2 << 20) + b"x",
        HEADER[:10] + b"x",
        HEADER[:-1] + b"?",
        b"\0\n" * 1000,
        b"x" * (3 << 20),
    ],
)
def test_a_foreign_file_is_refused_and_stays_as_it_is(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(MalformedFile, match=r"out\.jsonl\.journal is not a usable journal file") as caught:
        Journal.open(path)
    assert caught.value.hint == f"move {path} away, or write to another file (`-o`)"
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        HEADER.replace(b"1", b"2", 1),
        b'{"owm_batch":2,"crc32":"9e6ad7b1"}\n',
        b'{"owm_batch": 2, "seal": "sha256"}\nwhat a newer owm writes\n',
        b'{"owm_batch": 2}',
    ],
)
def test_a_newer_journal_is_refused_by_name_and_stays_as_it_is(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"newer owm \(journal 2, this one knows 1\)") as caught:
        Journal.open(path)
    assert caught.value.hint == "update owm"
    assert path.read_bytes() == content


def test_a_newer_journal_is_refused_though_its_records_look_alike(path: Path) -> None:
    newer = seal({"owm_batch": 2}) + record_line(record(1))
    path.write_bytes(newer)
    with pytest.raises(StoreError, match="newer owm"):
        Journal.open(path)
    assert path.read_bytes() == newer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "cannot write {}: Is a directory"),
        (os.mkfifo, "{} is not a file"),
        (lambda path: path.symlink_to("/dev/null"), "{} is not a file"),
        (lambda path: path.symlink_to(path), "cannot write {}: Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/nowhere/at/all"), "cannot write {}: No such file or directory"),
    ],
)
def test_what_is_no_file_is_refused_at_once(make: Callable[[Path], Any], message: str, path: Path) -> None:
    make(path)
    with pytest.raises(StoreError) as caught:
        Journal.open(path)
    assert str(caught.value) == message.format(path)
    assert "`-o`" in (caught.value.hint or "")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot write .*/no/out\.journal: No such file or directory"):
        Journal.open(tmp_path / "no/out.journal")


def test_a_link_is_followed_and_locks_what_it_points_to(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "real")
    with Journal.open(path) as journal:
        journal.append(record(1))
        with pytest.raises(StoreError, match="another owm batch is writing"):
            Journal.open(tmp_path / "real")
    assert path.is_symlink()
    assert read(tmp_path / "real") == [record(1)]


@pytest.mark.parametrize(
    ("is_there", "file_mode", "folder_mode", "is_refused"),
    [
        (True, 0o200, 0o755, True),
        (True, 0o400, 0o755, True),
        (True, 0o600, 0o000, True),
        (True, 0o600, 0o500, False),
        (False, 0, 0o500, True),
    ],
)
def test_permissions_refuse_with_one_sentence(
    is_there: bool, file_mode: int, folder_mode: int, is_refused: bool, path: Path
) -> None:
    if is_there:
        write(path, record(1))
        path.chmod(file_mode)
    code = "try: print(Journal.open(path).n_records)\nexcept OwmError as error: print(type(error).__name__, error)"
    path.parent.chmod(folder_mode)
    try:
        done = run(["-c", CHILD + code, path], unprivileged=True)
    finally:
        path.parent.chmod(0o755)
    assert done.stderr == ""
    assert done == (f"StoreError cannot write {path}: Permission denied\n" if is_refused else "1\n")


# -- two at once -------------------------------------------------------------------------------------------------------


def test_a_journal_that_another_process_has_open_is_refused_until_that_ends(path: Path) -> None:
    with child(
        path,
        "journal = Journal.open(path); print('open', flush=True); sys.stdin = open(0); import time\ntime.sleep(60)",
    ) as other:
        assert said(other) == "open"
        before = path.read_bytes()
        with pytest.raises(StoreError) as caught:
            Journal.open(path)
        assert str(caught.value) == f"another owm batch is writing {path.with_suffix('')}"
        assert path.read_bytes() == before
        other.kill()
        other.wait()
        assert write(path, record(1)) == [len(HEADER)]


def test_a_second_process_is_refused_before_it_changes_anything(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append(record(1))
        os.write(journal._fd, b'{"number":2')  # half of an append that is under way
        code = "try: Journal.open(path)\nexcept OwmError as error: print(type(error).__name__)"
        assert run(["-c", CHILD + code, path]) == "StoreError\n"
        assert path.read_bytes().endswith(b'{"number":2')


def test_a_journal_may_be_opened_again_in_one_process_only_when_it_is_closed(path: Path) -> None:
    with Journal.open(path), pytest.raises(StoreError, match="another owm batch"):
        Journal.open(path)
    Journal.open(path).close()
    path.write_bytes(b"foreign")
    for _ in range(2):  # a refused file is not kept locked
        with pytest.raises(MalformedFile):
            Journal.open(path)


def test_a_journal_that_is_removed_while_it_is_opened_is_begun_anew_under_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_lock, removals = journal_module._lock, [path.unlink, lambda: path.rename(path.with_name("moved"))]

    def lock(fd: int) -> None:
        if removals:
            removals.pop()()
            path.touch()
        real_lock(fd)

    monkeypatch.setattr(journal_module, "_lock", lock)
    write(path, record(1))
    assert removals == []
    assert path.read_bytes() == HEADER + record_line(record(1))


# -- groups on the disk ------------------------------------------------------------------------------------------------


def test_records_go_to_the_disk_in_groups_marks_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, synced = [100.0], []
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(now[0]))

    def n_syncs(n_records: int, seconds: float) -> int:
        n_before = len(synced)
        for number in range(n_records):
            now[0] += seconds
            journal.append(record(number))
        return len(synced) - n_before

    with Journal.open(path) as journal:
        assert n_syncs(SYNC_RECORDS - 1, 0.01) == 0
        assert n_syncs(1, 0.01) == 1
        assert n_syncs(5, SYNC_SECONDS) == 5
        assert n_syncs(1000, SYNC_PAUSE_SECONDS / 500) == 2
        journal.sync()
        n_before = len(synced)
        journal.sync()
        assert len(synced) == n_before
        journal.mark_written({})
        assert len(synced) == n_before + 1
        journal.append(record(1))
    assert len(synced) == n_before + 2


def test_many_records_are_surveyed_and_read_fast(path: Path) -> None:
    n_records = 20_000
    line = record_line(record(1, n_bytes=270))
    assert 480 < len(line) < 520
    path.write_bytes(HEADER + line * n_records)
    began = time.process_time()
    with Journal.open(path) as journal:
        assert sum(1 for _ in journal.scan()) == journal.n_records == n_records
    assert time.process_time() - began < 0.8  # 0.2 where nothing else runs


def test_many_records_are_appended_fast(path: Path) -> None:
    n_records = 10_000
    each = record(1, n_bytes=270)
    began = time.process_time()
    with Journal.open(path) as journal:
        for _ in range(n_records):
            journal.append(each)
    assert time.process_time() - began < 0.8  # 0.15 where nothing else runs
