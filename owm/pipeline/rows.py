"""A tensor that is not in memory: read by ranges of rows, so that any size streams in little memory.

Wherever a tensor comes from and whatever is done to it on the way, it is seen as a matrix of `n_rows` rows: the last
axis is the row, all others together count rows, a vector is one row.
"""

import math
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np

from owm.errors import MalformedFile
from owm.formats.gguf import TENSOR_TYPES

DType = Literal[
    "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "I64", "I32", "I16", "I8", "U8", "BOOL",
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS",
    "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "IQ1_M", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
    "Q1_0", "Q2_0",
]  # fmt: skip
Array = np.ndarray[Any, np.dtype[Any]]

# Elements and bytes of a quant block.
QUANT_BLOCKS = {cast(DType, name): (values, size) for name, values, size in TENSOR_TYPES.values() if values > 1}

# What holds the values in memory: types that numpy lacks are carried as raw bits, quant blocks as bytes.
CARRIERS: dict[DType, np.dtype[Any]] = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"),
    "F8_E4M3": np.dtype("u1"), "F8_E5M2": np.dtype("u1"), "F8_E8M0": np.dtype("u1"), "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"), "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"), **dict.fromkeys(QUANT_BLOCKS, np.dtype("u1")),
}  # fmt: skip
STRIP_BYTES = 64 << 20  # of a transposed tensor that are held at once


class Rows(Protocol):
    """A lazy tensor. `shape` is outermost first, in values; rows of a quantized type are the bytes of quant blocks."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each axis, the row last."""

    @property
    def dtype(self) -> DType:
        """The type of an element."""

    def read(self, begin: int, end: int) -> Array:
        """Return rows `begin` to `end` as a matrix of the type's carrier.

        Raises:
            MalformedFile: the file ends too early.
        """


def n_rows(shape: Sequence[int]) -> int:
    """Count rows: all axes but the last."""
    return math.prod(shape[:-1])


def row_bytes(rows: Rows) -> int:
    """Return the bytes of one row as it is carried."""
    width = rows.shape[-1] if rows.shape else 1
    if rows.dtype in QUANT_BLOCKS:
        values, size = QUANT_BLOCKS[rows.dtype]
        return width // values * size
    return width * CARRIERS[rows.dtype].itemsize


class FileRows:
    """Rows that lie one after the other in a file, from byte `offset` on."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: DType) -> None:
        self.path = path
        self.offset = offset
        self.shape = shape
        self.dtype: DType = dtype

    def read(self, begin: int, end: int) -> Array:
        """Read from the file at once; nothing is mapped, so that memory is what was asked for."""
        size = row_bytes(self)
        block = np.empty((end - begin) * size, np.uint8)
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.offset + begin * size)
            view, done = memoryview(block.data), 0
            while done < len(block):
                n_read = file.readinto(view[done:])
                if not n_read:
                    raise MalformedFile(self.path, "it has become shorter while it was read")
                done += n_read
            if len(block) >= 1 << 20 and hasattr(os, "posix_fadvise"):
                # Let the system read on while these rows are computed.
                os.posix_fadvise(file.fileno(), self.offset + end * size, len(block), os.POSIX_FADV_WILLNEED)
        return block.view(CARRIERS[self.dtype]).reshape(end - begin, -1)


class MemoryRows:
    """Rows of an array in memory: computed tensors, which are small."""

    def __init__(self, array: Array, dtype: DType = "F32") -> None:
        self.shape: tuple[int, ...] = array.shape if array.ndim else (1,)
        self.dtype: DType = dtype
        self._matrix = np.ascontiguousarray(array, CARRIERS[dtype]).reshape(max(n_rows(self.shape), 0), -1)

    def read(self, begin: int, end: int) -> Array:
        """Return a slice."""
        return self._matrix[begin:end]


class MappedRows:
    """Rows computed from the same rows of another tensor; the type or the width may change."""

    def __init__(
        self,
        source: Rows,
        function: Callable[[Array, int, int], Array],
        *,
        dtype: DType | None = None,
        shape: tuple[int, ...] | None = None,
        is_scaling: bool = False,
    ) -> None:
        """Take a function of (rows, begin, end) to rows; `is_scaling` if all it does is multiply each by a number."""
        self.source = source
        self.shape = source.shape if shape is None else shape
        self.dtype: DType = dtype or source.dtype
        self.function = function
        self.is_scaling = is_scaling

    def read(self, begin: int, end: int) -> Array:
        """Read and compute."""
        return self.function(self.source.read(begin, end), begin, end)


class PickedRows:
    """Rows of another tensor in another order, or only some of them: `index` names the source row of each row."""

    def __init__(self, source: Rows, index: Array, shape: tuple[int, ...]) -> None:
        assert len(index) == n_rows(shape)
        self.source = source
        self.shape = shape
        self.dtype: DType = source.dtype
        self.index = index

    def read(self, begin: int, end: int) -> Array:
        """Read the span of the source that holds the rows and pick from it: neighbours should stay near."""
        index = self.index[begin:end]
        if not len(index):
            return self.source.read(0, 0)
        low, high = int(index.min()), int(index.max()) + 1
        block = self.source.read(low, high)
        return block if high - low == len(index) and (np.diff(index) == 1).all() else block[index - low]


class SlicedRows:
    """Rows of another tensor from `begin` on, as many as `shape` has."""

    def __init__(self, source: Rows, begin: int, shape: tuple[int, ...]) -> None:
        self.source = source
        self.shape = shape
        self.dtype: DType = source.dtype
        self.begin = begin

    def read(self, begin: int, end: int) -> Array:
        """Read the rows from the source."""
        return self.source.read(self.begin + begin, self.begin + end)


class JoinedRows:
    """Tensors of equal row length one after the other: experts that are stacked, parts that are joined."""

    def __init__(self, parts: Sequence[Rows], shape: tuple[int, ...]) -> None:
        self.parts = tuple(parts)
        self.shape = shape
        self.dtype: DType = parts[0].dtype
        self._begins = np.cumsum([0, *(_n_rows_of(part) for part in parts)])
        assert self._begins[-1] == n_rows(shape)

    def read(self, begin: int, end: int) -> Array:
        """Read from every part that the range touches."""
        first = int(np.searchsorted(self._begins, begin, "right")) - 1
        blocks = []
        while begin < end:
            start, stop = int(self._begins[first]), int(self._begins[first + 1])
            upto = min(end, stop)
            blocks.append(self.parts[first].read(begin - start, upto - start))
            begin, first = upto, first + 1
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks) if blocks else self.parts[0].read(0, 0)


class ReshapedRows:
    """The same elements in rows of another length."""

    def __init__(self, source: Rows, shape: tuple[int, ...]) -> None:
        assert math.prod(shape) == math.prod(source.shape)
        self.source = source
        self.shape = shape
        self.dtype: DType = source.dtype

    def read(self, begin: int, end: int) -> Array:
        """Read the source rows that hold the elements."""
        width, source_width = self.shape[-1], self.source.shape[-1] if self.source.shape else 1
        first, last = begin * width, end * width
        low = first // source_width
        block = self.source.read(low, -(-last // source_width)).reshape(-1)
        return block[first - low * source_width : last - low * source_width].reshape(end - begin, width)


class WholeRows:
    """Rows of a function of a whole tensor (a transpose, a sort): in memory from the first row to the last."""

    def __init__(
        self,
        sources: Sequence[Rows],
        function: Callable[..., Array],
        shape: tuple[int, ...],
        dtype: DType | None = None,
    ) -> None:
        """Take a function of the sources' arrays, each in its own shape, to an array of `shape`."""
        self.sources = tuple(sources)
        self.shape = shape
        self.dtype: DType = dtype or sources[0].dtype
        self._function = function
        self._lock = threading.Lock()
        self._matrix: Array | None = None
        self._n_left = 0

    def read(self, begin: int, end: int) -> Array:
        """Compute at the first call; forget when as many rows were read as there are."""
        with self._lock:
            if self._matrix is None:
                made = self._function(*(read_all(source) for source in self.sources))
                self._matrix = np.ascontiguousarray(made, CARRIERS[self.dtype]).reshape(n_rows(self.shape), -1)
                self._n_left = n_rows(self.shape)
            self._n_left -= end - begin
            block = self._matrix[begin:end]
            if self._n_left <= 0:
                self._matrix = None
            return block


class TransposedRows:
    """A matrix with rows and columns swapped, made in strips: some passes over the source, never all of it at once."""

    def __init__(self, source: Rows) -> None:
        self.source = source
        self.shape: tuple[int, ...] = (source.shape[1], source.shape[0])
        self.dtype: DType = source.dtype
        self._lock = threading.Lock()
        self._begin = 0
        self._strip = np.empty((0, source.shape[0]), CARRIERS[source.dtype])

    def read(self, begin: int, end: int) -> Array:
        """Return columns of the source; those beside them are at hand for the next call."""
        with self._lock:
            if not self._begin <= begin <= end <= self._begin + len(self._strip):
                row = self.shape[1] * self._strip.itemsize
                self._strip = self._columns(begin, min(self.shape[0], max(end, begin + STRIP_BYTES // max(row, 1))))
                self._begin = begin
            found = self._strip[begin - self._begin : end - self._begin]
            if end == self.shape[0]:
                self._begin, self._strip = 0, self._strip[:0]
            return found

    def _columns(self, begin: int, end: int) -> Array:
        made = np.empty((end - begin, self.shape[1]), self._strip.dtype)
        step = max(1, STRIP_BYTES // 8 // max(row_bytes(self.source), 1))
        for low in range(0, self.shape[1], step):
            high = min(low + step, self.shape[1])
            made[:, low:high] = self.source.read(low, high)[:, begin:end].T
        return made


def path_of(rows: Rows) -> Path | None:
    """Return the file that the first rows come from, None if they were computed from none."""
    if isinstance(rows, FileRows):
        return rows.path
    sources = [getattr(rows, "source", None), *getattr(rows, "sources", ()), *getattr(rows, "parts", ())]
    return next((path for source in sources if source is not None and (path := path_of(source)) is not None), None)


def read_all(rows: Rows) -> Array:
    """Read a whole tensor into an array of its shape (for small ones, and where no way leads around it)."""
    matrix = rows.read(0, _n_rows_of(rows))
    return matrix if rows.dtype in QUANT_BLOCKS else matrix.reshape(rows.shape)


def _n_rows_of(rows: Rows) -> int:
    return n_rows(rows.shape)
