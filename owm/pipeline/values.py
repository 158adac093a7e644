"""Values of one type as values of another, and the search for those that are no numbers."""

from functools import cache
from typing import Any

import numpy as np

from owm.native import quants
from owm.pipeline.rows import QUANT_BLOCKS, Array, DType, MappedRows, Rows

CACHE_VALUES = 1 << 16  # widened and quantized at a time: as float32 they stay in a core's own cache

# The first bit pattern that is infinite or no number; the sign bit in front makes another range at the top.
_NOT_FINITE: dict[DType, int] = {"F64": 0x7FF0000000000000, "F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}


def widened(rows: Rows) -> Rows:
    """Return the same tensor as float32."""
    if rows.dtype == "F32":
        return rows
    return MappedRows(rows, lambda block, begin, end: into_f32(block, rows.dtype), dtype="F32", is_scaling=True)


def into_f32(block: Array, dtype: DType) -> Array:
    """Widen or round a block to float32."""
    if dtype in ("F16", "BF16") or dtype in QUANT_BLOCKS:
        return quants.into_f32(block, dtype)
    if dtype in ("F8_E4M3", "F8_E5M2", "F8_E8M0"):
        return _float8_values(dtype)[block]
    with np.errstate(over="ignore"):  # counted by whoever wants to know
        return np.asarray(block, np.float32)


def encode(block: Array, dtype: DType, type_name: str, weights: Array | None = None) -> Array:
    """Return a block of rows as the bytes of a tensor type.

    Args:
        weights: importance of the columns, float32, for types that are quantized.

    Raises:
        quants.OutOfRange: ggml would abort on the values or the weights.
    """
    if dtype == type_name:
        return block
    if type_name in ("F32", "F16", "BF16"):
        wide = into_f32(block, dtype)
        return wide if type_name == "F32" else quants.from_f32(wide, type_name)
    n_values, n_carried = QUANT_BLOCKS.get(dtype, (1, 1))
    width = block.shape[-1] // n_carried * n_values
    step = max(1, CACHE_VALUES // max(1, width))
    made = np.empty((len(block), quants.quant_row_bytes(type_name, width)), np.uint8)
    for begin in range(0, len(block), step):
        part = into_f32(block[begin : begin + step], dtype)
        quants.quantize(part, type_name, weights, into=made[begin : begin + step])
    return made


def count_not_finite(block: Array, dtype: DType) -> int:
    """Count infinities and NaNs in a block; two passes without a copy where there are none."""
    first = _NOT_FINITE.get(dtype)
    if first is None or not block.size:
        return 0
    bits = block.view(np.dtype(f"<u{block.itemsize}"))
    sign = 1 << (8 * block.itemsize - 1)
    if bits.view(np.dtype(f"<i{block.itemsize}")).max() < first and bits.max() < (sign | first):
        return 0
    return int(((bits & (sign - 1)) >= first).sum())


@cache
def _float8_values(dtype: DType) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the 256 values of an 8-bit float. ref: OCP 8-bit Floating Point Specification; OCP Microscaling Formats"""
    codes = np.arange(256)
    if dtype == "F8_E8M0":  # an exponent alone
        return np.where(codes == 255, np.nan, np.exp2(codes.astype(np.float64) - 127)).astype(np.float32)
    mantissa_bits, bias = (3, 7) if dtype == "F8_E4M3" else (2, 15)
    exponent = (codes & 0x7F) >> mantissa_bits
    fraction = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    values = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * np.exp2(exponent - float(bias)))
    if dtype == "F8_E4M3":  # no infinities, one NaN
        values = np.where((codes & 0x7F) == 0x7F, np.nan, values)
    else:
        values = np.where(exponent == 31, np.where(fraction == 0, np.inf, np.nan), values)
    return np.where(codes & 0x80, -values, values).astype(np.float32)
