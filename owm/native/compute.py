"""Single operations of ggml on the CPU, as its own graphs run them: what a machine's rates are measured with."""

import ctypes
from typing import Any

from owm.errors import EngineError

_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q2_k": 10, "q3_k": 11,
    "q4_k": 12, "q5_k": 13, "q6_k": 14, "iq4_nl": 20, "iq4_xs": 23, "bf16": 30, "mxfp4": 39}  # fmt: skip
TYPES = tuple(_TYPES)  # ref: ggml/include/ggml.h, enum ggml_type

_F32 = 0
_N_TENSORS = 8
_CPU = 0


class _Parameters(ctypes.Structure):
    """ref: ggml/include/ggml.h, struct ggml_init_params"""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def _declared() -> Any:
    """Return ggml with the types of what is called here."""
    from owm.native.binding import ggml as lib

    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
    for name, result, arguments in (
        ("ggml_init", pointer, [_Parameters]),
        ("ggml_free", None, [pointer]),
        ("ggml_tensor_overhead", size, []),
        ("ggml_graph_overhead", size, []),
        ("ggml_new_tensor_2d", pointer, [pointer, ctypes.c_int, number, number]),
        ("ggml_mul_mat", pointer, [pointer, pointer, pointer]),
        ("ggml_new_graph", pointer, [pointer]),
        ("ggml_build_forward_expand", None, [pointer, pointer]),
        ("ggml_backend_dev_count", size, []),
        ("ggml_backend_dev_get", pointer, [size]),
        ("ggml_backend_dev_type", ctypes.c_int, [pointer]),
        ("ggml_backend_dev_init", pointer, [pointer, ctypes.c_char_p]),
        ("ggml_backend_dev_backend_reg", pointer, [pointer]),
        ("ggml_backend_reg_get_proc_address", pointer, [pointer, ctypes.c_char_p]),
        ("ggml_backend_alloc_ctx_tensors", pointer, [pointer, pointer]),
        ("ggml_backend_buffer_clear", None, [pointer, ctypes.c_uint8]),
        ("ggml_backend_buffer_free", None, [pointer]),
        ("ggml_backend_graph_compute", ctypes.c_int, [pointer, pointer]),
        ("ggml_backend_free", None, [pointer]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class Operation:
    """One operation over tensors of zeros. Use it in a `with` statement, and `run` it."""

    def __init__(self, *, n_threads: int) -> None:
        """Take the CPU.

        Raises:
            EngineError: ggml cannot compute on it.
        """
        self._lib = lib = _declared()
        self._backend: int | None = None
        self._context: int | None = None
        self._buffer: int | None = None
        devices = [lib.ggml_backend_dev_get(index) for index in range(lib.ggml_backend_dev_count())]
        chosen = next((one for one in devices if lib.ggml_backend_dev_type(one) == _CPU), None)
        self._backend = lib.ggml_backend_dev_init(chosen, None) if chosen else None
        if not self._backend:
            raise EngineError("ggml has no CPU to compute on")
        set_threads = lib.ggml_backend_reg_get_proc_address(
            lib.ggml_backend_dev_backend_reg(chosen), b"ggml_backend_set_n_threads"
        )
        if set_threads:
            ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)(set_threads)(self._backend, n_threads)

    def __enter__(self) -> "Operation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def multiply(self, type_name: str, *, n_out: int, n_in: int, n_columns: int) -> None:
        """Make it the product of a matrix of weights (n_out × n_in) and `n_columns` columns of f32.

        Raises:
            EngineError: there is no memory for them.
        """
        lib, context = self._lib, self._begin()
        weights = lib.ggml_new_tensor_2d(context, _TYPES[type_name], n_in, n_out)
        columns = lib.ggml_new_tensor_2d(context, _F32, n_in, n_columns)
        self._end(lib.ggml_mul_mat(context, weights, columns))

    def run(self) -> None:
        """Compute it once, to the end.

        Raises:
            EngineError: ggml fails.
        """
        if self._lib.ggml_backend_graph_compute(self._backend, self._graph) != 0:
            raise EngineError("ggml cannot compute what is measured here")

    def close(self) -> None:
        """Free all of it."""
        self._forget()
        if self._backend:
            self._lib.ggml_backend_free(self._backend)
            self._backend = None

    def _begin(self) -> int:
        self._forget()
        size = _N_TENSORS * self._lib.ggml_tensor_overhead() + self._lib.ggml_graph_overhead()
        self._context = self._lib.ggml_init(_Parameters(size, None, True))
        if not self._context:
            raise EngineError("ggml has no memory to measure with")
        return self._context

    def _end(self, result: int) -> None:
        lib = self._lib
        self._graph = lib.ggml_new_graph(self._context)
        lib.ggml_build_forward_expand(self._graph, result)
        self._buffer = lib.ggml_backend_alloc_ctx_tensors(self._context, self._backend)
        if not self._buffer:
            raise EngineError("there is not enough memory to measure with")
        lib.ggml_backend_buffer_clear(self._buffer, 0)  # pages that were never written are read from one and the same

    def _forget(self) -> None:
        if self._buffer:
            self._lib.ggml_backend_buffer_free(self._buffer)
            self._buffer = None
        if self._context:
            self._lib.ggml_free(self._context)
            self._context = None
