"""Damaged and malicious safetensors files: each has its own cause, found at once and before anything is allocated."""

import json
import os
import random
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import MalformedFile, OwmError, StoreError, Unsupported
from owm.formats.safetensors import read_header
from support.run import finish, start
from support.tiny_safetensors import frame, pack

EVIL = "\x1b]0;owned\x07\x1b[2J\u202e"
SHOWN = "'\\x1b]0;owned\\x07\\x1b[2J\\u202e'"
WHOLE = pack(
    {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "empty": np.zeros((0, 4), np.int64),
        "bf16": ("BF16", (2, 2), bytes(8)),
        "scalar": np.array(True),
    },
    {"format": "pt", "note": "naïve {\"a\": [1, 2]}"},
)  # fmt: skip


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in entry().items() if name != field}


def with_tensors(entries: Any, data: int = 8) -> bytes:
    return frame(json.dumps(entries), bytes(data))


def with_tensor(fields: Any, data: int = 8, name: str = "t") -> bytes:
    return with_tensors({name: fields}, data)


def with_text(header: str, data: int = 8) -> bytes:
    return frame(header, bytes(data))


# name: (content, words of the cause)
MALFORMED: dict[str, tuple[bytes, str]] = {
    # what is found in a model's place
    "empty": (b"", "it is empty"),
    "one byte": (b"{", "its 1 bytes do not even hold the length"),
    "ends in the length": (bytes(7), "its 7 bytes do not even hold the length"),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n",
        "it is a Git LFS pointer",
    ),
    "a web page": (b"<!DOCTYPE html><html><head>", "it is a web page"),
    "a web page in its own way": (b"\r\n  <HTML lang=en>", "it is a web page"),
    "a GGUF": (b"GGUF\3\0\0\0" + bytes(100), "it is a GGUF file"),
    "a pickle": (b"PK\3\4\0\0\x08\x08" + bytes(100), "it is a ZIP archive"),
    "a text": (b"Entry not found", "the length of its header is 8029390891631537733 bytes, at most 20000000 can be"),
    "an escape for a length": (b"\x1b[2J\x1b[2J" + bytes(100), "the length of its header is"),
    "a bare header": (b'{"t":{"dtype":"F32"}}', "the length of its header is"),
    "a big-endian length": ((2).to_bytes(8, "big") + b"{}", "the length of its header is 144115188075855872 bytes"),
    # the length of the header
    "a length of 2**64-1": (frame("{}", length=2**64 - 1), "is 18446744073709551615 bytes, at most 20000000 can be"),
    "a length of 2**63": (frame("{}", length=2**63), "the length of its header is 9223372036854775808 bytes"),
    "a length above the limit": (frame("{}", length=20_000_001), "the length of its header is 20000001 bytes"),
    "a length at the limit": (frame("{}", length=20_000_000), "its header of 20000000 bytes runs past the end"),
    "a length one byte too long": (frame("{}", length=3), "it is truncated, its header of 3 bytes runs past the end"),
    "a length one byte too short": (frame("{} ", length=1), "its header is no JSON from character 1 on"),
    "no header": (frame(""), "its header begins with b'' instead of b'{'"),
    # the header as text
    "zeros for a header": (frame(bytes(100)), "its header begins with b'\\x00' instead of b'{'"),
    "a space first": (frame(" {}"), "its header begins with b' ' instead of b'{'"),
    "a byte order mark": (frame(b"\xef\xbb\xbf{}"), "its header begins with b'\\xef' instead of b'{'"),
    "a list": (frame("[]"), "its header begins with b'[' instead of b'{'"),
    "UTF-16": (frame("{}".encode("utf-16-le")), "its header is no JSON from character 1 on"),
    "bytes that are not UTF-8": (frame(b'{"\xff":1}'), "its header is not UTF-8 text"),
    "a half character as bytes": (frame(b'{"\xed\xa0\x80":1}'), "its header is not UTF-8 text"),
    "no JSON": (frame("{t}"), "its header is no JSON from character 1 on"),
    "JSON cut short": (frame('{"t":{"dtype":'), "its header is no JSON from character 14 on"),
    "something after the object": (frame("{}{}"), "its header is no JSON from character 2 on"),
    "zeros after the object": (frame("{}\0\0"), "its header is no JSON from character 2 on"),
    "a comment": (frame("{/**/}"), "its header is no JSON from character 1 on"),
    "a last comma": (with_text('{"t":1,}'), "its header is no JSON from character 7 on"),
    "a control character in a name": (with_text('{"\x07":1}'), "its header is no JSON from character 2 on"),
    "lists in lists": (frame('{"t":' + "[" * 100_000 + "]" * 100_000 + "}"), "its header is nested too deeply"),
    "objects in objects": (frame('{"t":' * 100_000 + "1" + "}" * 100_000), "its header is nested too deeply"),
    "a number of 5,000 digits": (
        with_text('{"t":{"dtype":"F32","shape":[' + "9" * 5000 + '],"data_offsets":[0,8]}}'),
        "its header has a number that is too large",
    ),
    "millions of lists": (frame('{"t":[' + "[]," * 2_000_000 + "[]]}"), "its header has 4000003 items, at most"),
    "millions of keys": (frame("{" + '"":0,' * 3_000_000 + '"":0}'), "its header has 3000001 items, at most"),
    "thousands of keys": (frame("{" + '"":0,' * 300_000 + '"":0}'), "300001 keys, at most 266240 can be"),
    "fractions of hundreds of digits": (
        frame('{"t":[' + ",".join(["0." + "4" * 800] * 20_000) + "]}"),
        "the entry of the tensor 't' is no object",
    ),
    "millions of objects": (frame('{"t":[' + "{}," * 2_000_000 + "{}]}"), "its header has 4000003 items, at most"),
    # names
    "a name twice": (
        with_text('{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"u":1,"t":1}'),
        "'t' appears twice in its header",
    ),
    "a name twice, once escaped": (with_text('{"t":1,"\\u0074":2}'), "'t' appears twice in its header"),
    "a name twice with escapes": (
        with_text('{"\\u001b]0;owned\\u0007\\u001b[2J\\u202e":1,"\\u001b]0;owned\\u0007\\u001b[2J\\u202e":2}'),
        f"{SHOWN} appears twice in its header",
    ),
    "a field twice": (with_text('{"t":{"dtype":"F32","dtype":"F64"}}'), "'dtype' appears twice in its header"),
    "metadata twice": (with_text('{"__metadata__":{},"__metadata__":{}}'), "'__metadata__' appears twice"),
    "metadata with a key twice": (with_text('{"__metadata__":{"k":"1","k":"2"}}'), "'k' appears twice in its header"),
    "an empty name": (with_tensor(entry(), name=""), "the name of a tensor is empty"),
    "a long name": (with_tensor(entry(), name="t" * 1025), "a tensor is 1025 characters long, at most 1024 can be"),
    "half a character in a name": (with_tensor(entry(), name="\ud800t"), "tensor '\\ud800t' is not UTF-8 text"),
    "a name with escapes": (with_tensor(1, name=EVIL), f"the entry of the tensor {SHOWN} is no object"),
    "a long name in a message": (with_tensor(1, name="\U0001f600" * 1000), "\\U0001... is no object"),
    "too many tensors": (
        with_tensors({str(i): 0 for i in range(65_537)}),
        "it has 65537 tensors, at most 65536 can be",
    ),
    # metadata
    "metadata that is a list": (with_tensors({"__metadata__": []}), "its __metadata__ is no object"),
    "metadata that is nothing": (with_tensors({"__metadata__": None}), "its __metadata__ is no object"),
    "metadata that is a number": (with_tensors({"__metadata__": {"k": 1}}), "its __metadata__ 'k' is no text"),
    "metadata that is nested": (with_tensors({"__metadata__": {EVIL: {}}}), f"its __metadata__ {SHOWN} is no text"),
    "metadata with half a character": (
        with_tensors({"__metadata__": {"k": "\udc00"}}),
        "its __metadata__ 'k' is not UTF-8 text",
    ),
    "a metadata key with half a character": (
        with_tensors({"__metadata__": {"\udc00": ""}}),
        "its __metadata__ '\\udc00' is not UTF-8 text",
    ),
    # fields of a tensor
    "a tensor without a name": (with_tensors(entry()), "its header is the entry of one tensor, without a name"),
    "a tensor for metadata": (with_tensors({"__metadata__": entry()}), "its __metadata__ is no object"),
    "a tensor for a dimension": (with_tensor(entry(shape=[entry()])), "the shape of the tensor 't' is no list of"),
    "a tensor for an offset": (with_tensor(entry(offsets=[entry(), 8])), "data_offsets of the tensor 't' are not two"),
    "a tensor that is a list": (with_tensor([]), "the entry of the tensor 't' is no object"),
    "a tensor that is nothing": (with_tensor(None), "the entry of the tensor 't' is no object"),
    "a tensor without fields": (with_tensor({}), "the tensor 't' has no data_offsets"),
    "no dtype": (with_tensor(without("dtype")), "the tensor 't' has no dtype"),
    "no shape": (with_tensor(without("shape")), "the tensor 't' has no shape"),
    "no offsets": (with_tensor(without("data_offsets")), "the tensor 't' has no data_offsets"),
    "a field more": (with_tensor(entry(strides=[1])), "the tensor 't' has the unknown field 'strides'"),
    "a field with escapes": (with_tensor(entry(**{EVIL: 1})), f"has the unknown field {SHOWN}"),
    "a dtype that is a number": (with_tensor(entry(dtype=32)), "the dtype of the tensor 't' is no text"),
    "a dtype that is a list": (with_tensor(entry(dtype=["F32"])), "the dtype of the tensor 't' is no text"),
    # shapes
    "a shape that is a number": (with_tensor(entry(shape=2)), "the shape of the tensor 't' is no list of whole"),
    "a shape that is a text": (with_tensor(entry(shape="2")), "the shape of the tensor 't' is no list of whole"),
    "a shape that is nothing": (with_tensor(entry(shape=None)), "the shape of the tensor 't' is no list of whole"),
    "a dimension that is a text": (with_tensor(entry(shape=["2"])), "the shape of the tensor 't' is no list of"),
    "a dimension that is a fraction": (with_tensor(entry(shape=[2.0])), "the shape of the tensor 't' is no list"),
    "a dimension that is true": (with_tensor(entry("F64", [True])), "the shape of the tensor 't' is no list of"),
    "a dimension that is no number": (with_tensor(entry(shape=[float("nan")])), "the shape of the tensor 't' is no"),
    "a dimension that is infinite": (
        with_text('{"t":{"dtype":"F32","shape":[1e999],"data_offsets":[0,8]}}'),
        "the shape of the tensor 't' is no list of whole numbers",
    ),
    "nine dimensions": (with_tensor(entry(shape=[2] + [1] * 8)), "the tensor 't' has 9 dimensions, at most 8 can be"),
    "a hundred thousand dimensions": (with_tensor(entry(shape=[1] * 10**5)), "the tensor 't' has 100000 dimensions"),
    "a negative dimension": (with_tensor(entry(shape=[-2])), "the tensor 't' has a dimension of -2"),
    "two negative dimensions": (with_tensor(entry(shape=[-1, -2])), "the tensor 't' has a dimension of -1"),
    "dimensions beyond all bounds": (
        with_tensor(entry("U8", [2**62] * 8)),
        "the tensor 't' has an impossible shape (4611686018427387904, 4611686018427387904, ",
    ),
    "a dimension beyond 2**62": (
        with_tensor(entry("U8", [2**62 + 1, 0], [0, 0]), 0),
        "the tensor 't' has a dimension of 4611686018427387905",
    ),
    "dimensions that overflow to the right size": (
        with_tensor(entry("U8", [2**61 + 1, 8])),
        "the tensor 't' has an impossible shape (2305843009213693953, 8)",
    ),
    "a dimension of 4,000 digits": (
        with_tensor(entry(shape=[int("9" * 4000)])),
        f"the tensor 't' has a dimension of {'9' * 77}...",
    ),
    # offsets
    "offsets that are nothing": (with_tensor(entry(offsets=None)), "data_offsets of the tensor 't' are not two whole"),
    "offsets that are an object": (with_tensor(entry(offsets={"0": 8})), "data_offsets of the tensor 't' are not two"),
    "one offset": (with_tensor(entry(offsets=[0])), "the data_offsets of the tensor 't' are not two whole numbers"),
    "three offsets": (with_tensor(entry(offsets=[0, 8, 8])), "data_offsets of the tensor 't' are not two whole"),
    "offsets that are fractions": (with_tensor(entry(offsets=[0.0, 8.0])), "data_offsets of the tensor 't' are not"),
    "an offset that is false": (with_tensor(entry(offsets=[False, 8])), "data_offsets of the tensor 't' are not two"),
    "offsets that are texts": (with_tensor(entry(offsets=["0", "8"])), "data_offsets of the tensor 't' are not two"),
    "a negative offset": (with_tensor(entry(offsets=[-8, 0])), "has impossible data_offsets, from -8 to 0"),
    "an end before its beginning": (with_tensor(entry(offsets=[8, 0])), "has impossible data_offsets, from 8 to 0"),
    "offsets near 2**64": (
        with_tensor(entry(offsets=[2**64 - 8, 2**64])),
        "the tensor 't' has impossible data_offsets, from 18446744073709551608 to 18446744073709551616",
    ),
    "too few bytes for a shape": (
        with_tensor(entry(shape=[3])),
        "the tensor 't' has 8 bytes, F32 of shape (3,) needs 12",
    ),
    "too many bytes for a shape": (
        with_tensor(entry("F16", [3])),
        "the tensor 't' has 8 bytes, F16 of shape (3,) needs 6",
    ),
    "bytes for nothing": (with_tensor(entry(shape=[2**40, 0])), "F32 of shape (1099511627776, 0) needs 0"),
    "no bytes for a scalar": (with_tensor(entry(shape=[], offsets=[0, 0]), 0), "F32 of shape () needs 4"),
    "half a byte": (with_tensor(entry("F4", [3], [0, 2]), 2), "the tensor 't' of 3 F4 does not fill whole bytes"),
    "three quarters of a byte": (with_tensor(entry("F6_E2M3", [1], [0, 1]), 1), "of 1 F6_E2M3 does not fill whole"),
    # where tensors lie
    "a truncated tensor": (with_tensor(entry(), 7), "it is truncated, 76 bytes instead of 77"),
    "a tensor of 2**60 bytes": (
        with_tensor(entry("U8", [2**60], [0, 2**60])),
        "it is truncated, 112 bytes instead of 1152921504606847080",
    ),
    "bytes after the last tensor": (with_tensor(entry(), 9), "its last 1 bytes are of no tensor"),
    "bytes and no tensors": (with_tensors({}), "its last 8 bytes are of no tensor"),
    "a gap at the beginning": (with_tensor(entry(offsets=[4, 12]), 12), "4 bytes before the tensor 't' are of no"),
    "a gap between": (
        with_tensors({"a": entry(), EVIL: entry(offsets=[16, 24])}, 24),
        f"8 bytes before the tensor {SHOWN} are of no tensor",
    ),
    "the same bytes twice": (
        with_tensors({"a": entry(), "b": entry()}),
        "the tensor 'b' overlaps the tensor 'a'",
    ),
    "an overlap by one byte": (
        with_tensors({"b": entry(offsets=[7, 15]), "a": entry()}, 15),
        "the tensor 'b' overlaps the tensor 'a'",
    ),
    "a tensor within another": (
        with_tensors({"a": entry("U8", [8], [0, 8]), "b": entry("U8", [2], [2, 4])}),
        "the tensor 'b' overlaps the tensor 'a'",
    ),
    "an empty tensor within another": (
        with_tensors({"a": entry(), "b": entry(shape=[0], offsets=[4, 4])}),
        "the tensor 'b' overlaps the tensor 'a'",
    ),
    "an empty tensor beyond the end": (
        with_tensors({"a": entry(), "b": entry(shape=[0], offsets=[2**62, 2**62])}),
        "bytes before the tensor 'b' are of no tensor",
    ),
}  # fmt: skip
UNSUPPORTED: dict[str, tuple[bytes, str]] = {
    "a type of tomorrow": (with_tensor(entry("F2")), "has a tensor of unknown type 'F2': 't'"),
    "a type in small letters": (with_tensor(entry("f32")), "has a tensor of unknown type 'f32': 't'"),
    "a type with escapes": (with_tensor(entry(EVIL), name=EVIL), f"has a tensor of unknown type {SHOWN}: {SHOWN}"),
    "a long type": (with_tensor(entry("F" * 10**6)), "FFF...: 't'"),
    "half a character for a type": (with_tensor(entry("\ud800")), "has a tensor of unknown type '\\ud800': 't'"),
}
MAX_SECONDS, MAX_BYTES = 1.0, 128 << 20


def refusal(path: Path) -> OwmError:
    """Read a header that must be refused, in time and in little memory; check what every message must be."""
    began = time.process_time()
    with pytest.raises(OwmError) as caught:
        read_header(path)
    assert time.process_time() - began < MAX_SECONDS
    tracemalloc.start()
    try:
        with pytest.raises(type(caught.value)):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.isprintable(), message
    assert len(message) < 300
    assert not message.endswith(".") or message.endswith("...")
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_with_its_own_cause(name: str, file: Path) -> None:
    content, cause = MALFORMED[name]
    file.write_bytes(content)
    error = refusal(file)
    assert isinstance(error, MalformedFile)
    assert cause in error.cause
    assert str(error).startswith("model.safetensors is not a usable safetensors file: ")
    assert error.path == file
    assert error.hint


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unknown_element_type_is_unsupported(name: str, file: Path) -> None:
    content, cause = UNSUPPORTED[name]
    file.write_bytes(content)
    error = refusal(file)
    assert isinstance(error, Unsupported)
    assert cause in str(error)
    assert error.hint == "update owm"


@pytest.mark.parametrize(
    ("make", "cause"),
    [(lambda path: path.mkdir(), "it is a folder"), (lambda path: os.mkfifo(path), "it is no file")],
    ids=["folder", "pipe"],
)
def test_what_is_no_file_is_refused_without_waiting(make: Callable[[Path], None], cause: str, file: Path) -> None:
    make(file)
    error = refusal(file)
    assert isinstance(error, MalformedFile)
    assert error.cause == cause


def test_what_cannot_be_read_is_an_error_of_the_store(file: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*: No such file or directory"):
        read_header(file)


@pytest.mark.parametrize("n_bytes", [2**64 - 1, 20_000_001, 10_000_000])
def test_a_huge_file_of_nothing_costs_nothing(n_bytes: int, file: Path) -> None:
    """A sparse file: 64 GiB for a few bytes on disk."""
    with open(file, "wb") as out:
        out.write(frame("{}", length=n_bytes))
        out.truncate(64 << 30)
    assert isinstance(refusal(file), MalformedFile)


WORST = """
import sys, time
from pathlib import Path
from owm.formats.safetensors import MAX_HEADER_BYTES, read_header
def peak():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) >> 10
before, began = peak(), time.process_time()
header = read_header(Path(sys.argv[1]))
assert MAX_HEADER_BYTES - 10**6 < header.data_offset, header.data_offset
print(time.process_time() - began, peak() - before)
"""


def wide_metadata() -> bytes:
    """As many keys as are taken, all of them and their texts with a character of four bytes."""
    n = 4 * 65_536 + 4000
    texts = (f'"\U0001f600{i:06}{"a" * 24}":"\U0001f600{"a" * 30}"' for i in range(n))
    return frame('{"__metadata__":{' + ",".join(texts) + "}}")


def wide_names() -> bytes:
    """As many tensors as are taken, their names as long as the header may be, with a character of four bytes."""
    entry = '"\U0001f600{:06}{}":{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}}'
    n, long = 65_536, "a" * 228
    return frame("{" + ",".join(entry.format(i, long, i, i + 1) for i in range(n)) + "}", bytes(n))


@pytest.mark.slow
@pytest.mark.parametrize("make", [wide_metadata, wide_names])
def test_the_worst_headers_of_all_stay_within_their_bounds(make: Callable[[], bytes], file: Path) -> None:
    file.write_bytes(make())
    seconds, grown = map(float, finish(start(["-c", WORST, file])).split())
    assert seconds < 2
    assert grown < 256


def test_every_cut_of_a_file_is_refused(file: Path) -> None:
    for length in range(len(WHOLE)):
        file.write_bytes(WHOLE[:length])
        error = refusal(file)
        assert isinstance(error, MalformedFile), length
        if length >= 8:
            assert "it is truncated" in error.cause
    file.write_bytes(WHOLE)
    assert len(read_header(file).tensors) == 4


def test_flipped_bytes_bring_out_owm_errors_only(file: Path) -> None:
    chosen = random.Random(0)
    header_bytes = 8 + int.from_bytes(WHOLE[:8], "little")
    messages = []
    for _ in range(2000):
        content = bytearray(WHOLE)
        for _ in range(chosen.choice([1, 1, 2, 5])):
            content[chosen.randrange(header_bytes)] = chosen.randrange(256)
        file.write_bytes(content)
        try:
            read_header(file)
        except OwmError as error:
            messages.append(str(error))
    assert 1000 < len(messages) < 2000  # the rest fell on names and metadata
    assert all(message.isprintable() and len(message) < 300 for message in messages)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["F32", "F4", EVIL]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {"dtype": JSON | st.just("F32"), "shape": JSON | st.just([2]), "data_offsets": JSON | st.just([0, 8])}
)


@given(
    header=ENTRY | st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), JSON | ENTRY, max_size=3),
    data=st.binary(max_size=16),
)
def test_whatever_json_is_in_a_header_only_owm_errors_come_out(file: Path, header: Any, data: bytes) -> None:
    file.write_bytes(frame(json.dumps(header), data))
    with suppress(OwmError):
        assert len(read_header(file).tensors) == len(header.keys() - {"__metadata__"})
