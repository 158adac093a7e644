"""Watches llama.cpp multiply: sums the squares of what meets each column of each weight tensor.

llama.cpp asks at every node of its graph whether to show it. What several tensors are multiplied with (that of queries,
keys and values) is summed once. Which text is read, and what the sums are for, is not known here.
ref: llama.cpp tools/imatrix/imatrix.cpp, collect_imatrix
"""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from owm.errors import EngineError

MIN_ROWS = 16  # below that llama.cpp takes other ways, and llama-imatrix does not look
_MAX_DIMS, _MAX_SRC, _MAX_NAME, _OP_PARAMS_BYTES = 4, 10, 64, 64
_F32 = 0
_OBJECT_BYTES = 32  # what ggml keeps beside each tensor

Array = np.ndarray[Any, np.dtype[Any]]


class _Tensor(ctypes.Structure):
    """ref: ggml/include/ggml.h, struct ggml_tensor"""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * _MAX_DIMS),
        ("nb", ctypes.c_size_t * _MAX_DIMS),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_uint8 * _OP_PARAMS_BYTES),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * _MAX_SRC),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * _MAX_NAME),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    ]


@dataclass(slots=True)
class Sum:
    """What was seen of one tensor: `sums` float64 [n_counts, values], `counts` int64 [n_counts] of rows."""

    sums: Array
    counts: Array


@cache
def _library() -> Any:
    """Return ggml with the functions used here.

    Raises:
        EngineError: its tensors are not laid out as expected.
    """
    from owm.native.binding import ggml as lib

    for name, restype, argtypes in (
        ("ggml_tensor_overhead", ctypes.c_size_t, []),
        ("ggml_op_name", ctypes.c_char_p, [ctypes.c_int]),
        ("ggml_backend_buffer_is_host", ctypes.c_bool, [ctypes.c_void_p]),
        ("ggml_backend_tensor_get", None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]),
    ):
        getattr(lib, name).restype = restype
        getattr(lib, name).argtypes = argtypes
    if lib.ggml_tensor_overhead() != ctypes.sizeof(_Tensor) + _OBJECT_BYTES:
        raise EngineError("this build of llama.cpp lays out its tensors in another way than owm knows")
    return lib


@cache
def _ops() -> tuple[int, int]:
    """Return ggml's numbers of a matrix multiplication, plain and with experts chosen by id."""
    names = [_library().ggml_op_name(op) for op in range(40)]
    return names.index(b"MUL_MAT"), names.index(b"MUL_MAT_ID")


class Observer:
    """Collects a `Sum` for each weight tensor by its name, as long as contexts that were given its `callback` decode.

    Each decode begins with `begin`. Afterwards `error` is what went wrong, Ctrl-C too; then nothing is to be used.
    """

    def __init__(self) -> None:
        """Watch the tensors of blocks, and those of experts wherever they are.

        Raises:
            EngineError: this build of llama.cpp is another than owm knows.
        """
        self.sums: dict[str, Sum] = {}
        self.error: BaseException | None = None
        # A graph is left once its last tensor was seen: what follows is the output, which nobody reads.
        self.stops_early = True
        self._lib = _library()
        self._mul_mat, self._mul_mat_id = _ops()
        self._views: dict[int, _Tensor] = {}
        self._names: dict[int, str] = {}
        self._seen: dict[tuple[int, ...], tuple[Array, Array]] = {}
        self._wanted: dict[int, tuple[str, tuple[int, ...]]] = {}
        self._last: str | None = None
        self._last_of_all: str | None = None
        self._is_last_watched = False
        self.callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)(self._on_node)

    def begin(self) -> None:
        """Begin another graph, in which addresses mean other tensors."""
        self._seen.clear()
        self._wanted.clear()
        if self._is_last_watched:
            self._last_of_all = self._last
        self._last = None

    def _on_node(self, address: int, is_question: bool, _: object) -> bool:
        if self.error is not None:  # to be shown this node is the way to stop the graph
            return is_question
        try:
            if is_question:
                return self._wants(address)
            name, key = self._wanted.pop(address)
            self._watch(name, key, self._view(address))
            return not (self.stops_early and name == self._last_of_all)
        except BaseException as error:  # ctypes would print it, and go on
            self.error = error
            return is_question

    def _view(self, address: int) -> _Tensor:
        if (view := self._views.get(address)) is None:
            view = self._views[address] = _Tensor.from_address(address)
        return view

    def _wants(self, address: int) -> bool:
        """Answer whether a node is to be shown; one that was summed for another tensor is taken from there."""
        node = self._view(address)
        op = node.op
        if op != self._mul_mat and op != self._mul_mat_id:
            return False
        src = node.src
        weights, activations = self._view(src[0]), self._view(src[1])
        raw: bytes = weights.name
        # As the scheduler names copies: `CUDA0#blk.0.attn_k.weight#0`.
        name = (raw.split(b"#")[1] if b"#" in raw else raw).decode("utf-8", "replace")
        ne = weights.ne
        if op == self._mul_mat:
            if activations.type != _F32 or activations.ne[1] < MIN_ROWS or not name.startswith("blk."):
                return False
            key: tuple[int, ...] = (src[1], ne[2], ne[3])
        elif activations.type != _F32:
            return False
        else:
            key = (src[1], src[2], ne[2])
        self._last = name
        known = self._seen.get(key)
        self._is_last_watched = known is None
        if known is not None:
            self._add(name, *known)
            return False
        self._wanted[address] = name, key
        return True

    def _watch(self, name: str, key: tuple[int, ...], node: _Tensor) -> None:
        weights, activations = self._view(node.src[0]), self._view(node.src[1])
        values = self._values(node.src[1], activations, np.float32)
        if node.op == self._mul_mat_id:
            ids = self._values(node.src[2], self._view(node.src[2]), np.int32)[0, 0]
            found = _of_experts(values[0], ids, weights.ne[2])
        else:
            found = _of_rows(values, weights.ne[2], weights.ne[3])
        if not np.isfinite(found[0].sum()):
            raise ValueError(f"what is multiplied with {name} is infinite or no number")
        self._seen[key] = found
        self._add(name, *found)

    def _add(self, name: str, sums: Array, counts: Array) -> None:
        known = self.sums.get(name)
        if known is None:
            self.sums[name] = Sum(sums.astype(np.float64), counts.copy())
            return
        known.sums += sums
        known.counts += counts

    def _values(self, address: int, tensor: _Tensor, dtype: Any) -> Array:
        """Return a tensor's values as [ne3, ne2, ne1, ne0], where they lie if the processor can read them there."""
        ne, nb = tuple(tensor.ne), tuple(tensor.nb)
        n_bytes = sum((n - 1) * step for n, step in zip(ne, nb, strict=True)) + np.dtype(dtype).itemsize
        if self._lib.ggml_backend_buffer_is_host(tensor.buffer):
            memory = (ctypes.c_char * n_bytes).from_address(tensor.data)
        else:
            memory = (ctypes.c_char * n_bytes)()
            self._lib.ggml_backend_tensor_get(address, memory, 0, n_bytes)
        return np.ndarray(ne[::-1], dtype, memory, 0, nb[::-1])


def _of_rows(values: Array, n2: int, n3: int) -> tuple[Array, Array]:
    """Sum squares for each of n2 x n3 matrices; more of them than the weights have are read as further rows."""
    sums = np.zeros((n3 * n2, values.shape[3]), np.float64)
    for i3, i2 in np.ndindex(values.shape[:2]):
        rows = values[i3, i2]
        sums[(i3 % n3) * n2 + i2 % n2] += np.einsum("ij,ij->j", rows, rows)
    n_rows = values.shape[0] * values.shape[1] * values.shape[2]
    return sums.reshape(1, -1), np.array([n_rows // (n2 * n3)], np.int64)


def _of_experts(values: Array, ids: Array, n_experts: int) -> tuple[Array, Array]:
    """Sum squares for each expert: `values` [tokens, 1 or used, width], `ids` [tokens, used]."""
    n_used = ids.shape[1]
    if ids.min() < 0 or ids.max() >= n_experts:
        raise ValueError("a token is sent to an expert that there is not")
    order = np.argsort(ids, axis=None, kind="stable")
    tokens, slots = order // n_used, order % n_used % values.shape[1]
    counts = np.bincount(ids.ravel(), minlength=n_experts).astype(np.int64)
    sums = np.zeros((n_experts, values.shape[2]), np.float64)
    end = 0
    for expert in np.flatnonzero(counts):
        begin, end = end, end + int(counts[expert])
        rows = values[tokens[begin:end], slots[begin:end]]
        sums[expert] = np.einsum("ij,ij->j", rows, rows)
    return sums, counts
