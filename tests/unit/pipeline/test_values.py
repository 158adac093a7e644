"""Values of one type as values of another, and those that are no numbers."""

import struct

import numpy as np
import pytest

from owm.pipeline.rows import MemoryRows, read_all
from owm.pipeline.values import count_not_finite, encode, into_f32, widened

# (8-bit code, value). ref: OCP 8-bit Floating Point Specification, tables 1 and 2
E4M3 = [(0x00, 0.0), (0x01, 2.0**-9), (0x08, 2.0**-6), (0x38, 1.0), (0x7E, 448.0), (0xFE, -448.0), (0xB8, -1.0)]
E5M2 = [(0x00, 0.0), (0x01, 2.0**-16), (0x04, 2.0**-14), (0x3C, 1.0), (0x7B, 57344.0), (0x7C, np.inf), (0xBC, -1.0)]


def _bf16(value: float) -> int:
    """Round to bfloat16 by the book: to nearest, ties to even."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def test_bf16_is_rounded_to_the_nearest_even() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32).reshape(10, 100)
    made = encode(values, "F32", "BF16")
    np.testing.assert_array_equal(made, np.vectorize(_bf16)(values).astype(np.uint16))
    back = into_f32(made, "BF16")
    np.testing.assert_allclose(back, values, rtol=2**-8)
    np.testing.assert_array_equal(encode(back, "F32", "BF16"), made)


def test_f16_is_what_numpy_says() -> None:
    values = np.random.default_rng(1).standard_normal((10, 100)).astype(np.float32) * 100
    made = encode(values, "F32", "F16")
    np.testing.assert_array_equal(made.view(np.float16), values.astype(np.float16))
    np.testing.assert_array_equal(into_f32(made, "F16"), values.astype(np.float16).astype(np.float32))


def test_a_type_that_stays_is_not_touched() -> None:
    block = np.array([[0x7FC1, 0xFF80, 0x0001]], np.uint16)  # a NaN with a payload, -inf, a denormal
    assert encode(block, "BF16", "BF16") is block


@pytest.mark.parametrize(("dtype", "table"), [("F8_E4M3", E4M3), ("F8_E5M2", E5M2)])
def test_8_bit_floats(dtype: str, table: list[tuple[int, float]]) -> None:
    codes = np.array([[code for code, _ in table]], np.uint8)
    np.testing.assert_array_equal(into_f32(codes, dtype)[0], [value for _, value in table])  # type: ignore[arg-type]
    assert np.isnan(into_f32(np.array([[0x7F, 0xFF]], np.uint8), dtype)).all()  # type: ignore[arg-type]


def test_8_bit_exponents() -> None:
    np.testing.assert_array_equal(into_f32(np.array([[127, 128, 0]], np.uint8), "F8_E8M0")[0], [1.0, 2.0, 2.0**-127])


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_what_is_no_number_is_counted(dtype: str) -> None:
    values = np.zeros((3, 4), np.float32)
    assert count_not_finite(_carried(values, dtype), dtype) == 0  # type: ignore[arg-type]
    values[0, 1], values[1, 2], values[2, 3], values[0, 0] = np.inf, -np.inf, np.nan, -np.nan
    assert count_not_finite(_carried(values, dtype), dtype) == 4  # type: ignore[arg-type]
    largest = np.full((1, 2), 65504 if dtype == "F16" else 3e38, np.float32)
    largest[0, 1] *= -1
    assert count_not_finite(_carried(largest, dtype), dtype) == 0  # type: ignore[arg-type]


def _carried(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "F16":
        return values.astype(np.float16)
    return values if dtype == "F32" else (values.view("<u4") >> 16).astype("<u2")


def test_widened_rows_are_read_as_float32() -> None:
    rows = widened(MemoryRows(np.array([[0x3F80, 0x4000]], np.uint16), "BF16"))
    assert rows.dtype == "F32"
    np.testing.assert_array_equal(read_all(rows), [[1.0, 2.0]])
