"""`owm prompts`: kept from a flag, a file or a pipe, shown as they are."""

import subprocess
import sys
from pathlib import Path

import pytest

from owm.settings.prompts import open_prompts
from support.run import environment, run_here
from support.terminal import Terminal

Capture = pytest.CaptureFixture[str]


def _piped(content: bytes, *args: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "owm", "prompts", *args], input=content, env=environment(), capture_output=True
    )


def test_a_prompt_comes_from_a_flag_a_file_or_a_pipe(tmp_path: Path, capsys: Capture) -> None:
    done = run_here(capsys, "prompts", "save", "flag", "--text", "To {lang}: {input}")
    assert (done, done.exit_code) == ("", 0)
    assert done.stderr == "saved the prompt flag; it needs lang, input\n"
    file = tmp_path / "text.md"
    file.write_text("From a file\n", "utf-8")
    assert run_here(capsys, "prompts", "save", "file", str(file)).stderr == "saved the prompt file\n"
    assert _piped("Größe: {input}\n".encode(), "save", "pipe").returncode == 0
    assert _piped(b"again", "save", "pipe", "-").stderr == b"replaced the prompt pipe\n"
    shown = {name: run_here(capsys, "prompts", "show", name) for name in ("flag", "file", "pipe")}
    assert shown == {"flag": "To {lang}: {input}\n", "file": "From a file\n", "pipe": "again\n"}


def test_the_list(capsys: Capture) -> None:
    assert run_here(capsys, "prompts").stderr.startswith("no prompts are kept; ")
    run_here(capsys, "prompts", "save", "b", "--text", "\nFirst {x}\nsecond \x1b[1m{y}")
    run_here(capsys, "prompts", "save", "a", "--text", "Plain")
    shown = run_here(capsys, "prompts")
    assert [line.split() for line in shown.splitlines()] == [
        ["NAME", "NEEDS", "BEGINS"],
        ["a", "Plain"],
        ["b", "x,", "y", "First", "{x}"],
    ]
    assert run_here(capsys, "prompts", "list") == shown


def test_the_json_has_the_keys_that_programs_rely_on(capsys: Capture) -> None:
    path = str(open_prompts().folder / "a.txt")
    saved = run_here(capsys, "prompts", "save", "a", "--text", "x {y}", "--json").json
    assert saved == {"name": "a", "path": path, "placeholders": ["y"], "is_replaced": False}
    row = {"name": "a", "path": path, "placeholders": ["y"], "text": "x {y}"}
    assert run_here(capsys, "prompts", "--json").json == [row]
    assert run_here(capsys, "prompts", "list", "--json").json == [row]
    assert run_here(capsys, "prompts", "show", "a", "--json").json == row
    assert run_here(capsys, "prompts", "path", "--json").json == {"path": str(open_prompts().folder)}
    assert run_here(capsys, "prompts", "rm", "a", "--json").json == {"name": "a"}
    assert run_here(capsys, "prompts", "--json").json == []


def test_a_broken_prompt_does_not_hide_the_others(capsys: Capture) -> None:
    run_here(capsys, "prompts", "save", "good", "--text", "x")
    (open_prompts().folder / "brace.txt").write_text("a { b\n")
    (open_prompts().folder / "latin.txt").write_bytes(b"\xff\n")
    done = run_here(capsys, "prompts")
    assert [line.split()[0] for line in done.splitlines()] == ["NAME", "brace", "good", "latin"]
    assert "warning: brace: a brace in line 1 of the prompt belongs to no placeholder: {" in done.stderr
    assert "warning: latin: " in done.stderr
    shown = run_here(capsys, "prompts", "show", "brace")
    assert (shown, shown.exit_code) == ("a { b\n", 0)
    assert run_here(capsys, "prompts", "show", "latin").exit_code == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["save", "../x", "--text", "a"], 2, "not a name for a prompt: '../x'"),
        (["save", "x", "--text", " "], 2, "the prompt is empty"),
        (["save", "x", "--text", "{"], 2, "a brace in line 1 of the prompt belongs to no placeholder: {"),
        (["save", "x", "FILE", "--text", "a"], 2, "the text is given twice: --text and a file"),
        (["save", "x", "./none.txt"], 3, "no such file: ./none.txt"),
        (["save", "x", "."], 1, "cannot read .: Is a directory"),
        (["show", "none"], 3, "no prompt named none"),
        (["rm", "none"], 3, "no prompt named none"),
        (["show", "../../etc/passwd"], 2, "not a name for a prompt: '../../etc/passwd'"),
    ],
)
def test_what_cannot_be_is_one_sentence(words: list[str], code: int, message: str, capsys: Capture) -> None:
    done = run_here(capsys, "prompts", *words)
    assert (done, done.exit_code) == ("", code)
    assert f"error: {message}\n" in done.stderr
    assert not open_prompts().folder.exists()


def test_what_a_pipe_brings_has_to_be_text() -> None:
    for content in (b"\xff\xfe", b""):
        done = _piped(content, "save", "x")
        assert done.returncode == 2
        assert done.stderr.startswith((b"error: stdin is not UTF-8 text (byte 0)", b"error: the prompt is empty"))


def test_on_a_terminal_nothing_is_waited_for_and_nothing_steers_it() -> None:
    with Terminal(["prompts", "save", "x"]) as terminal:
        assert terminal.wait_for_end() == 2
        assert "error: no text is given" in terminal.text()
    open_prompts().save("evil", "a\x1b]0;title\x07b")
    with Terminal(["prompts", "show", "evil"]) as terminal:
        assert terminal.wait_for_end() == 0
        assert b"\x1b" not in terminal.raw
        assert "a\\x1b]0;title\\x07b" in terminal.text()
