"""Text that steers a terminal, planted in fields, and a look at what of it reached one."""

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
from dataclasses import dataclass

import pytest

# OSC 52 (the clipboard), a cursor position that nothing of owm's asks for, 8-bit CSI, DCS and ST, the orders of
# writing, a tag, DEL, and a return after which another line is forged; then marks that Rich would take for a style.
ESCAPES = "\x1b]52;c;aGk=\x07\x1b[66;99H\x9b31m\x90q\x9c\u202e\u2066\U000e0041\x7f\r[bold red]FORGED[/]"
# References take no C0 in names of files; the last is the byte of an 8-bit CSI, which is no text.
IN_FILE_NAME = "\x9b31m\x90q\x9c\u202e\u2066\U000e0041\udc9b[bold red]FORGED"
COLUMNS, ROWS = 900, 50

# What owm, Rich and prompt_toolkit may send: colours and styles, the cursor a row up, parts erased, modes.
_OURS = re.compile(r"\x1b\[(?:[\d;]*[mAKJ]|\?(?:25|7|2026|2004)[hl])")
_STEERING = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def planted(field: str) -> str:
    """Return a hostile text for a field, which it names."""
    return f"{field}{ESCAPES}"


def steering(output: str) -> list[str]:
    """Return what steers the terminal in an output and does not come from owm: nothing, if all is well."""
    rest = _OURS.sub("", output.replace("\r\n", "\n"))
    return [*_STEERING.findall(rest), *re.findall("\r.{0,20}FORGED", rest)]


def is_shown(field: str, output: str) -> bool:
    """Tell whether the planted text of a field can be seen for what it is, wherever its line was broken."""
    bare = re.sub(r"\s", "", _OURS.sub("", output))
    return any(f"{field}{begin}" in bare for begin in ("\\x1b", "\\x9b"))  # the rest may be cut


@dataclass(frozen=True, slots=True)
class Seen:
    """What a command wrote on a terminal: as text in which bytes that are none are halves of characters."""

    output: str
    exit_code: int


def run_on_terminal(monkeypatch: pytest.MonkeyPatch, *args: str | os.PathLike[str], typed: str = "") -> Seen:
    """Run a command in this process with a real pseudo-terminal for its stdin, stdout and stderr."""
    from owm.cli.app import main

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    flags = termios.tcgetattr(slave)
    flags[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, flags)
    os.write(master, typed.encode() + b"\x04")
    came = bytearray()

    def drain() -> None:
        while True:
            try:
                chunk = os.read(master, 1 << 16)
            except OSError:  # the other end is closed
                return
            came.extend(chunk)

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    streams = [io.TextIOWrapper(os.fdopen(os.dup(slave), mode), encoding="utf-8") for mode in ("rb", "wb", "wb")]
    os.close(slave)
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", str(COLUMNS))
        patch.setenv("TERM", "xterm-256color")
        patch.delenv("NO_COLOR")
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        try:
            code = main([*map(os.fspath, args)])
        finally:
            for stream in streams:
                stream.close()
    reader.join(10)
    os.close(master)
    return Seen(came.decode("utf-8", "surrogateescape"), code)
