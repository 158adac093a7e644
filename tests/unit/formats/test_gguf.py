"""GGUF headers: what is read is what gguf's own reader and ggml say, and long arrays are walked, not built."""

import ctypes
import re
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import MalformedFile
from owm.formats.gguf import (
    EAGER_BYTES,
    EAGER_ITEMS,
    FILE_TYPES,
    TENSOR_TYPES,
    Header,
    LongArray,
    Value,
    read_header,
)
from support.packed_gguf import (
    ARRAY,
    BOOL,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    array,
    key,
    pack,
    tensor,
)
from support.tiny_gguf import write_tiny_gguf

ARCHITECTURE = key("general.architecture", STRING, "llama")


def header_of(path: Path, content: bytes) -> Header:
    path.write_bytes(content)
    return read_header(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def assert_same_as_the_reference(path: Path) -> None:
    """Compare a header with that of gguf.GGUFReader: metadata, tensors, offsets."""
    header, reference = read_header(path), gguf.GGUFReader(path)
    fields = {name: field for name, field in reference.fields.items() if not name.startswith("GGUF.")}
    assert list(header.metadata) == list(fields)
    for name, field in fields.items():
        expected, found = field.contents(), header.metadata[name]
        if isinstance(found, LongArray):
            assert (found.item_type, found.count) == (field.types[1], len(expected))
            if found.item_type == STRING:
                assert header.strings(name) == expected
        else:
            assert as_python(found) == as_python(expected), name
            assert type(found) in (str, int, float, bool, tuple)
    assert [t.name for t in header.tensors] == [t.name for t in reference.tensors]
    for ours, theirs in zip(header.tensors, reference.tensors, strict=True):
        assert ours.shape == tuple(int(n) for n in theirs.shape)
        assert (ours.type_id, ours.type_name) == (int(theirs.tensor_type), theirs.tensor_type.name)
        assert ours.n_bytes == int(theirs.n_bytes)
        assert ours.n_elements == int(theirs.n_elements)
        assert header.data_offset + ours.offset == int(theirs.data_offset)
    assert header.data_offset == reference.data_offset
    assert header.alignment == reference.alignment
    assert header.file_bytes == path.stat().st_size
    assert header.n_params == sum(int(t.n_elements) for t in reference.tensors)


def as_python(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("metadata", [{}, {"general.description": "ä\n" * 5000, "llama.x": True, "llama.y": -0.0}])
def test_a_tiny_model_is_read_as_by_the_reference(file: Path, metadata: dict[str, Any]) -> None:
    assert_same_as_the_reference(write_tiny_gguf(file, metadata=metadata))


@pytest.mark.slow
@pytest.mark.real
def test_the_real_model_is_read_as_by_the_reference(smollm2_path: Path) -> None:
    assert_same_as_the_reference(smollm2_path)
    header = read_header(smollm2_path)
    header.check_vocabulary()
    assert (header.architecture, header.file_type, header.n_params) == ("llama", "Q4_1", 134_515_008)
    assert (header.integer("block_count"), header.integer("attention.head_count_kv")) == (30, 3)
    assert len(header.strings("tokenizer.ggml.tokens")) == 49_152


SCALARS = {
    U8: 255, I8: -128, U16: 65535, I16: -32768, U32: 2**32 - 1, I32: -(2**31), F32: 0.5, BOOL: True, STRING: "schön",
    U64: 2**64 - 1, I64: -(2**63), F64: 1e300,
}  # fmt: skip


def test_every_kind_of_value_is_read(file: Path) -> None:
    keys = [ARCHITECTURE]
    keys += [key(f"one.{kind}", kind, value) for kind, value in SCALARS.items()]
    keys += [array(f"many.{kind}", kind, [value] * 3) for kind, value in SCALARS.items()]
    keys += [array(f"none.{kind}", kind, []) for kind in SCALARS]
    header = header_of(file, pack(keys))
    for kind, value in SCALARS.items():
        assert header.metadata[f"one.{kind}"] == value
        assert type(header.metadata[f"one.{kind}"]) is type(value)
        assert header.metadata[f"many.{kind}"] == (value,) * 3
        assert header.metadata[f"none.{kind}"] == ()


def test_a_flag_is_zero_or_one(file: Path) -> None:
    assert header_of(file, pack([key("a", BOOL, b"\1"), key("b", BOOL, b"\0")])).metadata == {"a": True, "b": False}
    with pytest.raises(MalformedFile, match="'a' is 2, a flag is 0 or 1"):
        header_of(file, pack([key("a", BOOL, b"\2")]))


def test_a_file_of_version_2_is_read(file: Path) -> None:
    header = header_of(file, pack([ARCHITECTURE], [tensor("t", (8,), 0, 0)], bytes(32), version=2))
    assert (header.version, header.tensors[0].shape, header.architecture) == (2, (8,), "llama")


@pytest.mark.parametrize("alignment", [32, 64, 4096, 1 << 16])
def test_another_alignment_is_followed(file: Path, alignment: int) -> None:
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_custom_alignment(alignment)
    for i in range(3):
        writer.add_tensor(f"t{i}", np.zeros((2, 3 + i), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert_same_as_the_reference(file)
    header = read_header(file)
    assert header.alignment == alignment
    assert [t.offset for t in header.tensors] == [0, alignment, 2 * alignment]


def test_a_shard_without_tensors_is_read(file: Path) -> None:
    header = header_of(file, pack([ARCHITECTURE, key("split.count", U16, 2)]))
    assert (header.tensors, header.n_params, header.metadata["split.count"]) == ((), 0, 2)


def test_a_scalar_tensor_and_one_of_four_dimensions_are_read(file: Path) -> None:
    tensors = [tensor("scalar", (), 0, 0), tensor("four", (32, 2, 3, 4), 8, 32)]
    header = header_of(file, pack([ARCHITECTURE], tensors, bytes(32 + 32 * 24 // 32 * 34)))
    assert [(t.n_elements, t.n_bytes) for t in header.tensors] == [(1, 4), (768, 816)]


def test_per_layer_values(file: Path) -> None:
    header = header_of(
        file,
        pack(
            [
                ARCHITECTURE,
                key("llama.block_count", U32, 3),
                array("llama.attention.head_count_kv", U32, [8, 0, 4]),
                key("llama.attention.head_count", U32, 16),
                key("llama.name", STRING, "x"),
                key("llama.flag", BOOL, True),
                array("llama.empty", U32, []),
            ]
        ),
    )
    assert header.integer("attention.head_count_kv") == 8
    assert header.integers("attention.head_count_kv", 3) == [8, 0, 4]
    assert header.integers("attention.head_count_kv", 2) == [8, 0]
    assert header.integers("attention.head_count_kv", 4) is None
    assert header.integers("attention.head_count", 3) == [16, 16, 16]
    assert header.integers("missing", 3) is None
    assert [header.integer(name) for name in ("name", "flag", "empty", "missing")] == [None] * 4
    assert (header.text("llama.name"), header.text("llama.block_count"), header.text("missing")) == ("x", None, None)


def test_the_architecture_of_a_file_that_has_none(file: Path) -> None:
    header = header_of(file, pack([key("unknown.block_count", U32, 3)]))
    assert header.architecture == "unknown"
    assert header.file_type is None


@pytest.mark.parametrize(
    ("number", "name"), [(0, "F32"), (15, "Q4_K_M"), (38, "MXFP4_MOE"), (1000, None), ("15", None), (None, None)]
)
def test_the_file_type_is_named(file: Path, number: int | str | None, name: str | None) -> None:
    keys = [] if number is None else [key("general.file_type", STRING if isinstance(number, str) else U32, number)]
    assert header_of(file, pack(keys)).file_type == name


# -- long values -----------------------------------------------------------------------------------------------------


def test_a_vocabulary_of_262144_tokens_is_walked_and_read_on_demand(file: Path) -> None:
    tokens = [f"tok{i}" + "é" * (i % 7) for i in range(262_144)]
    keys = [
        ARCHITECTURE,
        array("tokenizer.ggml.tokens", STRING, tokens),
        key("tokenizer.ggml.scores", ARRAY, struct.pack("<IQ", F32, len(tokens)) + bytes(4 * len(tokens))),
        key("after", STRING, "the vocabulary"),
    ]
    header = header_of(file, pack(keys))
    assert isinstance(header.metadata["tokenizer.ggml.tokens"], LongArray)
    assert isinstance(header.metadata["tokenizer.ggml.scores"], LongArray)
    assert header.metadata["after"] == "the vocabulary"
    assert header.strings("tokenizer.ggml.tokens") == tokens
    header.check_vocabulary()


@pytest.mark.parametrize("count", [EAGER_ITEMS, EAGER_ITEMS + 1])
def test_strings_are_the_same_whether_long_or_short(file: Path, count: int) -> None:
    items = [f"item {i}" for i in range(count)]
    header = header_of(file, pack([array("list", STRING, items), array("numbers", U8, [1]), key("text", STRING, "x")]))
    assert isinstance(header.metadata["list"], tuple) == (count <= EAGER_ITEMS)
    assert header.strings("list") == items
    assert header.strings("missing") == header.strings("text") == []


def test_texts_that_are_not_utf8_are_read_with_replacement(file: Path) -> None:
    header = header_of(
        file, pack([array("list", STRING, [b"a\xff", b"b"]), key("text", STRING, b"\x01\0\0\0\0\0\0\0\xff")])
    )
    assert header.strings("list") == ["a\ufffd", "b"]
    assert header.text("text") == "\ufffd"


def test_a_text_too_long_to_be_read_is_left_where_it_is(file: Path) -> None:
    header = header_of(file, pack([key("long", STRING, "x" * (EAGER_BYTES + 1)), key("after", STRING, "y")]))
    assert header.metadata["long"] == LongArray(U8, EAGER_BYTES + 1, 24 + 8 + 4 + 4 + 8)
    assert (header.text("long"), header.text("after"), header.strings("long")) == (None, "y", [])


def test_what_all_values_together_take_is_bounded(file: Path) -> None:
    keys = [key(f"text{i}", STRING, "x" * (EAGER_BYTES // 4)) for i in range(8)]
    keys += [array(f"list{i}", U8, [7] * 4096) for i in range(100)]
    header = header_of(file, pack(keys))
    assert sum(isinstance(value, str) for value in header.metadata.values()) == 4
    assert all(isinstance(header.metadata[f"list{i}"], LongArray) for i in range(100))


# -- vocabularies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, EAGER_ITEMS])
@pytest.mark.parametrize(
    ("tokens", "is_good"),
    [
        (["a", "b", "A", "a ", "", "", "é", "e\u0301"], True),
        (["a", "b", "a"], False),
        (["a", "a\0b"], False),  # llama.cpp reads a token to its first zero byte
        (["[EMPTY_1]", ""], False),  # and names empty ones
        (["[EMPTY_0]", ""], True),
        ([b"\xff", b"\xfe", "\ufffd"], True),
        ([b"\xff", b"\xff"], False),
    ],
)
def test_a_token_that_is_there_twice_is_found(
    file: Path, tokens: list[str | bytes], is_good: bool, padding: int
) -> None:
    items = [*tokens, *(f"other {i}" for i in range(padding))]
    header = header_of(file, pack([ARCHITECTURE, array("tokenizer.ggml.tokens", STRING, items)]))
    if is_good:
        header.check_vocabulary()
    else:
        with pytest.raises(MalformedFile, match="a token of its vocabulary appears twice"):
            header.check_vocabulary()


@pytest.mark.parametrize(
    "entry", [[], [array("tokenizer.ggml.tokens", U32, [1, 1])], [key("tokenizer.ggml.tokens", U32, 1)]]
)
def test_a_file_without_a_vocabulary_has_no_token_twice(file: Path, entry: list[bytes]) -> None:
    header_of(file, pack([ARCHITECTURE, *entry])).check_vocabulary()


# -- types -----------------------------------------------------------------------------------------------------------


def test_tensor_types_are_those_of_gguf() -> None:
    ours = {name: sizes for name, *sizes in TENSOR_TYPES.values()}
    theirs = {kind.name: list(sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    theirs["Q8_1"] = [32, 36]  # gguf still has its size of long ago; see the next test
    assert {name: sizes for name, sizes in ours.items() if name in theirs} == theirs
    for type_id, (name, *_) in TENSOR_TYPES.items():
        if name in theirs:
            assert gguf.GGMLQuantizationType[name] == type_id


def test_tensor_types_are_those_of_ggml() -> None:
    from llama_cpp import _ggml

    lib = _ggml.libggml
    lib.ggml_blck_size.restype = ctypes.c_int64
    lib.ggml_type_size.restype = ctypes.c_size_t
    lib.ggml_type_name.restype = ctypes.c_char_p
    found = {}
    for type_id in range(max(TENSOR_TYPES) + 1):
        if size := lib.ggml_type_size(type_id):
            name = lib.ggml_type_name(type_id).decode().upper()
            found[type_id] = (name, lib.ggml_blck_size(type_id), size)
    assert {i: (name.upper(), *sizes) for i, (name, *sizes) in TENSOR_TYPES.items()} == found


def test_file_types_are_those_of_gguf() -> None:
    theirs = {
        int(kind): re.sub("^(MOSTLY|ALL)_", "", kind.name) for kind in gguf.LlamaFileType if kind.name != "GUESSED"
    }
    assert {number: name for number, name in FILE_TYPES.items() if number in theirs} == theirs


# -- properties ------------------------------------------------------------------------------------------------------

_scalars = {
    U8: st.integers(0, 255),
    I16: st.integers(-(2**15), 2**15 - 1),
    U32: st.integers(0, 2**32 - 1),
    I64: st.integers(-(2**63), 2**63 - 1),
    F32: st.floats(width=32, allow_nan=False),
    F64: st.floats(allow_nan=False),
    BOOL: st.booleans(),
    STRING: st.text(),
}
_values = st.sampled_from(sorted(_scalars)).flatmap(
    lambda kind: st.tuples(st.just(kind), _scalars[kind] | st.lists(_scalars[kind], max_size=5).map(tuple))
)
_names = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), max_size=20).map("x.{}".format)


@given(metadata=st.dictionaries(_names, _values, max_size=6), shapes=st.lists(st.lists(st.integers(1, 5), max_size=4)))
def test_what_was_packed_is_read(file: Path, metadata: dict[str, tuple[int, Value]], shapes: list[list[int]]) -> None:
    keys = [
        array(name, kind, value) if isinstance(value, tuple) else key(name, kind, value)
        for name, (kind, value) in metadata.items()
    ]
    tensors, end = [], 0
    for i, shape in enumerate(shapes):
        tensors.append(tensor(f"t{i}", shape, 0, end))
        end += -(-4 * int(np.prod(shape, dtype=int)) // 32) * 32
    header = header_of(file, pack(keys, tensors, bytes(end)))
    assert header.metadata == {name: value for name, (_, value) in metadata.items()}
    assert [t.shape for t in header.tensors] == [tuple(shape) for shape in shapes]
