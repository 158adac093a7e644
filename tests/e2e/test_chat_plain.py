"""`owm chat` as lines in and out: the real program in pipes, with tiny models that say what is wanted."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from owm.chat.session import Session
from owm.chat.sessions import open_sessions
from support.run import Output, environment
from support.scripted_gguf import write_scripted_gguf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_scripted_gguf(tmp_path / "m.gguf", "**Hello** there.", n_ctx_train=2048)


def chat(*args: str | Path, lines: str | bytes = "", env: Mapping[str, str | None] | None = None) -> Output:
    given = lines.encode() if isinstance(lines, str) else lines
    done = subprocess.run(
        [sys.executable, "-m", "owm", "chat", *map(str, args)],
        input=given,
        capture_output=True,
        env=environment(env),
        timeout=60,
        check=False,
    )
    output = Output(done.stdout.decode())
    output.stderr, output.exit_code = done.stderr.decode(), done.returncode
    return output


def latest() -> Session:
    path = open_sessions().latest()
    assert path is not None
    return Session.read(path)


def test_each_line_is_a_turn_and_answers_are_all_of_stdout(model: Path) -> None:
    done = chat(model, lines="Hi\n\nHow are you?\n")
    assert (done, done.exit_code) == ("**Hello** there.\n**Hello** there.\n", 0)
    session = latest()
    assert [turn.content for turn in session.path()] == ["Hi", "**Hello** there.", "How are you?", "**Hello** there."]
    assert done.stderr == f"kept as {session.id}; `owm chat --continue` goes on with it\n"
    assert "\x1b" not in done + done.stderr


def test_quotes_make_a_turn_of_several_lines(model: Path) -> None:
    chat(model, lines='"""one\n/undo\n"""\n', env={"TERM": "xterm-256color"})
    assert latest().path()[0].content == "one\n/undo"


def test_a_conversation_goes_on(model: Path) -> None:
    chat(model, "--system", "Be brief.", lines="one")
    done = chat("--continue", lines="two\n/title here\n")
    assert done == "**Hello** there.\n"
    assert done.stderr.splitlines()[0] == "2 turns before"
    session = latest()
    assert (len(session.turns), session.system, session.title) == (4, "Be brief.", "here")
    assert chat("--session", "here", lines="three").exit_code == 0
    assert chat(lines="another").exit_code == 0  # the model used last
    assert len(open_sessions().summaries()) == 2


def test_a_private_conversation_leaves_nothing(model: Path, clean_environment: Path) -> None:
    done = chat(model, "--private", lines="a secret\n")
    assert (done, done.stderr) == ("**Hello** there.\n", "")
    assert not [path for path in clean_environment.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert open_sessions().summaries() == []


def test_a_turn_that_fails_ends_nothing_but_the_exit_code_says_so(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\0")
    done = chat(model, lines=f"see @{tmp_path}/a.bin\n/udno\nHi\n")
    assert done == "**Hello** there.\n"
    assert "is binary, not text" in done.stderr
    assert "did you mean `/undo`?" in done.stderr
    assert done.exit_code == 2


def test_a_line_that_is_no_text_ends_nothing(model: Path) -> None:
    done = chat(model, lines=b"caf\xe9\nHi\n")
    assert done == "**Hello** there.\n"
    assert "not UTF-8" in done.stderr


def test_answers_as_json(model: Path) -> None:
    done = chat(model, "--json", "-q", lines="Hi\n/undo\n/undo\n")
    first, second = map(json.loads, done.splitlines())
    assert (first["text"], first["finish_reason"], first["turn"]) == ("**Hello** there.", "stop", 2)
    assert second["error"] == "there is no turn to go back to"


def test_commands_speak_on_stderr(model: Path) -> None:
    done = chat(model, lines="/help\n/context\n/model\n/multi\n")
    assert done == ""
    assert "/undo" in done.stderr
    assert "of 2,048 tokens" in done.stderr
    assert "error: lines are sent one by one here" in done.stderr


def test_several_answers_are_picked_by_the_next_line(model: Path) -> None:
    done = chat(model, lines="Hi\n/alt 2\n2\n")
    assert "1:\n**Hello** there.\n2:\n**Hello** there.\nwhich one is it?\n" in done.stderr
    assert len(latest().turns) == 4


def test_thoughts_go_to_stderr_if_they_are_wanted(tmp_path: Path) -> None:
    model = write_scripted_gguf(
        tmp_path / "m.gguf", "<think>Well, yes.</think>Yes.", marks=("<think>", "</think>"), n_ctx_train=2048
    )
    assert "Well" not in chat(model, "-q", lines="Hi").stderr
    done = chat(model, "--think", "show", "-q", lines="Hi")
    assert (done, done.stderr) == ("Yes.\n", "Well, yes.\n")


@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (["--continue", "--private"], "--private keeps nothing", 2),
        (["--continue", "--session", "x"], "--continue and --session", 2),
        (["--continue"], "there is no conversation to go on with", 3),
        (["--session", "nope"], "no session nope", 3),
        ([], "no model was used yet", 2),
        (["m", "--temp", "-1"], "--temp", 2),
        (["m", "--overflow", "cut"], "--overflow must be one of ask, compact, drop, error: cut", 2),
        (["m", "--think", "of"], "did you mean `off`?", 2),
        (["m", "--think", "off", "--effort", "low"], "--think off leaves no thought", 2),
        (["/nowhere/m.gguf"], "no such file: /nowhere/m.gguf", 3),
    ],
)
def test_what_cannot_be_is_one_sentence(args: list[str], message: str, code: int) -> None:
    done = chat(*args, lines="Hi\n")
    assert (done, done.exit_code) == ("", code)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert open_sessions().summaries() == []


def test_a_model_that_cannot_be_opened_is_no_conversation(model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(model.read_bytes()[:3000])
    done = chat(tmp_path / "broken.gguf", lines="Hi\n")
    assert done.exit_code == 7
    assert "not a usable GGUF file" in done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_whatever_ends_it_what_was_said_is_kept(tmp_path: Path, name: str) -> None:
    sent = signal.Signals[name]
    model = write_scripted_gguf(tmp_path / "m.gguf", ["a", " word"], loop_from=0, n_ctx_train=1 << 20)
    process = subprocess.Popen(
        [sys.executable, "-m", "owm", "chat", str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"Go on\n")
    process.stdin.flush()
    written = b""
    while len(written) < 20:
        written += os.read(process.stdout.fileno(), 20)
    process.send_signal(sent)
    _, said = process.communicate(timeout=30)
    assert b"Traceback" not in said
    session = latest()
    assert session.damage is None
    assert session.path()[0].content == "Go on"
    if sent != signal.SIGKILL:
        assert session.path()[1].finish_reason == "cancelled"
        assert session.path()[1].content.startswith("a word")
    assert process.returncode == {signal.SIGINT: 0, signal.SIGKILL: -9}.get(sent, 128 + sent)
