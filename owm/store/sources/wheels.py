"""A wheel from a stranger, read as a zip: which of its members is the model, and what it must not be.

Only that one member is ever unpacked, under a name of the store's own. A listing that contradicts itself is refused
whole: which of two names, sizes or places is meant, readers of zips do not agree on.
"""

import io
import os
import stat
import zipfile
from pathlib import Path

from owm.errors import Damaged, NoUsableFile
from owm.store import quants
from owm.store.names import check_repo_path

MAX_LISTING_BYTES = 4 << 20  # of the directory of a wheel; the largest real ones have a third of that
MAX_RATIO = 20  # of a model's bytes to its packed bytes; real ones have less than 2
MIN_BOMB_BYTES = 64 << 20  # what is smaller than that may be packed as tightly as it likes
_HEADER_BYTES = 30  # ref: APPNOTE 4.3.7
_ENCRYPTED = 1
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class WheelFile(io.BufferedReader):
    """A wheel's bytes, for `zipfile`, which believes any size that is stated."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1) -> bytes:
        """Read at most as much as a listing may have.

        Raises:
            BadZipFile: more is wanted.
        """
        if size is not None and size > MAX_LISTING_BYTES:
            raise zipfile.BadZipFile(f"its list of files has {size} bytes")
        return super().read(size)


def model_in(archive: zipfile.ZipFile, wheel: Path) -> zipfile.ZipInfo:
    """Return the one member that is a model.

    Raises:
        Damaged: the listing has unsafe names, contradicts itself, or says what cannot be.
        NoUsableFile: there is no model, or there are several.
    """
    listed = archive.infolist()
    seen: set[str] = set()
    for member in listed:
        name = check_repo_path((member.orig_filename.removesuffix("/")) or "/")
        if name in seen:
            raise Damaged(f"the wheel {wheel.name} lists two files with the same name: {name}")
        seen.add(name)
    members = [member for member in listed if not member.is_dir() and quants.is_model_file(member.filename)]
    if len(members) != 1:
        listing = tuple(member.filename for member in listed)
        raise NoUsableFile(
            f"the wheel {wheel.name} holds {len(members)} GGUF files, one is needed",
            files=listing,
            hint=f"it holds: {', '.join(listing[:12])}",
        )
    (member,) = members
    problem = _problem(member, listed, archive.start_dir, os.path.getsize(wheel))
    if problem is not None:
        raise Damaged(f"the wheel {wheel.name} is not to be unpacked: {member.filename} {problem}")
    return member


def _problem(member: zipfile.ZipInfo, listed: list[zipfile.ZipInfo], end: int, wheel_bytes: int) -> str | None:
    """Return what is wrong with a member, None if nothing is."""
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is a link" if stat.S_ISLNK(mode) else "is no file"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in _PACKINGS:
        return "is packed in a way that wheels are not"
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        return f"has {member.file_size} bytes, and {member.compress_size} as it is stored"
    following = [other.header_offset for other in listed if other.header_offset > member.header_offset]
    room = min([*following, end]) - member.header_offset - _HEADER_BYTES
    if member.header_offset < 0 or member.compress_size > room or member.compress_size > wheel_bytes:
        return "lies over other files"
    if sum(other.header_offset == member.header_offset for other in listed) > 1:
        return "lies over other files"
    if member.file_size > max(MIN_BOMB_BYTES, MAX_RATIO * member.compress_size):
        return f"would grow from {member.compress_size} to {member.file_size} bytes"
    return None
