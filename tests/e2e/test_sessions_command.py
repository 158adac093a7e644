"""`owm sessions`: conversations listed, shown, searched, exported and removed at the command line."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from owm.chat.session import Session
from owm.chat.sessions import open_sessions
from support.run import run, run_here
from support.terminal import Terminal

Capture = pytest.CaptureFixture[str]
NAMES = ("list", "show", "search", "export", "rm")
ROW_KEYS = {
    "id", "title", "model", "n_turns", "n_branches", "created", "updated", "size_bytes", "path", "damage",
}  # fmt: skip
SHOWN_KEYS = {
    "id", "path", "title", "model", "model_sha256", "created", "system", "settings", "head", "branches", "turns",
    "damage",
}  # fmt: skip


def put(*words: str, title: str | None = None, when: int = 0) -> str:
    with open_sessions().create() as session:
        session.set_model("smollm2:135m", "0" * 64)
        for number, word in enumerate(words):
            session.add_turn("assistant" if number % 2 else "user", word)
        if title is not None:
            session.set_title(title)
    assert session.file is not None
    if when:
        os.utime(session.file, (when, when))
    return session.id


@pytest.mark.parametrize("name", NAMES)
def test_every_subcommand_takes_json_quiet_and_verbose(name: str, capsys: Capture) -> None:
    shown = run_here(capsys, "sessions", name, "--help")
    assert shown.exit_code == 0
    for flag in ("--json", "--quiet", "--verbose"):
        assert flag in shown


def test_no_subcommand_is_missing_above() -> None:
    from owm.cli.sessions import subcommands

    assert sorted(str(command.name) for command in subcommands.registered_commands) == sorted(NAMES)


def test_listing(capsys: Capture) -> None:
    empty = run_here(capsys, "sessions")
    assert (empty, empty.stderr) == ("", "no conversations are kept; `owm chat` begins one\n")
    assert run_here(capsys, "sessions", "--json").json == []
    old, new = put("Why is the sky blue?", "Because.", when=100), put("x", title="work", when=200)
    lines = [line.split() for line in run_here(capsys, "sessions").splitlines()]
    assert lines[0] == ["ID", "TITLE", "MODEL", "TURNS", "USED"]
    assert lines[1][:4] == [new, "work", "smollm2:135m", "1"]
    assert lines[2][:8] == [old, "Why", "is", "the", "sky", "blue?", "smollm2:135m", "2"]
    rows = run_here(capsys, "sessions", "list", "--json").json
    assert [set(row) for row in rows] == [ROW_KEYS, ROW_KEYS]
    assert [row["id"] for row in rows] == [new, old]


def test_listing_imports_no_engine() -> None:
    put("a")
    code = "import sys; sys.argv = ['owm', 'sessions']\nfrom owm.__main__ import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
    done = run(["-c", code])
    assert "smollm2" in done
    assert not {"llama_cpp", "numpy", "jinja2", "requests", "owm.engine", "markdown_it"} & set(done.stderr.split())


def test_showing_one(capsys: Capture) -> None:
    name = put("one\ntwo", "**three**", "four")
    with Session.open(open_sessions().find(name)) as session:
        session.set_system("Be brief.")
        session.add_turn("assistant", "", reasoning="hm, hm", finish_reason="cancelled")
    shown = run_here(capsys, "sessions", "show", name[:5])
    blocks = shown.split("\n\n")
    assert re.fullmatch(rf"one\n{name}, smollm2:135m, begun \d{{4}}-\d\d-\d\d \d\d:\d\d\nsystem: Be brief\.", blocks[0])
    assert re.fullmatch(r"\[1\] \d{4}-\d\d-\d\d \d\d:\d\d  you\n> one\n> two", blocks[1])
    assert re.fullmatch(r"\[2\] \S+ \S+  smollm2:135m\n\*\*three\*\*", blocks[2])
    assert "(a thought of 6 characters, in `--json` and exports)" in blocks[4]
    assert "(cancelled)" in shown
    assert shown.stderr == ""
    found = run_here(capsys, "sessions", "show", "one", "--json").json
    assert set(found) == SHOWN_KEYS
    assert [turn["id"] for turn in found["turns"]] == [1, 2, 3, 4]
    assert (found["head"], found["branches"]) == (4, [{"number": 1, "name": "main", "turn": 4, "is_current": True}])


def test_branches_are_told_of_and_shown(capsys: Capture) -> None:
    name = put("a", "b", "c", "d")
    with Session.open(open_sessions().find(name)) as session:
        session.edit(2)
        session.add_turn("user", "C")
    shown = run_here(capsys, "sessions", "show", name)
    assert re.findall(r"^> (.)", shown, re.MULTILINE) == ["a", "C"]
    assert shown.stderr == "it has 2 branches: 1 (c, 4 turns), 2 (main, 3 turns); `--branch N` shows one\n"
    other = run_here(capsys, "sessions", "show", name, "--branch", "1", "-q")
    assert (re.findall(r"^> (.)", other, re.MULTILINE), other.stderr) == (["a", "c"], "")
    exported = run_here(capsys, "sessions", "export", name, "--branch", "1", "--json").json
    assert [turn["content"] for turn in exported["messages"]] == ["a", "b", "c", "d"]
    missing = run_here(capsys, "sessions", "show", name, "--branch", "9")
    assert (missing.exit_code, missing.stderr) == (3, "error: no branch 9\nhint: there are: 1, main\n")


def test_searching(capsys: Capture) -> None:
    name = put("a quick question", *["quick answer", "quick question"] * 3, title="title")
    shown = run_here(capsys, "sessions", "search", "QUICK", "question").splitlines()
    assert re.fullmatch(rf"{name}  \S+ \S+  title", shown[0])
    assert shown[1:] == [
        "  [1] you: a quick question",
        "  [3] you: quick question",
        "  [5] you: quick question",
        "  … (in 1 turns more)",
    ]
    (row,) = run_here(capsys, "sessions", "search", "answer", "--json").json
    assert set(row) == ROW_KEYS | {"hits"}
    assert row["hits"][0] == {"turn": 2, "role": "assistant", "excerpt": "quick answer"}
    nothing = run_here(capsys, "sessions", "search", "cat")
    assert (nothing, nothing.stderr, nothing.exit_code) == ("", "no session has these words\n", 0)


def test_exporting(capsys: Capture, tmp_path: Path) -> None:
    name = put("Why <b>?", "**Because**")
    assert run_here(capsys, "sessions", "export", name).startswith("# Why <b>?\n")
    assert run_here(capsys, "sessions", "export", name, "--format", "html").startswith("<!DOCTYPE html>")
    for ending, begin in (("md", "# Why"), ("html", "<!DOCTYPE"), ("json", '{\n  "id"'), ("txt", "# Why")):
        file = tmp_path / f"out.{ending}"
        done = run_here(capsys, "sessions", "export", name, "-o", file)
        assert (done, done.stderr) == ("", f"wrote {file}\n")
        assert file.read_text("utf-8").startswith(begin)
    printed = run_here(capsys, "sessions", "export", name, "--json").json
    assert json.loads((tmp_path / "out.json").read_text("utf-8")) == printed
    told = run_here(capsys, "sessions", "export", name, "-o", tmp_path / "a.md", "--json").json
    assert told == {"id": name, "path": str(tmp_path / "a.md"), "format": "md"}
    for words, code, message in (
        (["--format", "pdf"], 2, "no such form: pdf"),
        (["--format", "html", "--json"], 2, "--json is another form than --format html"),
        (["-o", tmp_path], 1, f"cannot write {tmp_path}: "),
        (["-o", tmp_path / "no" / "a.md"], 1, f"cannot write {tmp_path}/no/a.md: "),
    ):
        refused = run_here(capsys, "sessions", "export", name, *words)
        assert (refused, refused.exit_code) == ("", code)
        assert f"error: {message}" in refused.stderr


def test_removing_asks_first_and_takes_whole_names_only(capsys: Capture) -> None:
    name, titled, kept = put("a"), put("b", title="Old work"), put("c")
    refused = run_here(capsys, "sessions", "rm", name)
    assert refused.exit_code == 2
    assert refused.stderr == "error: this removes 1 session\nhint: `owm sessions rm --yes …` does\n"
    short = run_here(capsys, "sessions", "rm", "--yes", name[:6])
    assert (short.exit_code, f"did you mean {name}?" in short.stderr) == (3, True)
    with Terminal(["sessions", "rm", name]) as terminal:
        terminal.wait_for("[y/N]")
        terminal.process.send("n\r")
        assert terminal.wait_for_end() == 0
    assert len(run_here(capsys, "sessions", "--json").json) == 3
    done = run_here(capsys, "sessions", "rm", "-y", name, "old work", name)
    assert done.stderr == f"removed the session {name}\nremoved the session {titled}\n"
    assert run_here(capsys, "sessions", "rm", "-y", kept, "--json").json == [{"id": kept}]
    assert run_here(capsys, "sessions", "--json").json == []


def test_what_steers_a_terminal_is_made_visible_in_a_pipe_too(capsys: Capture) -> None:
    name = put("ask \ud800 \x1b]0;title\x07", "a\x1b[31mred\u202e\x07\n\ttab \ud800")
    for words in (["list"], ["show", name], ["search", "red"], ["export", name], ["show", name, "--json"]):
        shown = run_here(capsys, "sessions", *words)
        assert shown.exit_code == 0
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", shown)
    shown = run_here(capsys, "sessions", "show", name)
    assert "a\\x1b[31mred\\u202e\\x07\n\ttab" in shown
    for words in (["list"], ["show", name], ["search", "red"], ["export", name], ["export", name, "--json"]):
        done = run(["-m", "owm", "sessions", *words])
        assert (done.exit_code, done.stderr) == (0, "")
        with Terminal(["sessions", *words]) as terminal:
            assert terminal.wait_for_end() == 0
            assert not re.search(rb"\x1b\[31mred|\x1b\]|\x07|\xe2\x80\xae", terminal.raw)


def test_damage_is_said_and_the_rest_shown(capsys: Capture) -> None:
    name, whole = put("a", "b"), put("c")
    path = open_sessions().find(name)
    path.write_bytes(path.read_bytes()[:-9])
    lost = f"the file of session {name} is damaged: its last line was not written to its end and is left out"
    for words in (["list"], ["show", name], ["export", name]):
        done = run_here(capsys, "sessions", *words)
        assert (done.stderr, done.exit_code) == (f"warning: {lost}\n", 0)
    assert whole in run_here(capsys, "sessions")
    path.write_bytes(b"something else")
    assert "is not a usable session file" in run_here(capsys, "sessions").stderr
    broken = run_here(capsys, "sessions", "show", name)
    assert (broken, broken.exit_code) == ("", 7)
    assert run_here(capsys, "sessions", "rm", "-y", name).exit_code == 0


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_a_folder_that_may_not_be_read_is_an_error_that_names_it() -> None:
    put("a")
    folder = open_sessions().folder
    folder.chmod(0)
    try:
        done = run(["-m", "owm", "sessions"], unprivileged=True)
    finally:
        folder.chmod(0o700)
    assert (done, done.exit_code) == ("", 1)
    assert done.stderr.startswith(f"error: cannot read {folder}: ")
    shutil.rmtree(folder)
    folder.touch()
    assert run(["-m", "owm", "sessions"]).stderr.startswith(f"error: cannot read {folder}: ")
