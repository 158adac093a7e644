"""`owm logs`: switched on and off, shown, searched and cleared."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from owm.logs import LogEntry, open_log, record
from owm.store import refs
from owm.store.local import Store
from support.run import run, run_here
from support.terminal import Terminal

Capture = pytest.CaptureFixture[str]
KEYS = {
    "id", "time", "command", "model", "model_sha256", "prompt", "system", "answer", "reasoning", "settings",
    "finish_reason", "n_prompt", "n_generated", "n_reasoning", "timings", "owm_version",
}  # fmt: skip


def put(answer: str, prompt: Any = "ask", **changes: Any) -> None:
    values = {"command": "run", "model": "smollm2:135m:Q4_1", "model_sha256": "0" * 64, **changes}
    entry = LogEntry(
        **values, prompt=prompt, answer=answer, settings={}, finish_reason="stop", n_prompt=3, n_generated=5, timings={}
    )
    assert record(entry, is_forced=True) is None


def test_the_switch(capsys: Capture) -> None:
    log = open_log()
    on = run_here(capsys, "logs", "on")
    assert (on, on.stderr) == ("", f"every answer is logged from now on: {log.path}\n")
    assert log.is_on
    assert run_here(capsys, "logs").stderr == "nothing is logged\n"
    assert run_here(capsys, "logs", "off").stderr == "nothing is logged any more\n"
    assert not log.is_on
    assert run_here(capsys, "logs", "off").exit_code == 0
    assert run_here(capsys, "logs").stderr == "nothing is logged; `owm logs on` logs every answer from now on\n"
    put("x")
    assert "what is logged stays in" in run_here(capsys, "logs", "off").stderr


def test_the_json_has_the_keys_that_programs_rely_on(capsys: Capture) -> None:
    state = {"path": str(open_log().path), "is_on": True, "size_bytes": 0}
    assert run_here(capsys, "logs", "--json").json == []
    assert run_here(capsys, "logs", "on", "--json").json == state
    assert run_here(capsys, "logs", "off", "--json").json == {**state, "is_on": False}
    assert run_here(capsys, "logs", "path", "--json").json == {**state, "is_on": False}
    assert run_here(capsys, "logs", "path") == f"{open_log().path}\n"
    put("one", [{"role": "user", "content": "hi"}])
    put("two")
    found = run_here(capsys, "logs", "--json").json
    assert [set(entry) for entry in found] == [KEYS, KEYS]
    assert [entry["answer"] for entry in found] == ["one", "two"]
    assert found[0]["prompt"] == [{"role": "user", "content": "hi"}]
    assert run_here(capsys, "logs", "clear", "--yes", "--json").json == {"n_removed": 2}


def test_the_last_answers_are_shown_oldest_first(capsys: Capture) -> None:
    for number in range(8):
        put(f"answer {number}", [{"role": "system", "content": "S"}, {"role": "user", "content": f"ask {number}"}])
    shown = run_here(capsys, "logs")
    assert re.findall(r"^answer \d$", shown, re.MULTILINE) == [f"answer {number}" for number in range(3, 8)]
    block = shown.split("\n\n")[0].splitlines()
    assert re.fullmatch(r"\[4\] \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  run smollm2:135m:Q4_1  3 \+ 5 tokens, stop", block[0])
    assert block[1:] == ["> ask 3", "answer 3"]
    assert run_here(capsys, "logs", "--last", "1").splitlines()[1:] == ["> ask 7", "answer 7"]


def test_long_texts_are_shown_in_part_and_that_is_said(capsys: Capture) -> None:
    put("\n".join(map(str, range(100))), "x" * 1000 + "\n" * 50)
    lines = run_here(capsys, "logs").splitlines()
    assert lines[1] == "> " + "x" * 400 + "… (600 characters more)"
    assert lines[2:] == [*map(str, range(20)), "… (80 lines more)"]
    assert run_here(capsys, "logs", "--json").json[0]["answer"].endswith("\n99")


def test_searching(store: Store, capsys: Capture) -> None:
    store.aliases.set("mine", refs.parse("o/other"))
    put("The quick brown fox")
    put("a slow fox", model="o/other:Q8_0")
    put("a dog")

    def answers(*words: str) -> list[str]:
        return [entry["answer"] for entry in run_here(capsys, "logs", "--json", *words).json]

    assert answers("--search", "FOX") == ["The quick brown fox", "a slow fox"]
    assert answers("--search", "fox quick") == ["The quick brown fox"]
    assert answers("--search", "fox", "--last", "1") == ["a slow fox"]
    assert answers("--model", "smollm2") == ["The quick brown fox", "a dog"]
    assert answers("--model", "mine") == ["a slow fox"]
    assert run_here(capsys, "logs", "--search", "cat").stderr == "nothing that is logged fits\n"


def test_what_steers_a_terminal_is_made_visible_in_a_pipe_too(capsys: Capture) -> None:
    put("a\x1b[31mred\u202e\x07\n\ttab", "b\x1b]0;title\x07", model="evil\x1b[1m\nname")
    shown = run_here(capsys, "logs")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", shown)
    assert "a\\x1b[31mred\\u202e\\x07\n\ttab\n" in shown
    assert "> b\\x1b]0;title\\x07\n" in shown
    assert "evil\\x1b[1m\\nname" in shown
    with Terminal(["logs", "--json"]) as terminal:
        assert terminal.wait_for_end() == 0
        assert b"\x1b" not in terminal.raw


def test_clearing_asks_first(capsys: Capture) -> None:
    put("x")
    refused = run_here(capsys, "logs", "clear")
    assert refused.exit_code == 2
    assert "hint: `owm logs clear --yes` does" in refused.stderr
    with Terminal(["logs", "clear"]) as terminal:
        terminal.wait_for("[y/N]")
        terminal.process.send("n\r")
        assert terminal.wait_for_end() == 0
    assert len(run_here(capsys, "logs", "--json").json) == 1
    assert run_here(capsys, "logs", "clear", "-y").stderr == "removed 1 answer\n"
    assert run_here(capsys, "logs", "--json").json == []
    assert run_here(capsys, "logs", "clear", "-y").stderr == "removed 0 answers\n"


def test_a_damaged_log_is_said_and_cleared(capsys: Capture) -> None:
    put("x")
    open_log().path.write_bytes(b"not a database" * 1000)
    done = run_here(capsys, "logs")
    assert (done, done.exit_code) == ("", 7)
    assert done.stderr == f"error: the log is damaged: {open_log().path}\nhint: `owm logs clear` starts a new one\n"
    assert run_here(capsys, "logs", "clear", "--yes").stderr == "the log was damaged and has been removed\n"
    assert run_here(capsys, "logs", "--json").json == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--last", "0"], "--last must be positive: 0"),
        (["--last", "3", "clear"], "--last is for showing: `owm logs clear` takes none"),
        (["--search", "x", "on"], "--search is for showing: `owm logs on` takes none"),
        (["lst"], "no such command 'lst'"),
    ],
)
def test_what_cannot_be_is_one_sentence(words: list[str], message: str, capsys: Capture) -> None:
    done = run_here(capsys, "logs", *words)
    assert (done, done.exit_code) == ("", 2)
    assert f"error: {message}" in done.stderr
    assert not open_log().is_on


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_a_log_that_may_not_be_read_is_an_error_that_names_it(clean_environment: Path) -> None:
    put("x")
    open_log().path.chmod(0)
    try:
        done = run(["-m", "owm", "logs"], unprivileged=True)
        switch = run(["-m", "owm", "logs", "path"], unprivileged=True)
    finally:
        open_log().path.chmod(0o600)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: cannot use the log {open_log().path}: ")
    assert switch.exit_code == 0
