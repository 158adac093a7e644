"""GGUF files packed by hand, byte for byte as asked: whole ones, and such that no writer would write."""

import struct
from collections.abc import Sequence
from typing import Any

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


def text(value: str | bytes, length: int | None = None) -> bytes:
    """Pack a text, with a false length if one is given."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def value(kind: int, content: Any) -> bytes:
    """Pack a scalar or a text of a kind."""
    return text(content) if kind == STRING else struct.pack(f"<{CODES[kind]}", content)


def key(name: str | bytes, kind: int, content: Any) -> bytes:
    """Pack a metadata entry; `content` as bytes is taken as it is."""
    raw = content if isinstance(content, bytes) else value(kind, content)
    return text(name) + struct.pack("<I", kind) + raw


def array(name: str | bytes, kind: int, items: Sequence[Any], count: int | None = None) -> bytes:
    """Pack a metadata entry that is an array, with a false number of items if one is given."""
    head = struct.pack("<IQ", kind, len(items) if count is None else count)
    return key(name, ARRAY, head + b"".join(value(kind, item) for item in items))


def tensor(name: str | bytes, shape: Sequence[int], type_id: int, offset: int) -> bytes:
    """Pack a tensor entry."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type_id, offset)


def pack(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    """Pack a file: header, entries, padding, data."""
    counts = (len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join([*keys, *tensors])
    return head + (b"\0" * (-len(head) % alignment) + data if data else b"")
