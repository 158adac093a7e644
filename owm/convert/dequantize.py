"""Published 8-bit checkpoints back to numbers: weights multiplied by the scales that lie beside them.

ref: llama.cpp conversion/base.py, dequant_model; the `quantization_config` of each method
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from owm.convert.hparams import Config
from owm.convert.rules import Tensors
from owm.convert.transforms import reshape
from owm.errors import Damaged, Unsupported
from owm.pipeline.rows import Array, MappedRows, Rows, n_rows
from owm.pipeline.values import widened

_HINT = "take the repo with the original weights"
_COMPRESSED = ("float-quantized", "int-quantized", "naive-quantized")  # 8 bits a weight, not packed
_STRATEGIES = ("tensor", "channel", "block")
_ACTIVATIONS = re.compile(r".*\.(input_scale|activation_scale|k_scale|v_scale|input_amax)")


def dequantize(tensors: Tensors, config: Config) -> Tensors:
    """Return the tensors without their scales; those of an unquantized checkpoint as they are.

    MXFP4 checkpoints are left to their architecture, which keeps the quant blocks.

    Raises:
        Unsupported: the checkpoint is quantized in a way that owm does not read.
        Damaged: a scale is missing or does not fit.
    """
    settings = config.get("quantization_config")
    if settings is None:
        return tensors
    if not isinstance(settings, dict):
        raise Damaged("config.json: quantization_config should be an object")
    method = settings.get("quant_method")
    if method == "mxfp4":
        return tensors
    if method == "fp8":
        return _scaled(tensors, _block_size(settings, "weight_block_size"))
    if method == "compressed-tensors" and settings.get("format") in _COMPRESSED:
        return _scaled(tensors, _block_size(_weights_of(settings), "block_structure"))
    raise Unsupported(
        f"the checkpoint is quantized by {ascii(method)[:40]}, which owm cannot read",
        hint=_HINT,
    )


def _weights_of(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how compressed-tensors says that weights are quantized: all in one way, not in groups of a row."""
    groups = settings.get("config_groups")
    groups = list(groups.values()) if isinstance(groups, dict) else []
    weights = [group.get("weights") for group in groups if isinstance(group, dict)]
    if len(weights) != 1 or not isinstance(weights[0], dict) or weights[0].get("strategy") not in _STRATEGIES:
        raise Unsupported("the checkpoint is quantized by compressed-tensors in a way that owm cannot read", hint=_HINT)
    return weights[0]


def _block_size(settings: Mapping[str, Any], name: str) -> tuple[int, int] | None:
    size = settings.get(name)
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(item, int) and item > 0 for item in size):
        raise Damaged(f"config.json: {name} should be two whole numbers: {ascii(size)[:40]}")
    return size[0], size[1]


def _scaled(tensors: Tensors, block_size: tuple[int, int] | None) -> Tensors:
    scales = {name: rows for name, rows in tensors.items() if name.endswith(("_scale_inv", ".weight_scale"))}
    made: Tensors = {}
    left = set(scales)
    for name, rows in tensors.items():
        if name in scales or _ACTIVATIONS.fullmatch(name):
            continue
        key = next((key for key in (f"{name}_scale_inv", f"{name}_scale") if key in scales), "")
        scale = scales.get(key)
        left.discard(key)
        if scale is None and rows.dtype in ("F8_E4M3", "F8_E5M2"):
            raise Damaged(f"the 8-bit tensor {name} has no scale")
        made[name] = rows if scale is None else _times(rows, scale, block_size, name)
    if left:
        raise Damaged(f"a scale belongs to no tensor: {min(left)}")
    return made


def _times(rows: Rows, scale: Rows, block_size: tuple[int, int] | None, name: str) -> Rows:
    """Multiply a weight by its scales: one number, one a row, or one for each block of rows and columns."""
    width, height = rows.shape[-1], n_rows(rows.shape)
    if math.prod(scale.shape) == 1:
        shape, step = (1, 1), (height, width)
    elif block_size is None:
        shape, step = (math.prod(scale.shape), 1), (1, width)
    else:
        shape, step = (n_rows(scale.shape), scale.shape[-1]), block_size
    if shape != (-(-height // step[0]), -(-width // step[1])):
        raise Damaged(f"the scales of {name} are {scale.shape}, which does not fit its shape {rows.shape}")
    factors = widened(reshape(scale, shape))
    columns = np.arange(width) // step[1]

    def multiply(block: Array, begin: int, end: int) -> Array:
        first = begin // step[0]
        wanted = factors.read(first, -(-end // step[0]))[np.arange(begin, end) // step[0] - first]
        return block * wanted[:, columns]

    return MappedRows(widened(rows), multiply, dtype="F32")
