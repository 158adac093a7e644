"""What each tensor loses as each type: measured on a sample of its rows, which are really quantized and read back.

An error is relative: the energy of what is wrong in a tensor's outputs over the energy of the outputs, both by the
importance of the columns (the mean square of the activations that meet them), as if columns were independent. There are
two: quantizing takes from the weights, and computing from the activations, which ggml on a CPU rounds to 8 bits in
blocks of 32 for some types and of 256 for others. Where few activations are large, the second error is the larger one.
"""

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from owm.errors import Damaged
from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.formats.gguf import DEFAULT_ALIGNMENT, TENSOR_TYPES
from owm.hardware import probe
from owm.native import quants
from owm.pipeline.plan import Plan, PlannedTensor
from owm.pipeline.rows import Array
from owm.pipeline.values import into_f32

STAGE = "sensitivity"
# Smallest first. Not here: types that are slow to run on a CPU (IQ1 to IQ3), and those that lose more than smaller.
TYPES = ("Q2_K", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K", "Q4_1", "Q5_K", "Q5_0", "Q5_1", "Q6_K", "Q8_0")
# ref: llama.cpp src/llama-quant.cpp, tensor_requires_imatrix: without one they are made of noise
NEEDS_WEIGHTS = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S", "IQ1_M", "IQ3_XXS")
SAMPLE_VALUES = 24 << 20  # of a whole model: what it takes is time
MIN_ROWS, SPANS = 32, 16  # rows are read in spans: a file is not read in single rows
# Values of a block of activations. ref: ggml/src/ggml-cpu/ggml-cpu.c, vec_dot_type: Q8_0 or Q8_1, and Q8_K
FINE, COARSE = 32, 256
MAX_SHARE = 0.05  # of a tensor's energy that one column may have
_N_CUTS = 12
_ACTIVATION_STEPS = 127
_PEAK = 6.0  # the mean of the largest of 32 squared normal values over their mean
_BLOCK_VALUES = {name: values for name, values, _ in TENSOR_TYPES.values()}
_BLOCK_BYTES = {name: size for name, _, size in TENSOR_TYPES.values()}


@dataclass(frozen=True, slots=True)
class Errors:
    """A tensor's relative error as each type that fits it, its row length and number of rows, and its file's alignment.

    `rounding` is the relative error that rounding its activations makes in blocks of 32 and of 256; None if their
    importance is unknown.
    """

    width: int
    n_rows: int
    by_type: Mapping[str, float]
    rounding: tuple[float, float] | None = None
    alignment: int = DEFAULT_ALIGNMENT

    def is_coarse(self, type_name: str) -> bool:
        """Tell whether a type computes with activations that are rounded in blocks of 256."""
        return _BLOCK_VALUES[type_name] == COARSE

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

    Raises:
        Damaged: a tensor has values that cannot be quantized.
    """
    began = time.monotonic()
    tensors = [tensor for tensor in source.tensors if tensor.name in names]
    share = sample_values // max(1, len(tensors))
    found: dict[str, Errors] = {}
    sink(Started(STAGE, len(tensors), "tensors"))
    with ThreadPoolExecutor(probe.cores().usable) as pool:
        measured = pool.map(lambda tensor: _errors(tensor, types, share), tensors)
        for tensor, errors in zip(tensors, measured, strict=True):
            if errors.by_type:
                found[tensor.name] = replace(errors, alignment=source.files[0].alignment)
            sink(Advanced(STAGE, len(found), tensor.name))
    sink(Finished(STAGE, time.monotonic() - began))
    return found


def bpw(type_name: str) -> float:
    """Return the bits a weight takes in a type."""
    return 8 * _BLOCK_BYTES[type_name] / _BLOCK_VALUES[type_name]


def kind(name: str) -> str:
    """Return what a tensor is in any block: `attn_q.weight` of `blk.7.attn_q.weight`."""
    return re.sub(r"^blk\.\d+\.", "", name)


def fitting_types(tensor: PlannedTensor, types: Sequence[str]) -> list[str]:
    """Return the types that a tensor's rows divide into, and that its weights of columns suffice for."""
    return [
        name
        for name in types
        if not tensor.rows.shape[-1] % _BLOCK_VALUES[name]
        and (tensor.weights is not None or not (name in NEEDS_WEIGHTS or quants.requires_weights(name)))
    ]


def unmeasured(tensor: PlannedTensor, types: Sequence[str], alignment: int) -> Errors:
    """Return what is known of a tensor without reading it: its sizes."""
    by_type = dict.fromkeys(fitting_types(tensor, types), 0.0)
    return Errors(tensor.rows.shape[-1], tensor.n_rows, by_type, alignment=alignment)


def _errors(tensor: PlannedTensor, types: Sequence[str], n_values: int) -> Errors:
    width = tensor.rows.shape[-1]
    n_matrices = tensor.rows.shape[-3] if len(tensor.rows.shape) > 2 else 1
    weights = tensor.weights
    fitting = fitting_types(tensor, types)
    columns, energy, lost = np.zeros(width), np.zeros(width), {name: np.zeros(width) for name in fitting}
    matrix_rows = tensor.n_rows // n_matrices
    for begin, end in _spans(tensor.n_rows, max(MIN_ROWS, n_values // width)) if fitting else ():
        block = into_f32(tensor.rows.read(begin, end), tensor.rows.dtype)
        for part, matrix in _by_matrix(block, begin, matrix_rows):
            importance = None if weights is None else weights[matrix if len(weights) > 1 else 0]
            squares = _squares(part)
            columns += squares
            energy += squares if importance is None else squares * importance
            for name in fitting:
                try:
                    made = quants.into_f32(quants.quantize(part, name, importance), name)
                except quants.OutOfRange as error:
                    raise Damaged(f"{tensor.name} has {error}, which cannot be quantized") from error
                squares = _squares(np.subtract(part, made, out=made))
                lost[name] += squares if importance is None else squares * importance
    if not energy.any():  # a tensor of zeros loses nothing
        return Errors(width, tensor.n_rows, dict.fromkeys(fitting, 0.0), (0.0, 0.0))
    share = _share(energy)
    errors = {name: float(loss @ share / (energy @ share)) for name, loss in lost.items()}
    return Errors(width, tensor.n_rows, errors, _rounding(columns, weights))


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


def _rounding(columns: Array, weights: Array | None) -> tuple[float, float] | None:
    """Return the relative error that rounding activations makes, in blocks of 32 and of 256.

    A block's step is its largest value / 127, and rounding to steps adds step² / 12 to the mean square of each. How
    large the largest is follows from the mean squares: all there is if one column has it, or the peak of normal values.

    Args:
        columns: energy of the weights in each column, of all matrices together.
    """
    if weights is None:
        return None
    importance = weights.mean(axis=0, dtype=np.float64)
    energy = float(columns @ importance)
    found = []
    for size in (FINE, COARSE):
        if len(columns) % size or not energy > 0:
            found.append(0.0)
            continue
        blocks = importance.reshape(-1, size)
        peaks = np.minimum(blocks.sum(axis=1), _PEAK * blocks.max(axis=1))
        steps = peaks / _ACTIVATION_STEPS**2
        found.append(float(steps / 12 @ columns.reshape(-1, size).sum(axis=1)) / energy)
    return found[0], found[1]


def _share(energy: Array) -> Array:
    """Return how much of each column counts, so that none has more than `MAX_SHARE` of all that counts.

    An activation that is always large adds what is nearly a constant to all outputs. What it is wrong by moves little,
    and beside it all that varies would seem small.
    """
    most = np.inf
    for _ in range(_N_CUTS):
        most = MAX_SHARE * np.minimum(energy, most).sum()
    return np.minimum(energy, most) / np.maximum(energy, np.finfo(np.float64).tiny)


def _squares(block: Array) -> Array:
    """Return the sum of squares in each column."""
    found: Array = np.einsum("ij,ij->j", block, block, dtype=np.float64)
    return found
