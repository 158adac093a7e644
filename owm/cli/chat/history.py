"""What was typed in `owm chat`, over all conversations: one JSON string a line, the oldest first, for the owner's eyes.

Nobody's chat fails because of this file: what cannot be read is left out, what cannot be written lives as long as the
program.
"""

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

from owm.publishing import PRIVATE, make_private, replacing

MAX_BYTES = 1 << 20
MAX_ENTRY_BYTES = 1 << 16  # what is longer was pasted, and would push out everything else

_OPEN = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class HistoryFile:
    """The file, or None to keep nothing.

    Attributes:
        problem: one sentence on why nothing is kept; None as long as all is well.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.problem: str | None = None

    def load(self) -> list[str]:
        """Return what was typed, the oldest first; a file that has grown too long is shortened."""
        if self._path is None:
            return []
        try:
            with open(self._path, "rb", opener=_open_without_waiting) as file:
                size = os.fstat(file.fileno()).st_size
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return []
                file.seek(max(0, size - 2 * MAX_BYTES))
                lines = file.read(2 * MAX_BYTES).split(b"\n")
            if size > MAX_BYTES:
                lines = self._shorten(lines)
        except FileNotFoundError:
            return []
        except OSError as error:
            self._fail("read", error)
            return []
        return [text for line in lines if (text := _read(line)) is not None]

    def add(self, text: str) -> None:
        """Write down what was typed."""
        line = json.dumps(text).encode() + b"\n"
        if self._path is None or self.problem is not None or len(line) > MAX_ENTRY_BYTES:
            return
        try:
            make_private(self._path.parent)
            descriptor = os.open(self._path, os.O_RDWR | _OPEN, 0o600)
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    return
                if found.st_mode & 0o077:
                    os.fchmod(descriptor, 0o600)
                is_cut = found.st_size > 0 and os.pread(descriptor, 1, found.st_size - 1) != b"\n"
                os.write(descriptor, b"\n" + line if is_cut else line)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._fail("write", error)

    def _shorten(self, lines: list[bytes]) -> list[bytes]:
        """Keep the newest half of what the file may hold."""
        assert self._path is not None
        kept: list[bytes] = []
        n_bytes = 0
        for line in reversed(lines[1:]):
            n_bytes += len(line) + 1
            if n_bytes > MAX_BYTES // 2:
                break
            kept.append(line)
        kept.reverse()
        # What cannot be shortened can be read all the same, and that is what was asked.
        with suppress(OSError), replacing(self._path.resolve(), mode=PRIVATE) as file:
            file.write(b"\n".join(kept))
        return kept

    def _fail(self, verb: str, error: OSError) -> None:
        reason = error.strerror or error
        self.problem = f"what you type is not kept for other chats: cannot {verb} {self._path}: {reason}"


def whole(text: str) -> str:
    """Put the bytes together that a terminal sent and that were no characters; what remains is replaced."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _open_without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)  # a named pipe would wait for a writer


def _read(line: bytes) -> str | None:
    if not line.strip():
        return None
    try:
        text = json.loads(line)
        text.encode()  # halves of characters cannot be shown
    except (ValueError, AttributeError, RecursionError):
        return None
    return text if isinstance(text, str) and text.strip() else None
