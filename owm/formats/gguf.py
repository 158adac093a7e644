"""Read the header of a GGUF file as hostile input: every count, length and offset is checked before it is believed.

Nothing is copied that is not asked for: long arrays (vocabularies) are walked, not built. What passes here is what
llama.cpp's own reader takes; what it would refuse, or abort on, is a `MalformedFile` with the exact cause.
ref: llama.cpp ggml/src/gguf.cpp
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from owm.errors import MalformedFile, StoreError, Unsupported
from owm.units import format_bytes

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMS = 4
MAX_NAME_BYTES = 63
MAX_KEY_BYTES = 65535
DEFAULT_ALIGNMENT = 32
EAGER_ITEMS = 4096  # arrays up to this length are read at once (per-layer values), longer ones on demand

# id: (name, elements in a quant block, bytes of a quant block). ref: ggml/src/ggml-common.h
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip

# general.file_type. ref: llama.cpp include/llama.h, enum llama_ftype
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SIZES = {kind: struct.calcsize(f"<{code}") for kind, code in _SCALARS.items()}


@dataclass(frozen=True, slots=True)
class LongArray:
    """An array that was walked but not read: `count` items of GGUF value type `item_type`, from byte `offset`."""

    item_type: int
    count: int
    offset: int


Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | LongArray


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor as the header tells it: `shape` in ggml order (row length first), `offset` from the data section."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    n_bytes: int

    @property
    def n_elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def type_name(self) -> str:
        """The tensor type: `Q4_K`."""
        return TENSOR_TYPES[self.type_id][0]


@dataclass(frozen=True, slots=True)
class Header:
    """A checked GGUF header. `data_offset` is where the tensors begin."""

    path: Path
    version: int
    metadata: dict[str, Value]
    tensors: tuple[TensorEntry, ...]
    alignment: int
    data_offset: int
    file_bytes: int

    @property
    def architecture(self) -> str:
        """The architecture, by which other keys are prefixed."""
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def n_params(self) -> int:
        """Number of weights in this file (one shard of several holds a part)."""
        return sum(tensor.n_elements for tensor in self.tensors)

    @property
    def file_type(self) -> str | None:
        """The quantization type that the file says it has."""
        found = self.metadata.get("general.file_type")
        return FILE_TYPES.get(found) if isinstance(found, int) else None

    def text(self, key: str) -> str | None:
        """Return a string value, None if it is missing or no string."""
        found = self.metadata.get(key)
        return found if isinstance(found, str) else None

    def integer(self, key: str) -> int | None:
        """Return an integer of this architecture, `{architecture}.{key}`; of a per-layer array, the largest."""
        found = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(found, tuple) and found and all(isinstance(item, int) for item in found):
            return max(int(item) for item in found)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def integers(self, key: str, n_layers: int) -> list[int] | None:
        """Return an integer for each layer of this architecture, whether stored once or per layer."""
        found = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(found, tuple):
            return [int(item) for item in found][:n_layers] if len(found) >= n_layers else None
        return [int(found)] * n_layers if isinstance(found, int) else None

    def strings(self, key: str) -> list[str]:
        """Read a string array, long or short; [] if there is none."""
        found = self.metadata.get(key)
        if isinstance(found, tuple):
            return [str(item) for item in found]
        if not isinstance(found, LongArray) or found.item_type != _STRING:
            return []
        with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            items, position = [], found.offset
            for _ in range(found.count):
                (length,) = struct.unpack_from("<Q", view, position)
                items.append(view[position + 8 : position + 8 + length].decode("utf-8", "replace"))
                position += 8 + length
        return items


def read_header(path: Path) -> Header:
    """Read and check the header of a whole GGUF file.

    Raises:
        MalformedFile: not a GGUF, truncated, or with sizes that cannot be.
        Unsupported: a tensor type that this version of owm does not know.
    """
    try:
        with open(path, "rb") as file:
            try:
                view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise MalformedFile(path, "it is empty") from None
            with view:
                return _Reader(path, view).read()
    except IsADirectoryError as error:
        raise MalformedFile(path, "it is a folder") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


class _Reader:
    """A cursor over the mapped file that never reads past its end."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self.path = path
        self.view = view
        self.end = len(view)
        self.position = 0

    def read(self) -> Header:
        if self.end < 4 or self.view[:4] != MAGIC:
            self._fail(f"it begins with {bytes(self.view[:4])!r} instead of {MAGIC!r}")
        self.position = 4
        version = self._number("I", "the version")
        if version not in VERSIONS:
            swapped = version & 0xFFFF == 0
            self._fail("it is big-endian" if swapped else f"its GGUF version is {version}, known are 2 and 3")
        n_tensors = self._number("Q", "the number of tensors")
        n_keys = self._number("Q", "the number of metadata keys")
        left = self.end - self.position
        # The shortest key takes 8+1+4+1 bytes, the shortest tensor entry 8+1+4+8+4+8.
        if n_keys > left // 14:
            self._fail(f"{n_keys} metadata keys cannot fit in {format_bytes(left)}")
        if n_tensors > left // 33:
            self._fail(f"{n_tensors} tensors cannot fit in {format_bytes(left)}")
        metadata: dict[str, Value] = {}
        for _ in range(n_keys):
            key = self._string("a metadata key", MAX_KEY_BYTES)
            if not key or key in metadata:
                self._fail(f"the metadata key {key!r} appears twice" if key else "a metadata key is empty")
            metadata[key] = self._value(key)
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1) or alignment > 1 << 20:
            self._fail(f"its alignment {alignment!r} is not a power of two")
        if not isinstance(metadata.get("general.architecture", ""), str):
            self._fail("its architecture is not a text")
        tensors = self._tensors(n_tensors, alignment)
        data_offset = -(-self.position // alignment) * alignment
        if tensors:
            needed = data_offset + tensors[-1].offset + tensors[-1].n_bytes
            if needed > self.end:
                self._fail(f"it is truncated, {self.end} bytes instead of {needed}")
        return Header(self.path, version, metadata, tensors, alignment, data_offset, self.end)

    def _tensors(self, count: int, alignment: int) -> tuple[TensorEntry, ...]:
        tensors: list[TensorEntry] = []
        names: set[str] = set()
        expected = 0
        for _ in range(count):
            name = self._string("a tensor name", MAX_NAME_BYTES)
            if name in names:
                self._fail(f"the tensor {name!r} appears twice")
            names.add(name)
            n_dims = self._number("I", name)
            if n_dims > MAX_DIMS:
                self._fail(f"the tensor {name!r} has {n_dims} dimensions, at most {MAX_DIMS} can be")
            shape = tuple(self._number("Q", name) for _ in range(n_dims))
            type_id = self._number("I", name)
            offset = self._number("Q", name)
            if type_id not in TENSOR_TYPES:
                raise Unsupported(f"{self.path.name} has a tensor of unknown type {type_id}: {name}", hint="update owm")
            type_name, block, block_bytes = TENSOR_TYPES[type_id]
            n_elements = math.prod(shape)
            if n_elements >= 1 << 62 or any(n >= 1 << 62 for n in shape):
                self._fail(f"the tensor {name!r} has an impossible shape {shape}")
            row = shape[0] if shape else 1
            if row % block:
                self._fail(f"the tensor {name!r} has rows of {row}, {type_name} needs a multiple of {block}")
            if offset != expected:
                self._fail(f"the tensor {name!r} lies at {offset}, it should lie at {expected}")
            n_bytes = n_elements // block * block_bytes
            tensors.append(TensorEntry(name, shape, type_id, offset, n_bytes))
            expected = -(-(offset + n_bytes) // alignment) * alignment
        return tuple(tensors)

    def _value(self, key: str) -> Value:
        kind = self._number("I", key)
        if kind in _SCALARS:
            return self._scalar(kind, key)
        if kind == _STRING:
            return self._string(key)
        if kind != _ARRAY:
            self._fail(f"the metadata key {key!r} has the unknown type {kind}")
        item_kind = self._number("I", key)
        count = self._number("Q", key)
        begin = self.position
        if item_kind == _STRING:
            if count <= EAGER_ITEMS:
                return tuple(self._string(key) for _ in range(count))
            self._skip_strings(count, key)
        elif item_kind in _SCALARS:
            size = _SIZES[item_kind] * count
            if size > self.end - self.position:
                self._fail(f"the array {key!r} of {count} items runs past the end of the file")
            if count <= EAGER_ITEMS:
                values = struct.unpack_from(f"<{count}{_SCALARS[item_kind]}", self.view, self.position)
                self.position += size
                return values
            self.position += size
        else:
            self._fail(f"the array {key!r} has items of the unknown type {item_kind}")
        return LongArray(item_kind, count, begin)

    def _skip_strings(self, count: int, key: str) -> None:
        """Walk over string lengths: the hot loop of a large vocabulary, 0.1 µs a step."""
        view, end, position = self.view, self.end, self.position
        if count > (end - position) // 8:
            self._fail(f"the array {key!r} of {count} texts runs past the end of the file")
        unpack = struct.Struct("<Q").unpack_from
        try:
            for _ in range(count):
                position += 8 + unpack(view, position)[0]
        except struct.error:
            position = end + 1
        if position > end:
            self._fail(f"the array {key!r} of {count} texts runs past the end of the file")
        self.position = position

    def _scalar(self, kind: int, key: str) -> Scalar:
        if kind == 7:
            return bool(self._number("B", key))
        code = _SCALARS[kind]
        size = _SIZES[kind]
        if size > self.end - self.position:
            self._fail(f"it ends inside the value of {key!r}")
        value: Scalar = struct.unpack_from(f"<{code}", self.view, self.position)[0]
        self.position += size
        return value

    def _number(self, code: str, what: str) -> int:
        size = struct.calcsize(f"<{code}")
        if size > self.end - self.position:
            self._fail(f"it ends inside {what!r}" if self.position > 24 else f"it ends before {what}")
        value: int = struct.unpack_from(f"<{code}", self.view, self.position)[0]
        self.position += size
        return value

    def _string(self, what: str, limit: int | None = None) -> str:
        length = self._number("Q", what)
        if length > self.end - self.position or (limit is not None and length > limit):
            self._fail(f"a text of {length} bytes in {what!r} is too long")
        raw = self.view[self.position : self.position + length]
        self.position += length
        return raw.decode("utf-8", "replace")

    def _fail(self, cause: str) -> NoReturn:
        raise MalformedFile(self.path, cause, hint="the file is damaged, cut short or no GGUF; fetch it again")
