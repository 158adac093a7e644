"""Some rows of a tensor, read once and encoded as each output wants them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from owm.errors import Damaged
from owm.native.quants import OutOfRange, is_valid
from owm.pipeline.plan import PlannedTensor
from owm.pipeline.rows import QUANT_BLOCKS, Array, DType
from owm.pipeline.values import count_not_finite, encode

# Types in which a value can be too large.
_NARROW: dict[str, DType] = {"F16": "F16", "BF16": "BF16", "F32": "F32"}


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of a tensor as each output wants them (None where it has them already), and what was wrong with them."""

    raws: tuple[Array | None, ...]
    n_not_finite: int
    n_too_large: int


def encode_block(targets: Sequence[PlannedTensor | None], begin: int, end: int) -> Block:
    """Read some rows once and encode them for every output. Runs in a worker."""
    first = next(target for target in targets if target is not None)
    dtype = first.rows.dtype
    rows = first.rows.read(begin, end)
    bad = count_not_finite(rows, dtype)
    raws: list[Array | None] = []
    n_too_large = 0
    done: dict[str, Array] = {}
    for target in targets:
        if target is None:
            raws.append(None)
            continue
        is_made = target.type_name in QUANT_BLOCKS and dtype != target.type_name
        if is_made and bad:
            raise Damaged(
                f"{target.name} has values that are infinite or no numbers (NaN), which {target.type_name} cannot hold",
                hint="the source is damaged, or was published so: F16, BF16 and F32 keep them as they are",
            )
        if (made := done.get(target.type_name)) is None:
            try:
                made = done[target.type_name] = encode(rows, dtype, target.type_name, _weights_of(target, begin))
            except OutOfRange as error:
                raise Damaged(
                    f"{target.name} has {error}, which cannot be quantized to {target.type_name}",
                    hint="the source is damaged, or was published so: F16, BF16 and F32 keep what they can hold",
                ) from error
        raw = np.ascontiguousarray(made).view(np.uint8).reshape(-1)
        assert len(raw) == (end - begin) * target.row_bytes, f"{target.name}: {len(raw)} bytes"
        if is_made and not is_valid(raw, target.type_name):
            raise Damaged(f"{target.name} as {target.type_name} comes to values that are no numbers")
        narrow = _NARROW.get(target.type_name)
        if narrow is not None and narrow != dtype:
            n_too_large = max(n_too_large, count_not_finite(made, narrow) - bad)
        raws.append(raw)
    return Block(tuple(raws), bad, n_too_large)


def _weights_of(tensor: PlannedTensor, row: int) -> Array | None:
    """Return the importance of the columns in the matrix that a row belongs to."""
    if tensor.weights is None:
        return None
    weights: Array = tensor.weights[row // (tensor.n_rows // len(tensor.weights))]
    return weights
