"""Safetensors headers: what was packed is read back, in the order of the file and in a time that grows linearly."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from owm.formats.safetensors import DTYPE_BITS, Header, TensorEntry, read_header
from support.tiny_safetensors import DTYPES, frame, pack


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def header_of(path: Path, content: bytes) -> Header:
    path.write_bytes(content)
    return read_header(path)


def test_a_header_tells_where_everything_is(file: Path) -> None:
    header = header_of(
        file, pack({"w": np.ones((2, 3), np.float16), "b": ("BF16", [3], bytes(6))}, {"format": "pt", "ünïcode": "→"})
    )
    begin = header.data_offset
    assert header.tensors == {
        "w": TensorEntry("w", "F16", (2, 3), begin, 12),
        "b": TensorEntry("b", "BF16", (3,), begin + 12, 6),
    }
    assert header.metadata == {"format": "pt", "ünïcode": "→"}
    assert (header.path, header.file_bytes) == (file, begin + 18)


@pytest.mark.parametrize("content", [pack({}), pack({}, {}), frame("{}"), frame("{}" + " " * 14), frame("{\n\t}\r\n ")])
def test_a_file_without_tensors(content: bytes, file: Path) -> None:
    header = header_of(file, content)
    assert (header.tensors, header.metadata, header.data_offset) == ({}, {}, len(content))


def test_tensors_come_in_the_order_of_the_file(file: Path) -> None:
    """The header may list them in any order; empty ones lie wherever another begins or ends."""
    offsets = {"c": (3, 3), "b": (1, 3), "z": (0, 0), "a": (0, 1), "y": (1, 1), "x": (3, 3)}
    entries = {
        name: {"data_offsets": [begin, end], "dtype": "U8", "shape": [end - begin]}
        for name, (begin, end) in offsets.items()
    }
    header = header_of(file, frame(json.dumps(entries), b"abc"))
    assert list(header.tensors) == ["z", "a", "y", "b", "c", "x"]


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_element_type_has_its_size(dtype: str, file: Path) -> None:
    n_bytes = 3 * DTYPE_BITS[dtype]
    tensor = header_of(file, pack({"t": (dtype, (4, 6), bytes(n_bytes))})).tensors["t"]
    assert (tensor.dtype, tensor.shape, tensor.n_bytes) == (dtype, (4, 6), n_bytes)


def test_a_name_is_kept_as_it_is(file: Path) -> None:
    names = ["model.layers.0.w", " ", "\x1b[2J", "__metadata", "😀" * 1024, '"\\', "\u202e"]
    assert list(header_of(file, pack({name: np.zeros(1) for name in names})).tensors) == names


def test_the_time_of_a_large_header_grows_with_its_length(file: Path) -> None:
    """Of 60,000 tensors (mixtures of experts have one for each expert): no step compares each with each."""
    entry = (
        '"model.layers.{}.mlp.experts.{}.down_proj.weight":{{"dtype":"F8_E4M3","shape":[2,4],"data_offsets":[{},{}]}}'
    )

    def seconds(n_tensors: int) -> float:
        entries = ",".join(entry.format(i // 1000, i % 1000, 8 * i, 8 * i + 8) for i in range(n_tensors))
        file.write_bytes(frame("{" + entries + "}", bytes(8 * n_tensors)))
        began = time.process_time()
        assert len(read_header(file).tensors) == n_tensors
        return time.process_time() - began

    assert seconds(60_000) < 100 * seconds(3_000)  # 20 times the tensors: 400 times the time if all met all


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda n: n != "__metadata__")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ARRAYS = arrays.arrays(
    st.sampled_from([np.dtype(name) for name in DTYPES]), arrays.array_shapes(min_dims=0, min_side=0)
)


@given(tensors=st.dictionaries(NAMES, ARRAYS, max_size=6), metadata=st.none() | st.dictionaries(TEXTS, TEXTS))
def test_what_was_packed_is_read_back(
    file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None
) -> None:
    content = pack(tensors, metadata)
    header = header_of(file, content)
    assert header.metadata == (metadata or {})
    assert header.tensors.keys() == tensors.keys()
    assert [entry.offset for entry in header.tensors.values()] == sorted(t.offset for t in header.tensors.values())
    for name, array in tensors.items():
        entry = header.tensors[name]
        assert (entry.name, entry.dtype, entry.shape) == (name, DTYPES[array.dtype.name], array.shape)
        assert content[entry.offset : entry.offset + entry.n_bytes] == array.tobytes()
