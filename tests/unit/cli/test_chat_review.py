"""What a review of `owm chat` has found: a full disk, hostile files, and what nobody was told of."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from owm.chat.session import Session
from owm.chat.session_file import SessionFile
from owm.chat.sessions import open_sessions
from owm.errors import NotEnoughDisk
from owm.formats.sealed_lines import seal
from support.chat_front import talk
from support.scripted_gguf import write_scripted_gguf

MOMENT = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_scripted_gguf(tmp_path / "m.gguf", "Hello there.", n_ctx_train=1024)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the disk of sessions is full: one value."""
    is_full = [False]
    write = SessionFile._write

    def written(file: SessionFile, line: bytes) -> None:
        if is_full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, line)

    monkeypatch.setattr(SessionFile, "_write", written)
    return is_full


def filled(disk: list[bool], *lines: str, then: tuple[str, ...] = ()) -> Iterator[str]:
    """Type lines on a full disk, and others once there is room again."""
    disk[0] = True
    yield from lines
    disk[0] = False
    yield from then


def words(session: Session) -> list[str]:
    return [turn.content for turn in session.path()]


def test_a_new_conversation_on_a_full_disk_loses_no_turn_of_the_old_one(model: Path, disk: list[bool]) -> None:
    front, session = talk(model, "Hi", filled(disk, "More", "/new"))
    assert front.heard[-1].startswith("error: the disk is full")
    assert words(session) == ["Hi", "Hello there.", "More", "Hello there."]
    disk[0] = False
    session.close()
    assert session.file is not None
    assert words(Session.read(session.file)) == words(session)


def test_on_a_full_disk_going_back_is_done_and_said(model: Path, disk: list[bool]) -> None:
    front, session = talk(model, "Hi", "More", filled(disk, "/undo", "/retry", "/alt 2", "/fork x"), choices=[None])
    notes = [line for line in front.heard if not line.startswith("error: the disk is full")]
    assert notes[2].startswith("took back: More")
    assert notes[3:6] == ["< Hello there."] * 3
    assert notes[6] == "none was picked; everything is as it was"
    assert notes[7].startswith("this is the branch x now")
    assert words(session) == ["Hi", "Hello there."]


@pytest.mark.parametrize(("choices", "n_turns"), [(["n"], 4), (["y"], 2), ([None], 2)])
def test_who_leaves_with_a_full_disk_is_asked(
    model: Path, disk: list[bool], choices: list[str | None], n_turns: int
) -> None:
    def lines() -> Iterator[str]:
        yield "Hi"
        disk[0] = True
        yield "More"
        yield "/quit"
        disk[0] = False  # not reached by who has left
        yield "/quit"

    front, session = talk(model, lines(), choices=choices)
    assert front.questions == ["what was said last is not on the disk; leave all the same? n/y"]
    assert session.file is not None
    assert len(Session.read(session.file).turns) == n_turns
    if n_turns == 2:
        with pytest.raises(NotEnoughDisk) as caught:
            session.close()
        assert caught.value.hint == "what was not written yet is lost"


def test_an_edited_turn_is_answered_on_a_full_disk(model: Path, disk: list[bool]) -> None:
    front, session = talk(model, "Hi", "More", filled(disk, "/edit 1", "Other"))
    assert "< Hello there." in front.heard[-2:]
    assert words(session) == ["Other", "Hello there."]


def test_what_takes_the_place_of_a_turn_says_so(model: Path) -> None:
    front, session = talk(model, "Hi", "More", "/edit 1", "Other", "Next")
    assert front.heard[2] == "in place of turn 1 of yours; `/branches` has what was there"
    assert words(session) == ["Other", "Hello there.", "Next", "Hello there."]


@pytest.mark.parametrize("overflow", ["ask", "compact", "drop", "error"])
def test_a_first_prompt_that_is_too_long_is_refused_unasked(model: Path, overflow: str) -> None:
    front, session = talk(model, "word " * 500, overflow=overflow)
    assert not front.questions
    assert len(front.heard) == 1
    said = "the conversation has " if overflow == "error" else "this turn alone is too long"
    assert front.heard[0].startswith(f"error: {said}")
    assert front.offered[1] == "word " * 500
    assert not session.turns


@pytest.mark.parametrize("number", ["²", "9" * 5000])
def test_a_number_that_is_none_is_no_mistake_of_owm(model: Path, number: str) -> None:
    front, _ = talk(model, "Hi", f"/save-code x.py {number}")
    assert front.heard[-1].startswith("error: /save-code takes a file and a number")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_that_no_calendar_has_are_left_out(clean_environment: Path, time: str) -> None:
    folder = open_sessions().folder
    folder.mkdir(parents=True)
    turn = {"id": 1, "parent": None, "role": "user", "content": "Hi", "at": MOMENT}
    records = (
        {"owm_session": 1, "id": "a" * 8, "created": time, "owm": "1"},
        {"turn": turn},
        {"turn": {**turn, "id": 2, "parent": 1, "at": time}},
        {"compacted": {"through": 1, "summary": None, "at": time}},
    )
    (folder / f"{'a' * 8}.jsonl").write_bytes(b"".join(map(seal, records)))
    (summary,) = open_sessions().summaries()
    assert summary.n_turns == 1
    assert summary.damage == "the file of session aaaaaaaa is damaged: 1 turn after what is lost is left out"


def test_a_named_pipe_is_not_waited_for(model: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    front, _ = talk(model, f"/file {tmp_path / 'pipe'}")
    assert front.heard == [f"error: {tmp_path / 'pipe'} is no file"]
