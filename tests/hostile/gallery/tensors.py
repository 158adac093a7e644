"""Files that lie about their tensors: shapes, types, offsets, sizes, and what is in them."""

import struct

from hostile.gallery.container import DATA, LLAMA, T
from hostile.gallery.exhibit import hostile
from support.crafted_gguf import N_EMBD, N_FF, N_TOKENS, crafted, filled, weights
from support.packed_gguf import U32, key, pack, tensor, text

F16, Q8_0, Q8_1, I8, I32, F64 = 1, 8, 9, 24, 26, 28


@hostile("the tensor 't' has 5 dimensions, at most 4 can be", "refuses")
def five_dimensions() -> bytes:
    """A tensor of more dimensions than a C array holds."""
    return pack([LLAMA], [tensor("t", (8, 1, 1, 1, 1), 0, 0)], DATA)


@hostile("the tensor 't' has 4294967295 dimensions", "refuses")
def dimensions_of_every_number() -> bytes:
    """2^32 - 1 dimensions."""
    return pack([LLAMA], [text("t") + struct.pack("<I", 2**32 - 1) + bytes(40)], DATA)


@hostile("the tensor 't' has an impossible shape (4294967297, 4294967296)", "refuses")
def shape_that_overflows() -> bytes:
    """(2^32 + 1) × 2^32 weights: 2^32 to who multiplies in 64 bits."""
    return pack([LLAMA], [tensor("t", (2**32 + 1, 2**32), 0, 0)], DATA)


@hostile("the tensor 't' has an impossible shape (18446744073709551608,)", "refuses")
def negative_dimension() -> bytes:
    """A row of -8 weights."""
    return pack([LLAMA], [tensor("t", (2**64 - 8,), 0, 0)], DATA)


@hostile("the tensor 'empty' has an impossible shape (0, 8)", "refuses")
def dimension_of_zero() -> bytes:
    """A tensor of no weights, whose name a model could ask for."""
    return pack([LLAMA], [tensor("empty", (0, 8), 0, 0)], DATA)


@hostile("the tensor 't' has rows of 33, Q8_0 needs a multiple of 32", "refuses")
def row_and_a_weight() -> bytes:
    """Rows of 33 weights in quant blocks of 32."""
    return pack([LLAMA], [tensor("t", (33, 1), Q8_0, 0)], bytes(64))


@hostile("has a tensor of unknown type 4: 't'", "refuses", code=5)
def tensor_of_a_removed_type() -> bytes:
    """A tensor of a type that llama.cpp has taken out, of whose quant blocks it says that they have 0 weights."""
    return pack([LLAMA], [tensor("t", (32,), 4, 0)], DATA)


@hostile("has a tensor of unknown type 4294967295: 't'", "refuses", code=5)
def tensor_of_a_negative_type() -> bytes:
    """A tensor of type -1: what lies before C's table of types."""
    return pack([LLAMA], [tensor("t", (32,), 2**32 - 1, 0)], DATA)


@hostile("the tensor 'u' lies at 33, it should lie at 32", "refuses")
def offset_that_is_not_aligned() -> bytes:
    """A tensor that begins at an odd byte."""
    return pack([LLAMA], [T, tensor("u", (8,), 0, 33)], bytes(99))


@hostile("the tensor 'u' lies at 0, it should lie at 32", "refuses")
def tensors_that_overlap() -> bytes:
    """Two tensors of the same bytes."""
    return pack([LLAMA], [T, tensor("u", (8,), 0, 0)], bytes(64))


@hostile("the tensor 'u' lies at 18446744073709551584, it should lie at 32", "refuses")
def offset_that_wraps() -> bytes:
    """A tensor at -32: inside the header, where the file says what it likes."""
    return pack([LLAMA], [T, tensor("u", (8,), 0, 2**64 - 32)], bytes(64))


@hostile("the tensor 't' lies at 1099511627776, it should lie at 0", "refuses")
def offset_beyond_the_end() -> bytes:
    """A tensor a tebibyte behind the end of the file."""
    return pack([LLAMA], [tensor("t", (8,), 0, 2**40)], DATA)


@hostile("it is truncated, 160 bytes instead of 4398046511232", "refuses")
def tensor_larger_than_the_file() -> bytes:
    """4 TiB of weights in a file of 160 bytes."""
    return pack([LLAMA], [tensor("t", (2**40,), 0, 0)], DATA)


@hostile("it is truncated, 290431 bytes instead of 290432", "refuses")
def last_byte_missing() -> bytes:
    """A model of which the last tensor lacks its last byte, which is mapped all the same."""
    return crafted()[:-1]


@hostile("the tensor 'blk.0.attn_q.weight' appears twice", "refuses")
def tensor_twice() -> bytes:
    """Two matrices of one name."""
    name = "blk.0.attn_q.weight"
    return pack([LLAMA], [tensor(name, (8,), 0, 0), tensor(name, (8,), 0, 32)], bytes(64))


@hostile("a tensor name is 64 bytes long, at most 63 can be", "refuses")
def tensor_name_too_long() -> bytes:
    """A name for which C's array of 64 has no room."""
    return pack([LLAMA], [tensor("t" * 64, (8,), 0, 0)], DATA)


@hostile("the tensor name 'output.weight\\x00' holds a zero byte", "loads")
def tensor_name_behind_a_zero_byte() -> bytes:
    """A matrix under a name that C reads to its zero byte, and Python reads on."""
    return crafted(tensors={"output.weight": None, "output.weight\0": weights(N_EMBD, N_TOKENS)})


@hostile("its tensor 'blk.0.attn_norm.weight' is of type Q8_0, a norm, a bias or a scale has to be F32", "aborts")
def quantized_norm() -> bytes:
    """A norm in quant blocks, which llama.cpp multiplies with and aborts."""
    return crafted(tensors={"blk.0.attn_norm.weight": filled(Q8_0, 68, N_EMBD)})


@hostile("its tensor 'blk.0.attn_q.bias' is of type F16, a norm, a bias or a scale has to be F32", "aborts")
def bias_of_16_bits() -> bytes:
    """A bias of half precision, which llama.cpp adds and aborts."""
    return crafted(tensors={"blk.0.attn_q.bias": filled(F16, 128, N_EMBD)})


@hostile("its tensor 'blk.0.ffn_norm.weight' is of type F16, a norm, a bias or a scale has to be F32", "aborts")
def norm_of_16_bits_in_a_column() -> bytes:
    """A norm of half precision that says that it is a matrix of one row."""
    return crafted(tensors={"blk.0.ffn_norm.weight": filled(F16, 128, N_EMBD, 1)})


@hostile("its tensor 'blk.0.ffn_up.scale' is of type I32, a norm, a bias or a scale has to be F32", "aborts")
def scale_of_whole_numbers() -> bytes:
    """A scale of a whole matrix that is an integer."""
    return crafted(tensors={"blk.0.ffn_up.scale": filled(I32, 4, 1)})


@hostile("its tensor 'rope_freqs.weight' is of type F16, factors of positions have to be F32", "aborts")
def rope_factors_of_16_bits() -> bytes:
    """Factors of the rotation in half precision."""
    return crafted(tensors={"rope_freqs.weight": filled(F16, 16, 8)})


@hostile("its matrix 'blk.0.ffn_down.weight' is of type Q8_1, with which nothing can be multiplied", "segfaults")
def matrix_of_a_passing_type() -> bytes:
    """Weights of a type that llama.cpp has for intermediate results only: there is no function to multiply with."""
    return crafted(tensors={"blk.0.ffn_down.weight": filled(Q8_1, 36 * N_FF // 32 * N_EMBD, N_FF, N_EMBD)})


@hostile("its matrix 'blk.0.ffn_up.weight' is of type I8, with which nothing can be multiplied", "segfaults")
def matrix_of_whole_numbers() -> bytes:
    """Weights of 8-bit integers."""
    return crafted(tensors={"blk.0.ffn_up.weight": filled(I8, N_EMBD * N_FF, N_EMBD, N_FF)})


@hostile("its matrix 'blk.0.attn_k.weight' is of type F64, with which nothing can be multiplied", "segfaults")
def matrix_of_64_bits() -> bytes:
    """Weights of double precision."""
    return crafted(tensors={"blk.0.attn_k.weight": filled(F64, 8 * N_EMBD * 32, N_EMBD, 32)})


@hostile("its matrix 'token_embd.weight' is of type I32, with which nothing can be multiplied", "aborts")
def embeddings_of_whole_numbers() -> bytes:
    """Embeddings of 32-bit integers, which llama.cpp looks up and aborts."""
    return crafted(tensors={"token_embd.weight": filled(I32, 4 * N_EMBD * N_TOKENS, N_EMBD, N_TOKENS)})


@hostile("'blk.0.attn_q.weight' has wrong shape; expected     64,     64, got", "refuses", code=1)
def matrix_of_another_shape() -> bytes:
    """A matrix that does not fit what the header says of the model."""
    return crafted(tensors={"blk.0.attn_q.weight": weights(N_EMBD, 32)})


@hostile("tensor 'blk.0.ffn_up.weight' not found", "refuses", code=1)
def matrix_missing() -> bytes:
    """A model without one of its matrices."""
    return crafted(tensors={"blk.0.ffn_up.weight": None})


@hostile("wrong number of tensors", "refuses", code=1)
def tensor_of_no_use() -> bytes:
    """A matrix that no layer asks for: a place to hide something in."""
    return crafted(tensors={"blk.7.attn_q.weight": weights(N_EMBD, 64)})


@hostile("holds no weights", "refuses", code=5)
def no_tensors() -> bytes:
    """A header alone."""
    return pack([LLAMA, key("llama.block_count", U32, 1)])


@hostile("the tensor 'output_norm.weight' (F32) has values that are infinite or no numbers", "loads", kind="weights")
def weight_that_is_no_number() -> bytes:
    """One weight of NaN: every answer is noise, and nothing says why."""
    ones = struct.pack("<64f", *[1.0] * 63, float("nan"))
    return crafted(tensors={"output_norm.weight": ((N_EMBD,), 0, ones)})


@hostile("the tensor 'blk.0.ffn_down.weight' (Q8_0) has values that are infinite", "loads", kind="weights")
def block_of_an_infinite_scale() -> bytes:
    """One quant block whose scale is infinite."""
    blocks = bytearray(34 * N_FF // 32 * N_EMBD)
    blocks[34:36] = b"\x00\x7c"
    return crafted(tensors={"blk.0.ffn_down.weight": ((N_FF, N_EMBD), Q8_0, bytes(blocks))})
