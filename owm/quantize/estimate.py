"""How long a quantization will take, from quantizing a little, of nothing in particular, in one type."""

import time
from collections.abc import Iterable
from functools import cache

import numpy as np

from owm.native import quants
from owm.pipeline.plan import PlannedTensor
from owm.pipeline.rows import QUANT_BLOCKS

MEASURED = "Q4_K"
SAMPLE_ROWS, SAMPLE_WIDTH = 16, 2048
DISK_BYTES_PER_SECOND = 1e9  # what a common disk reads and writes
# Time for a value in units of what `MEASURED` takes, and seconds for the tables that ggml makes once: measuring these
# types would take longer than many a quantization. x86-64, AVX2.
RELATIVE = {
    "Q4_0": 0.21, "Q4_1": 0.8, "Q5_0": 0.25, "Q5_1": 0.87, "Q8_0": 0.03, "Q2_K": 1.15, "Q3_K": 0.28, "Q4_K": 1.0,
    "Q5_K": 1.03, "Q6_K": 0.22, "IQ4_NL": 1.81, "IQ4_XS": 1.78, "IQ3_S": 2.44, "IQ3_XXS": 3.72, "IQ2_S": 1.47,
    "IQ2_XS": 6.61, "IQ2_XXS": 2.76, "IQ1_S": 1.85, "IQ1_M": 1.44, "TQ1_0": 0.03, "TQ2_0": 0.02, "MXFP4": 0.03,
    "NVFP4": 0.18, "Q1_0": 0.02, "Q2_0": 0.03,
}  # fmt: skip
TABLE_SECONDS = {"IQ1_S": 8.8, "IQ1_M": 8.8, "IQ2_XXS": 1.0, "IQ2_XS": 2.2, "IQ2_S": 4.1}


def estimate_seconds(tensors: Iterable[PlannedTensor], *, n_threads: int) -> float:
    """Return about how many seconds it takes to make tensors, computing or waiting for the disk, whichever is more."""
    computing = disk = 0.0
    made = set()
    for tensor in tensors:
        disk += tensor.n_bytes / DISK_BYTES_PER_SECOND
        if tensor.type_name in QUANT_BLOCKS and tensor.type_name != tensor.rows.dtype:
            computing += tensor.n_elements * RELATIVE.get(tensor.type_name, 1.0) * _seconds_per_value()
            made.add(tensor.type_name)
    return max(computing / n_threads, disk) + max((TABLE_SECONDS.get(name, 0.0) for name in made), default=0.0)


@cache
def _seconds_per_value() -> float:
    """Measure how long one thread takes for a value of `MEASURED`."""
    block = np.random.default_rng(0).standard_normal((SAMPLE_ROWS, SAMPLE_WIDTH), np.float32)
    quants.quantize(block[:1], MEASURED)  # whatever is made once
    began = time.perf_counter()
    quants.quantize(block, MEASURED)
    return (time.perf_counter() - began) / block.size
