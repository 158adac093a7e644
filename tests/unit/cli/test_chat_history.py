"""What was typed in chats, kept in a file that may be damaged, too long, unreadable or no file at all."""

import json
import os
import random
from pathlib import Path

import pytest

from owm.cli.chat.history import MAX_BYTES, MAX_ENTRY_BYTES, HistoryFile, whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "history"


def test_what_is_added_is_found_again_by_another_run_in_order(path: Path) -> None:
    for text in ("one", "two\nlines", "猫 🐈\t\x1b"):
        HistoryFile(path).add(text)
    assert HistoryFile(path).load() == ["one", "two\nlines", "猫 🐈\t\x1b"]


def test_only_the_owner_can_read_it(path: Path) -> None:
    HistoryFile(path).add("secret")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    HistoryFile(path).add("secret")
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_path_nothing_is_kept(tmp_path: Path) -> None:
    file = HistoryFile(None)
    file.add("one")
    assert file.load() == []
    assert file.problem is None
    assert not list(tmp_path.iterdir())


def test_damaged_lines_are_left_out_and_the_others_stay(path: Path) -> None:
    for number in range(50):
        HistoryFile(path).add(f"entry {number}")
    good = path.read_bytes()
    chosen = random.Random(7)
    for _ in range(300):
        damaged = bytearray(good[: chosen.randrange(len(good))] if chosen.random() < 0.3 else good)
        for _ in range(chosen.randrange(4)):
            if damaged:
                damaged[chosen.randrange(len(damaged))] = chosen.randrange(256)
        path.write_bytes(bytes(damaged))
        file = HistoryFile(path)
        n_lines = damaged.count(b"\n")
        found = file.load()
        assert file.problem is None
        assert len(found) >= n_lines - 6
        file.add("after")
        assert HistoryFile(path).load()[-1] == "after"


@pytest.mark.parametrize(
    "line", [b"17", b"null", b'["a"]', b'"\\ud800"', b'""', b'"  "', b"\x00" * 9, b"[" * 100_000, b'"\xff"']
)
def test_lines_that_are_no_text_are_left_out(path: Path, line: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(line + b'\n"good"\n')
    assert HistoryFile(path).load() == ["good"]


def test_a_line_that_was_cut_by_a_crash_does_not_spoil_the_next(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'"one"\n"tw')
    HistoryFile(path).add("three")
    assert HistoryFile(path).load() == ["one", "three"]


def test_a_file_that_has_grown_too_long_keeps_its_newest_half(path: Path) -> None:
    path.parent.mkdir()
    lines = [json.dumps(f"{number:06} {'x' * 100}") for number in range(3 * MAX_BYTES // 100)]
    path.write_text("\n".join(lines) + "\n")
    found = HistoryFile(path).load()
    assert found[-1].startswith(f"{len(lines) - 1:06}")
    assert MAX_BYTES // 4 < path.stat().st_size <= MAX_BYTES // 2 + 1
    assert path.stat().st_mode & 0o777 == 0o600
    HistoryFile(path).add("next")
    assert HistoryFile(path).load() == [*found, "next"]
    assert [each.name for each in path.parent.iterdir()] == ["history"]


def test_what_is_very_long_is_not_kept(path: Path) -> None:
    HistoryFile(path).add("x" * MAX_ENTRY_BYTES)
    HistoryFile(path).add("short")
    assert HistoryFile(path).load() == ["short"]


def test_a_folder_in_its_place_is_a_problem_and_no_failure(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path)
    assert file.load() == []
    file.add("one")
    assert file.problem is not None
    assert str(tmp_path) in file.problem


def test_a_folder_that_cannot_be_made_is_a_problem_and_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = HistoryFile(tmp_path / "file" / "history")
    assert file.load() == []
    file.add("one")
    assert file.problem is not None
    assert "cannot" in file.problem


@pytest.mark.parametrize("kind", ["pipe", "null"])
def test_what_is_no_regular_file_is_left_alone_and_nobody_waits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "history"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    file = HistoryFile(path)
    assert file.load() == []
    file.add("one")
    assert HistoryFile(path).load() == []


def test_bytes_of_a_terminal_become_the_characters_they_are() -> None:
    assert whole("caf\udcc3\udca9") == "café"
    assert whole("caf\udce9") == "caf\ufffd"
    assert whole("a\ud800b 🐈") == "a\ufffdb 🐈"
