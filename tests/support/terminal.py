"""The real program in a real pseudo-terminal, and the screen that a person would see."""

import os
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType

import pexpect
import pyte

from support.run import environment


class Terminal:
    """One `owm` process on a terminal of a given size; what it draws is kept on a virtual screen."""

    def __init__(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str | None] | None = None,
        columns: int = 100,
        rows: int = 30,
        command: Sequence[str] | None = None,
    ) -> None:
        variables = environment({"COLUMNS": None, "LINES": None, "TERM": "xterm-256color", **(env or {})})
        whole = [*(command or [sys.executable, "-m", "owm"]), *args]
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.process = pexpect.spawn(
            whole[0], list(whole[1:]), env=variables, dimensions=(rows, columns), timeout=30, encoding=None
        )

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.close(force=True)

    def wait_for(self, text: str, *, timeout: float = 30) -> None:
        """Read until `text` has been printed."""
        self.process.expect_exact(text.encode(), timeout=timeout)
        self._take((self.process.before or b"") + text.encode())

    def wait_for_end(self, *, timeout: float = 60) -> int:
        """Read to the end; return the exit code (negative for a signal)."""
        self.process.expect(pexpect.EOF, timeout=timeout)
        self._take(self.process.before or b"")
        self.process.close()
        if self.process.exitstatus is not None:
            return int(self.process.exitstatus)
        return -int(self.process.signalstatus or 0)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self.process.child_fd, b"\x03")

    def text(self) -> str:
        """Return the screen as lines without trailing blanks."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def _take(self, data: bytes) -> None:
        self.raw += data
        self._stream.feed(data)
