"""`owm chat` in a real pseudo-terminal: keys go in, and what a person would see is waited for."""

import os
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pexpect
import psutil
import pyte

from support.run import environment

PATIENCE = 30.0

ENTER, ALT_ENTER, TAB, UP, BACKSPACE = "\r", "\x1b\r", "\t", "\x1b[A", "\x7f"
CTRL_C, CTRL_D, CTRL_R, EXTERNAL = "\x03", "\x04", "\x12", "\x18\x05"

OWM = (sys.executable, "-m", "owm")
_EDITING, _DONE = b"\x1b[?2004h", b"\x1b[?2004l"


class ChatTerminal:
    """One process of `owm chat` on a terminal of a given size.

    Attributes:
        raw: all that was written to the terminal.
    """

    def __init__(
        self,
        *args: str | Path,
        env: Mapping[str, str | None] | None = None,
        columns: int = 80,
        rows: int = 40,
        cwd: Path | None = None,
        command: Sequence[str] = (*OWM, "chat"),
    ) -> None:
        # A second thread would only wait for the first: the models of most tests are tiny.
        variables = environment(
            {"COLUMNS": None, "LINES": None, "TERM": "xterm-256color", "OWM_THREADS": "1", **(env or {})}
        )
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.process = pexpect.spawn(
            command[0],
            [*command[1:], *map(str, args)],
            env=variables,
            cwd=None if cwd is None else str(cwd),
            dimensions=(rows, columns),
            encoding=None,
        )
        self.modes_before = termios.tcgetattr(self.process.child_fd)

    def __enter__(self) -> "ChatTerminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.close(force=True)

    # -- keys --------------------------------------------------------------------------------------------------------

    def type(self, keys: str | bytes) -> "ChatTerminal":
        """Press keys, whatever is on the screen."""
        os.write(self.process.child_fd, keys.encode() if isinstance(keys, str) else keys)
        return self

    def paste(self, text: str) -> "ChatTerminal":
        """Paste as a terminal does that tells pasting from typing."""
        return self.type(f"\x1b[200~{text}\x1b[201~")

    def send(self, text: str, *, end: str = ENTER) -> "ChatTerminal":
        """Type a line into the editor and send it; what it does is not waited for."""
        self.wait_for_editor()
        n_before = self.raw.count(_DONE)
        self.type(text)
        self.type(end)
        self.wait_until(lambda: self.raw.count(_DONE) > n_before, f"{text!r} to be sent")
        return self

    def wait_for_editor(self, what: str = "the editor") -> "ChatTerminal":
        """Wait until something can be typed."""
        self.wait_until(lambda: self.is_editing, what)
        return self

    def say(self, text: str, *, end: str = ENTER) -> str:
        """Type a line, send it, and wait until something can be typed; return what was shown between the two."""
        self.wait_for_editor()
        at = len(self.screen.history.top) + self.screen.cursor.y
        n_rows = max(1, -(-len(text) // (self.screen.columns - 2)))
        self.send(text, end=end).wait_for_editor(f"the end of what {text!r} does")
        below = len(self.screen.history.top) + self.screen.cursor.y
        return "\n".join(self.lines()[at + n_rows : below]).strip("\n")

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size."""
        self.process.setwinsize(rows, columns)
        self.screen.resize(rows, columns)

    # -- what is seen ------------------------------------------------------------------------------------------------

    @property
    def is_editing(self) -> bool:
        """The editor is open, and drawn."""
        is_open = self.raw.rfind(_EDITING) > self.raw.rfind(_DONE)
        return is_open and self.has_cursor() and self.screen.cursor.x > 1 and self._first_typed is not None

    @property
    def toolbar(self) -> str:
        """The line under what is typed."""
        below = [line.rstrip() for line in self.screen.display[self.screen.cursor.y + 1 :]]
        return next((line for line in reversed(below) if line), "")

    @property
    def typed(self) -> str:
        """What stands in the editor down to the cursor, as it is shown; rows that it was broken into are lines."""
        rows = self.screen.display[self._first_typed or 0 : self.screen.cursor.y + 1]
        return "\n".join(row[2:].rstrip() for row in rows)

    def text(self) -> str:
        """Return the screen as lines without trailing blanks."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def lines(self) -> list[str]:
        """Return everything that is and was on the screen, one string a row."""
        return [*self._past(), *(line.rstrip() for line in self.screen.display)]

    def has_cursor(self) -> bool:
        """Tell whether the cursor is shown."""
        return not self.screen.cursor.hidden

    def wait_for(self, text: str) -> "ChatTerminal":
        """Wait until the screen shows a text."""
        self.wait_until(lambda: text in self.text(), repr(text))
        return self

    def wait_for_prompt(self) -> "ChatTerminal":
        """Wait until something can be typed, and the model is there."""
        self.wait_until(lambda: self.is_editing and "/" in self.toolbar, "the editor and the model")
        return self

    def wait_until(self, is_so: Callable[[], bool], what: str = "it") -> "ChatTerminal":
        """Read until something is so."""
        end = time.monotonic() + PATIENCE
        while not is_so():
            assert self._pump(end - time.monotonic()), f"waited in vain for {what}:\n{self.text()}"
        return self

    # -- ends --------------------------------------------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> "ChatTerminal":
        """Send a signal to the process."""
        os.kill(self.process.pid, number)
        return self

    def kill_child(self) -> "ChatTerminal":
        """Kill the program that a shell here has started."""
        (child,) = psutil.Process(self.process.pid).children()
        child.kill()
        return self

    def hang_up(self) -> None:
        """Close the terminal, and wait for the end of the process."""
        self.process.ptyproc.fileobj.close()
        self.process.closed = self.process.ptyproc.closed = True
        os.waitpid(self.process.pid, 0)
        self.process.ptyproc.terminated = True

    def end(self) -> int:
        """Read to the end; return the exit code (negative for a signal)."""
        end = time.monotonic() + PATIENCE
        while self._pump(end - time.monotonic()):
            pass
        assert time.monotonic() < end, f"it does not end:\n{self.text()}"
        self.modes_left = self._modes_now()
        self.process.wait()
        if self.process.exitstatus is not None:
            return int(self.process.exitstatus)
        return -int(self.process.signalstatus or 0)

    def leave(self) -> int:
        """Press Ctrl-D at an empty prompt; return the exit code."""
        self.wait_until(lambda: self.is_editing, "the editor")
        return self.type(CTRL_D).end()

    @property
    def is_sane(self) -> bool:
        """The terminal is as it was before the program: its modes, the cursor, no bracketed paste."""
        last_wrap = max(self.raw.rfind(b"\x1b[?7h"), 0) >= self.raw.rfind(b"\x1b[?7l")
        return (
            self.modes_left == self.modes_before
            and self.has_cursor()
            and last_wrap
            and self.raw.rfind(_DONE) >= self.raw.rfind(_EDITING)
        )

    def _modes_now(self) -> list[object]:
        return termios.tcgetattr(self.process.child_fd)

    def _past(self) -> list[str]:
        return ["".join(row[x].data for x in range(self.screen.columns)).rstrip() for row in self.screen.history.top]

    @property
    def _first_typed(self) -> int | None:
        cells, rows = self.screen.buffer, range(self.screen.cursor.y, -1, -1)
        return next((y for y in rows if cells[y][0].data + cells[y][1].data == "> "), None)

    def _pump(self, timeout: float) -> bool:
        """Read what there is; return whether there was something before the time was over."""
        ready, _, _ = select.select([self.process.child_fd], [], [], max(timeout, 0))
        if not ready:
            return False
        try:
            data = os.read(self.process.child_fd, 1 << 16)
        except OSError:  # Linux's way to say that nobody has the terminal open any more
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)
