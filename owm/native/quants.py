"""ggml's own functions from one type of values to another, on blocks of rows. They release the interpreter lock."""

import ctypes
from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
_INTO_F32 = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}
_FROM_F32 = {"F16": "ggml_fp32_to_fp16_row", "BF16": "ggml_fp32_to_bf16_row"}
# Past these, sums of importance * value**3 over a block leave float32 (256 * 1e15 * 1e18 * a level is within), and
# asserts of ggml's quantizers abort the process. No sound model comes near.
MAX_VALUE, MAX_WEIGHT = 1e6, 1e15
_Row = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class OutOfRange(ValueError):
    """Values that ggml's quantizers would abort the process on, or NaN; the message completes "NAME has …"."""


class _Traits(ctypes.Structure):
    """What ggml knows of a type. ref: ggml/include/ggml.h, struct ggml_type_traits"""

    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("block_values", ctypes.c_int64),
        ("block_values_interleaved", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float", ctypes.c_void_p),
    ]


@cache
def _function(name: str, restype: Any, *argtypes: Any) -> Any:
    from owm.native.binding import ggml

    found = ggml[name]  # a function object of its own, so that others' argument types stay
    found.argtypes = list(argtypes)
    found.restype = restype
    return found


@cache
def type_ids() -> dict[str, int]:
    """Return ggml's number of every tensor type it knows, by name (`Q4_K`)."""
    from owm.native.binding import llama

    name_of = _function("ggml_type_name", ctypes.c_char_p, ctypes.c_int)
    n_types = llama.llama_model_quantize_default_params().output_tensor_type  # "none": one more than the last
    names = [(name_of(type_id) or b"").decode().upper() for type_id in range(n_types)]
    return {name: type_id for type_id, name in enumerate(names) if _traits_of(type_id).block_bytes}


def _traits_of(type_id: int) -> _Traits:
    traits: _Traits = _function("ggml_get_type_traits", ctypes.POINTER(_Traits), ctypes.c_int)(type_id).contents
    return traits


@cache
def _traits(type_name: str) -> _Traits:
    return _traits_of(type_ids()[type_name])


@cache
def _into_f32(type_name: str) -> Any:
    if type_name in _INTO_F32:
        return _function(_INTO_F32[type_name], None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return _Row(_traits(type_name).to_float)


def can_quantize(type_name: str) -> bool:
    """Tell whether ggml makes a type from float32 and reads it back."""
    return bool(_traits(type_name).is_quantized and _traits(type_name).to_float)


def into_f32(block: Array, type_name: str) -> Array:
    """Return rows of a type as float32: F16 or BF16 bits widened exactly, quant blocks (bytes) dequantized.

    ref: ggml/include/ggml.h
    """
    block = np.ascontiguousarray(block)
    traits = _traits(type_name)
    width = block.shape[-1] * block.itemsize // traits.block_bytes * traits.block_values
    made = np.empty((*block.shape[:-1], width), np.float32)
    _into_f32(type_name)(block.ctypes.data, made.ctypes.data, made.size)
    return made


def from_f32(block: Array, type_name: str) -> Array:
    """Round float32 to the raw bits of F16 or BF16, to the nearest, ties to even."""
    block = np.ascontiguousarray(block, np.float32)
    made = np.empty(block.shape, np.uint16)
    convert = _function(_FROM_F32[type_name], None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    convert(block.ctypes.data, made.ctypes.data, block.size)
    return made


def quantize(block: Array, type_name: str, weights: Array | None = None, *, into: Array | None = None) -> Array:
    """Return a matrix of float32 rows as a matrix of quant blocks (bytes).

    The same rows give the same bytes however they are cut into blocks.

    Args:
        weights: importance of each column of these rows, float32; some types cannot be made without.
        into: the matrix to fill, a new one if there is none.

    Raises:
        OutOfRange: values, or weights, that ggml would abort on.
    """
    block = np.ascontiguousarray(block, np.float32)
    if not (block.min(initial=0) >= -MAX_VALUE and block.max(initial=0) <= MAX_VALUE):  # NaN is neither
        raise OutOfRange(f"values beyond ±{MAX_VALUE:,.0f}, or that are no numbers")
    n_rows, width = block.shape
    made = np.empty((n_rows, quant_row_bytes(type_name, width)), np.uint8) if into is None else into
    assert made.shape == (n_rows, quant_row_bytes(type_name, width))
    assert made.flags.c_contiguous
    pointer = None
    if weights is not None:
        weights = np.ascontiguousarray(weights, np.float32)
        assert weights.shape == (width,)
        if not (weights.min(initial=0) >= 0 and weights.max(initial=0) <= MAX_WEIGHT):
            raise OutOfRange(f"importances below 0 or beyond {MAX_WEIGHT:.0e}, or that are no numbers")
        pointer = weights.ctypes.data
    kinds = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *(ctypes.c_int64,) * 3, ctypes.c_void_p)
    chunk = _function("ggml_quantize_chunk", ctypes.c_size_t, *kinds)
    n_bytes = chunk(type_ids()[type_name], block.ctypes.data, made.ctypes.data, 0, n_rows, width, pointer)
    assert n_bytes == made.size
    return made


def quant_row_bytes(type_name: str, width: int) -> int:
    """Return the bytes of a row of so many values in a type."""
    traits = _traits(type_name)
    return int(width // traits.block_values * traits.block_bytes)


def requires_weights(type_name: str) -> bool:
    """Tell whether ggml aborts when it makes a type without weights of the columns."""
    return bool(_function("ggml_quantize_requires_imatrix", ctypes.c_bool, ctypes.c_int)(type_ids()[type_name]))


def is_valid(raw: Array, type_name: str) -> bool:
    """Tell whether quant blocks hold numbers only: no infinite scale, no NaN."""
    raw = np.ascontiguousarray(raw)
    check = _function("ggml_validate_row_data", ctypes.c_bool, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    return bool(check(type_ids()[type_name], raw.ctypes.data, raw.nbytes))
