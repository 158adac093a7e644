"""What each tensor loses as each type: measured on a sample of its rows, which are really quantized and read back.

An error is relative: the energy of what is wrong in a tensor's outputs over the energy of the outputs, both by the
importance of the columns (the mean square of the activations that meet them), as if columns were independent. It has two
parts: quantizing takes from the weights, and computing takes from the activations, which ggml rounds to 8 bits in blocks
of 32 for some types and of 256 for others. Where few activations are large, the second part is the larger one.
"""

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.formats.gguf import DEFAULT_ALIGNMENT, TENSOR_TYPES
from owm.hardware import probe
from owm.native import quants
from owm.pipeline.plan import Plan, PlannedTensor
from owm.pipeline.rows import Array
from owm.pipeline.values import into_f32

STAGE = "sensitivity"
# Smallest first. Not here: types that are slow to run on a CPU (IQ1 to IQ3), and those that lose more than smaller ones.
TYPES = ("Q2_K", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K", "Q4_1", "Q5_K", "Q5_0", "Q5_1", "Q6_K", "Q8_0")
# ref: llama.cpp src/llama-quant.cpp, tensor_requires_imatrix: without one they are made of noise
NEEDS_WEIGHTS = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S", "IQ1_M", "IQ3_XXS")
SAMPLE_VALUES = 24 << 20  # of a whole model: what it takes is time
MIN_ROWS, SPANS = 32, 16  # rows are read in spans: a file is not read in single rows
# ref: ggml/src/ggml-cpu/ggml-cpu.c, vec_dot_type: Q8_K for types of 256 values, else Q8_0 or Q8_1
_ACTIVATION_STEPS = 127
_PEAK = 6.0  # the mean of the largest of 32 squared normal values over their mean
_BLOCK_VALUES = {name: values for name, values, _ in TENSOR_TYPES.values()}
_BLOCK_BYTES = {name: size for name, _, size in TENSOR_TYPES.values()}


@dataclass(frozen=True, slots=True)
class Errors:
    """A tensor's relative error as each type that fits it, its row length and number of rows, and a file's alignment."""

    width: int
    n_rows: int
    by_type: Mapping[str, float]
    alignment: int = DEFAULT_ALIGNMENT

    def n_bytes(self, type_name: str) -> int:
        """Return the bytes that it takes in a file as a type, with what aligns the next."""
        size = self.n_rows * (self.width // _BLOCK_VALUES[type_name]) * _BLOCK_BYTES[type_name]
        return size + -size % self.alignment


def measure(
    source: Plan,
    names: Collection[str],
    *,
    types: Sequence[str] = TYPES,
    sample_values: int = SAMPLE_VALUES,
    sink: Sink = ignore,
) -> dict[str, Errors]:
    """Measure tensors of a model in every type that fits their rows; one that none fits is left out.

    The importance of columns is what the tensors are planned with.

    Args:
        names: the tensors to measure.
        sample_values: values of all tensors together to quantize in each type.
    """
    began = time.monotonic()
    tensors = [tensor for tensor in source.tensors if tensor.name in names]
    share = sample_values // max(1, len(tensors))
    found: dict[str, Errors] = {}
    sink(Started(STAGE, len(tensors), "tensors"))
    with ThreadPoolExecutor(probe.cores().usable) as pool:
        for tensor, errors in zip(
            tensors, pool.map(lambda tensor: _errors(tensor, types, share), tensors), strict=True
        ):
            if errors.by_type:
                found[tensor.name] = errors
            sink(Advanced(STAGE, len(found), tensor.name))
    sink(Finished(STAGE, time.monotonic() - began))
    return found


def bpw(type_name: str) -> float:
    """Return the bits a weight takes in a type."""
    return 8 * _BLOCK_BYTES[type_name] / _BLOCK_VALUES[type_name]


def kind(name: str) -> str:
    """Return what a tensor is in any block: `attn_q.weight` of `blk.7.attn_q.weight`."""
    return re.sub(r"^blk\.\d+\.", "", name)


def _errors(tensor: PlannedTensor, types: Sequence[str], n_values: int) -> Errors:
    width = tensor.rows.shape[-1]
    n_matrices = tensor.rows.shape[-3] if len(tensor.rows.shape) > 2 else 1
    weights = tensor.weights
    fitting = [
        name
        for name in types
        if not width % _BLOCK_VALUES[name]
        and (weights is not None or not (name in NEEDS_WEIGHTS or quants.requires_weights(name)))
    ]
    columns, energy, lost = np.zeros(width), 0.0, dict.fromkeys(fitting, 0.0)
    matrix_rows = tensor.n_rows // n_matrices
    for begin, end in _spans(tensor.n_rows, max(MIN_ROWS, n_values // width)) if fitting else ():
        block = into_f32(tensor.rows.read(begin, end), tensor.rows.dtype)
        for part, matrix in _by_matrix(block, begin, matrix_rows):
            importance = None if weights is None else weights[matrix if len(weights) > 1 else 0]
            squares = np.einsum("ij,ij->j", part, part, dtype=np.float64)
            columns += squares
            energy += float(squares.sum() if importance is None else squares @ importance)
            for name in fitting:
                made = quants.into_f32(quants.quantize(part, name, importance), name)
                lost[name] += _energy(np.subtract(part, made, out=made), importance)
    if not energy > 0:  # a tensor of zeros loses nothing
        return Errors(width, tensor.n_rows, dict.fromkeys(fitting, 0.0))
    rounded = _rounding(columns, weights)
    errors = {name: loss / energy + rounded[_BLOCK_VALUES[name] == 256] for name, loss in lost.items()}
    return Errors(width, tensor.n_rows, errors)


def _spans(n_rows: int, n_wanted: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows, spread evenly over all of them."""
    if n_wanted >= n_rows:
        yield 0, n_rows
        return
    length = -(-n_wanted // SPANS)
    for begin in np.linspace(0, n_rows - length, SPANS).astype(int):
        yield int(begin), int(begin) + length


def _by_matrix(block: Array, begin: int, matrix_rows: int) -> Iterator[tuple[Array, int]]:
    """Cut rows of a tensor of several matrices where one matrix ends."""
    row, end = begin, begin + len(block)
    while row < end:
        matrix = row // matrix_rows
        stop = min(end, (matrix + 1) * matrix_rows)
        yield block[row - begin : stop - begin], matrix
        row = stop


def _rounding(columns: Array, weights: Array | None) -> tuple[float, float]:
    """Return the relative error that rounding activations makes, in blocks of 32 and of 256.

    A block's step is its largest value / 127, and rounding to steps adds step² / 12 to the mean square of each. How
    large the largest is follows from the mean squares: all there is if one column has it, or the peak of normal values.

    Args:
        columns: energy of the weights in each column, of all matrices together.
    """
    if weights is None:
        return 0.0, 0.0
    importance = weights.mean(axis=0, dtype=np.float64)
    energy = float(columns @ importance)
    found = []
    for size in (32, 256):
        if len(columns) % size or not energy > 0:
            found.append(0.0)
            continue
        blocks = importance.reshape(-1, size)
        peaks = np.minimum(blocks.sum(axis=1), _PEAK * blocks.max(axis=1))
        steps = peaks / _ACTIVATION_STEPS**2
        found.append(float(steps / 12 @ columns.reshape(-1, size).sum(axis=1)) / energy)
    return found[0], found[1]


def _energy(block: Array, importance: Array | None) -> float:
    columns = np.einsum("ij,ij->j", block, block, dtype=np.float64)
    return float(columns.sum() if importance is None else columns @ importance)
