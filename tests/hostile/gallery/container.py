"""Files that lie about the container: magic, version, counts, lengths, types, nesting, alignment."""

import struct

from hostile.gallery.exhibit import hostile
from support.crafted_gguf import crafted
from support.packed_gguf import ARRAY, BOOL, STRING, U8, U32, U64, array, key, pack, tensor, text

LLAMA = key("general.architecture", STRING, "llama")
T = tensor("t", (8,), 0, 0)
DATA = bytes(32)
MAX = 2**64 - 1


@hostile("it begins with b'PK\\x03\\x04' instead of b'GGUF'", "refuses")
def zip_archive() -> bytes:
    """A ZIP archive, as PyTorch writes, under the name of a model."""
    return b"PK\3\4" + bytes(100)


@hostile("it begins with b'<!DO' instead of b'GGUF'", "refuses")
def web_page() -> bytes:
    """The page that a server shows instead of the file."""
    return b"<!DOCTYPE html><html><body>Sign in</body></html>"


@hostile("it begins with b'\\x1b]0;' instead of b'GGUF'", "refuses")
def escape_for_a_magic() -> bytes:
    """A terminal escape where the magic is, for whoever prints it."""
    return b"\x1b]0;owned\7\x1b[2J" + bytes(100)


@hostile("it is empty", "refuses")
def nothing() -> bytes:
    """A file of no bytes."""
    return b""


@hostile("it ends before the number of tensors", "refuses")
def twelve_bytes() -> bytes:
    """A file that ends inside its counts."""
    return b"GGUF\3\0\0\0\0\0\0\0"


@hostile("its GGUF version is 0, known are 2 and 3", "refuses")
def version_0() -> bytes:
    """Version 0."""
    return pack(version=0)


@hostile("its GGUF version is 1, known are 2 and 3", "refuses")
def version_1() -> bytes:
    """Version 1, whose counts have half the bytes."""
    return pack([LLAMA], [T], DATA, version=1)


@hostile("its GGUF version is 4, known are 2 and 3", "refuses")
def version_4() -> bytes:
    """A version that does not exist yet."""
    return pack([LLAMA], [T], DATA, version=4)


@hostile("it is big-endian", "refuses")
def big_endian() -> bytes:
    """A file for machines of the other byte order."""
    return b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(99)


@hostile("9223372036854775808 metadata keys cannot fit in", "refuses")
def negative_number_of_keys() -> bytes:
    """2^63 metadata keys, a negative number to C."""
    return pack([LLAMA], n_keys=2**63)


@hostile("18446744073709551615 tensors cannot fit in", "refuses")
def tensors_of_every_number() -> bytes:
    """2^64 - 1 tensors."""
    return pack([LLAMA], n_tensors=MAX)


@hostile("4294967296 tensors cannot fit in", "refuses")
def tensors_beyond_32_bits() -> bytes:
    """2^32 tensors, which is 0 to who counts in 32 bits."""
    return pack([LLAMA], n_tensors=2**32)


@hostile("it has 70000 metadata keys, at most 65536 can be", "refuses")
def many_keys() -> bytes:
    """70,000 keys of nothing: each costs its reader an object."""
    return pack([key(f"k{i:05d}", U8, 0) for i in range(70_000)])


@hostile("the text of 18446744073709551615 bytes in a metadata key runs past the end of the file", "refuses")
def key_of_every_length() -> bytes:
    """A key whose length wraps to -1."""
    return pack([text("k", MAX)], n_keys=1) + bytes(99)


@hostile("a metadata key is empty", "refuses")
def key_without_name() -> bytes:
    """A key of no letters."""
    return crafted(first=key("", U32, 1))


@hostile("the metadata key 'general.architecture' appears twice", "refuses")
def key_twice() -> bytes:
    """Two architectures: who reads the first sees another model than who reads the last."""
    return crafted(first=key("general.architecture", STRING, "gpt2"))


@hostile("the metadata key 'llama.expert_count\\x00' holds a zero byte", "aborts")
def key_behind_a_zero_byte() -> bytes:
    """A key with a zero byte: Python sees another name, C reads it as `llama.expert_count` and aborts."""
    return crafted(first=key("llama.expert_count\0", U32, 5000))


@hostile("a metadata key is 65536 bytes long, at most 1024 can be", "loads")
def key_of_64_kib() -> bytes:
    """A key longer than the format allows."""
    return crafted(first=key("k" * 65536, U8, 1))


@hostile("the metadata key 'k' has the unknown type 13", "refuses")
def value_of_an_unknown_type() -> bytes:
    """A value of a type that does not exist, so that nobody knows where it ends."""
    return crafted(first=key("k", 13, bytes(8)))


@hostile("'general.flag' is 2, a flag is 0 or 1", "loads")
def flag_of_two() -> bytes:
    """A flag that is neither true nor false."""
    return crafted(first=key("general.flag", BOOL, b"\2"))


@hostile("the array 'nested' has items of the unknown type 9", "refuses")
def nested_array() -> bytes:
    """An array of arrays."""
    return crafted(first=key("nested", ARRAY, struct.pack("<IQIQ", ARRAY, 1, U8, 0)))


@hostile("the array 'deep' has items of the unknown type 9", "refuses")
def depth_bomb() -> bytes:
    """Arrays in arrays, 100,000 deep: a reader that recurses overflows its stack."""
    return crafted(first=key("deep", ARRAY, struct.pack("<IQ", ARRAY, 1) * 100_000 + struct.pack("<IQ", U8, 0)))


@hostile("the array 'huge' of 4611686018427387904 items runs past the end of the file", "refuses")
def array_whose_size_overflows() -> bytes:
    """2^62 numbers of 4 bytes: 2^64 bytes, which is 0 to who multiplies in 64 bits."""
    return crafted(first=array("huge", U32, [], 2**62))


@hostile("the array 'many' of 1152921504606846976 texts runs past the end of the file", "refuses")
def texts_of_every_number() -> bytes:
    """2^60 texts: room for them would be 2^65 bytes."""
    return crafted(first=array("many", STRING, [], 2**60))


@hostile("the array 'wrap' of 3 texts runs past the end of the file", "refuses")
def texts_whose_lengths_wrap() -> bytes:
    """Texts whose lengths add up to 2^64 and a little: the sum is small again."""
    packed = struct.pack("<IQ", STRING, 3) + text("a", MAX - 40) + text("b", 64) + text("c")
    return crafted(first=key("wrap", ARRAY, packed))


@hostile("its arrays hold more than 1048576 texts, with 'texts'", "loads")
def texts_of_no_letters() -> bytes:
    """Five million empty texts: 40 MB of file, 160 MB of objects in C, 300 MB in Python."""
    return crafted(first=key("texts", ARRAY, struct.pack("<IQ", STRING, 5_000_000) + bytes(8 * 5_000_000)))


@hostile("the text of 1099511627776 bytes in 'long' runs past the end of the file", "refuses")
def text_of_a_tebibyte() -> bytes:
    """A text of 2^40 bytes in a small file."""
    return crafted(first=key("long", STRING, text("x", 2**40)))


@hostile("its alignment 0 is not a power of two", "refuses")
def alignment_of_zero() -> bytes:
    """An alignment to divide by."""
    return crafted({"general.alignment": (U32, 0)})


@hostile("its alignment 3 is not a power of two", "refuses")
def alignment_of_three() -> bytes:
    """An alignment that masks cannot express."""
    return crafted({"general.alignment": (U32, 3)})


@hostile("with its alignment 1 not all tensors begin at multiples of 32 bytes", "aborts")
def alignment_of_one() -> bytes:
    """An alignment of 1: the weights are mapped where no kernel may read them."""
    model = crafted({"general.alignment": (U32, 1), "general.name": (STRING, "")})
    end = entries_end(model)
    moved = text("x" * (33 - end % 32))  # so that the header ends one byte behind a multiple of 32
    name = text("general.name") + struct.pack("<I", STRING)
    return model[:end].replace(name + text(""), name + moved) + model[-(-end // 32) * 32 :]


@hostile("it is truncated, 1024 bytes instead of 2147483680", "refuses")
def alignment_of_two_gib() -> bytes:
    """An alignment of 2^31: the weights begin two GiB later."""
    whole = pack([LLAMA, key("general.alignment", U32, 2**31)], [T])
    return whole + bytes(1024 - len(whole))


@hostile("its alignment is not an unsigned 32-bit number", "refuses")
def alignment_of_64_bits() -> bytes:
    """An alignment of another type than the one that is read."""
    return crafted({"general.alignment": (U64, 32)})


def entries_end(model: bytes) -> int:
    """Return where the tensor entries of a crafted model end."""
    position = model.index(text("token_embd.weight"))
    for _ in range(struct.unpack_from("<Q", model, 8)[0]):
        position += 8 + struct.unpack_from("<Q", model, position)[0]
        position += 4 + 8 * struct.unpack_from("<I", model, position)[0] + 4 + 8
    return position
