"""Two model files byte for byte, certificates left out, and where they differ first: which key, which tensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from owm.formats import gguf
from owm.formats.gguf import Header
from owm.quality import certificate
from owm.store.digest import CHUNK_BYTES, blank
from owm.store.model import read_error

if TYPE_CHECKING:
    from io import FileIO

QUALITY = "owm.quality."
MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference; `number` counts the files of a model from 1, `offset` is where in that file it lies."""

    kind: Literal["files", "size", "key", "tensor", "header"]
    name: str | None
    number: int
    offset: int | None
    recorded: str | None
    built: str | None

    def __str__(self) -> str:
        where = f"file {self.number}, byte {self.offset}" if self.offset is not None else f"file {self.number}"
        if self.kind == "files":
            return f"{self.built} files instead of {self.recorded}"
        if self.kind == "size":
            return f"{self.built} bytes instead of {self.recorded} (file {self.number})"
        if self.kind == "header":
            return f"the header ({where})"
        what = f"the {self.kind} {self.name} ({where})"
        if self.recorded == self.built:
            return what
        return f"{what}: {self.built or 'nothing'} instead of {self.recorded or 'nothing'}"


def first_difference(built: Sequence[Path], recorded: Sequence[Path]) -> Difference | None:
    """Compare the files of a model that was built anew with those that are recorded.

    Raises:
        MalformedFile, StoreError: one cannot be read.
    """
    if len(built) != len(recorded):
        return Difference("files", None, 1, None, str(len(recorded)), str(len(built)))
    for number, (ours, theirs) in enumerate(zip(built, recorded, strict=True), 1):
        headers = gguf.read_header(ours), gguf.read_header(theirs)
        found = _in_headers(*headers, number)
        if found is None and (offset := _first_byte(ours, theirs, headers)) is not None:
            found = _at(offset, headers[0], ours, theirs, number)
        if found is not None:
            return found
    return None


def _in_headers(ours: Header, theirs: Header, number: int) -> Difference | None:
    built, recorded = (
        {key: raw for key, raw in each.raw_values().items() if not key.startswith(QUALITY)} for each in (ours, theirs)
    )
    for key in dict.fromkeys([*recorded, *built]):
        if built.get(key) != recorded.get(key):
            offset = (theirs if key in recorded else ours).places.get(key, (None, None))[0]
            return Difference("key", key, number, offset, _value(theirs, key), _value(ours, key))
    entries = {tensor.name: tensor for tensor in ours.tensors}
    for tensor in theirs.tensors:
        made = entries.get(tensor.name)
        if made is None or (made.type_name, made.shape) != (tensor.type_name, tensor.shape):
            said = None if made is None else f"{made.type_name} {list(made.shape)}"
            return Difference("tensor", tensor.name, number, None, f"{tensor.type_name} {list(tensor.shape)}", said)
    known = {tensor.name for tensor in theirs.tensors}
    more = next((tensor for tensor in ours.tensors if tensor.name not in known), None)
    return None if more is None else Difference("tensor", more.name, number, None, None, more.type_name)


def _value(header: Header, key: str) -> str | None:
    if key not in header.metadata:
        return None
    shown = repr(header.metadata[key])
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"


def _first_byte(ours: Path, theirs: Path, headers: tuple[Header, Header]) -> int | None:
    """Return where two files differ first, certificates apart; a file that ends early differs there."""
    places = [certificate.place_of(header) for header in headers]
    rooms = [memoryview(bytearray(CHUNK_BYTES)) for _ in range(2)]
    done = 0
    try:
        with open(ours, "rb", buffering=0) as a, open(theirs, "rb", buffering=0) as b:
            while True:
                counts = []
                for file, room, place in ((a, rooms[0], places[0]), (b, rooms[1], places[1])):
                    counts.append(_fill(file, room))
                    if place is not None:
                        blank(room[: counts[-1]], place.offset - done, place.size_bytes)
                least = min(counts)
                if rooms[0][:least] != rooms[1][:least]:
                    pairs = zip(rooms[0][:least], rooms[1][:least], strict=True)
                    return done + next(index for index, (one, other) in enumerate(pairs) if one != other)
                if counts[0] != counts[1]:
                    return done + least
                if least == 0:
                    return None
                done += least
    except OSError as error:
        raise read_error(error, theirs) from error


def _fill(file: "FileIO", room: memoryview) -> int:
    """Read until the room is full or the file ends."""
    done = 0
    while done < len(room) and (n_bytes := file.readinto(room[done:])):
        done += n_bytes
    return done


def _at(offset: int, header: Header, ours: Path, theirs: Path, number: int) -> Difference:
    for tensor in header.tensors:
        begin = header.data_offset + tensor.offset
        if begin <= offset < begin + tensor.n_bytes:
            return Difference("tensor", tensor.name, number, offset, None, None)
    sizes = theirs.stat().st_size, ours.stat().st_size
    if sizes[0] != sizes[1]:
        return Difference("size", None, number, offset, *map(str, sizes))
    return Difference("header", None, number, offset, None, None)
