"""Importance matrices: how large the activations are that meet each column of a weight tensor.

Reads both formats of llama.cpp as hostile input and writes the newer one, a GGUF file. Where the numbers come from, and
what they are used for, is not known here. ref: llama.cpp common/imatrix-loader.cpp
"""

import mmap
import re
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from owm.errors import MalformedFile, StoreError, UsageError
from owm.formats import gguf
from owm.formats.gguf_writer import TensorHeader, Value, encode_header
from owm.publishing import replacing

SUMS, COUNTS = ".in_sum2", ".counts"
MAX_ENTRIES = 1 << 16
MAX_NAME_BYTES = 4096
MAX_COUNT = float(1 << 53)
MAX_MEAN = 1e15  # of squares, far past what a model computes with; ggml aborts on more. ref: native/quants.py
_HINT = "the file is damaged, cut short or no importance matrix; compute it again"
_OTHER_MODEL = "compute one for this model: `owm imatrix`"

Floats = np.ndarray[Any, np.dtype[np.float32]]
Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What is known of one weight tensor.

    `sums` is float32 [n_counts, values], sums of squared activations; `counts` is int64 [n_counts], how many rows went
    into each. A tensor of experts has one count an expert; any other has a single one, for all its matrices.
    """

    sums: Floats
    counts: Integers

    @property
    def n_unhit(self) -> int:
        """Experts that no token was sent to."""
        return int((self.counts == 0).sum())

    @property
    def is_hit(self) -> bool:
        """Whether there is anything at all."""
        return bool(self.counts.any())


@dataclass(frozen=True, slots=True, eq=False)
class Imatrix:
    """An importance matrix: an `Entry` for each tensor, by the tensor's name.

    `datasets` are names of the texts it comes from, `n_chunks` of `chunk_size` tokens were read (a size of 0: not
    known). In the old format (`is_legacy`) sums are of means, one a chunk, and counts are of chunks.
    """

    entries: Mapping[str, Entry]
    datasets: tuple[str, ...] = ()
    n_chunks: int = 0
    chunk_size: int = 0
    is_legacy: bool = False
    path: Path | None = field(default=None)

    def weights(self, name: str, width: int | None = None) -> Floats | None:
        """Return the importance of each column of a tensor, as llama-quantize uses it to the last bit; None if unknown.

        Float32 [n_matrices, width]; without `width`, [n_counts, values]. Experts without data have ones.
        ref: llama.cpp tools/quantize/quantize.cpp, load_imatrix
        """
        entry = self.entries.get(name)
        if entry is None:
            return None
        counts = entry.counts.astype(np.float32)[:, None]
        hit = counts > 0
        made = np.divide(entry.sums, np.where(hit, counts, np.float32(1)), dtype=np.float32)
        if not self.is_legacy:  # the old format has stored its ones itself
            np.copyto(made, np.float32(1), where=~hit)
        return made if width is None else made.reshape(-1, width)

    def unhit(self) -> dict[str, tuple[int, ...]]:
        """Return the experts without data of each tensor that has some of those."""
        if self.is_legacy:
            return {}
        found = {name: tuple(np.flatnonzero(entry.counts == 0).tolist()) for name, entry in self.entries.items()}
        return {name: experts for name, experts in found.items() if experts}

    def filled(self) -> "Imatrix":
        """Return a copy in which experts without data have the mean of their tensor's others, counted as one row.

        A tensor of which no expert has data stays as it is: `weights` makes it ones.
        """
        missing = self.unhit()
        entries = dict(self.entries)
        for name in missing:
            entry = entries[name]
            total = int(entry.counts.sum())
            if total == 0:
                continue
            is_unhit = entry.counts == 0
            mean = entry.sums[~is_unhit].sum(axis=0, dtype=np.float64) / total
            sums = np.where(is_unhit[:, None], mean.astype(np.float32)[None], entry.sums)
            entries[name] = Entry(sums, np.where(is_unhit, 1, entry.counts))
        return replace(self, entries=entries)


def read_imatrix(path: Path) -> Imatrix:
    """Read an importance matrix of either format. Sums stay in the file until they are asked for.

    Raises:
        MalformedFile: not one, or with numbers that cannot be.
        StoreError: it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            _fail(path, "it is a folder" if path.is_dir() else "it is no file")
        with open(path, "rb") as file:
            is_gguf = file.read(len(gguf.MAGIC)) == gguf.MAGIC
        found = _read_gguf(path) if is_gguf else _read_legacy(path)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    for name, entry in found.entries.items():
        # The sum of all is finite only if each is, and costs no copy; float64 cannot overflow here.
        if not np.isfinite(entry.sums.sum(dtype=np.float64)) or entry.sums.min() < 0:
            _fail(path, f"{_shown(name)} has values that no sum of squares can have")
        if (entry.sums.max(axis=1) > MAX_MEAN * np.maximum(entry.counts, 1)).any():
            _fail(path, f"{_shown(name)} has values that are too large: more than {MAX_MEAN:.0e} a row")
    return found


def _read_gguf(path: Path) -> Imatrix:
    try:
        header = gguf.read_header(path)
    except MalformedFile as error:
        _fail(path, error.cause)
    if (kind := header.text("general.type")) not in (None, "imatrix"):
        _fail(path, f"it is a GGUF file of type {_shown(str(kind))}")
    tensors = {tensor.name: tensor for tensor in header.tensors}
    names = sorted(name.removesuffix(SUMS) for name in tensors if name.endswith(SUMS))
    if not names:
        _fail(path, "it holds no sums of activations")
    for name in tensors:
        if name.endswith(COUNTS) and name.removesuffix(COUNTS) + SUMS not in tensors:
            _fail(path, f"{_shown(name)} has no sums beside it")
    mapped = np.memmap(path, np.uint8, "r")

    def values(tensor: gguf.TensorEntry) -> Floats:
        if tensor.type_name != "F32":
            _fail(path, f"{_shown(tensor.name)} is {tensor.type_name} instead of F32")
        begin = header.data_offset + tensor.offset
        return mapped[begin : begin + tensor.n_bytes].view("<f4")

    entries = {}
    for name in names:
        if name + COUNTS not in tensors:
            _fail(path, f"{_shown(name)} has no counts beside its sums")
        sums, counts = values(tensors[name + SUMS]), values(tensors[name + COUNTS]).astype(np.float64)
        if not ((counts >= 0) & (counts <= MAX_COUNT)).all():
            _fail(path, f"{_shown(name)} has counts that cannot be")
        if sums.size % counts.size:
            _fail(path, f"{_shown(name)} has {sums.size} sums for {counts.size} matrices")
        # As C rounds: halves away from zero.
        entries[name] = Entry(sums.reshape(counts.size, -1), np.floor(counts + 0.5).astype(np.int64))
    return Imatrix(
        entries,
        tuple(header.strings("imatrix.datasets")),
        _natural(header, "imatrix.chunk_count"),
        _natural(header, "imatrix.chunk_size"),
        path=path,
    )


def _natural(header: gguf.Header, key: str) -> int:
    found = header.metadata.get(key, 0)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        _fail(header.path, f"its {key} is no natural number")
    return found


def _read_legacy(path: Path) -> Imatrix:
    """Read the format without a magic: the number of entries, each with name, calls, length and values."""
    with open(path, "rb") as file:
        try:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            _fail(path, "it is empty")
    position = 0

    def take(n_bytes: int, what: str) -> int:
        nonlocal position
        if n_bytes < 0 or n_bytes > len(view) - position:
            _fail(path, f"it ends inside {what}")
        position += n_bytes
        return position - n_bytes

    def integer(what: str) -> int:
        return int(struct.unpack_from("<i", view, take(4, what))[0])

    def text(what: str, limit: int) -> str:
        n_bytes = integer(what)
        if not 0 < n_bytes <= limit:
            _fail(path, f"{what} is {n_bytes} bytes long")
        begin = take(n_bytes, what)
        return view[begin : begin + n_bytes].partition(b"\0")[0].decode("utf-8", "replace")

    n_entries = integer("the number of entries")
    if not 0 < n_entries <= MAX_ENTRIES:
        _fail(path, f"it has {n_entries} entries")
    entries: dict[str, Entry] = {}
    for _ in range(n_entries):
        name = text("the name of an entry", MAX_NAME_BYTES)
        if not name or name in entries:
            _fail(path, f"the entry {_shown(name)} appears twice" if name else "an entry has no name")
        n_calls, n_values = integer(_shown(name)), integer(_shown(name))
        if n_values < 1:
            _fail(path, f"the entry {_shown(name)} has {n_values} values")
        begin = take(4 * n_values, _shown(name))
        sums = np.frombuffer(view, "<f4", n_values, begin).reshape(1, n_values)
        entries[name] = Entry(sums, np.array([max(n_calls, 0)], np.int64))
    if position == len(view):  # what follows came to the format later
        return Imatrix(entries, is_legacy=True, path=path)
    n_chunks = integer("the number of chunks")
    has_dataset = len(view) - position >= 4 and struct.unpack_from("<i", view, position)[0] > 0
    datasets = (text("the name of the text", MAX_NAME_BYTES),) if has_dataset else ()
    return Imatrix(entries, datasets, max(n_chunks, 0), is_legacy=True, path=path)


def write_imatrix(imatrix: Imatrix, path: Path) -> None:
    """Write an importance matrix as llama-imatrix does, at once whole under its name.

    Raises:
        UsageError: it is of the old format, whose sums cannot be told from its counts.
        StoreError: it cannot be written.
    """
    if imatrix.is_legacy:
        raise UsageError("an importance matrix of the old format is not written again")
    headers: list[TensorHeader] = []
    blocks: list[Floats] = []
    offset = 0
    for name, entry in sorted(imatrix.entries.items(), key=lambda item: item[0].encode()):
        n_counts, width = entry.sums.shape
        for suffix, array, row in ((SUMS, entry.sums, width), (COUNTS, entry.counts, 1)):
            shape = (row, n_counts) if n_counts > 1 else (row,)
            headers.append(TensorHeader(name + suffix, shape, "F32", offset))
            blocks.append(np.ascontiguousarray(array, "<f4"))
            offset += -(-blocks[-1].nbytes // gguf.DEFAULT_ALIGNMENT) * gguf.DEFAULT_ALIGNMENT
    metadata: dict[str, Value] = {
        "general.type": "imatrix",
        "imatrix.datasets": list(imatrix.datasets),
        "imatrix.chunk_count": imatrix.n_chunks,
        "imatrix.chunk_size": imatrix.chunk_size,
    }
    try:
        with replacing(path) as file:
            file.write(encode_header(metadata, headers))
            for block in blocks:
                file.write(block.tobytes())
                file.write(bytes(-block.nbytes % gguf.DEFAULT_ALIGNMENT))
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def check(imatrix: Imatrix, tensors: Mapping[str, tuple[int, int]]) -> None:
    """Refuse an importance matrix that is another model's.

    Half of its tensors, and half of the model's blocks, have to meet: a model may have blocks that no text reaches.

    Args:
        tensors: width (row length) and number of matrices of each tensor of the model.

    Raises:
        UsageError: it names what does not fit.
    """
    of = f"the importance matrix {imatrix.path.name}" if imatrix.path is not None else "the importance matrix"
    common = [name for name in imatrix.entries if name in tensors]
    for name in common:
        width, n_matrices = tensors[name]
        n_values = imatrix.entries[name].sums.size
        if n_values != width * n_matrices and name != "token_embd.weight":
            raise UsageError(
                f"{of} is of another model: it has {n_values} values for {name}, not {width * n_matrices}",
                hint=_OTHER_MODEL,
            )
    unknown = next((name for name in imatrix.entries if name not in tensors), None)
    if unknown is not None and (2 * len(common) < len(imatrix.entries) or _block(unknown) > _last_block(tensors)):
        raise UsageError(
            f"{of} is of another model: it has {_shown(unknown)}, which this one has not", hint=_OTHER_MODEL
        )
    n_blocks, n_known = _last_block(tensors) + 1, _last_block(common) + 1
    if 2 * n_known < n_blocks:
        raise UsageError(f"{of} is of another model: it has {n_known} of {n_blocks} blocks", hint=_OTHER_MODEL)


def _block(name: str) -> int:
    found = re.match(r"blk\.(\d{1,6})\.", name)
    return int(found[1]) if found else -1


def _last_block(names: Mapping[str, object] | Sequence[str]) -> int:
    return max(map(_block, names), default=-1)


def _fail(path: Path, cause: str) -> NoReturn:
    raise MalformedFile(path, cause, kind="importance matrix", hint=_HINT)


def _shown(name: str) -> str:
    """Quote a name from the file: printable, and not longer than a message should be."""
    return ascii(name if len(name) <= 80 else name[:79] + "…")
