"""One metadata value of a GGUF file changed, everything else kept byte for byte."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gguf import GGUFReader, GGUFValueType
from gguf.gguf_reader import ReaderField

_FORMATS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.FLOAT64: "d",
    GGUFValueType.BOOL: "?",
}


class Edited:
    """A file that is read once and written with one value changed at a time."""

    def __init__(self, path: Path) -> None:
        self._bytes = path.read_bytes()
        self._reader = GGUFReader(path)
        self.values: dict[str, Any] = {
            key: field.contents() for key, field in self._reader.fields.items() if not key.startswith("GGUF.")
        }

    def hparams(self) -> list[str]:
        """List the keys of the architecture."""
        return [key for key in self.values if key.startswith(f"{self.values['general.architecture']}.")]

    def write(self, key: str, value: Any, to: Path) -> None:
        """Write the file with another value of the same type; an array may not change its length."""
        field = self._reader.fields[key]
        if field.types[0] == GGUFValueType.ARRAY:
            begin = _end(field, 5)  # name, type, type of the elements, their number
            new = b"".join(_encode(field.types[-1], each) for each in value)
        else:
            begin = _end(field, 3)
            new = _encode(field.types[0], value)
        header_end = _end(self._reader.tensors[-1].field)
        header = self._bytes[:begin] + new + self._bytes[_end(field) : header_end]
        padding = bytes(-len(header) % self._reader.alignment)
        to.write_bytes(header + padding + self._bytes[self._reader.data_offset :])


def changes(value: Any) -> Iterator[Any]:
    """Give other values of the same type, the most telling first."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from dict.fromkeys((value + 1, value * 2, max(0, value - 1)))
    elif isinstance(value, float):
        yield from (value * 1.5, value + 1.0)
    elif isinstance(value, str):
        yield "none" if value != "none" else "linear"
    else:
        if len(set(value)) > 1:
            yield value[1:] + value[:1]
        for changed in zip(*map(changes, value), strict=True):
            yield list(changed)


def _encode(kind: GGUFValueType, value: Any) -> bytes:
    if kind == GGUFValueType.STRING:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw
    if kind in (GGUFValueType.UINT8, GGUFValueType.UINT32) and value < 0:
        value = 0
    return struct.pack(f"<{_FORMATS[kind]}", value)


def _end(field: ReaderField, n_parts: int | None = None) -> int:
    """Offset in the file after the first parts of a field."""
    return int(field.offset) + sum(part.nbytes for part in field.parts[:n_parts])
