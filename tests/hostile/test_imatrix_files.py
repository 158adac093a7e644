"""Damaged and malicious importance matrices, in both formats: one MalformedFile each, in little time and memory."""

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import MalformedFile, OwmError
from owm.formats.gguf_writer import TensorHeader, encode_header
from owm.formats.imatrix import Entry, Imatrix, read_imatrix, write_imatrix
from support.tiny_gguf import tiny_gguf

EVIL = "\x1b]0;owned\x07"


def pack(tensors: dict[str, np.ndarray], **metadata: object) -> bytes:
    headers, blocks, offset = [], [], 0
    for name, array in tensors.items():
        type_name = {"f": "F32", "H": "F16"}[array.dtype.char]
        headers.append(TensorHeader(name, array.shape[::-1], type_name, offset))
        blocks.append(array.tobytes() + bytes(-array.nbytes % 32))
        offset += len(blocks[-1])
    keys = {"general.type": "imatrix"} | {key.replace("_", ".", 1): value for key, value in metadata.items()}
    return encode_header(keys, headers) + b"".join(blocks)  # type: ignore[arg-type]


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def entry(sums: np.ndarray, counts: np.ndarray, name: str = "a") -> dict[str, np.ndarray]:
    return {f"{name}.in_sum2": sums, f"{name}.counts": counts}


def old(*parts: int | bytes) -> bytes:
    return b"".join(part if isinstance(part, bytes) else struct.pack("<i", part) for part in parts)


GOOD = entry(f32(1, 2, 3, 4), f32(2))
MALFORMED = {
    "nothing": (b"", "it is empty"),
    "a model": (tiny_gguf(n_blocks=1), "it holds no sums of activations"),
    "an adapter": (pack(GOOD, general_type="adapter"), "it is a GGUF file of type 'adapter'"),
    "no tensors": (pack({}), "it holds no sums of activations"),
    "sums alone": (pack({"a.in_sum2": f32(1)}), "'a' has no counts beside its sums"),
    "counts alone": (pack(GOOD | {"b.counts": f32(1)}), "'b.counts' has no sums beside it"),
    "half precision": (pack(entry(np.ones(4, np.uint16), f32(1))), "'a.in_sum2' is F16 instead of F32"),
    "sums that do not divide": (pack(entry(f32(1, 2, 3), f32(1, 2))), "'a' has 3 sums for 2 matrices"),
    "sums that are no number": (pack(entry(f32(1, np.nan), f32(1))), "'a' has values that no sum of squares can have"),
    "endless sums": (pack(entry(f32(1, np.inf), f32(1))), "values that no sum of squares can have"),
    "huge sums": (pack(entry(f32(1, 3e38), f32(9e9))), "'a' has values that are too large: more than 1e+15 a row"),
    "huge sums of one expert": (pack(entry(f32(1, 1, 1, 1e19), f32(9e9, 9))), "'a' has values that are too large"),
    "huge sums without a row": (pack(entry(f32(1e16), f32(0))), "'a' has values that are too large"),
    "negative sums": (pack(entry(f32(1, -1), f32(1))), "values that no sum of squares can have"),
    "negative counts": (pack(entry(f32(1), f32(-1))), "'a' has counts that cannot be"),
    "endless counts": (pack(entry(f32(1), f32(np.inf))), "'a' has counts that cannot be"),
    "counts that are no number": (pack(entry(f32(1), f32(np.nan))), "'a' has counts that cannot be"),
    "an evil name": (pack(entry(f32(1), f32(-1), EVIL)), "'\\x1b]0;owned\\x07' has counts that cannot be"),
    "chunks that are a text": (pack(GOOD, imatrix_chunk_count="3"), "its imatrix.chunk_count is no natural number"),
    "cut short": (pack(GOOD)[:-33], "it is truncated"),
    # the old format
    "three bytes": (b"abc", "it ends inside the number of entries"),
    "no entries": (old(0), "it has 0 entries"),
    "entries below zero": (old(-1), "it has -1 entries"),
    "too many entries": (old(1 << 30), "it has 1073741824 entries"),
    "a name below zero": (old(1, -5), "the name of an entry is -5 bytes long"),
    "a name of 2 GiB": (old(1, (1 << 31) - 1), "the name of an entry is 2147483647 bytes long"),
    "a name past the end": (old(1, 4000, b"a"), "it ends inside the name of an entry"),
    "a name of nothing": (old(1, 1, b"\0", 1, 1, f32(1).tobytes()), "an entry has no name"),
    "no values": (old(1, 1, b"a", 1, 0), "the entry 'a' has 0 values"),
    "values below zero": (old(1, 1, b"a", 1, -4), "the entry 'a' has -4 values"),
    "values past the end": (old(1, 1, b"a", 1, (1 << 31) - 1), "it ends inside 'a'"),
    "an entry twice": (old(2, *(1, b"a", 1, 1, f32(1).tobytes()) * 2), "the entry 'a' appears twice"),
    "an old sum that is no number": (old(1, 1, b"a", 1, 1, f32(np.nan).tobytes()), "no sum of squares can have"),
    "a huge old sum": (old(1, 1, b"a", 2, 1, f32(3e38).tobytes()), "'a' has values that are too large"),
    "an old tail cut short": (old(1, 1, b"a", 1, 1, f32(1).tobytes(), b"xx"), "it ends inside the number of chunks"),
    "an old text past the end": (old(1, 1, b"a", 1, 1, f32(1).tobytes(), 3, 99), "it ends inside the name of the text"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_with_its_own_cause(name: str, tmp_path: Path) -> None:
    content, cause = MALFORMED[name]
    file = tmp_path / "imatrix.gguf"
    file.write_bytes(content)
    with pytest.raises(MalformedFile) as caught:
        read_imatrix(file)
    assert cause in caught.value.cause
    assert caught.value.kind == "importance matrix"
    assert caught.value.hint
    assert str(caught.value).isprintable()


def test_large_sums_of_many_rows_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "imatrix.gguf"
    file.write_bytes(pack(entry(f32(0, 1e-45, 9e24), f32(1e10))))
    weights = read_imatrix(file).weights("a")
    assert weights is not None
    assert weights.max() < 1e15


def test_a_folder_is_no_importance_matrix(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match="it is a folder"):
        read_imatrix(tmp_path)


def whole(path: Path) -> bytes:
    sums = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_imatrix(Imatrix({"blk.0.a": Entry(sums, np.array([1, 0, 2]))}, ("text",), 1, 8), path)
    return path.read_bytes()


OLD = old(1, 7, b"blk.0.a", 2, 3, f32(1, 2, 3).tobytes(), 2, 4, b"text")


@given(
    changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=6),
    length=st.none() | st.integers(0, 600),
    is_old=st.booleans(),
)
def test_whatever_is_in_a_file_only_owm_errors_come_out(
    tmp_path: Path, changes: list[tuple[int, int]], length: int | None, is_old: bool
) -> None:
    file = tmp_path / "imatrix"
    content = bytearray(OLD if is_old else whole(file))
    for position, byte in changes:
        content[position % len(content)] = byte
    file.write_bytes(content[:length])
    with suppress(OwmError):
        found = read_imatrix(file).filled()
        for name in found.entries:
            found.weights(name)
