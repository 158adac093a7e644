"""The journal of a batch: every finished row, appended at once as one line beside the output, and never changed.

Each line carries its own checksum. So whatever a killed process, a full disk or a power cut leaves behind, a row is
there as it was written or it is not there. Of the rows themselves, their order and the output, the journal knows
nothing: what was appended twice is told twice.
"""

import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from owm.batch import record_line
from owm.batch.record_line import HEADER, VERSION, mark_of, record_of, sealed_parts
from owm.batch.row import Record
from owm.errors import Damaged, MalformedFile, NotEnoughDisk, OwmError, StoreError
from owm.formats import sealed_lines
from owm.publishing import PRIVATE, sync_folder

SYNC_RECORDS = 32
SYNC_SECONDS = 1.0
SYNC_PAUSE_SECONDS = 0.05  # rows that need no model come faster than a disk can be told to keep them

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
_BLOCK_BYTES = 1 << 20
_MAX_HEADER_BYTES = 256  # of any version
_SEARCHED_BYTES = 64 << 20  # of a file whose first line is no journal's
_DAMAGED = [(0, b"")]

if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 1 << 60  # locks bind readers there: far behind whatever is written

    def _lock(fd: int) -> None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def _read_at(fd: int, n_bytes: int, offset: int) -> bytes:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, n_bytes)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    _read_at = os.pread


def journal_path(output: Path) -> Path:
    """Return where the journal of an output lies."""
    return output.with_name(output.name + ".journal")


class Journal:
    """The open journal of one batch, which no other process can open meanwhile; for one thread at a time.

    Attributes:
        n_records: how many it holds.
        n_damaged: lines that are not as they were written; they are skipped.
        last_written: what `mark_written` was told, unless a record was appended since.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.n_records = 0
        self.n_damaged = 0
        self.last_written: Mapping[str, Any] | None = None
        self._fd = fd
        self._end = 0  # of the last whole line
        self._n_unsynced = 0
        self._synced_at = time.monotonic()

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Open a journal, or begin one; a last line without its end is cut off.

        Raises:
            StoreError: another process has it open, a newer owm has written it, or it cannot be opened.
            MalformedFile: the file is something else; it stays as it is.
            NotEnoughDisk: there is no room for its first line.
        """
        try:
            fd = _open_locked(path)
        except OSError as error:
            raise write_error(error, path) from error
        journal = cls(path, fd)
        try:
            journal._begin()
        except BaseException:
            os.close(fd)
            raise
        return journal

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(OwmError):  # the first error is the one to tell
                self.close()

    def close(self) -> None:
        """Put everything on the disk, and let others open the journal.

        Raises:
            NotEnoughDisk, StoreError: the last records may not outlive a power cut.
        """
        if self._fd < 0:
            return
        try:
            self.sync()
        finally:
            fd, self._fd = self._fd, -1
            with suppress(OSError):  # nothing is left to be written
                os.close(fd)

    def append(self, record: Record) -> int:
        """Append a record, and return where it begins; once returned, it outlives the process.

        A record that is refused has left nothing behind, so it may be appended again when there is room.

        Raises:
            NotEnoughDisk: it does not fit; all records before it are kept.
            StoreError: it cannot be written; all records before it are kept.
        """
        offset = self._append(record_line.record_line(record))
        self.n_records += 1
        self.last_written = None
        return offset

    def mark_written(self, about: Mapping[str, Any]) -> None:
        """Note that the output holds all records, and what it was written like; on the disk when this returns.

        Raises:
            NotEnoughDisk, StoreError: as in `append`.
        """
        line = record_line.mark_line(about)
        self._append(line, is_synced=True)
        self.last_written = mark_of(line[:-1])

    def scan(self) -> Iterator[tuple[int, Record]]:
        """Return the records that are there now with where each begins, in the order in which they were appended.

        Raises:
            StoreError: the file cannot be read.
        """
        n_damaged = 0
        for offset, line in self._lines(self._end):
            record = record_of(line)
            if record is not None:
                yield offset, record
            elif not line or record_line.is_record(line):
                n_damaged += 1
        self.n_damaged = n_damaged

    def read(self, begin: int) -> Record:
        """Return the record that begins at a place that `append` or `scan` has told.

        Raises:
            Damaged: there is no whole record.
            StoreError: the file cannot be read.
        """
        line, offset = b"", begin
        while b"\n" not in line and (block := self._read(min(max(4096, len(line)), self._end - offset), offset)):
            line += block
            offset += len(block)
        for within, part in sealed_parts(line.partition(b"\n")[0]):
            if within == 0 and (record := record_of(part)) is not None:
                return record
        raise Damaged(
            f"{self.path} holds no whole row at byte {begin}",
            hint="run the same command again, it computes the row anew",
        )

    def restart(self) -> None:
        """Forget everything.

        Raises:
            NotEnoughDisk, StoreError: it cannot be written.
        """
        try:
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise self._refusal(error) from error
        self._end = self.n_records = self.n_damaged = 0
        self.last_written = None
        self._append(HEADER, is_synced=True)

    def sync(self) -> None:
        """Put what was appended on the disk, so that it outlives a power cut.

        Raises:
            NotEnoughDisk, StoreError: the system could not.
        """
        if not self._n_unsynced:
            return
        try:
            self._sync()
        except OSError as error:
            raise self._refusal(error) from error

    def _begin(self) -> None:
        """Read what is there, and write the first line where nothing is."""
        if self._is_blank():
            self.restart()
            try:
                sync_folder(self.path.parent)
            except OSError as error:
                raise write_error(error, self.path) from error
        elif self._is_journal():
            self._survey()
        else:
            _refuse(self.path, self._read(_MAX_HEADER_BYTES, 0))

    def _is_blank(self) -> bool:
        """Tell whether nothing is in the file but a part of the first line, and the zeros that a power cut leaves."""
        offset = 0
        begun = b""
        while block := self._read(_BLOCK_BYTES, offset):
            offset += len(block)
            begun += block.rstrip(b"\0")
            if not HEADER.startswith(begun) or len(begun) == len(HEADER):
                return False
        return True

    def _is_journal(self) -> bool:
        """Tell whether this owm has written the file, even if its first line is damaged."""
        for _, line in self._lines(min(os.fstat(self._fd).st_size, _SEARCHED_BYTES)):
            if line:
                return not record_line.is_header(line) or line == HEADER[:-1]
        return False

    def _survey(self) -> None:
        """Cut off a last line without its end, and count what is there."""
        try:
            self._end = self._end_of_last_line()
            os.ftruncate(self._fd, self._end)
        except OSError as error:
            raise write_error(error, self.path) from error
        last = b""
        for _, last in self._lines(self._end):
            if not last:
                self.n_damaged += 1
            else:
                self.n_records += record_line.is_record(last)
        self.last_written = mark_of(last)

    def _end_of_last_line(self) -> int:
        end = os.fstat(self._fd).st_size
        while end > 0:
            begin = max(0, end - _BLOCK_BYTES)
            line_break = self._read(end - begin, begin).rfind(b"\n")
            if line_break >= 0:
                return begin + line_break + 1
            end = begin
        return 0

    def _lines(self, end: int) -> Iterator[tuple[int, bytes]]:
        """Return where each whole line before `end` begins, and the line without its break; b"" if it is damaged."""
        position = offset = 0
        rest = b""
        while block := self._read(min(max(_BLOCK_BYTES, len(rest)), end - position), position):
            position += len(block)
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                for within, part in sealed_parts(line) or _DAMAGED:
                    yield offset + within, part
                offset += len(line) + 1

    def _read(self, n_bytes: int, offset: int) -> bytes:
        """Read from a place on: fewer than `n_bytes` only where the file ends, nothing if that is none."""
        found = b""
        try:
            while len(found) < n_bytes and (more := _read_at(self._fd, n_bytes - len(found), offset + len(found))):
                found += more
        except OSError as error:
            raise StoreError(
                f"cannot read {self.path}: {error.strerror or error}", hint="look at its disk and its permissions"
            ) from error
        return found

    def _append(self, line: bytes, *, is_synced: bool = False) -> int:
        """Write a line wholly or not at all, and return where it begins."""
        try:
            size = os.fstat(self._fd).st_size
            if size < self._end:
                raise StoreError(
                    f"another program has cut {self.path} short",
                    hint="run the same command again, what is lost is computed anew",
                )
            if size > self._end:  # an interrupt or an error has left it there
                os.ftruncate(self._fd, self._end)
            if self._end == 0 and line != HEADER:  # a restart found no room for it
                self._append(HEADER, is_synced=True)
            self._write(line, is_synced=is_synced)
        except OSError as error:
            raise self._refusal(error, len(line)) from error
        offset, self._end = self._end, self._end + len(line)
        return offset

    def _write(self, line: bytes, *, is_synced: bool) -> None:
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            self._n_unsynced += 1
            if is_synced or self._is_sync_due():
                self._sync()
        except BaseException:
            with suppress(OSError):  # then the next append cuts it off
                os.ftruncate(self._fd, self._end)
            raise

    def _is_sync_due(self) -> bool:
        seconds = time.monotonic() - self._synced_at
        return seconds >= SYNC_SECONDS or (self._n_unsynced >= SYNC_RECORDS and seconds >= SYNC_PAUSE_SECONDS)

    def _sync(self) -> None:
        os.fsync(self._fd)
        self._n_unsynced = 0
        self._synced_at = time.monotonic()

    def _refusal(self, error: OSError, n_bytes: int = 0) -> NotEnoughDisk | StoreError:
        kept = "1 row is kept" if self.n_records == 1 else f"{self.n_records} rows are kept"
        return write_error(error, self.path, n_bytes=n_bytes, note=kept)


def write_error(error: OSError, path: Path, *, n_bytes: int = 0, note: str = "") -> NotEnoughDisk | StoreError:
    """Translate a failed write of one of the files beside an output."""
    return sealed_lines.write_error(
        error,
        path,
        n_bytes=n_bytes,
        note=note,
        room_hint="make room and run the same command again, it goes on from where it stopped",
        place_hint="look at its folder and its permissions, or write to another file (`-o`)",
    )


def _open_locked(path: Path) -> int:
    """Open a file that no other process has open in this way, the very file that has the name now."""
    while True:
        fd = os.open(path, _FLAGS, PRIVATE)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StoreError(f"{path} is not a file", hint="write to another file (`-o`)")
            _lock(fd)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                locked, fd = fd, -1
                return locked
        except FileNotFoundError:  # someone has just removed it
            continue
        except (BlockingIOError, PermissionError):
            output = path.with_name(path.name.removesuffix(".journal"))
            raise StoreError(
                f"another owm batch is writing {output}", hint="wait for it, or write to another file (`-o`)"
            ) from None
        finally:
            if fd >= 0:
                os.close(fd)


def _refuse(path: Path, head: bytes) -> None:
    """Say why a file that begins in another way is not touched."""
    version = record_line.version_of(head.partition(b"\n")[0])
    if version is not None and version > VERSION:
        raise StoreError(
            f"{path} was written by a newer owm (journal {version}, this one knows {VERSION})", hint="update owm"
        )
    raise MalformedFile(
        path,
        "it does not begin like one",
        kind="journal",
        hint=f"move {path} away, or write to another file (`-o`)",
    )
