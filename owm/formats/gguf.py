"""Read the header of a GGUF file as hostile input: every count, length and offset is checked before it is believed.

Nothing is copied that is not asked for: long arrays (vocabularies) are walked, not built. What passes here is what
llama.cpp's own reader takes; what it would refuse, or abort on, is a `MalformedFile` with the exact cause.
ref: llama.cpp ggml/src/gguf.cpp
"""

import math
import mmap
import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from owm.errors import MalformedFile, StoreError, Unsupported
from owm.formats import hyperparameters, vocabulary
from owm.formats.gguf_entries import (
    ARRAY,
    FILE_TYPES,
    INT8,
    STRING,
    TENSOR_TYPES,
    UINT8,
    UINT16,
    UINT32,
    LongArray,
    Scalar,
    TensorEntry,
    Value,
)
from owm.formats.hyperparameters import MAX_LAYERS
from owm.units import format_bytes

__all__ = [
    "FILE_TYPES", "MAX_LAYERS", "TENSOR_TYPES", "Header", "LongArray", "Scalar", "TensorEntry", "Value", "read_header",
]  # fmt: skip

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMS = 4
MAX_NAME_BYTES = 63
MAX_KEY_BYTES = 1024  # the format allows 65,535; published ones have some 50
MAX_BYTES_OF_KEYS = 4 << 20  # of all of a file
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
MAX_ENTRIES = 1 << 16  # of metadata keys, and of tensors; the largest models have some 2,000
MAX_TEXTS = 1 << 20  # in all arrays of a file; the largest vocabularies have 262,144, and twice as many merges
MAX_HEADER_BYTES = 48 << 20  # to the end of the last tensor entry; the largest have some 20 MB
EAGER_ITEMS = 4096  # arrays up to this length are read at once (per-layer values), longer ones on demand
EAGER_BYTES = 8 << 20  # so much of all values together is read at once, the rest on demand

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SIZES = {kind: struct.calcsize(f"<{code}") for kind, code in _SCALARS.items()}
_HINT = "the file is damaged, cut short or no GGUF; fetch it again"


@dataclass(frozen=True, slots=True)
class Header:
    """A checked GGUF header.

    `data_offset` is where the tensors begin; `places` is where each metadata value lies, from its type to its end.
    """

    path: Path
    version: int
    metadata: dict[str, Value]
    tensors: tuple[TensorEntry, ...]
    alignment: int
    data_offset: int
    file_bytes: int
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

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
            numbers = [int(item) for item in found[:n_layers] if isinstance(item, int)]
            return numbers if len(numbers) == n_layers else None
        return [int(found)] * n_layers if isinstance(found, int) else None

    def raw_values(self) -> dict[str, bytes]:
        """Read every metadata value as the file has it: its type, then its bytes.

        Raises:
            MalformedFile, StoreError: the file has become shorter, or cannot be read any more.
        """
        # Not to the tensors: a stranger's alignment may put those gigabytes away.
        n_bytes = max((end for _, end in self.places.values()), default=0)
        try:
            with open(self.path, "rb") as file:
                raw = file.read(n_bytes)
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror}") from error
        if len(raw) < n_bytes:
            raise MalformedFile(self.path, "it has become shorter while it was read", hint=_HINT)
        return {key: raw[begin:end] for key, (begin, end) in self.places.items()}

    def strings(self, key: str) -> list[str]:
        """Read a string array, long or short; [] if there is none."""
        found = self.metadata.get(key)
        if isinstance(found, tuple):
            return [str(item) for item in found]
        if not isinstance(found, LongArray) or found.item_type != STRING:
            return []
        return [raw.decode("utf-8", "replace") for raw in self._raw_strings(found)]

    def check_vocabulary(self) -> None:
        """Check the vocabulary for what llama.cpp aborts the process on.

        Not a part of `read_header`: it takes five times as long as all the rest.

        Raises:
            MalformedFile: it cannot be tokenized with.
            Unsupported: there is no vocabulary.
        """
        if self.text("tokenizer.ggml.model") in ("none", "no_vocab"):
            raise Unsupported(f"{self.path.name} has no vocabulary, so it cannot read or write text")
        for cause in vocabulary.problems(self):
            raise MalformedFile(self.path, cause, hint=_HINT)

    def raw_items(self, key: str) -> list[bytes]:
        """Read a string array, long or short, as its bytes; [] if there is none."""
        found = self.metadata.get(key)
        if isinstance(found, tuple):
            return [item.encode() for item in found if isinstance(item, str)]
        return self._raw_strings(found) if isinstance(found, LongArray) and found.item_type == STRING else []

    def raw_bytes(self, key: str) -> bytes:
        """Read an array of bytes, long or short; nothing if there is none."""
        found = self.metadata.get(key)
        if isinstance(found, tuple):
            return bytes(item & 0xFF for item in found if isinstance(item, int))
        if not isinstance(found, LongArray) or found.item_type not in (UINT8, INT8):
            return b""
        with open(self.path, "rb") as file:
            file.seek(found.offset)
            return file.read(found.count)

    def _raw_strings(self, array: LongArray) -> list[bytes]:
        unpack = struct.Struct("<Q").unpack_from
        items, end = [], array.offset
        with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            for _ in range(array.count):
                begin = end + 8
                end = begin + unpack(view, end)[0]
                items.append(view[begin:end])
        return items


def read_header(path: Path) -> Header:
    """Read and check the header of a whole GGUF file.

    Raises:
        MalformedFile: not a GGUF, truncated, or with sizes that cannot be.
        Unsupported: a tensor type that this version of owm does not know.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its other end
            raise MalformedFile(path, "it is a folder" if path.is_dir() else "it is no file", hint=_HINT)
        with open(path, "rb") as file:
            try:
                file_bytes = os.fstat(file.fileno()).st_size
                view = mmap.mmap(file.fileno(), min(file_bytes, MAX_HEADER_BYTES), access=mmap.ACCESS_READ)
            except ValueError:
                raise MalformedFile(path, "it is empty", hint=_HINT) from None
            with view:
                return _Reader(path, view, file_bytes).read()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


class _Reader:
    """A cursor over the mapped beginning of a file that never reads past its end, nor past where a header may end."""

    def __init__(self, path: Path, view: mmap.mmap, file_bytes: int) -> None:
        self.path = path
        self.view = view
        self.end = len(view)
        self.file_bytes = file_bytes
        self.position = 0
        self.key_bytes_left = MAX_BYTES_OF_KEYS
        self.eager_bytes_left = EAGER_BYTES
        self.texts_left = MAX_TEXTS

    def read(self) -> Header:
        if self.end < 4 or self.view[:4] != MAGIC:
            self._fail(f"it begins with {bytes(self.view[:4])!r} instead of {MAGIC!r}")
        self.position = 4
        version = self._number("I", "the version")
        if version not in VERSIONS:
            swapped = version and version & 0xFFFF == 0
            self._fail("it is big-endian" if swapped else f"its GGUF version is {version}, known are 2 and 3")
        n_tensors = self._number("Q", "the number of tensors")
        n_keys = self._number("Q", "the number of metadata keys")
        left = self.file_bytes - self.position
        # The shortest key takes 8+1+4+1 bytes, the shortest tensor entry 8+1+4+8+4+8.
        for count, least, what in ((n_keys, 14, "metadata keys"), (n_tensors, 33, "tensors")):
            if count > left // least:
                self._fail(f"{count} {what} cannot fit in {format_bytes(left)}")
            if count > MAX_ENTRIES:
                self._fail(f"it has {count} {what}, at most {MAX_ENTRIES} can be")
        metadata: dict[str, Value] = {}
        places: dict[str, tuple[int, int]] = {}
        for _ in range(n_keys):
            key = self._key()
            if not key or key in metadata:
                self._fail(f"the metadata key {_shown(key)} appears twice" if key else "a metadata key is empty")
            begin = self.position
            kind = self._number("I", _shown(key))
            if key == "general.alignment" and kind != UINT32:
                self._fail("its alignment is not an unsigned 32-bit number")
            if key == "split.no" and kind != UINT16:  # llama.cpp reads it without asking
                self._fail("its split.no is not an unsigned 16-bit number")
            metadata[key] = self._value(kind, _shown(key))
            places[key] = begin, self.position
            if kind == STRING and hyperparameters.is_read_by_c(key) and self._has_zero(begin + 12):
                self._fail(f"{_shown(key)} holds a zero byte, where llama.cpp stops reading")
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            self._fail(f"its alignment {alignment!r} is not a power of two")
        if not isinstance(metadata.get("general.architecture", ""), str):
            self._fail("its architecture is not a text")
        tensors = self._tensors(n_tensors, alignment)
        for cause in hyperparameters.problems(metadata, tensors):
            self._fail(cause)
        data_offset = -(-self.position // alignment) * alignment
        if any((data_offset + tensor.offset) % DEFAULT_ALIGNMENT for tensor in tensors):
            self._fail(
                f"with its alignment {alignment} not all tensors begin at multiples of {DEFAULT_ALIGNMENT} bytes"
            )
        if tensors:
            needed = data_offset + tensors[-1].offset + tensors[-1].n_bytes
            if needed > self.file_bytes:
                self._fail(f"it is truncated, {self.file_bytes} bytes instead of {needed}")
        if alignment > MAX_ALIGNMENT:  # a copy of it would begin with as many zeros
            self._fail(f"its alignment is {alignment}, at most {MAX_ALIGNMENT} can be")
        return Header(self.path, version, metadata, tensors, alignment, data_offset, self.file_bytes, places)

    def _tensors(self, count: int, alignment: int) -> tuple[TensorEntry, ...]:
        tensors: list[TensorEntry] = []
        names: set[str] = set()
        expected = 0
        for _ in range(count):
            name = self._name("tensor name", MAX_NAME_BYTES)
            shown = _shown(name)
            if name in names:
                self._fail(f"the tensor {shown} appears twice")
            names.add(name)
            n_dims = self._number("I", shown)
            if n_dims > MAX_DIMS:
                self._fail(f"the tensor {shown} has {n_dims} dimensions, at most {MAX_DIMS} can be")
            shape = tuple(self._number("Q", shown) for _ in range(n_dims))
            type_id = self._number("I", shown)
            offset = self._number("Q", shown)
            if type_id not in TENSOR_TYPES:
                raise Unsupported(
                    f"{self.path.name} has a tensor of unknown type {type_id}: {shown}", hint="update owm"
                )
            type_name, block, block_bytes = TENSOR_TYPES[type_id]
            n_elements = math.prod(shape)
            if not 0 < n_elements < 1 << 62:
                self._fail(f"the tensor {shown} has an impossible shape {shape}")
            row = shape[0] if shape else 1
            if row % block:
                self._fail(f"the tensor {shown} has rows of {row}, {type_name} needs a multiple of {block}")
            if offset != expected:
                self._fail(f"the tensor {shown} lies at {offset}, it should lie at {expected}")
            n_bytes = n_elements // block * block_bytes
            tensors.append(TensorEntry(name, shape, type_id, offset, n_bytes))
            expected = -(-(offset + n_bytes) // alignment) * alignment
        return tuple(tensors)

    def _value(self, kind: int, key: str) -> Value:
        if kind in _SCALARS:
            return self._scalar(kind, key)
        if kind == STRING:
            length = self._length(key)
            if self._is_eager(length):
                return self._take(length).decode("utf-8", "replace")
            self.position += length
            return LongArray(UINT8, length, self.position - length)
        if kind != ARRAY:
            self._fail(f"the metadata key {key} has the unknown type {kind}")
        item_kind = self._number("I", key)
        count = self._number("Q", key)
        begin = self.position
        if item_kind == STRING:
            self._skip_strings(count, key)
            if count <= EAGER_ITEMS and self._is_eager(self.position - begin + 64 * count):
                self.position = begin
                raw = [self._take(self._length(key)) for _ in range(count)]
                with suppress(UnicodeDecodeError):  # what is not UTF-8 stays where it is
                    return tuple(item.decode("utf-8") for item in raw)
        elif item_kind in _SCALARS:
            size = _SIZES[item_kind] * count
            if size > self.end - self.position:
                self._fail_at_end(size, f"the array {key} of {count} items runs past the end of the file")
            if count <= EAGER_ITEMS and self._is_eager(32 * count):
                values = struct.unpack_from(f"<{count}{_SCALARS[item_kind]}", self.view, self.position)
                self.position += size
                return values
            self.position += size
        else:
            self._fail(f"the array {key} has items of the unknown type {item_kind}")
        return LongArray(item_kind, count, begin)

    def _skip_strings(self, count: int, key: str) -> None:
        """Walk over string lengths: the hot loop of a large vocabulary, 0.1 µs a step."""
        view, end, position = self.view, self.end, self.position
        cause = f"the array {key} of {count} texts runs past the end of the file"
        if count > (end - position) // 8:
            self._fail_at_end(8 * count, cause)
        self.texts_left -= count
        if self.texts_left < 0:
            self._fail(f"its arrays hold more than {MAX_TEXTS} texts, with {key}")
        unpack = struct.Struct("<Q").unpack_from
        try:
            for _ in range(count):
                position += 8 + unpack(view, position)[0]
        except (struct.error, OverflowError):
            position = max(position, end + 1)
        if position > end:
            self._fail_at_end(position - self.position, cause)
        self.position = position

    def _scalar(self, kind: int, key: str) -> Scalar:
        if kind == 7:
            flag = self._number("B", key)
            if flag > 1:
                self._fail(f"{key} is {flag}, a flag is 0 or 1")
            return bool(flag)
        code = _SCALARS[kind]
        size = _SIZES[kind]
        if size > self.end - self.position:
            self._fail_at_end(size, f"it ends inside the value of {key}")
        value: Scalar = struct.unpack_from(f"<{code}", self.view, self.position)[0]
        self.position += size
        return value

    def _number(self, code: str, what: str) -> int:
        size = struct.calcsize(f"<{code}")
        if size > self.end - self.position:
            self._fail_at_end(size, f"it ends inside {what}" if self.position > 24 else f"it ends before {what}")
        value: int = struct.unpack_from(f"<{code}", self.view, self.position)[0]
        self.position += size
        return value

    def _key(self) -> str:
        begin = self.position
        key = self._name("metadata key", MAX_KEY_BYTES)
        self.key_bytes_left -= self.position - begin - 8
        if self.key_bytes_left < 0:
            self._fail(f"its metadata keys take more than {format_bytes(MAX_BYTES_OF_KEYS)}")
        return key

    def _name(self, what: str, limit: int) -> str:
        length = self._length(f"a {what}")
        if length > limit:
            self._fail(f"a {what} is {length} bytes long, at most {limit} can be")
        try:
            name = self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            self._fail(f"a {what} is not UTF-8 text")
        if "\0" in name:  # to llama.cpp its name ends there, and is another one
            self._fail(f"the {what} {_shown(name)} holds a zero byte")
        return name

    def _length(self, what: str) -> int:
        """Read the length of a text that lies within the file."""
        length = self._number("Q", what)
        if length > self.end - self.position:
            self._fail_at_end(length, f"the text of {length} bytes in {what} runs past the end of the file")
        return length

    def _take(self, length: int) -> bytes:
        self.position += length
        return self.view[self.position - length : self.position]

    def _has_zero(self, begin: int) -> bool:
        """Tell whether there is a zero byte between `begin` and here."""
        return self.view.find(b"\0", begin, self.position) >= 0

    def _is_eager(self, n_bytes: int) -> bool:
        """Tell whether a value of this size is to be read now; what all of them may take is bounded."""
        if n_bytes > self.eager_bytes_left:
            return False
        self.eager_bytes_left -= n_bytes
        return True

    def _fail_at_end(self, n_bytes: int, cause: str) -> NoReturn:
        """Say that so many bytes are not there, with this cause, or else that they are too far away."""
        if n_bytes <= self.file_bytes - self.position:
            cause = f"its header takes more than {format_bytes(MAX_HEADER_BYTES)}"
        self._fail(cause)

    def _fail(self, cause: str) -> NoReturn:
        raise MalformedFile(self.path, cause, hint=_HINT)


def _shown(name: str) -> str:
    """Quote a name from the file: printable, and not longer than a message should be."""
    return ascii(name if len(name) <= 80 else name[:79] + "…")
