"""Damaged sessions: everything before the damage is there, a line says what was lost, and nothing else comes of it."""

import os
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from owm.chat.session import Session
from owm.chat.sessions import Sessions

SEED = 7
N_DAMAGES = 1000


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a conversation with branches and everything else that a line can say."""
    chance = random.Random(SEED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        with Session.create(tmp_path_factory.mktemp("sessions")) as session:
            session.set_model("smollm2:135m", "0" * 64)
            session.set_system("Be brief.\n")
            for number in range(12):
                session.add_turn("user", f"question {number} " + "ü{\n" * chance.randrange(8), typed=f"q {number}")
                tokens = [chance.randrange(50_000) for _ in range(20)]
                session.add_turn("assistant", f"answer {number}", reasoning="hm", tokens=tokens, usage={"n": 20})
                if number % 4 == 2:
                    session.retry()
                    session.add_turn("assistant", "another")
                if number == 6:
                    session.fork("idea")
                    session.compact(4, "so far")
            session.set_title("a title")
            assert session.file is not None
    return session.file.read_bytes()


def damages(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Give damaged contents, and where the damage begins: a third is cut short, the others have flipped bits."""
    chance = random.Random(SEED)
    for number in range(N_DAMAGES):
        places = [chance.randrange(len(content)) for _ in range((0, 1, chance.randrange(2, 9))[number % 3])]
        if not places:
            place = chance.randrange(len(content))
            yield content[:place], place
            continue
        flipped = bytearray(content)
        for place in places:
            flipped[place] ^= chance.randrange(1, 256)
        yield bytes(flipped), min(places)


@pytest.mark.slow
def test_all_that_stands_before_the_damage_is_there_and_what_is_lost_is_said(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    path = tmp_path / "00000000.jsonl"
    path.write_bytes(content)
    whole = Session.read(path)
    assert (whole.damage, len(whole.turns), len(whole.branches())) == (None, 27, 5)
    lines = content.splitlines()
    for changed, place in damages(content):
        path.write_bytes(changed)
        looked = Session.read(path)
        before = [line for line in content[:place].split(b"\n") if line in lines]
        n_before = sum(line.startswith(b'{"turn":') for line in before)
        assert list(looked.turns.items())[:n_before] == list(whole.turns.items())[:n_before]
        assert all(whole.turns[turn.id] == turn for turn in looked.turns.values())
        is_cut = len(changed) < len(content)
        if is_cut:
            is_lost = place == 0 or changed.rpartition(b"\n")[2] not in (b"", *lines)
        else:
            is_lost = any(line not in changed for line in lines)
        assert (looked.damage is not None) == is_lost, looked.damage
        with Session.open(path) as opened:
            assert (opened.damage, opened.turns) == (looked.damage, looked.turns)
            added = opened.add_turn("user", "and now?")
        after = Session.read(path)
        assert after.turns == {**looked.turns, added.id: added}
        assert after.path()[-1] == added
        assert after.damage is None or not is_cut


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda content: content.replace(b"question 11", b"question XX"), "line 34 is not as written and left out, and"
         " 1 turn after what is lost is left out"),
        (lambda content: content.replace(b"answer 11", b"answer XX"), "line 35 is not as written and left out"),
        (lambda content: content.replace(b"a title", b"A TITLE"), "line 36 is not as written and left out"),
        (lambda content: content.replace(b"question", b"QUESTION"), "lines"),
        (lambda content: content.replace(b"owm_session", b"OWM_SESSION"), "line 1 is not as written and left out"),
        (lambda content: content[:-9], "its last line was not written to its end and is left out"),
        (lambda content: content + b"\0" * 5000, "its last line was not written to its end and is left out"),
        (lambda content: b"", "nothing is left of it"),
        (lambda content: content[:9], "its last line was not written to its end and is left out"),
        (lambda content: content.partition(b"\n")[2], "its first line is lost"),
    ],
)  # fmt: skip
def test_what_is_lost_is_said_in_one_sentence(
    change: Callable[[bytes], bytes], lost: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "00000000.jsonl"
    path.write_bytes(change(content))
    with Session.open(path) as session:
        assert (session.damage or "").startswith(f"the file of session 00000000 is damaged: {lost}")
        assert "\n" not in (session.damage or "")
        session.add_turn("user", "and now?")
    assert Session.read(path).path()[-1].content == "and now?"


@pytest.mark.parametrize("wrong", [b"\0", b" ", b"\r", b"{"])
def test_a_line_break_that_has_become_another_byte_loses_nothing(wrong: bytes, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "00000000.jsonl"
    path.write_bytes(content)
    whole = Session.read(path)
    breaks = [place for place, byte in enumerate(content) if byte == 10]
    for place in breaks:
        path.write_bytes(content[:place] + wrong + content[place + 1 :])
        found = Session.read(path)
        assert (found.damage, found.turns, found.head) == (None, whole.turns, whole.head)
    path.write_bytes(content.replace(b"\n", b"\r\n"))
    assert Session.read(path).damage is None
    for first, second in pairwise(breaks[:-1]):  # then the line between the two cannot be told from what is in lines
        changed = bytearray(content)
        changed[first] = changed[second] = wrong[0]
        path.write_bytes(changed)
        assert Session.read(path).damage is not None


def test_the_id_of_a_turn_that_was_lost_is_not_given_to_another_that_others_go_on_from(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "00000000.jsonl"
    path.write_bytes(content.replace(b"question 11", b"question XX"))
    with Session.open(path) as session:
        assert session.add_turn("user", "new").id == 28
    assert 27 not in Session.read(path).turns


def test_a_list_tells_of_damaged_sessions_and_goes_on(content: bytes, tmp_path: Path) -> None:
    folder = Sessions(tmp_path)
    (tmp_path / "00000000.jsonl").write_bytes(content[:-9])
    (tmp_path / "11111111.jsonl").write_bytes(b"no session")
    (tmp_path / "22222222.jsonl").write_bytes(content)
    told = {summary.id: summary for summary in folder.summaries()}
    assert told["22222222"].damage is None
    assert (told["00000000"].n_turns, "is damaged" in (told["00000000"].damage or "")) == (27, True)
    assert (told["11111111"].n_turns, told["11111111"].title) == (0, None)
    assert "is not a usable session file" in (told["11111111"].damage or "")
    assert {each.summary.id for each in folder.search("3")} == {"00000000", "22222222"}
    folder.remove(folder.find("11111111"))
    assert len(folder.summaries()) == 2
