"""The editor of a chat in a real pseudo-terminal, and the state in which it leaves that terminal, whatever happens."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import psutil
import pytest

from support.terminal import Terminal

PROGRAM = """
import os, sys, time
from pathlib import Path
from owm.cli.chat.completion import Facts
from owm.cli.chat.editor import Editor
from owm.cli.chat.terminal import kept_terminal, quiet_typing
from owm.cli.chat.toolbar import Status
from owm.cli.look import look_of_terminal
from owm.cli.terminal import speak_utf8

speak_utf8()
with kept_terminal():
    status = Status(model="tiny", n_used=100, n_ctx=1000, rate=12.0)
    editor = Editor(Facts(), history=Path(sys.argv[1]), status=lambda: status, look=look_of_terminal())
    while True:
        try:
            text = editor.read()
        except KeyboardInterrupt:
            print("INTERRUPTED", flush=True)
            continue
        except EOFError:
            print("LEFT", flush=True)
            break
        print("READ " + ascii(text), flush=True)
        if text == "fail":
            raise RuntimeError("broken")
        if text == "exit":
            sys.exit(3)
        if text == "raw":
            import tty
            tty.setraw(0)
            print("\\x1b[?25l\\x1b[?2004h", end="", flush=True)
            sys.exit(4)
        if text == "answer":
            try:
                with quiet_typing():
                    print("ANSWERING", flush=True)
                    time.sleep(float(os.environ["SECONDS_TO_ANSWER"]))
            except KeyboardInterrupt:
                print("STOPPED", flush=True)
"""


class Session(Terminal):
    """The program above in a shell that prints the state of the terminal afterwards."""

    def __init__(self, folder: Path, *, columns: int = 80, rows: int = 24, **env: str) -> None:
        program = folder / "program.py"
        program.write_text(PROGRAM)
        before, after = (f"stty -a >'{folder / name}'" for name in ("before", "after"))
        shell = f'trap : INT; {before}; "$0" "$1" "$2"; echo "CODE $?"; {after}; echo DONE'
        super().__init__(
            [sys.executable, str(program), str(folder / "history")],
            command=["sh", "-c", shell],
            columns=columns,
            rows=rows,
            env={"SECONDS_TO_ANSWER": "30", **env},
        )
        self.folder = folder

    def wait_for_prompt(self) -> None:
        """Wait until the editor is open and drawn."""
        self.wait_for("\x1b[?2004h")

    def type(self, keys: str | bytes) -> None:
        """Press keys."""
        os.write(self.process.child_fd, keys.encode() if isinstance(keys, str) else keys)

    def send(self, keys: str) -> None:
        """Press keys at the prompt, and wait for what the program says it read."""
        self.type(keys)
        self.wait_for("READ ")
        self.wait_for("\n")

    def look_until(self, is_so: Callable[[], bool]) -> None:
        """Read what is drawn until something is so."""
        end = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < end, self.text()
            if self.process.expect([re.compile(b".+", re.DOTALL), pexpect.TIMEOUT], timeout=0.05) == 0:
                self._take(self.process.after)

    def end(self) -> str:
        """Wait for the end; hold that the terminal is as it was before."""
        self.wait_for("DONE")
        assert (self.folder / "after").read_text() == (self.folder / "before").read_text()
        assert self.raw.rfind(b"\x1b[?2004l") > self.raw.rfind(b"\x1b[?2004h")
        assert not self.screen.cursor.hidden
        return self.text()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path) as session:
        session.wait_for_prompt()
        yield session


def test_lines_blocks_and_pastes_are_read(session: Session) -> None:
    session.send("one\x1b\rtwo\r")
    session.wait_for_prompt()
    session.send('"""\rthree\r"""\r')
    session.wait_for_prompt()
    session.type("\x1b[200~four\r\nfive\x1b[201~")
    session.look_until(lambda: "  five" in session.text())
    session.send("\r")
    session.wait_for_prompt()
    session.type("\x04")
    text = session.end()
    assert r"READ 'one\ntwo'" in text
    assert "READ 'three'" in text
    assert r"READ 'four\nfive'" in text
    assert "LEFT" in text


def test_history_is_there_in_the_next_run(session: Session, tmp_path: Path) -> None:
    session.send("remember 猫\r")
    session.wait_for_prompt()
    session.type("\x04")
    session.end()
    with Session(tmp_path) as other:
        other.wait_for_prompt()
        other.send("\x1b[A!\r")
        assert ascii("remember 猫!") in other.text()


def test_ctrl_c_at_an_empty_prompt_interrupts_and_the_next_prompt_opens(session: Session) -> None:
    session.interrupt()
    session.wait_for("INTERRUPTED")
    session.wait_for_prompt()
    session.type("some text")
    session.look_until(lambda: "some text" in session.text())
    session.interrupt()
    session.look_until(lambda: "some text" not in session.text())
    session.send("kept\r")
    session.wait_for_prompt()
    session.type("\x04")
    assert "READ 'kept'" in session.end()


def test_a_signal_is_as_good_as_ctrl_c(session: Session) -> None:
    child = _child_of(session)
    os.kill(child, signal.SIGINT)
    session.wait_for("INTERRUPTED")
    session.wait_for_prompt()
    session.type("\x04")
    session.end()


@pytest.mark.parametrize(("line", "code"), [("fail", 1), ("exit", 3), ("raw", 4)])
def test_the_terminal_is_as_before_after_an_exception_or_an_exit(session: Session, line: str, code: int) -> None:
    session.send(f"{line}\r")
    assert f"CODE {code}" in session.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_as_before_after_a_signal_that_ends_the_program(session: Session, number: int) -> None:
    session.type("half a line")
    session.look_until(lambda: "half a line" in session.text())
    os.kill(_child_of(session), number)
    assert f"CODE {128 + number}" in session.end()


def test_what_is_typed_during_an_answer_is_not_seen_until_the_editor_opens(tmp_path: Path) -> None:
    with Session(tmp_path, SECONDS_TO_ANSWER="0.6") as session:
        session.wait_for_prompt()
        session.type("answer\r")
        session.wait_for("ANSWERING\r\n")
        session.type("early 猫\x7f bird\rlate")
        session.wait_for_prompt()
        between = session.raw[session.raw.rfind(b"ANSWERING") : session.raw.rfind(b"\x1b[?2004h")]
        assert b"early" not in between
        session.wait_for("READ 'early  bird'")
        session.wait_for_prompt()
        session.look_until(lambda: "> late" in session.text())
        session.send("r\r")
        session.wait_for_prompt()
        session.type("\x04")
        assert "READ 'later'" in session.end()


def test_ctrl_c_stops_an_answer_and_the_terminal_echoes_again(session: Session) -> None:
    session.type("answer\r")
    session.wait_for("ANSWERING\r\n")
    session.interrupt()
    session.wait_for("STOPPED")
    session.wait_for_prompt()
    session.type("\x04")
    session.end()


def test_a_window_that_is_made_smaller_and_larger_keeps_what_is_typed(session: Session) -> None:
    session.type("a line of some words that is longer than forty columns")
    session.look_until(lambda: "forty columns" in session.text())
    for columns, rows in ((30, 10), (120, 40)):
        session.screen.resize(rows, columns)
        session.process.setwinsize(rows, columns)
        n_before = len(session.raw)
        session.look_until(lambda start=n_before: b"tiny" in session.raw[start:])  # type: ignore[misc]
    session.send("\r")
    assert "READ 'a line of some words that is longer than forty columns'" in session.text()
    session.wait_for_prompt()
    session.type("\x04")
    session.wait_for("DONE")


def test_the_external_editor_has_the_terminal_for_itself(tmp_path: Path) -> None:
    script = tmp_path / "write.sh"
    asked = 'stty -a | grep -q " icanon" && printf "cooked " >>"$1"'
    script.write_text(f'#!/bin/sh\n{asked}\nread line\necho "$line" >>"$1"\n')
    script.chmod(0o755)
    with Session(tmp_path, VISUAL=str(script)) as session:
        session.wait_for_prompt()
        session.type("\x18\x05")
        time.sleep(0.3)
        session.type("typed in it\n")
        session.look_until(lambda: "> cooked typed in it" in session.text())
        session.send("!\r")
        session.wait_for_prompt()
        session.type("\x04")
        assert "READ 'cooked typed in it!'" in session.end()


def test_ctrl_c_in_the_external_editor_is_not_for_the_chat(tmp_path: Path) -> None:
    script = tmp_path / "wait.sh"
    script.write_text("#!/bin/sh\necho WAITING\nexec sleep 60\n")
    script.chmod(0o755)
    with Session(tmp_path, VISUAL=str(script)) as session:
        session.wait_for_prompt()
        session.type("text\x18\x05")
        session.wait_for("WAITING")
        session.interrupt()
        session.wait_for_prompt()
        session.look_until(lambda: "> text" in session.text())
        session.send("!\r")
        session.wait_for_prompt()
        session.type("\x04")
        text = session.end()
        assert "READ 'text!'" in text
        assert "INTERRUPTED" not in text


def test_a_terminal_that_is_hung_up_ends_the_program(session: Session) -> None:
    child = _child_of(session)
    session.process.close(force=True)
    end = time.monotonic() + 20
    while _is_alive(child):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_without_a_terminal_nothing_is_changed(capsys: pytest.CaptureFixture[str]) -> None:
    from owm.cli.chat.terminal import kept_terminal, quiet_typing

    before = signal.getsignal(signal.SIGTERM)
    with kept_terminal(), quiet_typing():
        pass
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().out == ""


def _child_of(session: Session) -> int:
    """Return the program that the shell runs."""
    return int(psutil.Process(session.process.pid).children()[0].pid)


def _is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
