"""`owm chat` in a pseudo-terminal: answers, Ctrl-C, what is shown on return, and a terminal that is left as it was."""

import os
import re
import signal
import termios
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest

from owm.chat.session import Session
from owm.chat.sessions import open_sessions
from support.scripted_gguf import write_scripted_gguf
from support.terminal import Terminal

MARKS = ("<think>", "</think>")


class ChatTerminal(Terminal):
    """A conversation at a terminal of 60 columns."""

    def __init__(self, *args: str | Path, rows: int = 20) -> None:
        super().__init__(["chat", *map(str, args)], columns=60, rows=rows)
        self._terminal = os.dup(self.process.child_fd)  # outlives the process

    def __exit__(self, *ending: Any) -> None:
        os.close(self._terminal)
        super().__exit__(*ending)

    def type(self, text: str) -> None:
        """Press keys, Enter for a line end."""
        os.write(self.process.child_fd, text.replace("\n", "\r").encode())

    def see(self, *texts: str) -> str:
        """Wait until all these are on the screen; return it."""
        deadline = time.monotonic() + 30
        while any(text not in self.text() for text in texts):
            assert time.monotonic() < deadline, f"{texts} not on the screen:\n{self.text()}"
            try:
                self._take(self.process.read_nonblocking(65536, timeout=0.1))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                deadline = 0
        return self.text()

    def modes(self) -> list[Any]:
        """Return the state of the terminal."""
        return termios.tcgetattr(self._terminal)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_scripted_gguf(
        tmp_path / "m.gguf", "<think>Well, yes.</think>**Yes**, of course.", marks=MARKS, n_ctx_train=2048
    )


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    return write_scripted_gguf(tmp_path / "m.gguf", ["hm", ", hm"], loop_from=1, n_ctx_train=1 << 16)


def test_a_conversation_is_held_left_and_gone_on_with(model: Path) -> None:
    with ChatTerminal(model) as terminal:
        before = terminal.modes()
        terminal.type("Is it so?\n")  # typed while it starts, and answered when the model is there
        screen = terminal.see("of course.", "/2,048", "t/s")
        assert re.search("> Is it so\\?\nthought for [^\n]*, 5 tokens\n", screen)
        assert "Well, yes." not in screen
        assert "\n\nYes, of course.\n" in screen
        terminal.type("/udno\n")
        terminal.see("error: no such command: /udno", "did you mean `/undo`?")
        terminal.type("\x03")
        terminal.see("Ctrl-D or `/quit` leaves")
        terminal.type("\x04")
        assert terminal.wait_for_end() == 0
        assert terminal.modes() == before
        assert terminal.text().endswith("goes on with it")
    with ChatTerminal("--continue") as terminal:
        screen = terminal.see("/2,048")
        assert screen.splitlines()[:3] == ["> Is it so?", "thought, 5 tokens", "Yes, of course."]


def test_ctrl_c_stops_the_answer_and_keeps_what_is_there(endless: Path) -> None:
    with ChatTerminal(endless) as terminal:
        terminal.type("Go on\n")
        terminal.see("hm, hm, hm")
        terminal.interrupt()
        terminal.see("stopped; what is there is kept", "t/s")
        terminal.type("/quit\n")
        assert terminal.wait_for_end() == 0
    path = open_sessions().latest()
    assert path is not None
    turn = Session.read(path).path()[1]
    assert turn.finish_reason == "cancelled"
    assert turn.content.startswith("hm, hm, hm")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("is_answering", [False, True], ids=["at the prompt", "in an answer"])
def test_a_signal_leaves_the_terminal_as_it_was(endless: Path, name: str, is_answering: bool) -> None:
    with ChatTerminal(endless) as terminal:
        before = terminal.modes()
        terminal.see("/65,536")
        assert terminal.modes() != before
        terminal.type("Go on\n")
        terminal.see("hm, hm, hm")
        if not is_answering:
            terminal.interrupt()
            terminal.see("stopped", "t/s")
        terminal.process.kill(signal.Signals[name])
        assert terminal.wait_for_end() == 128 + signal.Signals[name]
        assert terminal.modes() == before
        assert not terminal.screen.cursor.hidden
        assert "Traceback" not in terminal.text()
    path = open_sessions().latest()
    assert path is not None
    assert len(Session.read(path).path()) == 2


def test_a_kill_in_the_midst_of_an_answer_loses_that_answer_only(endless: Path) -> None:
    with ChatTerminal(endless) as terminal:
        terminal.type("Go on\n")
        terminal.see("hm, hm, hm")
        terminal.process.kill(signal.SIGKILL)
    with ChatTerminal("--continue") as terminal:
        terminal.see("> Go on\nthis has no answer yet; `/retry` asks for one", "/65,536")
        terminal.type("/retry\n")
        terminal.see("hm, hm, hm")
        terminal.interrupt()
        terminal.see("stopped; what is there is kept")


def test_a_model_that_cannot_be_opened_does_not_end_the_chat(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[:3000])
    with ChatTerminal(broken) as terminal:
        terminal.see("error: broken.gguf is not a usable GGUF file", "not open")
        terminal.type(f"/model {model}\n")
        terminal.see("m.gguf goes on with the conversation")
        terminal.type("Hi\n")
        terminal.see("Yes, of course.")
