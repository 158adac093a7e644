"""Which weights the CPU computes with in a layout of its own: ggml is asked as llama.cpp asks it while it loads.

ref: llama.cpp src/llama-model-loader.cpp, select_weight_buft; src/llama-model.cpp, make_cpu_buft_list
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace

_F32, _I32 = 0, 26
_N_TENSORS = 8
_N_TOKENS = 512  # as llama.cpp asks
_CPU = 0
_pointer, _size, _number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64


class _Parameters(ctypes.Structure):
    """ref: ggml/include/ggml.h, struct ggml_init_params"""

    _fields_ = (("mem_size", _size), ("mem_buffer", _pointer), ("no_alloc", ctypes.c_bool))


class _Tensor(ctypes.Structure):
    """How a tensor begins. ref: ggml/include/ggml.h, struct ggml_tensor"""

    _fields_ = (("type", ctypes.c_int), ("buffer", _pointer))


def copies(weights: Sequence[tuple[int, Sequence[int], int]]) -> list[int]:
    """Return for each weight the bytes of its copy in another layout, 0 for one that is used as it lies.

    Args:
        weights: (ggml's number of the type, shape with the row length first, experts that are used at once or 0 for a
            plain product).
    """
    return [_copy(type_id, tuple(shape), n_used) for type_id, shape, n_used in weights]


@cache
def _copy(type_id: int, shape: tuple[int, ...], n_used: int) -> int:
    device, layouts = _layouts()
    lib = _library()
    for layout in layouts:
        context = lib.ggml_init(_Parameters(_N_TENSORS * lib.ggml_tensor_overhead(), None, True))
        buffer = lib.ggml_backend_buft_alloc_buffer(layout, 0)
        try:
            weight = lib.ggml_new_tensor(context, type_id, len(shape), (_number * len(shape))(*shape))
            if n_used:
                columns = lib.ggml_new_tensor_3d(context, _F32, shape[0], n_used, _N_TOKENS)
                ids = lib.ggml_new_tensor_2d(context, _I32, n_used, _N_TOKENS)
                product = lib.ggml_mul_mat_id(context, weight, columns, ids)
            else:
                more = (*shape[2:], 1, 1)[:2]
                columns = lib.ggml_new_tensor_4d(context, _F32, shape[0], _N_TOKENS, *more)
                product = lib.ggml_mul_mat(context, weight, columns)
            _Tensor.from_address(weight).buffer = buffer
            if lib.ggml_backend_dev_supports_op(device, product):
                n_bytes: int = lib.ggml_backend_buft_get_alloc_size(layout, weight)
                alignment: int = lib.ggml_backend_buft_get_alignment(layout)
                return -(-n_bytes // alignment) * alignment
        finally:
            lib.ggml_backend_buffer_free(buffer)
            lib.ggml_free(context)
    return 0


@cache
def _layouts() -> tuple[int, tuple[int, ...]]:
    """Return the CPU, and the layouts that this build has for it, in the order of preference."""
    lib = _library()
    devices = [lib.ggml_backend_dev_get(index) for index in range(lib.ggml_backend_dev_count())]
    device = next(one for one in devices if lib.ggml_backend_dev_type(one) == _CPU)
    address = lib.ggml_backend_reg_get_proc_address(
        lib.ggml_backend_dev_backend_reg(device), b"ggml_backend_dev_get_extra_bufts"
    )
    if not address:
        return device, ()
    found = ctypes.CFUNCTYPE(ctypes.POINTER(_pointer), _pointer)(address)(device)
    layouts = []
    index = 0
    while found and found[index]:
        layouts.append(found[index])
        index += 1
    return device, tuple(layouts)


@cache
def _library() -> SimpleNamespace:
    """Return the functions of ggml that are used here, each an object of its own so that others' types stay."""
    from owm.native.binding import ggml, llama

    llama.llama_backend_init()
    found = SimpleNamespace()
    for name, result, arguments in (
        ("ggml_init", _pointer, [_Parameters]),
        ("ggml_free", None, [_pointer]),
        ("ggml_tensor_overhead", _size, []),
        ("ggml_new_tensor", _pointer, [_pointer, ctypes.c_int, ctypes.c_int, ctypes.POINTER(_number)]),
        ("ggml_new_tensor_2d", _pointer, [_pointer, ctypes.c_int, _number, _number]),
        ("ggml_new_tensor_3d", _pointer, [_pointer, ctypes.c_int, _number, _number, _number]),
        ("ggml_new_tensor_4d", _pointer, [_pointer, ctypes.c_int, _number, _number, _number, _number]),
        ("ggml_mul_mat", _pointer, [_pointer, _pointer, _pointer]),
        ("ggml_mul_mat_id", _pointer, [_pointer, _pointer, _pointer, _pointer]),
        ("ggml_backend_dev_count", _size, []),
        ("ggml_backend_dev_get", _pointer, [_size]),
        ("ggml_backend_dev_type", ctypes.c_int, [_pointer]),
        ("ggml_backend_dev_backend_reg", _pointer, [_pointer]),
        ("ggml_backend_reg_get_proc_address", _pointer, [_pointer, ctypes.c_char_p]),
        ("ggml_backend_dev_supports_op", ctypes.c_bool, [_pointer, _pointer]),
        ("ggml_backend_buft_alloc_buffer", _pointer, [_pointer, _size]),
        ("ggml_backend_buft_get_alloc_size", _size, [_pointer, _pointer]),
        ("ggml_backend_buft_get_alignment", _size, [_pointer]),
        ("ggml_backend_buffer_free", None, [_pointer]),
    ):
        function = ggml[name]
        function.restype, function.argtypes = result, arguments
        setattr(found, name, function)
    return found
