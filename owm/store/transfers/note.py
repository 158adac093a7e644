"""What is noted beside a partial file: by what a changed source is known, and which parts are on disk.

A partial file without noted parts is a beginning without gaps. Parts are noted as they are written, which a kill
survives, and which of them the disk has confirmed, which a power cut survives too.
"""

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from owm.publishing import create_anew

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Note:
    """One note. `parts` are None for a file without gaps; `boot` tells since when the machine has been running."""

    validator: str | None = None
    size_bytes: int | None = None
    digest: str | None = None
    parts: Ranges | None = None
    safe_parts: Ranges = ()
    boot: str | None = None

    def parts_on_disk(self) -> Ranges | None:
        """Return the parts that can be relied upon now; None for all of the file."""
        return self.parts if self.parts is None or self.boot == boot() else self.safe_parts


def path_of(partial: Path) -> Path:
    """Return where the note about a partial file is."""
    return partial.with_name(partial.name + ".json")


def read(partial: Path) -> Note | None:
    """Read a note; None if there is none, or none that makes sense."""
    try:
        noted = json.loads(path_of(partial).read_text("utf-8"))
        parts = noted.get("parts")
        return Note(
            validator=_text(noted["validator"]),
            size_bytes=_size(noted.get("size_bytes")),
            digest=_text(noted.get("digest")),
            parts=None if parts is None else _ranges(parts),
            safe_parts=_ranges(noted.get("safe_parts", [])),
            boot=_text(noted.get("boot")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write(note: Note, partial: Path) -> None:
    """Replace the note in one step. It is not flushed to the disk: a kill is what it is for."""
    path = path_of(partial)
    noted: dict[str, Any] = {"validator": note.validator, "size_bytes": note.size_bytes, "digest": note.digest}
    if note.parts is not None:
        noted |= {"parts": note.parts, "safe_parts": note.safe_parts, "boot": note.boot}
    temporary = path.with_name(path.name + ".new")
    try:
        with open(create_anew(temporary), "w", encoding="utf-8") as file:
            json.dump(noted, file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove(partial: Path) -> None:
    """Remove the note about a partial file."""
    path = path_of(partial)
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".new").unlink(missing_ok=True)


@cache
def boot() -> str:
    """Return what is the same until the machine starts again."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError("no text")
    return value


def _size(value: object) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise TypeError("no size")
    return value


def _ranges(value: object) -> Ranges:
    if not isinstance(value, list):
        raise TypeError("no list of parts")
    ranges = []
    furthest = 0
    for begin, end in value:
        if not (isinstance(begin, int) and isinstance(end, int) and furthest <= begin < end):
            raise ValueError("no parts in order")
        ranges.append((begin, end))
        furthest = end
    return tuple(ranges)
