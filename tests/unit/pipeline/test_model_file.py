"""A model file as a source: metadata byte for byte, every tensor type as it lies there, parts put together."""

import hashlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from owm.errors import MalformedFile
from owm.formats.gguf import TENSOR_TYPES, read_header
from owm.formats.gguf_writer import RawValue
from owm.pipeline.model_file import open_model_file
from owm.pipeline.rows import CARRIERS, DType, FileRows, read_all, row_bytes
from owm.pipeline.writer import write
from support.packed_gguf import F64, I16, STRING, U8, U16, U32, array, key, pack, tensor, text
from support.tiny_gguf import write_tiny_gguf

ARCHITECTURE = key("general.architecture", STRING, "llama")
KEYS = [
    ARCHITECTURE,
    key("a.text", STRING, text(b"\xff\xfe")),  # no UTF-8
    key("a.small", U8, 7),
    key("a.double", F64, 0.1),
    array("some.texts", STRING, ["x", b"\xff", ""]),
    array("some.numbers", I16, range(5000)),  # too long to be read at once
    array("no.numbers", U32, []),
]


def every_type() -> bytes:
    """Pack a file with a tensor of every type, of random bytes."""
    entries, data = [], b""
    for type_id, (name, values, size) in TENSOR_TYPES.items():
        entries.append(tensor(f"{name}.weight", [2 * values, 3], type_id, len(data)))
        raw = np.random.default_rng(type_id).integers(0, 256, 6 * size, np.uint8).tobytes()
        data += raw + bytes(-len(raw) % 32)
    return pack(KEYS, entries, data)


def test_every_type_of_tensor_has_a_name_and_a_carrier() -> None:
    names = {name for name, _, _ in TENSOR_TYPES.values()}
    assert names <= set(get_args(DType))
    assert names <= set(CARRIERS)


def test_a_model_file_is_written_again_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(every_type())
    plan = open_model_file([path])
    (written,) = write(plan, [tmp_path / "again.gguf"])
    assert written.path.read_bytes() == path.read_bytes()


def test_rows_of_any_type_are_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(every_type())
    raw, header = path.read_bytes(), read_header(path)
    for planned, entry in zip(open_model_file([path]).tensors, header.tensors, strict=True):
        _, values, size = TENSOR_TYPES[entry.type_id]
        begin = header.data_offset + entry.offset
        assert isinstance(planned.rows, FileRows)
        assert planned.rows.dtype == planned.type_name == entry.type_name
        assert planned.shape == entry.shape == (2 * values, 3)
        assert row_bytes(planned.rows) == planned.row_bytes == 2 * size
        assert planned.rows.read(1, 3).tobytes() == raw[begin + 2 * size : begin + 6 * size]
        assert read_all(planned.rows).tobytes() == raw[begin : begin + 6 * size]


def test_metadata_keeps_its_bytes_and_what_they_mean(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(pack(KEYS))
    found = open_model_file([path]).metadata
    header = read_header(path)
    assert list(found) == list(header.metadata)
    for name, raw in header.raw_values().items():
        assert found[name] == RawValue(raw, header.metadata[name])
        assert raw in path.read_bytes()
    assert found["a.small"] == RawValue(b"\0\0\0\0\7", 7)


def test_a_larger_alignment_stays(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    entries = [tensor("a", [5], 0, 0), tensor("b", [], 0, 128)]
    data = bytes(range(20)) + bytes(108) + b"1234" + bytes(124)
    path.write_bytes(pack([ARCHITECTURE, key("general.alignment", U32, 128)], entries, data, alignment=128))
    (written,) = write(open_model_file([path]), [tmp_path / "again.gguf"])
    assert written.path.read_bytes() == path.read_bytes()


def part(number: int, count: int, n_tensors: int, names: str, *keys: bytes) -> bytes:
    """Pack a part with a tensor of four numbers for each letter."""
    numbered = [
        key("split.no", U16, number),
        key("split.tensors.count", U32, n_tensors),
        key("split.count", U16, count),
    ]
    entries = [tensor(name, [8], 0, 32 * index) for index, name in enumerate(names)]
    return pack([*keys, *numbered], entries, b"".join(name.encode() * 32 for name in names))


def put(folder: Path, *parts: bytes) -> list[Path]:
    paths = [folder / f"m-{i + 1:05}-of-{len(parts):05}.gguf" for i in range(len(parts))]
    for path, content in zip(paths, parts, strict=True):
        path.write_bytes(content)
    return paths


def test_parts_are_one_model(tmp_path: Path) -> None:
    paths = put(
        tmp_path,
        part(0, 3, 3, "a", ARCHITECTURE, key("x", U8, 1)),
        part(1, 3, 3, "bc", ARCHITECTURE, key("only.here", U8, 2)),
        part(2, 3, 3, ""),
    )
    plan = open_model_file(paths)
    assert list(plan.metadata) == ["general.architecture", "x", "only.here"]
    assert [t.name for t in plan.tensors] == ["a", "b", "c"]
    (written,) = write(plan, [tmp_path / "whole.gguf"])
    whole = pack(
        [ARCHITECTURE, key("x", U8, 1), key("only.here", U8, 2)],
        [tensor(name, [8], 0, 32 * index) for index, name in enumerate("abc")],
        b"".join(name.encode() * 32 for name in "abc"),
    )
    assert written.sha256 == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize(
    ("parts", "cause"),
    [
        ((part(0, 2, 2, "a"),), "one of 2 parts"),
        ((part(0, 2, 2, "a"), part(0, 2, 2, "b")), "says it is part 1 of 2, not 2 of 2"),
        ((part(0, 3, 2, "a"), part(1, 3, 2, "b")), "says it is part 1 of 3, not 1 of 2"),
        ((part(0, 2, 2, "a"), pack([ARCHITECTURE])), "no part of a model, not 2 of 2"),
        ((part(0, 2, 2, "a"), part(1, 2, 2, "a")), "has its tensor 'a' too"),
        ((part(0, 2, 2, "a"), part(1, 2, 3, "b")), "00002.gguf .*of another model than m-00001"),
        ((part(0, 2, 3, "a"), part(1, 2, 3, "b")), "all parts together have 2 tensors"),
        ((part(0, 2, 2, "a", ARCHITECTURE), part(1, 2, 2, "b", key("general.architecture", STRING, "gpt2"))), "not th"),
        ((part(0, 2, 2, "a"), pack([key("split.no", STRING, "x"), key("split.count", U16, 2)])), "16-bit number"),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path: Path, parts: tuple[bytes, ...], cause: str) -> None:
    with pytest.raises(MalformedFile, match=cause):
        open_model_file(put(tmp_path, *parts))


def test_an_interrupted_write_does_not_go_on_from_a_changed_file(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    before = open_model_file([path])
    assert open_model_file([path]).digest() == before.digest()
    path.touch()
    assert open_model_file([path]).digest() != before.digest()
