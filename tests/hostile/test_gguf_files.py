"""Damaged and malicious GGUF files: each has its own cause, found at once, before llama.cpp sees the file."""

import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import MalformedFile, OwmError, StoreError, Unsupported
from owm.formats.gguf import read_header
from support.packed_gguf import ARRAY, BOOL, F32, F64, I32, STRING, U8, U16, U32, U64, array, key, pack, tensor, text
from support.run import finish, run, start
from support.tiny_gguf import tiny_gguf

LLAMA = key("general.architecture", STRING, "llama")
T = tensor("t", (8,), 0, 0)
DATA = bytes(32)
EVIL = "\x1b]0;owned\x07\x1b[2J\u202e"


def hparams(*keys: bytes) -> bytes:
    return pack([LLAMA, *keys], [T], DATA)


# name: (content, words of the cause)
MALFORMED: dict[str, tuple[bytes, str]] = {
    # the beginning
    "empty": (b"", "it is empty"),
    "one byte": (b"G", "it begins with b'G' instead of b'GGUF'"),
    "not a GGUF": (b"PK\3\4" + bytes(100), "it begins with b'PK\\x03\\x04' instead of b'GGUF'"),
    "an escape for a magic": (b"\x1b[2J" + bytes(100), "it begins with b'\\x1b[2J' instead of b'GGUF'"),
    "GGML of old": (b"lmgg" + bytes(100), "it begins with b'lmgg'"),
    "a web page": (b"<!DOCTYPE html><html>", "it begins with b'<!DO'"),
    "only the magic": (b"GGUF", "it ends before the version"),
    "ends in the version": (b"GGUF\3\0", "it ends before the version"),
    "ends before the counts": (b"GGUF\3\0\0\0\0\0\0\0", "it ends before the number of tensors"),
    "ends between the counts": (b"GGUF\3\0\0\0" + bytes(12), "it ends before the number of metadata keys"),
    "version 0": (pack(version=0), "its GGUF version is 0, known are 2 and 3"),
    "version 1": (pack(version=1), "its GGUF version is 1, known are 2 and 3"),
    "version 99": (pack(version=99), "its GGUF version is 99, known are 2 and 3"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(99), "it is big-endian"),
    # counts
    "keys that cannot fit": (pack([LLAMA], n_keys=2**63), "9223372036854775808 metadata keys cannot fit in"),
    "tensors that cannot fit": (pack([LLAMA], n_tensors=2**64 - 1), "18446744073709551615 tensors cannot fit in"),
    "one key more than there are": (pack([LLAMA], n_keys=2), "it ends inside a metadata key"),
    "one tensor more than there are": (pack([LLAMA], [T], DATA, n_tensors=2), "the tensor '' lies at 0, it should"),
    "too many keys": (pack(n_keys=70_000) + bytes(14 * 70_000), "it has 70000 metadata keys, at most 65536 can be"),
    "too many tensors": (pack(n_tensors=70_000) + bytes(33 * 70_000), "it has 70000 tensors, at most 65536 can be"),
    # keys and values
    "a key longer than the file": (
        pack([text("k", 2**63)], n_keys=1) + bytes(99),
        "the text of 9223372036854775808 bytes in a metadata key runs past the end of the file",
    ),
    "a key too long": (pack([key("k" * 1025, U8, 1)]), "a metadata key is 1025 bytes long, at most 1024 can be"),
    "keys of megabytes": (
        pack([key(f"{i:04}" + "\U0001f600" * 255, U8, 1) for i in range(4200)]),
        "its metadata keys take more than 4.00 MiB",
    ),
    "an empty key": (pack([key("", U32, 1)]), "a metadata key is empty"),
    "a key twice": (pack([key("k", U8, 1), key("k", U32, 2)]), "the metadata key 'k' appears twice"),
    "a key that is not UTF-8": (pack([key(b"\xff\xfe", U8, 1)]), "a metadata key is not UTF-8 text"),
    "a key with escapes": (pack([key(EVIL, 77, b"")]), "'\\x1b]0;owned\\x07\\x1b[2J\\u202e' has the unknown type 77"),
    "a long key in a message": (pack([key("k" * 1024, 77, b"")]), "kkk\\u2026' has the unknown type 77"),
    "an unknown type": (pack([key("k", 13, bytes(8))]), "the metadata key 'k' has the unknown type 13"),
    "no type": (pack([text("abc") + b"\0"]) + b"\0\0", "it ends inside 'abc'"),
    "a value cut short": (pack([key("abc", U64, b"\1\2\3")]), "it ends inside the value of 'abc'"),
    "a flag cut short": (pack([key("abcde", BOOL, b"")]), "it ends inside 'abcde'"),
    "a text longer than the file": (
        pack([key("k", STRING, text("x", 2**63))]),
        "the text of 9223372036854775808 bytes in 'k' runs past the end of the file",
    ),
    "a text one byte longer than the file": (
        pack([key("k", STRING, text("xy", 3))]),
        "the text of 3 bytes in 'k' runs past the end of the file",
    ),
    # arrays
    "an array of 2**62 numbers": (
        pack([array("k", U32, [], 2**62)]),
        "the array 'k' of 4611686018427387904 items runs past the end of the file",
    ),
    "an array of 2**64-1 bytes": (
        pack([array("k", U8, [], 2**64 - 1)]),
        "the array 'k' of 18446744073709551615 items runs past the end of the file",
    ),
    "an array of 2**62 texts": (
        pack([array("k", STRING, [], 2**62)]),
        "the array 'k' of 4611686018427387904 texts runs past the end of the file",
    ),
    "an array one item longer than the file": (
        pack([array("k", U16, [1, 2], 3)]),
        "the array 'k' of 3 items runs past the end of the file",
    ),
    "a text in an array longer than the file": (
        pack([key("k", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + text("b", 2**63))]),
        "the array 'k' of 2 texts runs past the end of the file",
    ),
    "texts in an array whose lengths add up beyond 2**64": (
        pack([key("k", ARRAY, struct.pack("<IQ", STRING, 3) + text("a", 2**64 - 1) + text("b", 2**63) + text("c"))]),
        "the array 'k' of 3 texts runs past the end of the file",
    ),
    "a long array of texts that ends too late": (
        pack([key("k", ARRAY, struct.pack("<IQ", STRING, 5000) + text("x", 10) + bytes(8 * 5000))]),
        "the array 'k' of 5000 texts runs past the end of the file",
    ),
    "more texts than any vocabulary": (
        pack([key("k", ARRAY, struct.pack("<IQ", STRING, 5_000_000) + bytes(8 * 5_000_000))]),
        "its arrays hold more than 1048576 texts, with 'k'",
    ),
    "an array of arrays": (
        pack([key("k", ARRAY, struct.pack("<IQ", ARRAY, 1) + struct.pack("<IQ", U8, 0))]),
        "the array 'k' has items of the unknown type 9",
    ),
    "an array of an unknown type": (pack([key("k", ARRAY, struct.pack("<IQ", 99, 0))]), "items of the unknown type 99"),
    # what the header says of itself
    "architecture that is a number": (pack([key("general.architecture", U32, 1)]), "its architecture is not a text"),
    "architecture that is a list": (pack([array("general.architecture", STRING, ["a"])]), "its architecture is not a"),
    "architecture of 9 MiB": (pack([key("general.architecture", STRING, "x" * (9 << 20))]), "its architecture is"),
    "alignment 0": (pack([LLAMA, key("general.alignment", U32, 0)]), "its alignment 0 is not a power of two"),
    "alignment 3": (pack([LLAMA, key("general.alignment", U32, 3)]), "its alignment 3 is not a power of two"),
    "alignment 2**40": (
        pack([LLAMA, key("general.alignment", U64, 2**40)]),
        "its alignment is not an unsigned 32-bit number",
    ),
    "alignment of a signed type": (
        pack([LLAMA, key("general.alignment", I32, 32)]),
        "its alignment is not an unsigned 32-bit number",
    ),
    "alignment that is a text": (
        pack([LLAMA, key("general.alignment", STRING, "32")]),
        "its alignment is not an unsigned 32-bit number",
    ),
    "alignment that llama.cpp aborts on": (
        pack([LLAMA, key("general.alignment", U32, 1)], [T], DATA, alignment=1),
        "with its alignment 1 not all tensors begin at multiples of 32 bytes",
    ),
    "alignment 2**31": (pack([LLAMA, key("general.alignment", U32, 2**31)], [T], DATA), "it is truncated,"),
    # tensors
    "a tensor twice": (pack([LLAMA], [T, T], bytes(64)), "the tensor 't' appears twice"),
    "a tensor name too long": (
        pack([LLAMA], [tensor("t" * 64, (8,), 0, 0)], DATA),
        "a tensor name is 64 bytes long, at most 63 can be",
    ),
    "a tensor name longer than the file": (
        pack([LLAMA], [text("t", 2**62) + bytes(40)]),
        "the text of 4611686018427387904 bytes in a tensor name runs past the end of the file",
    ),
    "a tensor name that is not UTF-8": (
        pack([LLAMA], [tensor(b"\xc3(", (8,), 0, 0)], DATA),
        "a tensor name is not UTF-8 text",
    ),
    "a tensor name with escapes": (
        pack([LLAMA], [tensor(EVIL, (1, 1, 1, 1, 1), 0, 0)], DATA),
        "the tensor '\\x1b]0;owned\\x07\\x1b[2J\\u202e' has 5 dimensions",
    ),
    "five dimensions": (
        pack([LLAMA], [tensor("t", (8, 1, 1, 1, 1), 0, 0)], DATA),
        "the tensor 't' has 5 dimensions, at most 4 can be",
    ),
    "2**32-1 dimensions": (
        pack([LLAMA], [text("t") + struct.pack("<I", 2**32 - 1) + bytes(40)], DATA),
        "the tensor 't' has 4294967295 dimensions",
    ),
    "dimensions that overflow": (
        pack([LLAMA], [tensor("t", (2**32, 2**32), 0, 0)], DATA),
        "the tensor 't' has an impossible shape (4294967296, 4294967296)",
    ),
    "dimensions that overflow to something small": (
        pack([LLAMA], [tensor("t", (2**32 + 1, 2**32), 0, 0)], DATA),
        "the tensor 't' has an impossible shape",
    ),
    "a negative dimension": (
        pack([LLAMA], [tensor("t", (2**64 - 8,), 0, 0)], DATA),
        "the tensor 't' has an impossible shape (18446744073709551608,)",
    ),
    "a dimension of zero": (
        pack([LLAMA], [tensor("t", (8, 0), 0, 0)], DATA),
        "the tensor 't' has an impossible shape (8, 0)",
    ),
    "a row that is no multiple of the block": (
        pack([LLAMA], [tensor("t", (33, 1), 8, 0)], bytes(64)),
        "the tensor 't' has rows of 33, Q8_0 needs a multiple of 32",
    ),
    "a scalar of a quantized type": (
        pack([LLAMA], [tensor("t", (), 8, 0)], bytes(64)),
        "the tensor 't' has rows of 1, Q8_0 needs a multiple of 32",
    ),
    "an offset that is not aligned": (
        pack([LLAMA], [T, tensor("u", (8,), 0, 33)], bytes(99)),
        "the tensor 'u' lies at 33, it should lie at 32",
    ),
    "tensors that overlap": (
        pack([LLAMA], [T, tensor("u", (8,), 0, 0)], bytes(64)),
        "the tensor 'u' lies at 0, it should lie at 32",
    ),
    "a gap between tensors": (
        pack([LLAMA], [T, tensor("u", (8,), 0, 64)], bytes(96)),
        "the tensor 'u' lies at 64, it should lie at 32",
    ),
    "a gap before the first tensor": (
        pack([LLAMA], [tensor("t", (8,), 0, 32)], bytes(64)),
        "the tensor 't' lies at 32, it should lie at 0",
    ),
    "an offset beyond the end": (
        pack([LLAMA], [tensor("t", (8,), 0, 2**63)], DATA),
        "the tensor 't' lies at 9223372036854775808, it should lie at 0",
    ),
    "data cut short by one byte": (hparams()[:-1], "it is truncated, 159 bytes instead of 160"),
    "no data": (pack([LLAMA], [T]), "it is truncated,"),
    "a tensor larger than the file": (
        pack([LLAMA], [tensor("t", (2**40,), 0, 0)], DATA),
        "it is truncated, 160 bytes instead of 4398046511232",
    ),
    "a tensor entry cut short": (pack([LLAMA], [tensor("cut", (8,), 0, 0)[:-3]]), "it ends inside 'cut'"),
    # values on which llama.cpp aborts
    "no layers": (hparams(key("llama.block_count", U32, 0)), "it has 0 layers"),
    "too many layers": (hparams(key("llama.block_count", U32, 2**32 - 1)), "it has 4294967295 layers"),
    "more layers for prediction than there are": (
        hparams(key("llama.block_count", U32, 2), key("llama.nextn_predict_layers", U32, 3)),
        "it has 2 layers, 3 of them for prediction",
    ),
    "too many experts": (
        hparams(key("llama.expert_count", U32, 1025), key("llama.expert_used_count", U32, 2)),
        "it uses 2 of 1025 experts",
    ),
    "experts that are not used": (hparams(key("llama.expert_count", U32, 8)), "it uses 0 of 8 experts"),
    "more experts used than there are": (
        hparams(key("llama.expert_count", U32, 8), array("llama.expert_used_count", U32, [2, 9])),
        "it uses 9 of 8 experts",
    ),
    "used experts that are not there": (hparams(key("llama.expert_used_count", U32, 1)), "it uses 1 of 0 experts"),
    "groups of experts that do not divide": (
        hparams(
            key("llama.expert_count", U32, 8), key("llama.expert_used_count", U32, 2),
            key("llama.expert_group_count", U32, 3), key("llama.expert_group_used_count", U32, 1),
        ),
        "it uses 1 of 3 groups of 8 experts",
    ),
    "epsilon that is no number": (
        hparams(key("llama.attention.layer_norm_rms_epsilon", F32, float("nan"))),
        "its layer_norm_rms_epsilon is nan",
    ),
    "a negative epsilon": (
        hparams(key("llama.attention.layer_norm_epsilon", F64, -1.0)),
        "its layer_norm_epsilon is -1.0",
    ),
    "an unknown scaling of positions": (
        hparams(key("llama.rope.scaling.type", STRING, "\x1bsu")),
        "its rope scaling '\\x1bsu' is not known",
    ),
}  # fmt: skip
UNSUPPORTED: dict[str, tuple[bytes, str]] = {
    "a tensor of an unknown type": (
        pack([LLAMA], [tensor("t", (32,), 1000, 0)], DATA),
        "has a tensor of unknown type 1000: 't'",
    ),
    "a tensor of a type that was removed": (
        pack([LLAMA], [tensor(EVIL, (32,), 4, 0)], DATA),
        "has a tensor of unknown type 4: '\\x1b]0;owned\\x07\\x1b[2J\\u202e'",
    ),
}
MAX_SECONDS, MAX_BYTES = 0.5, 64 << 20


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
    assert not message.endswith(".")
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_with_its_own_cause(name: str, file: Path) -> None:
    content, cause = MALFORMED[name]
    file.write_bytes(content)
    error = refusal(file)
    assert isinstance(error, MalformedFile)
    assert cause in error.cause
    assert error.path == file
    assert error.hint


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unknown_tensor_type_is_unsupported(name: str, file: Path) -> None:
    content, cause = UNSUPPORTED[name]
    file.write_bytes(content)
    error = refusal(file)
    assert isinstance(error, Unsupported)
    assert cause in str(error)
    assert error.hint == "update owm"


def test_the_causes_are_told_apart() -> None:
    assert len(MALFORMED) >= 30
    assert len({cause for _, cause in MALFORMED.values()}) > 0.8 * len(MALFORMED)


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


def test_a_huge_file_of_nothing_costs_nothing(file: Path) -> None:
    """A sparse file: 64 GiB for a few bytes on disk."""
    whole = 64 << 30
    for name, content in {
        "text": pack([key("k", STRING, struct.pack("<Q", whole - 100))], n_keys=2),
        "texts": pack([array("k", STRING, [], whole // 8 - 100)], n_keys=2),
        "numbers": pack([array("k", U8, [], whole - 100)], n_keys=2),
        "keys": pack([], n_keys=whole // 14 - 100),
        "tensors": pack([], n_tensors=whole // 33 - 100),
    }.items():
        with open(file, "wb") as out:
            out.write(content)
            out.truncate(whole)
        assert refusal(file), name


@pytest.mark.parametrize(("n_bytes", "count"), [(1 << 30, 64), (4088, 1 << 15)], ids=["of a gibibyte", "of a page"])
def test_a_header_of_gigabytes_is_refused_where_it_becomes_too_long(n_bytes: int, count: int, file: Path) -> None:
    """Sparse: texts that lie within the file, so far apart that to walk over them would bring all of it into memory."""
    with open(file, "wb") as out:
        out.write(pack([key("k", ARRAY, struct.pack("<IQ", STRING, count))]))
        for _ in range(count):
            out.write(struct.pack("<Q", n_bytes))
            out.seek(n_bytes, os.SEEK_CUR)
        out.truncate(count * (n_bytes + 8) + 100)
    assert "its header takes more than 48.0 MiB" in str(refusal(file))


def test_a_text_that_is_acted_upon_is_not_searched_through_gigabytes(file: Path) -> None:
    with open(file, "wb") as out:
        out.write(pack([key("tokenizer.chat_template", STRING, struct.pack("<Q", 4 << 30))], n_keys=2))
        out.truncate(5 << 30)
    assert "its header takes more than 48.0 MiB" in str(refusal(file))


def test_a_table_of_characters_of_megabytes_is_refused(file: Path) -> None:
    table = struct.pack("<I", 5 << 20) + bytes(5 << 20) + b"a\0"
    raw = struct.pack("<IQ", U8, len(table)) + table
    model, tokens = key("tokenizer.ggml.model", STRING, "t5"), array("tokenizer.ggml.tokens", STRING, ["a", "b"])
    file.write_bytes(pack([model, tokens, key("tokenizer.ggml.precompiled_charsmap", ARRAY, raw)]))
    header = read_header(file)
    with pytest.raises(MalformedFile, match="its table of characters has 5242886 bytes, at most 4194304 can be"):
        header.check_vocabulary()


WORST = """
import sys, time
from pathlib import Path
import owm.formats.vocabulary
from owm.errors import MalformedFile
from owm.formats.gguf import read_header
def peak():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) >> 10
before, began = peak(), time.process_time()
header = read_header(Path(sys.argv[1]))
read = time.process_time()
try:
    header.check_vocabulary()
except MalformedFile as error:
    assert "appears twice" in str(error)
else:
    raise SystemExit("it was taken")
print(read - began, time.process_time() - read, peak() - before)
"""


@pytest.mark.slow
def test_the_worst_header_of_all_stays_within_its_bounds(file: Path) -> None:
    """As many keys, wide texts, tensors and tokens as are taken, of which the last comes twice; file pages count."""
    n, n_tokens, wide = 1 << 16, 1 << 20, "\U0001f600"
    tokens = b"".join(text(b"%019x" % i) for i in [*range(n_tokens - 1), 0])
    keys = [
        key("tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, n_tokens) + tokens),
        *(key(f"{wide}{i:05}".ljust(57, "a"), STRING, wide.ljust(117, "a")) for i in range(n - 1)),
    ]
    tensors = [tensor(f"{wide}{i:05}".ljust(60, "a"), (32, 1, 1, 1), 0, 128 * i) for i in range(n)]
    file.write_bytes(pack(keys, tensors, bytes(128 * n)))
    read, checked, grown = map(float, finish(start(["-c", WORST, file])).split())
    assert read < 2
    assert checked < 2
    assert grown < 256


def test_every_cut_of_a_header_is_refused(file: Path) -> None:
    whole = pack(
        [LLAMA, array("list", STRING, ["a", "bc"]), array("numbers", U16, [1, 2]), key("flag", BOOL, True)], [T], DATA
    )
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert isinstance(refusal(file), MalformedFile), length
    file.write_bytes(whole)
    read_header(file)


@given(
    changes=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=6),
    length=st.none() | st.integers(0, 6000),
)
def test_whatever_is_in_a_header_only_owm_errors_come_out(
    file: Path, changes: list[tuple[int, int]], length: int | None
) -> None:
    content = bytearray(tiny_gguf(n_blocks=1))
    for position, byte in changes:
        content[position] = byte
    file.write_bytes(content[:length])
    with suppress(OwmError):
        read_header(file).check_vocabulary()


@given(content=st.binary(max_size=300), n_keys=st.integers(0, 5), n_tensors=st.integers(0, 5))
def test_random_bytes_after_a_good_beginning(file: Path, content: bytes, n_keys: int, n_tensors: int) -> None:
    file.write_bytes(pack(n_keys=n_keys, n_tensors=n_tensors) + content)
    with suppress(OwmError):
        header = read_header(file)
        assert (len(header.metadata), len(header.tensors)) == (n_keys, n_tensors)


# -- through the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code", "cause"),
    [
        (b"", 7, "it is empty"),
        (b"PK\3\4" + bytes(100), 7, "it begins with b'PK\\x03\\x04'"),
        (hparams()[:-1], 7, "it is truncated, 159 bytes instead of 160"),
        (pack([key(EVIL, 77, b"")]), 7, "has the unknown type 77"),
        (hparams(key("llama.block_count", U32, 2**32 - 1)), 7, "it has 4294967295 layers"),
        (pack([LLAMA], [tensor("t", (32,), 1000, 0)], DATA), 5, "has a tensor of unknown type 1000: 't'"),
    ],
    ids=["empty", "zip", "truncated", "escapes", "layers", "unknown type"],
)
def test_the_command_says_it_in_one_line(content: bytes, code: int, cause: str, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    output = run(["-m", "owm", "run", file, "hi"])
    assert output.exit_code == code
    assert output == ""
    lines = output.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"]
    assert cause in lines[0]
    assert output.stderr.replace("\n", "").isprintable()


# -- llama.cpp itself --------------------------------------------------------------------------------------------------

VALUES = (
    "llama.attention.head_count", "llama.attention.head_count_kv", "llama.attention.layer_norm_rms_epsilon",
    "llama.block_count", "llama.context_length", "llama.embedding_length", "llama.feed_forward_length",
    "llama.rope.dimension_count", "llama.rope.freq_base", "llama.vocab_size",
    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
)  # fmt: skip
LOAD = """
import os, sys
from pathlib import Path
from owm.engine.generate import Generation
from owm.engine.model import Model
from owm.engine.sampling import Sampling
from owm.engine.scheduler import Request
from owm.errors import OwmError
from owm.formats.gguf import read_header

for path in sys.argv[1:]:
    read_header(Path(path)).check_vocabulary()
    child = os.fork()
    if not child:
        try:
            with Model([Path(path)]) as model, model.scheduler(64, n_threads=1) as scheduler:
                scheduler.submit(Request(model.tokenize("hello"), Sampling(temp=0), 2, ()))
                said = sum(len(chunk.text) for chunk in Generation(scheduler))
        except OwmError:
            os._exit(3)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_what_the_reader_takes_does_not_abort_llama_cpp(tmp_path: Path) -> None:
    """Changed values that pass: llama.cpp may refuse the file, but the process lives."""
    number, huge, negative = struct.pack("<II", U32, 0), struct.pack("<II", U32, 2**32 - 1), struct.pack("<If", F32, -1)
    whole = tiny_gguf(n_blocks=1)
    contents = [_with_value(whole, name, value) for name in VALUES for value in (number, huge, negative)]
    paths = []
    for i, content in enumerate(contents):
        path = tmp_path / f"{i}.gguf"
        path.write_bytes(content)
        try:
            read_header(path).check_vocabulary()
        except MalformedFile:
            continue
        paths.append(path)
    assert len(paths) > 20
    output = finish(start(["-c", LOAD, *paths]), timeout=120)
    assert output.exit_code == 0, output.stderr[-2000:]
    codes = output.split()
    assert len(codes) == len(paths)
    assert set(codes) <= {"0", "3"}, codes


def _with_value(content: bytes, name: str, packed: bytes) -> bytes:
    """Replace a value of four bytes and its type."""
    position = content.index(text(name)) + len(text(name))
    return content[:position] + packed + content[position + 8 :]
