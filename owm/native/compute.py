"""Single operations of ggml on the CPU, as its own graphs run them: what a machine's rates are measured with."""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from owm.errors import EngineError

_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q2_k": 10, "q3_k": 11,
    "q4_k": 12, "q5_k": 13, "q6_k": 14, "iq2_xxs": 16, "iq2_xs": 17, "iq3_xxs": 18, "iq1_s": 19, "iq4_nl": 20,
    "iq3_s": 21, "iq2_s": 22, "iq4_xs": 23, "iq1_m": 29, "bf16": 30, "tq1_0": 34, "tq2_0": 35, "mxfp4": 39,
    "nvfp4": 40, "q1_0": 41, "q2_0": 42}  # fmt: skip
TYPES = tuple(_TYPES)  # ref: ggml/include/ggml.h, enum ggml_type

_F32, _F16, _I32 = 0, 1, 26
_N_GRAPH = 512  # nodes and leaves of a graph that is not known to have more
_CPU = 0
_NO_HUGE_PAGES = 15  # ref: Linux, madvise(2)
_PAGE = 4096
_WEIGHTS = 64, 1024  # rows and values of which there are different ones
_WITH_TABLES = ("iq1_", "iq2_", "iq3_")
_DEVIATION, _SPREAD = 0.02, 0.25  # of weights, and of the logarithm of that from row to row and matrix to matrix


class _Parameters(ctypes.Structure):
    """ref: ggml/include/ggml.h, struct ggml_init_params"""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def _declared() -> Any:
    """Return ggml with the types of what is called here."""
    from owm.native.binding import ggml as lib

    pointer, size, number, real = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, ctypes.c_float
    for name, result, arguments in (
        ("ggml_init", pointer, [_Parameters]),
        ("ggml_free", None, [pointer]),
        ("ggml_tensor_overhead", size, []),
        ("ggml_graph_overhead_custom", size, [size, ctypes.c_bool]),
        ("ggml_nbytes", size, [pointer]),
        ("ggml_row_size", size, [ctypes.c_int, number]),
        ("ggml_new_tensor_2d", pointer, [pointer, ctypes.c_int, number, number]),
        ("ggml_new_tensor_3d", pointer, [pointer, ctypes.c_int, number, number, number]),
        ("ggml_mul_mat", pointer, [pointer, pointer, pointer]),
        ("ggml_mul_mat_id", pointer, [pointer, pointer, pointer, pointer]),
        ("ggml_flash_attn_ext", pointer, [pointer, pointer, pointer, pointer, pointer, real, real, real]),
        ("ggml_permute", pointer, [pointer, pointer, *[ctypes.c_int] * 4]),
        ("ggml_rms_norm", pointer, [pointer, pointer, real]),
        ("ggml_mul", pointer, [pointer, pointer, pointer]),
        ("ggml_add", pointer, [pointer, pointer, pointer]),
        ("ggml_swiglu_split", pointer, [pointer, pointer, pointer]),
        ("ggml_gated_delta_net", pointer, [pointer] * 7 + [number]),
        ("ggml_ssm_scan", pointer, [pointer] * 8 + [number]),
        ("ggml_new_tensor_1d", pointer, [pointer, ctypes.c_int, number]),
        ("ggml_new_tensor_4d", pointer, [pointer, ctypes.c_int, number, number, number, number]),
        ("ggml_new_graph_custom", pointer, [pointer, size, ctypes.c_bool]),
        ("ggml_build_forward_expand", None, [pointer, pointer]),
        ("ggml_backend_dev_count", size, []),
        ("ggml_backend_dev_get", pointer, [size]),
        ("ggml_backend_dev_type", ctypes.c_int, [pointer]),
        ("ggml_backend_dev_init", pointer, [pointer, ctypes.c_char_p]),
        ("ggml_backend_dev_buffer_type", pointer, [pointer]),
        ("ggml_backend_dev_supports_op", ctypes.c_bool, [pointer, pointer]),
        ("ggml_backend_dev_backend_reg", pointer, [pointer]),
        ("ggml_backend_reg_get_proc_address", pointer, [pointer, ctypes.c_char_p]),
        ("ggml_backend_alloc_ctx_tensors_from_buft", pointer, [pointer, pointer]),
        ("ggml_backend_buft_alloc_buffer", pointer, [pointer, size]),
        ("ggml_backend_buffer_get_base", pointer, [pointer]),
        ("ggml_backend_buffer_get_size", size, [pointer]),
        ("ggml_backend_buffer_clear", None, [pointer, ctypes.c_uint8]),
        ("ggml_backend_buffer_free", None, [pointer]),
        ("ggml_backend_tensor_set", None, [pointer, pointer, size, size]),
        ("ggml_backend_graph_compute", ctypes.c_int, [pointer, pointer]),
        ("ggml_backend_free", None, [pointer]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def row_bytes(type_name: str, n_values: int) -> int:
    """Return what a row of so many values takes; `type_name` is one of `TYPES`."""
    return int(_declared().ggml_row_size(_TYPES[type_name], n_values))


@cache
def _weights(type_name: str) -> bytes:
    """Return rows of a type as a model has them.

    What they are is part of how fast they are: ggml looks up what a block's scale is, so that many different ones take
    longer than few. Of types for which ggml would make tables for seconds it is any bytes, of which two are a scale
    that is near 1.
    """
    import numpy as np

    from owm.native import quants

    draw, (n_rows, n_values) = np.random.default_rng(1), _WEIGHTS
    if type_name.startswith(_WITH_TABLES):
        return bytes(draw.integers(0x20, 0x40, n_rows * row_bytes(type_name, n_values), np.uint8).tobytes())
    deviations = _DEVIATION * np.exp(draw.normal(0, _SPREAD, (n_rows, 1)))
    values = (draw.normal(size=(n_rows, n_values)) * deviations).astype(np.float32)
    return bytes(quants.quantize(values, type_name.upper()).tobytes())


class Operation:
    """One graph of ggml over made-up values. Use it in a `with` statement, make it something, and `run` it."""

    def __init__(self, *, n_threads: int) -> None:
        """Take the CPU.

        Raises:
            EngineError: ggml cannot compute on it.
        """
        from owm.native import llama

        if not llama._is_started:  # else its log goes somewhere already
            llama.start()
        self._lib = lib = _declared()
        self._backend: int | None = None
        self._contexts: list[int] = []
        self._buffers: list[int] = []
        self._graphs: list[int] = []
        self._turn = 0
        devices = [lib.ggml_backend_dev_get(index) for index in range(lib.ggml_backend_dev_count())]
        chosen = next((one for one in devices if lib.ggml_backend_dev_type(one) == _CPU), None)
        self._backend = lib.ggml_backend_dev_init(chosen, None) if chosen else None
        if not chosen or not self._backend:
            raise EngineError("ggml has no CPU to compute on")
        self._device: int = chosen
        self._plain: int = lib.ggml_backend_dev_buffer_type(chosen)
        if set_threads := self._address(b"ggml_backend_set_n_threads"):
            ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)(set_threads)(self._backend, n_threads)

    def __enter__(self) -> "Operation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def multiply(
        self, type_name: str, *, n_out: int, n_in: int, n_columns: int, n_weights: int = 1, as_loaded: bool = False,
        in_one: bool = False,
    ) -> bool:  # fmt: skip
        """Make it the products of matrices of weights (n_out × n_in) and the same `n_columns` columns of f32.

        Args:
            type_name: one of `TYPES`.
            n_weights: matrices, used one after the other.
            as_loaded: keep the weights as llama.cpp keeps those of a model: in an order of its own where it has one.
            in_one: compute with all of them in one run.

        Returns:
            Whether the weights are in such an order.

        Raises:
            EngineError: there is no memory for them.
        """
        lib, held = self._lib, self._context(n_weights)
        n_graph = max(_N_GRAPH, n_weights + 1) if in_one else _N_GRAPH
        context = self._context(2 * n_weights + 1, n_graphs=1 if in_one else n_weights, n_graph=n_graph)
        weights = [lib.ggml_new_tensor_2d(held, _TYPES[type_name], n_in, n_out) for _ in range(n_weights)]
        columns = lib.ggml_new_tensor_2d(context, _F32, n_in, n_columns)
        results = [lib.ggml_mul_mat(context, each, columns) for each in weights]
        kind = self._kind(results[0], weights[0]) if as_loaded else self._plain
        self._hold(held, weights, type_name, kind)
        self._end(context, results, n_graph=n_graph, in_one=in_one)
        return kind != self._plain

    def multiply_experts(
        self, type_name: str, *, n_out: int, n_in: int, n_experts: int, n_used: int, n_columns: int, n_weights: int = 1
    ) -> bool:
        """Make it products with `n_used` of `n_experts` matrices for each column, kept as llama.cpp keeps them.

        Raises:
            EngineError: there is no memory for them.
        """
        lib, held = self._lib, self._context(n_weights)
        context = self._context(2 * n_weights + 2, n_graphs=n_weights)
        weights = [lib.ggml_new_tensor_3d(held, _TYPES[type_name], n_in, n_out, n_experts) for _ in range(n_weights)]
        columns = lib.ggml_new_tensor_3d(context, _F32, n_in, 1, n_columns)
        chosen = lib.ggml_new_tensor_2d(context, _I32, n_used, n_columns)
        results = [lib.ggml_mul_mat_id(context, each, columns, chosen) for each in weights]
        kind = self._kind(results[0], weights[0])
        self._hold(held, weights, type_name, kind)
        self._end(context, results)
        numbers = [(i * 7919 + j) % n_experts for i in range(n_columns) for j in range(n_used)]
        raw = (ctypes.c_int32 * len(numbers))(*numbers)
        lib.ggml_backend_tensor_set(chosen, raw, 0, ctypes.sizeof(raw))
        return kind != self._plain

    def attend(
        self, type_name: str, *, head_size: int, n_heads: int, n_kv_heads: int, n_columns: int, n_cells: int,
        n_layers: int = 1,
    ) -> None:  # fmt: skip
        """Make it flash attention of `n_columns` tokens over `n_cells` cells of a KV cache of some type.

        Raises:
            EngineError: there is no memory for them.
        """
        lib, held = self._lib, self._context(2 * n_layers)
        context = self._context(3 * n_layers + 3, n_graphs=n_layers)
        # A token's heads lie beside each other, as in llama.cpp's caches.
        shape = (head_size, n_kv_heads, n_cells)
        caches = [lib.ggml_new_tensor_3d(held, _TYPES[type_name], *shape) for _ in range(2 * n_layers)]
        seen = [lib.ggml_permute(context, each, 0, 2, 1, 3) for each in caches]
        tokens = lib.ggml_new_tensor_3d(context, _F32, head_size, n_heads, n_columns)
        queries = lib.ggml_permute(context, tokens, 0, 2, 1, 3)
        mask = lib.ggml_new_tensor_2d(context, _F16, n_cells, n_columns)
        results = [
            lib.ggml_flash_attn_ext(context, queries, keys, values, mask, head_size**-0.5, 0.0, 0.0)
            for keys, values in zip(seen[::2], seen[1::2], strict=True)
        ]
        self._hold(held, caches, type_name, self._plain)
        self._end(context, results)

    def scan(self, *, n_state: int, head_size: int, n_heads: int, n_columns: int, n_layers: int = 1) -> None:
        """Make it the scan of a recurrent state of `n_state` × `head_size` × `n_heads` values over `n_columns` tokens.

        With heads of one value each value of the state has a decay of its own, as in Mamba; else each head has.

        Raises:
            EngineError: there is no memory for them.
        """
        lib, context = self._lib, self._context(8 * n_layers, n_graphs=n_layers)
        results = []
        for _ in range(n_layers):
            state = lib.ggml_new_tensor_4d(context, _F32, n_state, head_size, n_heads, 1)
            x = lib.ggml_new_tensor_4d(context, _F32, head_size, n_heads, n_columns, 1)
            steps = lib.ggml_new_tensor_3d(context, _F32, n_heads, n_columns, 1)
            decay = lib.ggml_new_tensor_2d(context, _F32, n_state if head_size == 1 else 1, n_heads)
            into, out = (lib.ggml_new_tensor_4d(context, _F32, n_state, 1, n_columns, 1) for _ in range(2))
            sequence = lib.ggml_new_tensor_1d(context, _I32, 1)
            results.append(lib.ggml_ssm_scan(context, state, x, steps, decay, into, out, sequence, 1))
        self._end(context, results)

    def chain(self, *, n_values: int, n_columns: int, n_nodes: int) -> None:
        """Make it nodes that are no products, one after the other, as a block of a model has them between products.

        Raises:
            EngineError: there is no memory for them.
        """
        lib, context = self._lib, self._context(n_nodes + 2, n_graphs=1)
        gains = lib.ggml_new_tensor_2d(context, _F32, n_values, 1)
        first = last = lib.ggml_new_tensor_2d(context, _F32, n_values, n_columns)
        kinds: tuple[Callable[[int], int], ...] = (
            lambda at: lib.ggml_rms_norm(context, at, 1e-5),
            lambda at: lib.ggml_mul(context, at, gains),
            lambda at: lib.ggml_swiglu_split(context, at, first),
            lambda at: lib.ggml_add(context, at, first),
        )
        for number in range(n_nodes):
            last = kinds[number % len(kinds)](last)
        self._end(context, [last])

    def run(self) -> None:
        """Compute the next of its results, to the end; after the last comes the first again.

        Raises:
            EngineError: ggml fails.
        """
        graph = self._graphs[self._turn % len(self._graphs)]
        self._turn += 1
        if self._lib.ggml_backend_graph_compute(self._backend, graph) != 0:
            raise EngineError("ggml cannot compute what is measured here")

    def close(self) -> None:
        """Free all of it."""
        self._forget()
        if self._backend:
            self._lib.ggml_backend_free(self._backend)
            self._backend = None

    def _context(self, n_tensors: int, *, n_graphs: int = 0, n_graph: int = _N_GRAPH) -> int:
        """Return room for descriptions of tensors and graphs; the first of an operation frees what was before."""
        lib = self._lib
        if self._buffers:
            self._forget()
        n_bytes = n_tensors * lib.ggml_tensor_overhead()
        n_bytes += n_graphs * lib.ggml_graph_overhead_custom(n_graph, False)
        context: int | None = lib.ggml_init(_Parameters(n_bytes, None, True))
        if not context:
            raise EngineError("ggml has no memory to measure with")
        self._contexts.append(context)
        return context

    def _kind(self, result: int, weights: int) -> int:
        """Return the type of buffer that llama.cpp would put weights of such an operation into.

        ref: llama.cpp src/llama-model.cpp, make_cpu_buft_list; llama-model-loader.cpp, weight_buft_supported
        """
        lib = self._lib
        find = self._address(b"ggml_backend_dev_get_extra_bufts")
        if not find:
            return self._plain
        kinds = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(find)(self._device)
        place = ctypes.c_void_p.from_address(weights + 8)  # ref: ggml/include/ggml.h, struct ggml_tensor, buffer
        index = 0
        while kinds and kinds[index]:
            kind = int(kinds[index])
            buffer = lib.ggml_backend_buft_alloc_buffer(kind, 0)
            place.value = buffer
            is_supported = lib.ggml_backend_dev_supports_op(self._device, result)
            place.value = None
            lib.ggml_backend_buffer_free(buffer)
            if is_supported:
                return kind
            index += 1
        return self._plain

    def _hold(self, context: int, tensors: list[int], type_name: str, kind: int) -> None:
        """Give tensors memory as weights have it, and values as weights have them."""
        lib = self._lib
        self._allocate(context, kind)
        n_bytes = lib.ggml_nbytes(tensors[0])
        some = _weights(type_name)
        raw = (some * (n_bytes // len(some) + 1))[:n_bytes]
        for tensor in tensors:
            lib.ggml_backend_tensor_set(tensor, raw, 0, n_bytes)

    def _end(self, context: int, results: list[int], *, n_graph: int = _N_GRAPH, in_one: bool = False) -> None:
        """Make a graph for each result, or one, and give memory to what is computed."""
        lib = self._lib
        for number, result in enumerate(results):
            if not number or not in_one:
                self._graphs.append(lib.ggml_new_graph_custom(context, n_graph, False))
            lib.ggml_build_forward_expand(self._graphs[-1], result)
        buffer = self._allocate(context, self._plain)
        lib.ggml_backend_buffer_clear(buffer, 0)  # pages that were never written are read from one and the same

    def _allocate(self, context: int, kind: int) -> int:
        lib = self._lib
        buffer: int | None = lib.ggml_backend_alloc_ctx_tensors_from_buft(context, kind)
        if not buffer:
            raise EngineError("there is not enough memory to measure with")
        self._buffers.append(buffer)
        if sys.platform == "linux" and kind == self._plain:
            # Small pages, as those of a mapped file are.
            base = lib.ggml_backend_buffer_get_base(buffer)
            begin = -(-base // _PAGE) * _PAGE
            size = max(0, base + lib.ggml_backend_buffer_get_size(buffer) - begin) // _PAGE * _PAGE
            ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), _NO_HUGE_PAGES)
        return buffer

    def _address(self, name: bytes) -> int | None:
        lib = self._lib
        found: int | None = lib.ggml_backend_reg_get_proc_address(lib.ggml_backend_dev_backend_reg(self._device), name)
        return found

    def _forget(self) -> None:
        for buffer in self._buffers:
            self._lib.ggml_backend_buffer_free(buffer)
        for context in self._contexts:
            self._lib.ggml_free(context)
        self._buffers, self._contexts, self._graphs, self._turn = [], [], [], 0
