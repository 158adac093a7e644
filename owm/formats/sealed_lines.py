"""Lines that carry their own checksum: a JSON object whose last member is the CRC-32 of all that stands before it.

A line is believed only whole: of a line that is not as it was written, nothing is read.
"""

import errno
import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from owm.errors import NotEnoughDisk, StoreError
from owm.units import format_bytes

_SEAL = b',"crc32":"%08x"}'
_SEAL_BYTES = len(_SEAL % 0)
# A lone surrogate is no character, but JSON can spell one: what a line holds comes back just as it was.
_SURROGATES = "surrogatepass"

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the limit on the size of a file is reached",
}

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode


def seal(members: Mapping[str, Any]) -> bytes:
    """Write an object, which is not empty, as a line, its line break included."""
    body = _encode(members)[:-1].encode("utf-8", _SURROGATES)
    return body + _SEAL % crc32(body) + b"\n"


def is_sealed(line: bytes) -> bool:
    """Tell whether a line, without its line break, is as it was written."""
    return line[-_SEAL_BYTES:] == _SEAL % crc32(memoryview(line)[:-_SEAL_BYTES])


def content_of(line: bytes) -> dict[str, Any] | None:
    """Return the members of a sealed line, None if it is not JSON, which owm never sealed."""
    try:
        text = line.decode("utf-8", _SURROGATES)
        found, end = _decode(text)
    except (ValueError, RecursionError):
        return None
    return found if end == len(text) else None


def wrong_break(*first_members: str) -> re.Pattern[bytes]:
    """Return what finds one byte that stands for the line break between two lines, by how the second one begins."""
    names = "|".join(map(re.escape, first_members)).encode()
    return re.compile(rb',"crc32":"[0-9a-f]{8}"\}(.)(?=\{"(?:' + names + rb')":)', re.DOTALL)


def sealed_parts(line: bytes, breaks: re.Pattern[bytes]) -> list[tuple[int, bytes]]:
    """Return what of a line, without its line break, is as it was written, and where in it that begins.

    That is all of it or nothing, but for a line whose break has become CR LF, and for two lines whose break has become
    another byte (`breaks`, by `wrong_break`). No text in a line can pass for a line in this way: a part begins or ends
    with the line, and what a line says stands in the middle of one.
    """
    if is_sealed(line):
        return [(0, line)]
    line = line.removesuffix(b"\r")
    found = [match.start(1) for match in breaks.finditer(line)]
    parts = [(0, line[: found[0]]), (found[-1] + 1, line[found[-1] + 1 :])] if found else [(0, line)]
    return [(begin, part) for begin, part in parts if is_sealed(part)]


def write_error(
    error: OSError, path: Path, *, room_hint: str, place_hint: str, n_bytes: int = 0, note: str = ""
) -> NotEnoughDisk | StoreError:
    """Translate a failed write of such a file, or of one beside it.

    Args:
        room_hint: what to do where there is no room.
        place_hint: what to do where the file cannot be written at all.
        note: what became of the rest.
    """
    if error.errno in _FULL:
        free = 0
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
        return NotEnoughDisk(
            f"{_FULL[error.errno]}: {path} ({format_bytes(free)} free{note and ', ' + note})",
            needed=max(n_bytes, free + 1),
            free=free,
            hint=room_hint,
        )
    reason = error.strerror or error
    return StoreError(f"cannot write {path}: {reason}{note and ' (' + note + ')'}", hint=place_hint)
