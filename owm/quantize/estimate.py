"""How long a quantization will take, from quantizing a little of nothing in particular."""

import time
from collections.abc import Iterable
from functools import cache

import numpy as np

from owm.native import quants
from owm.pipeline.plan import PlannedTensor
from owm.pipeline.rows import QUANT_BLOCKS

SAMPLE_ROWS, SAMPLE_WIDTH = 16, 2048
DISK_BYTES_PER_SECOND = 1e9  # what a common disk reads and writes


def estimate_seconds(tensors: Iterable[PlannedTensor], *, n_threads: int) -> float:
    """Return about how many seconds it takes to make tensors, computing or waiting for the disk, whichever is more."""
    computing = disk = 0.0
    for tensor in tensors:
        disk += tensor.n_bytes / DISK_BYTES_PER_SECOND
        if tensor.type_name in QUANT_BLOCKS and tensor.type_name != tensor.rows.dtype:
            computing += tensor.n_elements * seconds_per_value(tensor.type_name)
    return max(computing / n_threads, disk)


@cache
def seconds_per_value(type_name: str) -> float:
    """Measure how long one thread takes for a value of a quantized type."""
    block = np.random.default_rng(0).standard_normal((SAMPLE_ROWS, SAMPLE_WIDTH), np.float32)
    weights = np.ones(SAMPLE_WIDTH, np.float32) if quants.requires_weights(type_name) else None
    quants.quantize(block[:1], type_name, weights)  # tables are made at the first call
    began = time.perf_counter()
    quants.quantize(block, type_name, weights)
    return (time.perf_counter() - began) / block.size
