"""Safetensors files packed by hand: whole ones from arrays, and such that no writer would write."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Raw = tuple[str, Sequence[int], bytes]  # dtype, shape and bytes, for types that numpy does not have

DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64", "complex64": "C64",
}  # fmt: skip


def pack(tensors: Mapping[str, np.ndarray | Raw], metadata: Mapping[str, str] | None = None) -> bytes:
    """Pack a whole file: tensors in their order, the header padded to a multiple of 8 bytes as the format asks."""
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for name, tensor in tensors.items():
        if isinstance(tensor, np.ndarray):
            dtype, shape = DTYPES[tensor.dtype.name], tensor.shape
            raw = tensor.astype(tensor.dtype.newbyteorder("<")).tobytes()
        else:
            dtype, shape, raw = tensor
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    return frame(header + b" " * (-len(header) % 8), data)


def frame(header: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """Pack a header as it is, with a false length if one is given."""
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data
