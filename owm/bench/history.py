"""Every result ever measured here: one sealed line each in `OWM_HOME/bench/history.jsonl`, only ever appended to."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from owm import paths
from owm.bench.record import VERSION, Record
from owm.errors import OwmError, StoreError
from owm.formats import sealed_lines
from owm.publishing import sync_folder

LOCK_SECONDS = 30.0
FIRST_MEMBER = "version"


def default_path() -> Path:
    """Return where results are kept."""
    return paths.owm_home() / "bench" / "history.jsonl"


def append(records: Sequence[Record], path: Path | None = None) -> Path:
    """Add results; another process that adds some meanwhile waits.

    Raises:
        NotEnoughDisk, StoreError: they cannot be written.
    """
    from filelock import FileLock, Timeout

    path = path or default_path()
    lines = b"".join(sealed_lines.seal({FIRST_MEMBER: record.version, **record.members()}) for record in records)
    try:
        is_new = not path.parent.is_dir()
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=LOCK_SECONDS), path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            # A line that a crash has cut must not swallow the first of these.
            begin = b"\n" if end and _last_byte(path) != b"\n" else b""
            try:
                rest = memoryview(begin + lines)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, end)
                raise
        if is_new:
            sync_folder(path.parent)
    except Timeout:
        raise StoreError(f"another process holds {path}", hint="try again when it has ended") from None
    except OSError as error:
        raise sealed_lines.write_error(
            error,
            path,
            room_hint="free some space; `--no-history` keeps no results",
            place_hint="`--no-history` keeps no results",
            n_bytes=len(lines),
        ) from error
    return path


def read(path: Path | None = None, *, note: Callable[[str], None] = lambda message: None) -> list[Record]:
    """Return all results, the oldest first; what cannot be believed is passed over, and `note` says so.

    Raises:
        StoreError: the file is there and cannot be read.
    """
    path = path or default_path()
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    found: list[Record] = []
    n_damaged = n_newer = 0
    breaks = sealed_lines.wrong_break(FIRST_MEMBER)
    for line in raw.split(b"\n"):
        if not line:
            continue
        parts = sealed_lines.sealed_parts(line, breaks)
        n_damaged += not parts
        for _, part in parts:
            members = sealed_lines.content_of(part) or {}
            if isinstance(members.get("version"), int) and members["version"] > VERSION:
                n_newer += 1
                continue
            try:
                found.append(Record.of_members(members))
            except OwmError:
                n_damaged += 1
    if n_damaged:
        note(f"{n_damaged} of the results in {path} {_are(n_damaged)} damaged and passed over")
    if n_newer:
        note(f"{n_newer} of the results in {path} {_are(n_newer)} of a newer owm and passed over")
    return found


def runs(records: Sequence[Record]) -> list[list[Record]]:
    """Part results by the run of `owm bench` that they are of, the oldest first."""
    found: dict[str, list[Record]] = {}
    for number, record in enumerate(records):
        found.setdefault(record.run_id or f"{record.test_time} {number}", []).append(record)
    return list(found.values())


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def _are(n: int) -> str:
    return "is" if n == 1 else "are"
