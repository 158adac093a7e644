"""Encode the header of a GGUF file. ref: ggml/docs/gguf.md

Python values carry their GGUF type: `int` is an unsigned 32-bit number, `float` a 32-bit one, a list of `int` an array
of signed 32-bit numbers, `bytes` one of bytes (in a list, a text). `U16`, `I32`, `U64` and `F64` name the exceptions;
a `RawValue` is written as another file has it.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from owm.formats import gguf
from owm.formats.gguf import DEFAULT_ALIGNMENT, MAGIC, TENSOR_TYPES

VERSION = 3
TYPE_IDS = {name: type_id for type_id, (name, _, _) in TENSOR_TYPES.items()}

_U8, _U16, _U32, _I32, _F32, _BOOL, _STRING, _ARRAY, _U64, _F64 = 0, 2, 4, 5, 6, 7, 8, 9, 10, 12


class U16(int):
    """An unsigned 16-bit number."""


class I32(int):
    """A signed 32-bit number."""


class U64(int):
    """An unsigned 64-bit number."""


class F64(float):
    """A 64-bit floating-point number."""


@dataclass(frozen=True, slots=True)
class RawValue:
    """A value of another file: `raw` is its type and its bytes as they lie there, `value` what was read of it there."""

    raw: bytes
    value: gguf.Value = field(compare=False)


_EXCEPTIONS = ((F64, _F64, "d"), (U16, _U16, "H"), (I32, _I32, "i"), (U64, _U64, "Q"))

Text = str | bytes
Value = bool | int | float | Text | Sequence[bool] | Sequence[int] | Sequence[float] | Sequence[Text] | RawValue


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """A tensor as a header names it: `shape` in ggml order (row length first), `type_name` as in `Q4_K`."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int


def encode_header(
    metadata: Mapping[str, Value], tensors: Sequence[TensorHeader], *, alignment: int = DEFAULT_ALIGNMENT
) -> bytes:
    """Return the header, padded so that the tensor data begins right after it.

    Raises:
        ValueError: a value has no GGUF type; a bug of the caller.
    """
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _value(key, value)]
    for tensor in tensors:
        parts.append(_text(tensor.name))
        parts.append(struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape))
        parts.append(struct.pack("<IQ", TYPE_IDS[tensor.type_name], tensor.offset))
    header = b"".join(parts)
    return header + bytes(-len(header) % alignment)


def _text(text: Text) -> bytes:
    raw = _raw(text)
    return struct.pack("<Q", len(raw)) + raw


def _value(key: str, value: Value) -> bytes:
    if isinstance(value, RawValue):
        return value.raw
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, bytes):
        return struct.pack("<IIQ", _ARRAY, _U8, len(value)) + value
    for python_type, kind, code in _EXCEPTIONS:
        if isinstance(value, python_type):
            return struct.pack(f"<I{code}", kind, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    return struct.pack("<I", _ARRAY) + _array(key, value)


def _array(key: str, items: Sequence[bool] | Sequence[int] | Sequence[float] | Sequence[Text]) -> bytes:
    first = items[0] if len(items) else ""
    if isinstance(first, str | bytes):
        return struct.pack("<IQ", _STRING, len(items)) + _texts(items)
    if isinstance(first, bool):
        return struct.pack(f"<IQ{len(items)}?", _BOOL, len(items), *items)
    kind, carrier = (_I32, "<i4") if isinstance(first, int) else (_F32, "<f4")
    if not isinstance(first, int | float):
        raise ValueError(f"{key} holds {type(first).__name__}, which GGUF has no type for")
    return struct.pack("<IQ", kind, len(items)) + np.asarray(items, carrier).tobytes()


def _texts(items: Sequence[object]) -> bytes:
    """Encode many texts, each after its length: vocabularies have hundreds of thousands."""
    raw = [_raw(item) for item in items]
    lengths = np.fromiter(map(len, raw), "<u8", len(raw)).tobytes()
    parts = [b""] * (2 * len(raw))
    parts[0::2] = [lengths[i : i + 8] for i in range(0, len(lengths), 8)]
    parts[1::2] = raw
    return b"".join(parts)


def _raw(text: object) -> bytes:
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    assert isinstance(text, bytes)
    return text
