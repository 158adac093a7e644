"""What a model has read of a conversation, on disk: so that a conversation goes on without being read again.

A file is a header of owm's own (for which model, build and settings it holds, which tokens) and then llama.cpp's bytes.
llama.cpp gets none of them before both are checked. The folder has a limit, and loses what was used least lately.
"""

import hashlib
import os
import shutil
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from owm.errors import MalformedFile, StoreError
from owm.events import Sink, Warned, ignore
from owm.publishing import PRIVATE, create_anew, make_private
from owm.units import format_bytes

LIMIT_BYTES = 4 << 30
LIMIT_SHARE = 0.05  # of what is free on the disk
SUFFIX = ".kv"
STAGE = "snapshot"
_MAGIC = b"owm-kv\r\n"  # a transfer that changes line ends is seen
_VERSION = 1
# magic, version, bytes of the label, tokens, bytes of the state; digests of what it is for, of the state
_HEADER = struct.Struct("<8sHHIQ32s32s")
_DIGEST_BYTES = 32
_MAX_TOKENS = 1 << 28
_MAX_LABEL_BYTES = 512
_LOCK_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a state belongs to besides its tokens: where anything here differs, it is never loaded.

    Attributes:
        model: the sha256 of the model's files.
        build: of llama.cpp, whose format it is.
        settings: of the context, by name, on which its content depends.
        adapters: the sha256 of each adapter and its scale, in order.
    """

    model: str
    build: str
    settings: tuple[tuple[str, float], ...] = ()
    adapters: tuple[tuple[str, float], ...] = ()

    def digest(self) -> bytes:
        """Return 32 bytes that stand for all of it."""
        return hashlib.sha256(repr((self.model, self.build, self.settings, self.adapters)).encode()).digest()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that is there.

    Attributes:
        label: for people, the name of the model.
        used_at: seconds since the epoch.
    """

    path: Path
    label: str
    tokens: Sequence[int]
    size_bytes: int
    used_at: float
    fingerprint: bytes


class Snapshots:
    """The snapshots in a folder, which several processes may use at the same time."""

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES, sink: Sink = ignore) -> None:
        """Take a folder, which need not be there.

        Args:
            limit_bytes: of all snapshots together; they take 5 % of the free space at most, too.
            sink: is told what could not be kept or was found damaged.
        """
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._sink = sink

    def all(self) -> list[Snapshot]:
        """Return every snapshot, the one used last first; what is none, or damaged, is left out."""
        found = []
        for path in self._paths():
            with suppress(OSError, MalformedFile), open(path, "rb", buffering=0) as file:
                found.append(_read_header(file, path))
        return sorted(found, key=lambda one: one.used_at, reverse=True)

    def find(self, fingerprint: Fingerprint, usable: Callable[[Sequence[int]], int]) -> Snapshot | None:
        """Return the snapshot of which most can be used, None if nothing can of any. Damaged ones are removed.

        Args:
            usable: says of how many of a snapshot's tokens there is use.
        """
        wanted, best, n_best = fingerprint.digest(), None, 0
        for path in self._paths(_beginning(wanted)):
            try:
                with open(path, "rb", buffering=0) as file:
                    snapshot = _read_header(file, path)
            except MalformedFile as error:
                self._remove_damaged(path, error)
                continue
            except OSError:
                continue
            if snapshot.fingerprint == wanted and (n := usable(snapshot.tokens)) > n_best:
                best, n_best = snapshot, n
        return best

    def load(self, snapshot: Snapshot) -> bytearray | None:
        """Return the state in a snapshot, None if it has gone or is damaged, in which case it is removed."""
        try:
            with open(snapshot.path, "rb", buffering=0) as file:
                if (found := _read_header(file, snapshot.path)).tokens != snapshot.tokens:
                    return None
                state = _read_state(file, found)
            with suppress(OSError):
                os.utime(snapshot.path)
        except MalformedFile as error:
            self._remove_damaged(snapshot.path, error)
            return None
        except (OSError, MemoryError):
            return None
        return state

    def room_bytes(self) -> int:
        """Return how many bytes snapshots may take at most, with those that are there."""
        at = self.folder
        while not at.exists():
            at = at.parent
        free = shutil.disk_usage(at).free + sum(_size(path) for path in self._paths())
        return min(self._limit_bytes, int(free * LIMIT_SHARE))

    def has_room(self, n_bytes: int) -> bool:
        """Tell whether a state of so many bytes can be kept, and say so where it cannot."""
        room = self.room_bytes()
        if n_bytes > room:
            self._tell(
                f"the conversation will be read anew next time: its snapshot needs {format_bytes(n_bytes)}, "
                f"snapshots may take {format_bytes(room)}"
            )
        return n_bytes <= room

    def save(
        self,
        fingerprint: Fingerprint,
        tokens: Sequence[int],
        state: bytearray,
        *,
        label: str = "",
        replaces_beginnings: bool = False,
    ) -> Path | None:
        """Write a snapshot; None if there is no room, or it cannot be written, which costs nothing else and is told.

        Args:
            replaces_beginnings: snapshots of a beginning of these tokens are of no more use and are removed.
        """
        wanted = fingerprint.digest()
        header = _header(wanted, tokens, state, label)
        key = hashlib.sha256(wanted + _packed(tokens)).hexdigest()
        path = self.folder / f"{_beginning(wanted)}{key[:24]}{SUFFIX}"
        try:
            make_private(self.folder)
            with FileLock(self.folder / ".lock", timeout=_LOCK_SECONDS, mode=0o600):
                for left in self.folder.glob("*.incomplete"):  # of a process that was killed: writers hold the lock
                    _unlink(left)
                if not self._make_room(len(header) + len(state), path):
                    return None
                self._write(path, header, state)
                if replaces_beginnings:
                    self._remove_beginnings(wanted, tokens, path)
        except (OSError, Timeout) as error:
            reason = "another process is at work there" if isinstance(error, Timeout) else error.strerror or error
            self._tell(f"the conversation will be read anew next time: no snapshot was written ({reason})")
            return None
        return path

    def clear(self) -> tuple[int, int]:
        """Remove all snapshots; return how many there were, and their bytes.

        Raises:
            StoreError: one cannot be removed.
        """
        n_removed = n_bytes = 0
        for path in [*self._paths(), *self.folder.glob("*.incomplete")]:
            size = _size(path)
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(f"cannot remove {path}: {error.strerror or error}") from error
            n_removed += path.suffix == SUFFIX
            n_bytes += size
        return n_removed, n_bytes

    def _paths(self, beginning: str = "") -> Iterator[Path]:
        with suppress(OSError):
            yield from sorted(
                path
                for path in self.folder.iterdir()
                if path.name.startswith(beginning) and path.name.endswith(SUFFIX) and not path.name.startswith(".")
            )

    def _make_room(self, n_bytes: int, path: Path) -> bool:
        """Remove what was used least lately, until there is room for a file; False where there will not be."""
        if not self.has_room(n_bytes):
            return False
        room = self.room_bytes()
        others = sorted((other for other in self._paths() if other != path), key=_used_at)
        n_taken = sum(map(_size, others))
        for other in others:
            if n_taken + n_bytes <= room:
                break
            n_taken -= _size(other)
            _unlink(other)
        return True

    def _write(self, path: Path, header: bytes, state: bytearray) -> None:
        """Write a file under another name and give it its own; no fsync: what a power cut spoils has a wrong digest."""
        temporary = path.with_name(f"{path.name}.{os.getpid()}.incomplete")
        try:
            with open(create_anew(temporary, mode=PRIVATE), "wb", buffering=0) as file:
                for part in (memoryview(header), memoryview(state)):
                    while part:
                        part = part[file.write(part) :]
            os.replace(temporary, path)
        except BaseException:
            _unlink(temporary)
            raise

    def _remove_beginnings(self, wanted: bytes, tokens: Sequence[int], path: Path) -> None:
        for other in self._paths(_beginning(wanted)):
            if other == path:
                continue
            with suppress(OSError, MalformedFile):
                with open(other, "rb", buffering=0) as file:
                    found = _read_header(file, other)
                if found.fingerprint == wanted and list(found.tokens) == list(tokens[: len(found.tokens)]):
                    other.unlink()

    def _remove_damaged(self, path: Path, error: MalformedFile) -> None:
        _unlink(path)
        self._tell(f"a snapshot was damaged and has been removed: {error.cause}")

    def _tell(self, message: str) -> None:
        self._sink(Warned(STAGE, message))


def open_snapshots(sink: Sink = ignore) -> Snapshots:
    """Return the user's own snapshots."""
    from owm.paths import owm_home

    return Snapshots(owm_home() / "cache" / "snapshots", sink=sink)


def _beginning(fingerprint: bytes) -> str:
    return f"{fingerprint.hex()[:16]}-"


def _packed(tokens: Sequence[int]) -> bytes:
    packed = array("I", tokens)
    assert packed.itemsize == 4
    return packed.tobytes()


def _header(fingerprint: bytes, tokens: Sequence[int], state: bytearray, label: str) -> bytes:
    """Return all that stands before the state; at its end the digest of itself."""
    named = label.encode("utf-8", "replace")[:_MAX_LABEL_BYTES]
    fixed = _HEADER.pack(_MAGIC, _VERSION, len(named), len(tokens), len(state), fingerprint, _digest(state))
    header = fixed + named + _packed(tokens)
    return header + _digest(header)


def _read_header(file: BinaryIO, path: Path) -> Snapshot:
    """Read and check what stands before the state, and that the file has the length that it should.

    Raises:
        MalformedFile: it is not what was written.
    """
    status = os.fstat(file.fileno())
    fixed = file.read(_HEADER.size)
    if len(fixed) < _HEADER.size:
        raise _malformed(path, "it is cut off")
    magic, version, n_label, n_tokens, n_state, fingerprint, _ = _HEADER.unpack(fixed)
    if magic != _MAGIC or version != _VERSION:
        raise _malformed(path, "it is no snapshot of this version")
    n_rest = n_label + 4 * n_tokens + _DIGEST_BYTES
    if n_tokens > _MAX_TOKENS or n_label > _MAX_LABEL_BYTES or status.st_size != _HEADER.size + n_rest + n_state:
        raise _malformed(path, "it has not the length that it should have")
    rest = file.read(n_rest)
    header = fixed + rest[:-_DIGEST_BYTES]
    if len(rest) != n_rest or _digest(header) != rest[-_DIGEST_BYTES:]:
        raise _malformed(path, "its header is not what was written")
    tokens = array("I")
    tokens.frombytes(rest[n_label:-_DIGEST_BYTES])
    label = rest[:n_label].decode("utf-8", "replace")
    return Snapshot(path, label, tokens, status.st_size, max(status.st_mtime, 0), fingerprint)


def _read_state(file: BinaryIO, snapshot: Snapshot) -> bytearray:
    """Read and check the state, which comes after what `_read_header` read.

    Raises:
        MalformedFile: it is not what was written.
    """
    begin = file.tell()
    state = bytearray(snapshot.size_bytes - begin)
    left = memoryview(state)
    while left and (n := file.readinto(left)):  # type: ignore[attr-defined]
        left = left[n:]
    n_left = len(left)
    left.release()
    file.seek(0)
    expected = _HEADER.unpack(file.read(_HEADER.size))[-1]
    if n_left or _digest(state) != expected:
        raise _malformed(snapshot.path, "its content is not what was written")
    return state


def _digest(content: bytes | bytearray) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _malformed(path: Path, cause: str) -> MalformedFile:
    return MalformedFile(path, cause, kind="snapshot")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
