"""Pure changes to one lazy tensor, or to a few: nothing is read before the rows are asked for.

Shapes are outermost first, as in the checkpoint: a projection's is (outputs, inputs).
"""

from collections.abc import Callable, Sequence

import numpy as np

from owm.errors import Damaged
from owm.pipeline.rows import (
    Array,
    JoinedRows,
    MappedRows,
    PickedRows,
    ReshapedRows,
    Rows,
    SlicedRows,
    TransposedRows,
    n_rows,
)
from owm.pipeline.values import widened


def permute(rows: Rows, n_heads: int) -> Rows:
    """Pair up the two halves of each head: from rope over (x, x + d/2) to rope over neighbours.

    Takes (n_heads × d, …). ref: llama.cpp conversion/llama.py, permute
    """
    n_out = rows.shape[0]
    if n_heads <= 0 or n_out % (2 * n_heads):
        raise Damaged(
            f"{n_out} rows cannot be split in {n_heads} heads of even width; config.json contradicts the weights"
        )
    if len(rows.shape) == 1:  # a bias: its elements are what a weight's rows are
        return reshape(permute(reshape(rows, (n_out, 1)), n_heads), rows.shape)
    index = np.arange(n_out).reshape(n_heads, 2, n_out // n_heads // 2).swapaxes(1, 2).reshape(-1)
    return PickedRows(rows, index, rows.shape)


def pick(rows: Rows, index: Array) -> Rows:
    """Take rows of the first axis, in the order of `index`; elements of a vector."""
    if len(rows.shape) == 1:
        return reshape(pick(reshape(rows, (rows.shape[0], 1)), index), (len(index),))
    inner = n_rows(rows.shape[1:]) if len(rows.shape) > 2 else 1
    flat = (np.asarray(index)[:, None] * inner + np.arange(inner)).reshape(-1)
    return PickedRows(rows, flat, (len(index), *rows.shape[1:]))


def part(rows: Rows, begin: int, end: int) -> Rows:
    """Take rows `begin` to `end` of the first axis."""
    if not 0 <= begin <= end <= rows.shape[0]:
        raise Damaged(
            f"a tensor of {rows.shape[0]} rows has no rows {begin} to {end}; config.json contradicts the weights"
        )
    if len(rows.shape) == 1:
        return reshape(part(reshape(rows, (rows.shape[0], 1)), begin, end), (end - begin,))
    return SlicedRows(rows, begin * n_rows(rows.shape[1:]), (end - begin, *rows.shape[1:]))


def split(rows: Rows, sizes: Sequence[int]) -> list[Rows]:
    """Cut the first axis into parts of these sizes, which must add up."""
    if sum(sizes) != rows.shape[0]:
        raise Damaged(
            f"a tensor of {rows.shape[0]} rows does not split into {list(sizes)}; config.json contradicts the weights"
        )
    ends = np.cumsum(sizes).tolist()
    return [part(rows, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def split_each(rows: Rows, n: int) -> list[Rows]:
    """Cut every matrix of a stack (experts, rows, columns) into `n` parts of as many rows: gate and up."""
    if len(rows.shape) != 3 or rows.shape[1] % n:
        raise Damaged(f"a tensor of shape {rows.shape} is no stack of matrices with {n} equal parts")
    count, height, width = rows.shape
    index = np.arange(count * height).reshape(count, n, height // n)
    return [PickedRows(rows, index[:, i].reshape(-1), (count, height // n, width)) for i in range(n)]


def join(parts: Sequence[Rows]) -> Rows:
    """Put tensors one after the other along the first axis."""
    if len({(piece.shape[1:], piece.dtype) for piece in parts}) != 1:
        raise Damaged("tensors to be joined differ in shape or type")
    if len(parts[0].shape) == 1:
        return reshape(
            join([reshape(piece, (piece.shape[0], 1)) for piece in parts]), (sum(p.shape[0] for p in parts),)
        )
    return JoinedRows(parts, (sum(piece.shape[0] for piece in parts), *parts[0].shape[1:]))


def stack(parts: Sequence[Rows]) -> Rows:
    """Put tensors of one shape under a new first axis: the experts of a layer."""
    if len({(piece.shape, piece.dtype) for piece in parts}) != 1:
        raise Damaged("experts to be stacked differ in shape or type")
    return JoinedRows(parts, (len(parts), *parts[0].shape))


def ungroup_qkv(rows: Rows, n_heads: int, n_kv_heads: int) -> Rows:
    """Put all queries first, then all keys, then all values.

    Takes (n_kv_heads groups of: queries of the group's heads, one key, one value) × (inputs), or such a bias.
    """
    if n_kv_heads <= 0 or n_heads % n_kv_heads or rows.shape[0] % (n_heads + 2 * n_kv_heads):
        raise Damaged(
            f"{rows.shape[0]} rows are not the queries of {n_heads} heads with keys and values of {n_kv_heads}; "
            "config.json contradicts the weights"
        )
    width = rows.shape[0] // (n_heads + 2 * n_kv_heads)
    pieces = split(rows, [n_heads // n_kv_heads * width, width, width] * n_kv_heads)
    return join([*pieces[0::3], *pieces[1::3], *pieces[2::3]])


def reshape(rows: Rows, shape: tuple[int, ...]) -> Rows:
    """See the same elements in another shape."""
    return rows if rows.shape == shape else ReshapedRows(rows, shape)


def squeeze(rows: Rows) -> Rows:
    """Drop axes of length 1."""
    return reshape(rows, tuple(length for length in rows.shape if length != 1) or (1,))


def transpose(rows: Rows) -> Rows:
    """Swap the last two axes."""
    shape = (*rows.shape[:-2], rows.shape[-1], rows.shape[-2])
    if len(shape) == 2:
        return TransposedRows(rows)
    inner = rows.shape[-2]
    pieces = [transpose(SlicedRows(rows, i * inner, rows.shape[-2:])) for i in range(n_rows(rows.shape) // inner)]
    return JoinedRows(pieces, shape)


def add(rows: Rows, number: float) -> Rows:
    """Add a number to every element, as float32; float16 is added to as float16, as the reference does."""
    if rows.dtype == "F16":
        return MappedRows(rows, lambda block, begin, end: block + np.float16(number))
    wide = widened(rows)
    return MappedRows(wide, lambda block, begin, end: block + np.float32(number), dtype="F32")


def scale(rows: Rows, number: float) -> Rows:
    """Multiply every element by a number, as float32; the product of float16 is float16, as in the reference."""
    return _computed(rows, lambda block, begin, end: block * np.float32(number), is_scaling=True)


def scale_rows(rows: Rows, numbers: Array) -> Rows:
    """Multiply every row of a matrix by a number of its own; types as for `scale`."""
    if len(rows.shape) != 2 or len(numbers) != rows.shape[0]:
        raise Damaged(
            f"a tensor of shape {rows.shape} has not {len(numbers)} rows; config.json contradicts the weights"
        )
    factors = np.asarray(numbers, np.float32)[:, None]
    return _computed(rows, lambda block, begin, end: block * factors[begin:end], is_scaling=True)


def negative_exp(rows: Rows) -> Rows:
    """Return -exp(x): the decay of a state-space model from its logarithm; types as for `scale`."""
    # By way of float64, so that every number is rounded correctly, on any machine.
    return _computed(rows, lambda block, begin, end: (-np.exp(block.astype(np.float64))).astype(np.float32))


def _computed(rows: Rows, function: Callable[[Array, int, int], Array], *, is_scaling: bool = False) -> Rows:
    """Compute in float32; give float16 back for float16."""
    wide = MappedRows(widened(rows), function, dtype="F32", is_scaling=is_scaling)
    if rows.dtype != "F16":
        return wide
    return MappedRows(wide, lambda block, begin, end: block.astype(np.float16), dtype="F16", is_scaling=True)
