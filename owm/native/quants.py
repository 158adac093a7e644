"""ggml's own functions from one type of values to another, on blocks of rows. They release the interpreter lock."""

import ctypes
from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
_INTO_F32 = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}
_FROM_F32 = {"F16": "ggml_fp32_to_fp16_row", "BF16": "ggml_fp32_to_bf16_row"}


@cache
def _function(name: str) -> Any:
    from llama_cpp import _ggml

    library: Any = _ggml.libggml
    found = library[name]  # a function object of its own, so that others' argument types stay
    found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    found.restype = None
    return found


def into_f32(block: Array, type_name: str) -> Array:
    """Widen raw F16 or BF16 bits to float32, exactly. ref: ggml/include/ggml.h"""
    block = np.ascontiguousarray(block)
    made = np.empty(block.shape, np.float32)
    _function(_INTO_F32[type_name])(block.ctypes.data, made.ctypes.data, block.size)
    return made


def from_f32(block: Array, type_name: str) -> Array:
    """Round float32 to the raw bits of F16 or BF16, to the nearest, ties to even."""
    block = np.ascontiguousarray(block, np.float32)
    made = np.empty(block.shape, np.uint16)
    _function(_FROM_F32[type_name])(block.ctypes.data, made.ctypes.data, block.size)
    return made
