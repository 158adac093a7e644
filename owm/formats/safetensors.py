"""Read the header of a safetensors file as hostile input: every length and offset is checked before it is believed.

A file is 8 bytes of header length, a header of JSON, and the tensors, which fill the rest without gap or overlap. What
passes here is what the official library takes, and a little less: no key twice, no field that it would pass over.
ref: safetensors src/tensor.rs
"""

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from owm.errors import MalformedFile, StoreError, Unsupported

MAX_HEADER_BYTES = 20_000_000  # the official library takes 100 MB; published ones have less than 10 MB
MAX_TENSORS = 1 << 16  # in a file; the largest checkpoints have some 91,000, over more than a hundred shards
# With these, the worst header that passes takes some 220 MiB for a moment: texts of wide characters.
MAX_ITEMS = 10 * MAX_TENSORS  # JSON values in a header; a matrix takes 8
MAX_PAIRS = 4 * MAX_TENSORS + 4096  # keys with their values in a header; a tensor takes 4
MAX_NAME_CHARS = 1024
MAX_DIMS = 8
MAX_SIZE = 1 << 62  # of a dimension, of all of them together, and of an offset

# Bits of an element. Types of less than a byte are packed, and a tensor of them has to fill whole bytes.
DTYPE_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

_FIELDS = {"dtype", "shape", "data_offsets"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_HINT = "the file is damaged, cut short or no safetensors; fetch it again"
# What is found in a model's place: the beginning, in lower case, and what it tells.
_IMPOSTORS = (
    (b"version https://git-lfs", "it is a Git LFS pointer, which only says where the file is"),
    (b"<!doctype html", "it is a web page"),
    (b"<html", "it is a web page"),
    (b"gguf", "it is a GGUF file"),
    (b"pk\3\4", "it is a ZIP archive, as PyTorch writes"),
)


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor as the header tells it: `shape` outermost first, `offset` from the beginning of the file.

    `dtype` is the format's own name of the element type: `BF16`, `F8_E4M3`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """A checked safetensors header: tensors by name, in the order in which they lie from `data_offset` to the end."""

    path: Path
    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]
    data_offset: int
    file_bytes: int


def read_header(path: Path) -> Header:
    """Read and check the header of a whole safetensors file.

    Raises:
        MalformedFile: not a safetensors file, truncated, or with sizes that cannot be.
        Unsupported: an element type that this version of owm does not know.
        StoreError: the file cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its other end
            raise _malformed(path, "it is a folder" if path.is_dir() else "it is no file")
        with open(path, "rb") as file:
            return _Reader(path, os.fstat(file.fileno()).st_size).read(file)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


class _Reader:
    """What is known of a file while its header is read."""

    def __init__(self, path: Path, file_bytes: int) -> None:
        self.path = path
        self.file_bytes = file_bytes
        self.data_offset = 8

    def read(self, file: BinaryIO) -> Header:
        found = self._parse(self._header(file))
        metadata = self._metadata(found.pop("__metadata__", {}))
        if len(found) > MAX_TENSORS:
            self._fail(f"it has {len(found)} tensors, at most {MAX_TENSORS} can be")
        tensors = [self._entry(name, fields) for name, fields in found.items()]
        tensors.sort(key=lambda tensor: (tensor.offset, tensor.n_bytes))  # empty ones lie before what begins with them
        self._check_coverage(tensors)
        by_name = {tensor.name: tensor for tensor in tensors}
        return Header(self.path, by_name, metadata, self.data_offset, self.file_bytes)

    def _header(self, file: BinaryIO) -> bytes:
        """Read the bytes of the header, once their number is known to be possible."""
        begin = file.read(256)
        if not begin:
            self._fail("it is empty")
        if len(begin) < 8:
            self._fail(f"its {len(begin)} bytes do not even hold the length of its header")
        n_bytes = int.from_bytes(begin[:8], "little")
        if n_bytes > MAX_HEADER_BYTES:  # so is every text, taken as a length
            start = begin.lstrip().lower()
            for magic, cause in _IMPOSTORS:
                if start.startswith(magic):
                    self._fail(cause)
            self._fail(f"the length of its header is {n_bytes} bytes, at most {MAX_HEADER_BYTES} can be")
        if n_bytes > self.file_bytes - 8:
            self._fail(f"it is truncated, its header of {n_bytes} bytes runs past the end of the file")
        self.data_offset = 8 + n_bytes
        file.seek(8)
        header = file.read(n_bytes)
        if header[:1] != b"{":
            self._fail(f"its header begins with {header[:1]!r} instead of {b'{'!r}")
        return header

    def _parse(self, header: bytes) -> dict[str, Any]:
        # Each value takes one of these; those within texts are counted along, no real header comes near.
        n_items = sum(header.count(mark) for mark in (b",", b"[", b"{"))
        if n_items > MAX_ITEMS:
            self._fail(f"its header has {n_items} items, at most {MAX_ITEMS} can be")
        n_pairs = header.count(b":")
        if n_pairs > MAX_PAIRS:
            self._fail(f"its header has {n_pairs} keys, at most {MAX_PAIRS} can be")
        try:
            text = header.decode("utf-8")
            del header  # which is large
            found: Any = json.loads(text, object_pairs_hook=self._object, parse_float=_no_number)
        except UnicodeDecodeError:
            self._fail("its header is not UTF-8 text")
        except json.JSONDecodeError as error:
            self._fail(f"its header is no JSON from character {error.pos} on")
        except ValueError:  # thousands of digits, which Python does not read
            self._fail("its header has a number that is too large")
        except RecursionError:
            self._fail("its header is nested too deeply")
        if not isinstance(found, dict):
            self._fail("its header is the entry of one tensor, without a name")
        return found

    def _object(self, pairs: list[tuple[str, Any]]) -> Any:
        """Take an object of the header: a tensor's fields become a tuple at once, which is small, anything else stays.

        (Hundreds of thousands of dicts and lists at a time are slow, most of all to Python's garbage collector.)
        """
        found = dict(pairs)
        if len(found) != len(pairs):
            key = next(key for key, _ in pairs if found.pop(key, pairs) is pairs)
            self._fail(f"{_shown(key)} appears twice in its header")
        if found.keys() == _FIELDS:
            dtype, shape, offsets = found["dtype"], found["shape"], found["data_offsets"]
            if isinstance(dtype, str) and isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2:
                return dtype, tuple(shape), *offsets
        return found

    def _metadata(self, found: Any) -> dict[str, str]:
        if not isinstance(found, dict):
            self._fail("its __metadata__ is no object")
        for key, text in found.items():
            if not isinstance(text, str):
                self._fail(f"its __metadata__ {_shown(key)} is no text")
            if not _is_unicode(key) or not _is_unicode(text):
                self._fail(f"its __metadata__ {_shown(key)} is not UTF-8 text")
        return found

    def _entry(self, name: str, fields: Any) -> TensorEntry:
        if not name:
            self._fail("the name of a tensor is empty")
        if len(name) > MAX_NAME_CHARS:
            self._fail(f"the name of a tensor is {len(name)} characters long, at most {MAX_NAME_CHARS} can be")
        if not _is_unicode(name):
            self._fail(f"the name of the tensor {_shown(name)} is not UTF-8 text")
        if not isinstance(fields, tuple):
            self._fail_fields(_shown(name), fields)
        dtype, shape, begin, end = fields
        if dtype not in DTYPE_BITS:
            raise Unsupported(
                f"{self.path.name} has a tensor of unknown type {_shown(dtype)}: {_shown(name)}", hint="update owm"
            )
        if len(shape) > MAX_DIMS:
            self._fail(f"the tensor {_shown(name)} has {len(shape)} dimensions, at most {MAX_DIMS} can be")
        n_elements = 1
        for size in shape:
            if type(size) is not int:  # True is an int to isinstance
                self._fail(f"the shape of the tensor {_shown(name)} is no list of whole numbers")
            if not 0 <= size <= MAX_SIZE:
                self._fail(f"the tensor {_shown(name)} has a dimension of {_shortened(str(size))}")
            n_elements *= size
        if n_elements > MAX_SIZE:
            self._fail(f"the tensor {_shown(name)} has an impossible shape {_shortened(str(shape))}")
        if not type(begin) is type(end) is int:
            self._fail(f"the data_offsets of the tensor {_shown(name)} are not two whole numbers")
        if not 0 <= begin <= end <= MAX_SIZE:
            offsets = _shortened(f"from {begin} to {end}")
            self._fail(f"the tensor {_shown(name)} has impossible data_offsets, {offsets}")
        n_bytes, rest = divmod(n_elements * DTYPE_BITS[dtype], 8)
        if rest:
            self._fail(f"the tensor {_shown(name)} of {n_elements} {dtype} does not fill whole bytes")
        if n_bytes != end - begin:
            what = f"{dtype} of shape {_shortened(str(shape))}"
            self._fail(f"the tensor {_shown(name)} has {end - begin} bytes, {what} needs {n_bytes}")
        return TensorEntry(name, dtype, shape, self.data_offset + begin, n_bytes)

    def _fail_fields(self, shown: str, fields: Any) -> NoReturn:
        """Say what keeps an entry from being that of a tensor."""
        if not isinstance(fields, dict):
            self._fail(f"the entry of the tensor {shown} is no object")
        if missing := _FIELDS - fields.keys():
            self._fail(f"the tensor {shown} has no {min(missing)}")
        if more := fields.keys() - _FIELDS:
            self._fail(f"the tensor {shown} has the unknown field {_shown(min(more))}")
        if not isinstance(fields["dtype"], str):
            self._fail(f"the dtype of the tensor {shown} is no text")
        if not isinstance(fields["shape"], list):
            self._fail(f"the shape of the tensor {shown} is no list of whole numbers")
        self._fail(f"the data_offsets of the tensor {shown} are not two whole numbers")

    def _check_coverage(self, tensors: list[TensorEntry]) -> None:
        """Check that tensors, in the order of their offsets, fill the file from the header to its end."""
        expected, previous = self.data_offset, ""
        for tensor in tensors:
            if tensor.offset < expected:
                self._fail(f"the tensor {_shown(tensor.name)} overlaps the tensor {_shown(previous)}")
            if tensor.offset > expected:
                self._fail(f"{tensor.offset - expected} bytes before the tensor {_shown(tensor.name)} are of no tensor")
            expected, previous = tensor.offset + tensor.n_bytes, tensor.name
        if expected > self.file_bytes:
            self._fail(f"it is truncated, {self.file_bytes} bytes instead of {expected}")
        if expected < self.file_bytes:
            self._fail(f"its last {self.file_bytes - expected} bytes are of no tensor")

    def _fail(self, cause: str) -> NoReturn:
        raise _malformed(self.path, cause) from None


def _malformed(path: Path, cause: str) -> MalformedFile:
    return MalformedFile(path, cause, kind="safetensors", hint=_HINT)


def _is_unicode(text: str) -> bool:
    """Tell whether a text is free of half characters, which JSON can escape and UTF-8 cannot hold."""
    return text.isascii() or _SURROGATE.search(text) is None


def _no_number(_digits: str) -> None:
    """Take a number with a fraction, which no header has, unread: thousands of hundreds of digits are slow."""


def _shown(name: str) -> str:
    """Quote a name from the file: printable, and not longer than a message should be."""
    return _shortened(ascii(name[:100]))


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
