"""What processes that were killed leave of files that are written in one step: it goes with the next write."""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from owm.formats.imatrix import Entry, Imatrix, write_imatrix
from owm.publishing import publish_text, replacing
from owm.temporary import temporary_folder
from support.dying import die

PUBLISH = "from pathlib import Path; from owm.publishing import publish_text; publish_text(Path({0}), 'new')"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "aliases.json"
    path.write_text("old")
    die("os.rename", "aliases.json", PUBLISH, path)
    assert path.read_text() == "old"
    left = [name for name in names(tmp_path) if name != "aliases.json"]
    assert len(left) == 1
    assert left[0].endswith(".incomplete")
    publish_text(path, "newer")
    assert (names(tmp_path), path.read_text()) == (["aliases.json"], "newer")


def test_what_a_running_process_writes_stays(tmp_path: Path) -> None:
    path, other = tmp_path / "aliases.json", tmp_path / "aliases.json.7.incomplete"
    with open(other, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        publish_text(path, "new")
        assert names(tmp_path) == ["aliases.json", "aliases.json.7.incomplete"]
    publish_text(path, "new")
    assert names(tmp_path) == ["aliases.json"]


def test_what_is_being_written_is_held(tmp_path: Path) -> None:
    path = tmp_path / "aliases.json"
    with replacing(path) as file:
        file.write(b"new")
        (partial,) = tmp_path.iterdir()
        with open(partial, "rb") as seen, pytest.raises(BlockingIOError):
            fcntl.flock(seen, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert path.read_bytes() == b"new"


def test_files_of_other_names_stay(tmp_path: Path) -> None:
    others = ["aliases.json.incomplete", "aliases.json.x7.incomplete", "aliases.json.7.incomplete.txt",
              "xaliases.json.7.incomplete", "aliasesxjson.7.incomplete"]  # fmt: skip
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / "aliases.json.8.incomplete").mkdir()
    publish_text(tmp_path / "aliases.json", "new")
    assert names(tmp_path) == sorted(["aliases.json", "aliases.json.8.incomplete", *others])


def test_a_link_among_the_leftovers_leads_to_no_other_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "aliases.json.7.incomplete").symlink_to(mine)
    publish_text(tmp_path / "aliases.json", "new")
    assert mine.read_text() == "mine"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "aliases.json"
    path.write_text("old")
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"new", "no bytes"])  # type: ignore[list-item]
    assert (names(tmp_path), path.read_text()) == (["aliases.json"], "old")


def _imatrix(path: Path) -> None:
    sums, counts = np.ones((1, 8), np.float32), np.array([4], np.int64)
    write_imatrix(Imatrix({"blk.0.attn_q.weight": Entry(sums, counts)}, ("prose.txt",), 1, 4), path)


def _token(path: Path) -> None:
    from owm.store.sources import hub_login

    hub_login._write_secret(path, "hf_aVeryGoodTokenOfAda")


def _history(path: Path) -> None:
    from owm.cli.chat import history

    path.write_bytes(b"x" * 99 + b"\n" + (b"a" * 99 + b"\n") * (history.MAX_BYTES // 100 + 1))
    history.HistoryFile(path).load()
    assert path.stat().st_size <= history.MAX_BYTES // 2


@pytest.mark.parametrize("write", [_imatrix, _token, _history])
def test_others_that_write_in_one_step_do_so_too(write: Callable[[Path], None], tmp_path: Path) -> None:
    left = tmp_path / "file.7.incomplete"
    left.write_text("hf_left")
    write(tmp_path / "file")
    assert names(tmp_path) == ["file"]


def test_a_temporary_folder_of_a_killed_process_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    die(
        "os.listdir",
        "none",
        "import os; from owm.temporary import temporary_folder as make\n"
        "with make() as folder: (folder / 'header.gguf').touch(); os.listdir('none')",
    )
    (left,) = tmp_path.glob("owm-tmp-*/header.gguf")
    others = ["owm-tmp-notes", "owm-notes", "owm-tmp-0123456x.txt"]  # of the user
    for name in others:
        (tmp_path / name).mkdir()
    with temporary_folder() as outer, temporary_folder() as inner:
        assert not left.exists()
        assert outer.stat().st_mode & 0o777 == 0o700
        assert names(tmp_path) == sorted([outer.name, inner.name, *others])  # that of a running process stays
    assert names(tmp_path) == sorted(others)


def test_a_link_that_is_called_like_a_temporary_folder_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    (tmp_path / "tmp" / "owm-tmp-01234567").symlink_to(tmp_path / "mine")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with temporary_folder():
        pass
    assert names(tmp_path / "mine") == ["file"]


NOTE = """
from pathlib import Path
from owm.store.refs import ModelRef
from owm.store.sources.base import Offer
from owm.store.sources.hub import HubSource
offer = Offer(ref=ModelRef("hub", "me/tiny"), source="hub", name="me/tiny", revision="main", commit="b" * 40, files=())
HubSource(Path({0}))._note_revision(offer, "b" * 40)
"""


def test_a_branch_in_the_hub_cache_leads_to_one_commit_or_the_other(tmp_path: Path) -> None:
    repo = tmp_path / "models--me--tiny"
    ref = repo / "refs" / "main"
    ref.parent.mkdir(parents=True)
    (repo / "blobs").mkdir()
    (tmp_path / ".locks" / repo.name).mkdir(parents=True)
    ref.write_text("a" * 40)
    die("os.rename", "refs/main", NOTE, tmp_path)
    assert ref.read_text() == "a" * 40
    assert names(ref.parent) == ["main"]  # the library takes whatever lies there for a branch
    assert names(repo / "blobs") == ["ref.owm.incomplete"]
    exec(NOTE.format(repr(str(tmp_path))), {})
    assert ref.read_text() == "b" * 40
    assert names(repo / "blobs") == []


def test_a_killed_chat_leaves_no_session_without_its_first_line(tmp_path: Path) -> None:
    from owm.chat.session import Session

    begin = "from pathlib import Path; from owm.chat.session import Session; Session.create(Path({0}))"
    folder = tmp_path / "sessions"
    for event, name in (("os.link", ".jsonl.incomplete"), ("os.remove", ".jsonl.incomplete"), ("os.listdir", "none")):
        if event == "os.listdir":  # killed after it was begun, before anything was said
            begin += "; import os; os.listdir('none')"
        die(event, name, begin, folder)
        assert all(Session.read(path).damage is None for path in folder.glob("*.jsonl"))
    assert len(names(folder)) == 1  # each sweeps away what the one before it left
    with Session.create(folder) as session:
        assert names(folder) == [f"{session.id}.jsonl"]
        with Session.create(folder) as other:  # one in which nothing is said yet, but that is open
            assert names(folder) == sorted([f"{session.id}.jsonl", f"{other.id}.jsonl"])
        session.add_turn("user", "one")
    with Session.create(folder):
        assert f"{session.id}.jsonl" in names(folder)
    assert json.loads((folder / f"{session.id}.jsonl").read_bytes().split(b"\n")[0])["id"] == session.id
    assert os.listdir(folder) == [f"{session.id}.jsonl"]
