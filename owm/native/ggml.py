"""What ggml knows of this machine, the devices that this build can compute on, and what it says to nobody."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_CPU, _GPU, _INTEGRATED_GPU = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Device:
    """A device that the installed build can use; memory in bytes."""

    name: str
    description: str
    is_gpu: bool
    free_bytes: int
    total_bytes: int


def devices() -> list[Device]:
    """Return the devices of this build, the CPU included. ref: ggml/include/ggml-backend.h"""
    from owm.native.binding import ggml as lib

    lib.ggml_backend_dev_count.restype = ctypes.c_size_t
    lib.ggml_backend_dev_get.restype = ctypes.c_void_p
    lib.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for name in ("ggml_backend_dev_name", "ggml_backend_dev_description"):
        getattr(lib, name).restype = ctypes.c_char_p
        getattr(lib, name).argtypes = [ctypes.c_void_p]
    lib.ggml_backend_dev_type.restype = ctypes.c_int
    lib.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    lib.ggml_backend_dev_memory.restype = None
    lib.ggml_backend_dev_memory.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_size_t),
        ctypes.POINTER(ctypes.c_size_t),
    ]
    found = []
    for index in range(lib.ggml_backend_dev_count()):
        device = lib.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        lib.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        found.append(
            Device(
                name=lib.ggml_backend_dev_name(device).decode(),
                description=lib.ggml_backend_dev_description(device).decode(),
                is_gpu=lib.ggml_backend_dev_type(device) in (_GPU, _INTEGRATED_GPU),
                free_bytes=free.value,
                total_bytes=total.value,
            )
        )
    return found


@contextmanager
def unheard() -> Iterator[None]:
    """Let what C code prints to stderr go nowhere: there ggml says which rows are amiss, and owm says it itself.

    Python's own stderr stays. Where the C library does not let its stream be exchanged, nothing changes.
    """
    names = {"linux": "stderr", "darwin": "__stderrp"}
    if sys.platform not in names or (sys.platform == "linux" and platform.libc_ver()[0] != "glibc"):
        yield
        return
    libc = ctypes.CDLL(None)
    libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
    libc.fclose.argtypes = [ctypes.c_void_p]
    stream = ctypes.c_void_p.in_dll(libc, names[sys.platform])
    own, nowhere = stream.value, libc.fopen(os.fsencode(os.devnull), b"w")
    if not nowhere:
        yield
        return
    stream.value = nowhere
    try:
        yield
    finally:
        stream.value = own
        libc.fclose(nowhere)


def backends() -> list[str]:
    """Return the names of the backends of this build besides the CPU's own: `CUDA`, `Metal`, `BLAS`."""
    from owm.native.binding import ggml as lib

    lib.ggml_backend_reg_count.restype = ctypes.c_size_t
    lib.ggml_backend_reg_get.restype = ctypes.c_void_p
    lib.ggml_backend_reg_get.argtypes = [ctypes.c_size_t]
    lib.ggml_backend_reg_name.restype = ctypes.c_char_p
    lib.ggml_backend_reg_name.argtypes = [ctypes.c_void_p]
    names = [
        lib.ggml_backend_reg_name(lib.ggml_backend_reg_get(index)).decode()
        for index in range(lib.ggml_backend_reg_count())
    ]
    return [name for name in names if name != "CPU"]


def commit() -> str:
    """Return the commit of the sources of this build, empty if it does not say."""
    from owm.native.binding import ggml as lib

    try:
        function = lib.ggml_commit
    except AttributeError:
        return ""
    function.restype = ctypes.c_char_p
    return str((function() or b"").decode("utf-8", "replace")).removesuffix("-dirty")
