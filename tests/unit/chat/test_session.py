"""A session: what was said is there again, going back loses nothing, and a full disk loses nothing either."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from owm.chat import session_file
from owm.chat.conversation import TITLE_CHARS, beginning
from owm.chat.session import Session
from owm.errors import MalformedFile, NotEnoughDisk, NotFound, OwmError, StoreError, UsageError
from owm.formats.sealed_lines import seal
from support.run import finish, run, start


def talk(session: Session, *words: str) -> None:
    """Add turns of the person and the model in turn."""
    for word in words:
        session.add_turn("assistant" if session.head and session.turns[session.head].role == "user" else "user", word)


def said(session: Session) -> list[str]:
    return [turn.content for turn in session.path()]


def path_of(session: Session) -> Path:
    assert session.file is not None
    return session.file


def state(session: Session) -> dict[str, Any]:
    """Return all that there is to know."""
    names = ("turns", "head", "branch", "system", "model", "model_sha256", "settings", "title", "_names", "_next_id")
    return {name: getattr(session, name) for name in names} | {"condensed": session.condensed()}


def again(session: Session) -> Session:
    """Read a session from its file, and see that nothing is missing."""
    found = Session.read(path_of(session))
    assert found.damage is None
    assert state(found) == state(session)
    assert found.branches() == session.branches()
    return found


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session.create(tmp_path / "sessions")


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_all_that_is_known_of_a_turn_is_there_again(session: Session) -> None:
    session.set_model("smollm2:135m", "ab" * 32)
    session.set_system("Be brief.")
    session.set_settings({"temp": 0.2, "stop": ["\n"]})
    asked = session.add_turn("user", "FILE TEXT\n\nsum it up", typed="sum it up @a.txt", attachments=["a.txt"])
    answer = session.add_turn(
        "assistant", "Grüße \ud800\x1b\n", reasoning="hm", finish_reason="stop", usage={"n_prompt": 7},
        seconds=1.23456, tokens=[1, 2, 3], settings={"seed": 1},
    )  # fmt: skip
    assert (asked.model, asked.words, asked.attachments) == (None, "sum it up @a.txt", ("a.txt",))
    assert (answer.parent, answer.model, answer.model_sha256) == (asked.id, "smollm2:135m", "ab" * 32)
    assert (answer.tokens, answer.seconds, answer.usage) == ((1, 2, 3), 1.235, {"n_prompt": 7})
    found = again(session)
    assert found.created == session.created.replace(microsecond=session.created.microsecond // 1000 * 1000)
    assert found.path() == [asked, answer]
    assert asked.at.utcoffset() is not None


def test_an_answer_of_no_tokens_is_not_an_answer_of_unknown_tokens(session: Session) -> None:
    talk(session, "a")
    session.add_turn("assistant", "", tokens=[], finish_reason="cancelled")
    assert again(session).path()[-1].tokens == ()


def test_each_turn_is_on_the_disk_before_the_next_thing_happens(session: Session, monkeypatch: Any) -> None:
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), synced.append(os.fstat(fd).st_size)))
    for number in range(3):
        session.add_turn("user", str(number))
        assert synced[-1] == path_of(session).stat().st_size
    assert len(synced) == 3


def test_only_its_owner_may_read_it(session: Session, tmp_path: Path) -> None:
    talk(session, "a")
    assert stat.S_IMODE(path_of(session).stat().st_mode) == 0o600
    assert stat.S_IMODE(path_of(session).parent.stat().st_mode) == 0o700
    session.close()
    path_of(session).chmod(0o644)
    (tmp_path / "sessions").chmod(0o755)
    Session.open(path_of(session)).close()
    Session.create(tmp_path / "sessions").close()
    assert stat.S_IMODE(path_of(session).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "sessions").stat().st_mode) == 0o700


def test_a_session_is_gone_on_with(session: Session) -> None:
    talk(session, "a", "b")
    session.close()
    with Session.open(path_of(session)) as opened:
        assert said(opened) == ["a", "b"]
        talk(opened, "c")
        again(opened)
    assert said(Session.read(path_of(session))) == ["a", "b", "c"]


def test_a_session_without_a_turn_leaves_nothing(session: Session) -> None:
    session.set_title("later")
    assert path_of(session).exists()
    session.close()
    session.close()
    assert not path_of(session).exists()


def test_of_a_private_session_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Session.private() as session:
        talk(session, "a", "b", "c")
        session.undo()
        session.fork()
        assert said(session) == ["a", "b"]
        assert session.file is None
    assert list(tmp_path.iterdir()) == []


def test_the_title_is_what_was_asked_first_until_one_is_given(session: Session) -> None:
    assert session.title is None
    session.add_turn("user", "FILE", typed="\n  Why is\tthe sky   blue?\nAnd why not green?")
    assert session.title == "Why is the sky blue?"
    session.set_title("sky")
    assert again(session).title == "sky"
    session.set_title(None)
    assert session.title == "Why is the sky blue?"


@pytest.mark.parametrize("text", ["word " * 100, "x" * 10_000, "日本語" * 50, "a, " * 40])
def test_a_long_beginning_is_cut_and_that_is_seen(text: str) -> None:
    cut = beginning(text)
    assert TITLE_CHARS // 2 < len(cut) <= TITLE_CHARS
    assert cut.endswith("…")
    assert text.startswith(cut[:-1])


# -- going back --------------------------------------------------------------------------------------------------------


def test_undo_takes_back_the_last_question_and_its_answer(session: Session) -> None:
    talk(session, "a", "b", "c", "d")
    assert session.undo().content == "c"
    assert said(session) == ["a", "b"]
    assert session.undo().content == "a"
    assert (said(session), session.head) == ([], None)
    with pytest.raises(UsageError, match="no turn to go back to"):
        session.undo()
    again(session)
    talk(session, "e")
    assert said(again(session)) == ["e"]


def test_retry_answers_the_same_turn_again_and_keeps_the_first_answer(session: Session) -> None:
    talk(session, "a", "b")
    asked = session.retry()
    assert (asked.content, session.head) == ("a", asked.id)
    talk(session, "B")
    assert said(session) == ["a", "B"]
    assert [turn.content for turn in session.children(asked.id)] == ["b", "B"]
    again(session)


def test_edit_goes_to_before_a_turn_of_the_person(session: Session) -> None:
    talk(session, "a", "b", "c", "d", "e", "f")
    assert session.edit(2).content == "c"
    talk(session, "C", "D")
    assert said(session) == ["a", "b", "C", "D"]
    assert session.edit(1).content == "a"
    assert session.head is None
    talk(session, "A")
    assert [turn.content for turn in session.children(None)] == ["a", "A"]
    with pytest.raises(UsageError, match="no turn 2 of yours"):
        session.edit(2)
    again(session)


def test_drafts_side_by_side_go_on_from_one_turn(session: Session) -> None:
    asked = session.add_turn("user", "a")
    drafts = [session.add_turn("assistant", f"draft {number}", parent=asked.id) for number in range(3)]
    session.move_to(drafts[1].id)
    talk(session, "more")
    assert said(again(session)) == ["a", "draft 1", "more"]
    assert [branch.begins for branch in session.branches()] == ["draft 0", "draft 1", "draft 2"]


def test_branches_are_named_numbered_and_switched_between(session: Session) -> None:
    talk(session, "a", "b")
    assert session.fork("idea") == "idea"
    talk(session, "c", "d")
    session.switch("main")
    assert said(session) == ["a", "b"]
    talk(session, "e")
    session.switch("idea")
    talk(session, "f")
    shown = [(each.number, each.name, each.begins, each.n_turns, each.is_current) for each in session.branches()]
    assert shown == [(1, "idea", "c", 5, True), (2, "main", "e", 3, False)]
    session.switch("2")
    assert (said(session), session.branch) == (["a", "b", "e"], "main")
    assert session.fork() == "fork-1"
    assert session.fork() == "fork-2"
    again(session)


def test_what_was_undone_is_a_branch_that_can_be_switched_to(session: Session) -> None:
    talk(session, "a", "b", "c", "d")
    session.undo()
    shown = [(each.number, each.name, each.begins, each.is_current) for each in session.branches()]
    assert shown == [(1, "main", "a", True), (2, None, "c", False)]
    session.switch("2")
    assert (said(session), session.branch) == (["a", "b", "c", "d"], None)
    talk(session, "e")
    assert session.branches()[1].n_turns == 5
    session.switch("main")
    assert said(again(session)) == ["a", "b"]


def test_two_names_for_one_place_both_lead_there_and_part_later(session: Session) -> None:
    talk(session, "a")
    session.fork("one")
    session.fork("two")
    session.switch("one")
    talk(session, "b")
    session.switch("main")
    assert said(session) == ["a"]
    session.switch("two")
    assert (said(session), session.branch) == (["a"], "two")
    again(session)


@pytest.mark.parametrize("name", ["", " a", "3", "a\nb", "main"])
def test_what_is_no_name_for_a_branch_is_refused(name: str, session: Session) -> None:
    with pytest.raises(UsageError):
        session.fork(name)


def test_no_such_branch_and_no_such_turn_are_errors(session: Session) -> None:
    talk(session, "a")
    with pytest.raises(NotFound) as caught:
        session.switch("nowhere")
    assert caught.value.hint == "there are: main"
    for move in (lambda: session.move_to(9), lambda: session.compact(9, None)):
        with pytest.raises(UsageError, match="no turn 9"):
            move()


# -- what the model is to read -----------------------------------------------------------------------------------------


def test_a_compaction_stands_for_the_turns_that_it_tells_of_on_every_branch_that_has_them(session: Session) -> None:
    talk(session, "a", "b", "c", "d", "e")
    session.compact(2, "they said a and b")
    compaction, rest = session.condensed()
    assert compaction is not None
    assert (compaction.summary, [turn.content for turn in rest]) == ("they said a and b", ["c", "d", "e"])
    assert said(session) == ["a", "b", "c", "d", "e"]
    session.compact(4, None)
    compaction, rest = session.condensed()
    assert compaction is not None
    assert (compaction.summary, [turn.content for turn in rest]) == (None, ["e"])
    session.edit(2)
    talk(session, "C")
    compaction, rest = again(session).condensed()
    assert compaction is not None
    assert (compaction.through, [turn.content for turn in rest]) == (2, ["C"])
    session.edit(1)
    assert session.condensed() == (None, [])
    again(session)


# -- other processes and failures --------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from owm.chat.session import Session
session = Session.open(Path(sys.argv[1]))
session.add_turn("assistant", "from another process")
print("open", flush=True)
sys.stdin = None
import time; time.sleep(60)
"""


def test_a_second_process_may_look_but_not_write_until_the_first_is_gone(session: Session) -> None:
    talk(session, "a")
    session.close()
    path = path_of(session)
    process = start(["-c", HOLD, path])
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        for refused in (lambda: Session.open(path), lambda: session_file.remove(path)):
            with pytest.raises(StoreError, match=f"another owm has the session {session.id} open"):
                refused()
        looked = Session.read(path)
        assert said(looked) == ["a", "from another process"]
        with pytest.raises(UsageError, match="not open for writing"):
            looked.undo()
    finally:
        process.kill()
        finish(process)
    with Session.open(path) as opened:
        assert said(opened) == ["a", "from another process"]


def test_after_closing_nothing_more_is_taken(session: Session) -> None:
    talk(session, "a")
    session.close()
    with pytest.raises(UsageError, match="not open for writing"):
        talk(session, "b")
    assert said(session) == ["a"]


FULL = """
import resource, signal, sys
from pathlib import Path
from owm.chat.session import Session
from owm.errors import NotEnoughDisk
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
session = Session.create(Path(sys.argv[1]))
session.add_turn("user", "a")
resource.setrlimit(resource.RLIMIT_FSIZE, (session.file.stat().st_size + 50, resource.RLIM_INFINITY))
for role, words in (("assistant", "b" * 200), ("user", "c")):
    try:
        session.add_turn(role, words)
    except NotEnoughDisk as error:
        print(session.n_unwritten, len(Session.read(session.file).turns), Session.read(session.file).damage, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
session.add_turn("assistant", "d")
print(session.n_unwritten)
session.close()
print([turn.content[:1] for turn in Session.read(session.file).path()])
"""


def test_what_finds_no_room_is_said_and_written_when_there_is_some(tmp_path: Path) -> None:
    done = run(["-c", FULL, tmp_path / "sessions"])
    first, second, *rest = done.splitlines()
    assert first.startswith("1 1 None the limit on the size of a file is reached: ")
    assert second.startswith("2 1 None the limit on the size of a file is reached: ")
    assert rest == ["0", "['a', 'b', 'c', 'd']"]
    assert done.stderr == ""


def test_a_disk_that_stays_full_is_said_again_at_the_end(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    talk(session, "a")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NotEnoughDisk, match="the disk is full: "):
            talk(session, "b")
        assert said(session) == ["a", "b"]
        with pytest.raises(NotEnoughDisk):
            session.close()
    found = Session.read(path_of(session))
    assert (said(found), found.damage) == (["a"], None)


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "sessions"):
        with pytest.raises(StoreError, match="file"):
            Session.create(folder)
    (tmp_path / "closed").mkdir(mode=0o500)
    code = "import sys; from pathlib import Path; from owm.chat.session import Session\n"
    code += "from owm.errors import OwmError\n"
    code += "try:\n    Session.create(Path(sys.argv[1]))\nexcept OwmError as error:\n    print(type(error), error)"
    done = run(["-c", code, tmp_path / "closed" / "sessions"], unprivileged=True)
    assert "StoreError" in done
    assert f"cannot write {tmp_path}/closed/sessions/" in done


def test_a_file_that_was_removed_or_cut_meanwhile_is_an_error(session: Session) -> None:
    talk(session, "a")
    path_of(session).write_bytes(b"")
    with pytest.raises(StoreError, match="another program has cut short"):
        talk(session, "b")
    path_of(session).unlink()
    with pytest.raises(StoreError, match="another program has removed"):
        session.close()
    assert said(session) == ["a", "b"]


def test_what_is_no_session_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "00000000.jsonl"
    for content, kind in [
        (b"notes\n", MalformedFile),
        (b'{"owm_batch":1,"crc32":"00000000"}\n', MalformedFile),
        (seal({"owm_session": 2}), StoreError),
    ]:
        path.write_bytes(content)
        for opened in (Session.open, Session.read):
            with pytest.raises(kind):
                opened(path)
        assert path.read_bytes() == content
    with pytest.raises(NotFound, match="no session 11111111"):
        Session.open(tmp_path / "11111111.jsonl")
    path.unlink()
    path.mkdir()
    for opened in (Session.open, Session.read):
        with pytest.raises(OwmError):
            opened(path)


def test_a_kill_between_two_turns_loses_none(session: Session) -> None:
    talk(session, "a")
    session.close()
    code = "import os, sys; from pathlib import Path; from owm.chat.session import Session\n"
    code += "session = Session.open(Path(sys.argv[1]))\nfor n in range(20): session.add_turn('user', str(n))\n"
    code += "os.kill(os.getpid(), 9)"
    assert run(["-c", code, path_of(session)]).exit_code == -9
    with Session.open(path_of(session)) as opened:
        assert opened.damage is None
        assert said(opened) == ["a", *map(str, range(20))]
