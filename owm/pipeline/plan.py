"""What will be written, known from headers alone: every tensor with its types, shape, bytes, place, and why."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from owm.errors import UsageError
from owm.formats.gguf import DEFAULT_ALIGNMENT, TENSOR_TYPES
from owm.formats.gguf_writer import I32, TYPE_IDS, U16, RawValue, TensorHeader, Value, encode_header
from owm.pipeline.rows import Array, Rows

SPLIT_HEADER_BYTES = 256  # of a part's own metadata


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor on its way: from `rows` to `type_name` (`Q4_K`), because of `reason`.

    `weights` are the importance of its columns, float32 of shape [matrices, row length]: one row for all matrices (of
    experts), or one for each.
    """

    name: str
    rows: Rows
    type_name: str
    reason: str
    weights: Array | None = field(default=None, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each axis in ggml order, the row first."""
        return tuple(reversed(self.rows.shape))

    @property
    def n_elements(self) -> int:
        """Number of weights."""
        return math.prod(self.rows.shape)

    @property
    def n_rows(self) -> int:
        """Number of rows: all axes but the row itself."""
        return math.prod(self.rows.shape[:-1])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in the file."""
        _, values, size = TENSOR_TYPES[TYPE_IDS[self.type_name]]
        return (self.rows.shape[-1] if self.rows.shape else 1) // values * size

    @property
    def n_bytes(self) -> int:
        """Bytes in the file."""
        return self.n_rows * self.row_bytes


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file to write: its header whole, and where each of its tensors begins (bytes from the file's beginning)."""

    header: bytes
    tensors: tuple[PlannedTensor, ...]
    offsets: tuple[int, ...]
    alignment: int = DEFAULT_ALIGNMENT

    @property
    def end(self) -> int:
        """Where the last tensor ends."""
        return self.offsets[-1] + self.tensors[-1].n_bytes if self.tensors else len(self.header)

    @property
    def n_bytes(self) -> int:
        """Size of the file."""
        return self.end + -self.end % self.alignment if self.tensors else len(self.header)


@dataclass(frozen=True, slots=True)
class Plan:
    """A model to write: metadata and tensors, laid out in one file or several, from the bytes that `origin` names."""

    metadata: Mapping[str, Value]
    tensors: tuple[PlannedTensor, ...]
    files: tuple[PlannedFile, ...]
    origin: str = ""

    @property
    def n_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.n_bytes for file in self.files)

    @property
    def n_params(self) -> int:
        """Number of weights."""
        return sum(tensor.n_elements for tensor in self.tensors)

    def digest(self) -> str:
        """Name exactly these headers and their origin: an interrupted write goes on only under the same plan."""
        sha = hashlib.sha256(self.origin.encode())
        for file in self.files:
            sha.update(file.header)
        return sha.hexdigest()


def make_plan(
    metadata: Mapping[str, Value],
    tensors: Sequence[PlannedTensor],
    *,
    split_max_bytes: int | None = None,
    parts: Sequence[int] | None = None,
    origin: str = "",
) -> Plan:
    """Lay tensors out in one file, or in several of at most `split_max_bytes` each.

    Args:
        parts: the number of the file that each tensor is to lie in, instead.
        origin: names the bytes that the tensors come from, see `Plan.digest`.

    Raises:
        UsageError: a tensor alone is larger than a file may be.
    """
    if parts is not None:
        numbers = sorted(set(parts))
        groups = [[tensor for tensor, part in zip(tensors, parts, strict=True) if part == n] for n in numbers]
        tensors = [tensor for group in groups for tensor in group]
    else:
        groups = [list(tensors)] if split_max_bytes is None else _split(metadata, tensors, split_max_bytes)
    files = []
    for number, group in enumerate(groups):
        # ref: llama.cpp tools/gguf-split: the first file has all metadata, every file says which it is.
        own: dict[str, Value] = dict(metadata) if number == 0 else {}
        if len(groups) > 1:
            own |= {"split.no": U16(number), "split.count": U16(len(groups)), "split.tensors.count": I32(len(tensors))}
        files.append(lay_out(own, group))
    return Plan(dict(metadata), tuple(tensors), tuple(files), origin)


def _split(
    metadata: Mapping[str, Value], tensors: Sequence[PlannedTensor], max_bytes: int
) -> list[list[PlannedTensor]]:
    groups: list[list[PlannedTensor]] = [[]]
    alignment = _alignment(metadata)  # of the first file: the others have no metadata that asks for another
    filled = len(encode_header(metadata, (), alignment=1)) + SPLIT_HEADER_BYTES + alignment
    for tensor in tensors:
        # With its entry in the header, and what aligns it.
        entry = len(tensor.name.encode()) + 64
        size = entry + tensor.n_bytes + -tensor.n_bytes % alignment
        if groups[-1] and filled + size > max_bytes:
            groups.append([])
            alignment = DEFAULT_ALIGNMENT
            filled = SPLIT_HEADER_BYTES + alignment
            size = entry + tensor.n_bytes + -tensor.n_bytes % alignment
        if filled + size > max_bytes:
            raise UsageError(
                f"--split-max-size is too small: the file with {tensor.name} needs {filled + size} bytes",
                hint="the largest tensor has to fit in a file, and all metadata in the first",
            )
        groups[-1].append(tensor)
        filled += size
    return groups


def lay_out(metadata: Mapping[str, Value], tensors: Sequence[PlannedTensor]) -> PlannedFile:
    """Place tensors in one file, one after the other, aligned as its metadata asks for."""
    alignment = _alignment(metadata)
    headers, offset = [], 0
    for tensor in tensors:
        headers.append(TensorHeader(tensor.name, tensor.shape, tensor.type_name, offset))
        offset += tensor.n_bytes + -tensor.n_bytes % alignment
    header = encode_header(metadata, headers, alignment=alignment)
    return PlannedFile(header, tuple(tensors), tuple(len(header) + entry.offset for entry in headers), alignment)


def _alignment(metadata: Mapping[str, Value]) -> int:
    asked = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    return int(cast(int, asked.value if isinstance(asked, RawValue) else asked))
