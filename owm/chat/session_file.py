"""The file of a session: sealed lines, each on the disk before the next thing happens, for one process at a time.

It knows lines and no turns. Whatever a killed process, a full disk or a power cut leaves behind, a line is there as it
was written or it is not there.
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owm.chat.conversation import RECORDS
from owm.errors import MalformedFile, NotEnoughDisk, NotFound, StoreError
from owm.formats import sealed_lines
from owm.formats.sealed_lines import content_of, sealed_parts, wrong_break
from owm.publishing import make_private, sync_folder

try:
    import fcntl
except ImportError:  # Windows: nothing keeps a second process away there
    fcntl = None  # type: ignore[assignment]

HEADER = "owm_session"
VERSION = 1

_PARTIAL = ".incomplete"
_MAX_EMPTY_BYTES = 1024  # of a file that has no more than its first line
_HEADER_BEGIN = b'{"owm_session":'
_BREAKS = wrong_break(HEADER, *RECORDS)
_FLAGS = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Lines:
    """What is in a file.

    Attributes:
        records: what the whole lines say, in their order.
        damaged: the numbers of lines that are not as they were written.
        is_cut: the last line was not written to its end.
        end: where the last whole line ends; what stands behind it is no line.
        is_open: that line lacks its line break.
    """

    records: list[dict[str, Any]]
    damaged: list[int]
    is_cut: bool
    end: int
    is_open: bool


def parse(content: bytes) -> Lines:
    """Read the lines of a file, skipping what is damaged."""
    records: list[dict[str, Any]] = []
    damaged: list[int] = []
    *lines, tail = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        parts = [part for _, part in sealed_parts(line, _BREAKS)]
        sound = [record for part in parts if (record := content_of(part)) is not None]
        records += sound
        n_bytes = sum(map(len, parts)) + len(parts) - 1  # with the wrong byte between two of them
        if len(sound) < len(parts) or n_bytes < len(line.removesuffix(b"\r")):
            damaged.append(number)
    end = len(content) - len(tail)
    if not tail:
        return Lines(records, damaged, is_cut=False, end=end, is_open=False)
    both = sealed_parts(tail, _BREAKS), sealed_parts(tail[:-1], _BREAKS)  # its break may have become another byte
    last = max(both, key=lambda parts: sum(len(part) for _, part in parts))
    for begin, part in last:
        if (record := content_of(part)) is not None:
            records.append(record)
            end = len(content) - len(tail) + begin + len(part)
    is_open = end > len(content) - len(tail)
    return Lines(records, damaged, is_cut=end < len(content) - is_open, end=end, is_open=is_open)


def read(path: Path) -> Lines:
    """Read a session's file, which another process may be writing.

    Raises:
        NotFound: there is none.
        StoreError: it cannot be read, or is a newer owm's.
        MalformedFile: it is something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _read_error(error, path) from error
    lines = parse(content)
    _check(lines, content, path)
    return lines


def remove(path: Path) -> None:
    """Remove a session's file, whatever is in it.

    Raises:
        NotFound: there is none.
        StoreError: another process has it open, or it cannot be removed.
    """
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        raise _read_error(error, path) from error
    try:
        _lock_session(fd, path)
    except BaseException:
        os.close(fd)
        raise
    SessionFile(path, fd).remove()


class SessionFile:
    """A session's file that this process alone may write."""

    def __init__(self, path: Path, fd: int, end: int = 0) -> None:
        self.path = path
        self._fd = fd
        self._end = end  # of the last whole line

    @classmethod
    def create(cls, path: Path, header: bytes) -> "SessionFile":
        """Make a file that only its owner may read, in a folder that nobody else may look into.

        It is never there without its first line. What killed processes have begun, and nothing was said in, is removed.

        Raises:
            FileExistsError: there is such a file.
            NotEnoughDisk, StoreError: it cannot be made.
        """
        try:
            make_private(path.parent)
            if os.name == "posix" and path.parent.stat().st_mode & 0o077:
                path.parent.chmod(0o700)
            _sweep(path.parent)
            fd = _begin(path, header)
        except FileExistsError:
            if path.parent.is_dir():
                raise
            raise StoreError(f"{path.parent} is not a folder", hint="sessions are kept there") from None
        except OSError as error:
            raise write_error(error, path) from error
        return cls(path, fd, len(header))

    @classmethod
    def open(cls, path: Path) -> tuple["SessionFile", Lines]:
        """Open a file to go on with it; a last line without its end is cut off.

        Raises:
            NotFound: there is none.
            StoreError: another process has it open, or it cannot be read or written, or is a newer owm's.
            MalformedFile: it is something else; it stays as it is.
        """
        try:
            fd = os.open(path, _FLAGS)
        except OSError as error:
            raise _read_error(error, path) from error
        try:
            _lock_session(fd, path)
            content = _read_all(fd)
            lines = parse(content)
            _check(lines, content, path)
            if lines.end < len(content):
                os.ftruncate(fd, lines.end)
            if os.name == "posix" and os.fstat(fd).st_mode & 0o077:
                os.fchmod(fd, 0o600)
            file = cls(path, fd, lines.end)
            if lines.is_open:
                file.append(b"\n")
        except OSError as error:
            os.close(fd)
            raise write_error(error, path) from error
        except BaseException:
            os.close(fd)
            raise
        return file, lines

    def append(self, line: bytes) -> None:
        """Append a line with its line break; once this returns, it outlives a power cut.

        A line that is refused has left nothing behind.

        Raises:
            NotEnoughDisk, StoreError: it cannot be written; all before it is kept.
        """
        try:
            found = os.fstat(self._fd)
            if found.st_nlink == 0 or found.st_size < self._end:
                what = "removed" if found.st_nlink == 0 else "cut short"
                raise StoreError(
                    f"another program has {what} {self.path}", hint="an export keeps what is in the conversation"
                )
            if found.st_size > self._end:  # an interrupt or an error has left it there
                os.ftruncate(self._fd, self._end)
            self._write(line)
        except OSError as error:
            raise write_error(error, self.path, n_bytes=len(line)) from error
        self._end += len(line)

    def close(self) -> None:
        """Let other processes open the file."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):  # nothing is left to be written
                os.close(fd)

    def remove(self) -> None:
        """Close and remove the file.

        Raises:
            StoreError: it cannot be removed.
        """
        self.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {self.path}: {error.strerror or error}") from error

    def _write(self, line: bytes) -> None:
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except BaseException:
            with suppress(OSError):  # then the next append cuts it off
                os.ftruncate(self._fd, self._end)
            raise


def _begin(path: Path, header: bytes) -> int:
    """Write a file's first line under another name, give it its own, and return it open and locked.

    Raises:
        FileExistsError: there is such a file.
        OSError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}{_PARTIAL}")
    fd = os.open(partial, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _lock(fd)
        rest = memoryview(header)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
        if not partial.exists():
            raise FileExistsError(f"{partial} was taken for a killed process's before it was locked")
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links; no other process has drawn this name
            os.rename(partial, path)
        partial.unlink(missing_ok=True)
        sync_folder(path.parent)
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    return fd


def _sweep(folder: Path) -> None:
    """Remove files in which nothing was said, of processes that were killed: what nobody has locked."""
    if fcntl is None:
        return
    for path in [*folder.glob(f"*{_PARTIAL}"), *folder.glob("*.jsonl")]:
        with suppress(OSError):
            if path.suffix != _PARTIAL and path.stat().st_size > _MAX_EMPTY_BYTES:
                continue
            fd = os.open(path, _FLAGS)
            try:
                _lock(fd)
                if path.suffix == _PARTIAL or _is_header_alone(parse(_read_all(fd))):
                    path.unlink()
            finally:
                os.close(fd)


def _is_header_alone(lines: Lines) -> bool:
    return len(lines.records) == 1 and HEADER in lines.records[0] and not lines.damaged and not lines.is_cut


def write_error(error: OSError, path: Path, *, n_bytes: int = 0) -> NotEnoughDisk | StoreError:
    """Translate a failed write."""
    return sealed_lines.write_error(
        error,
        path,
        n_bytes=n_bytes,
        room_hint="make room: what is not written yet is written with the next turn",
        place_hint="look at its folder and its permissions (`OWM_HOME`)",
    )


def _read_error(error: OSError, path: Path) -> NotFound | StoreError:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"no session {path.stem}", hint="`owm sessions` lists them")
    return StoreError(
        f"cannot read {path}: {error.strerror or error}", hint="look at its folder and its permissions (`OWM_HOME`)"
    )


def _lock(fd: int) -> None:
    if fcntl is not None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_session(fd: int, path: Path) -> None:
    """Lock the very file that has the name now.

    Raises:
        NotFound: someone has just removed it.
        StoreError: another process has it open, or it is no file.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise StoreError(f"{path} is not a file")
    try:
        _lock(fd)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return
    except BlockingIOError:
        raise StoreError(
            f"another owm has the session {path.stem} open", hint="leave it there, or begin another one"
        ) from None
    except FileNotFoundError as error:
        raise _read_error(error, path) from error
    raise NotFound(f"no session {path.stem}", hint="`owm sessions` lists them")


def _read_all(fd: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    blocks = []
    while block := os.read(fd, 1 << 20):
        blocks.append(block)
    return b"".join(blocks)


def _check(lines: Lines, content: bytes, path: Path) -> None:
    """Refuse what this owm has not written.

    Raises:
        StoreError: a newer one has.
        MalformedFile: it is no session.
    """
    for record in lines.records:
        version = record.get(HEADER, VERSION)
        if version != VERSION:
            raise StoreError(
                f"{path} was written by a newer owm (session {version}, this one knows {VERSION})", hint="update owm"
            )
    is_begun = content.startswith(_HEADER_BEGIN) or _HEADER_BEGIN.startswith(content.rstrip(b"\0"))
    if not lines.records and not is_begun:
        raise MalformedFile(path, "it does not begin like one", kind="session", hint=f"move {path} away")
