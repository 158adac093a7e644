"""The child's side of a trial: a model is loaded whole, a context made and a token read. The process may not survive.

Nothing here needs more than the binding, so that the child is ready soon. Weights are mapped and used as they lie.
"""

import ctypes
import os
import select
import sys
import threading
from collections.abc import Sequence
from typing import Any

from owm.native.binding import llama as c
from owm.native.refusal import reason_of

_ERROR = 4
_N_CTX = 256  # what llama.cpp rounds a smaller one up to
_MOST_COMPLAINTS_BYTES = 1 << 20

_Pointer = ctypes.POINTER(ctypes.c_void_p)


class _Refused(Exception):
    """llama.cpp said no: at which `stage`, and why."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


def run(path: str, adapters: Sequence[str], *, n_threads: int) -> dict[str, object]:
    """Return the fields of `guard.Trial`, if there is anybody left to return them."""
    _confine()
    complaints: list[str] = []

    def on_log(level: int, text: bytes | None, user_data: object) -> None:
        if level == _ERROR and len(complaints) < 20:
            complaints.append((text or b"").decode("utf-8", "replace").rstrip("\n"))

    log = c.llama_log_callback(on_log)
    c.llama_log_set(log, ctypes.c_void_p(0))
    c.llama_backend_init()
    try:
        _try(path, adapters, n_threads, complaints)
    except _Refused as refusal:
        return {"stage": refusal.stage, "error": str(refusal)}
    return {"stage": "", "error": None}


def _try(path: str, adapters: Sequence[str], n_threads: int, complaints: list[str]) -> None:
    no_devices = (ctypes.c_void_p * 1)(None)
    params = c.llama_model_default_params()
    params.devices = ctypes.cast(no_devices, ctypes.c_void_p)  # a GPU is neither needed nor woken
    params.n_gpu_layers = 0
    params.use_extra_bufts = False  # no copy of the weights in another layout
    model = c.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise _Refused("load", reason_of(complaints))
    loaded = []
    for adapter in adapters:
        complaints.clear()
        pointer = c.llama_adapter_lora_init(model, os.fsencode(adapter))
        if not pointer:
            raise _Refused("adapter", reason_of(complaints))
        loaded.append(pointer)
    complaints.clear()
    context = c.llama_init_from_model(model, _context_params(n_threads))
    if not context:
        raise _Refused("context", reason_of(complaints))
    if loaded:
        pointers = (_Pointer * len(loaded))(*loaded)
        scales = (ctypes.c_float * len(loaded))(*[1.0] * len(loaded))
        if c.llama_set_adapters_lora(context, pointers, len(loaded), scales):
            raise _Refused("adapter", reason_of(complaints))
    complaints.clear()
    _read_a_token(model, context, complaints)
    c.llama_free(context)
    for pointer in loaded:
        c.llama_adapter_lora_free(pointer)
    c.llama_model_free(model)


def _context_params(n_threads: int) -> Any:
    params = c.llama_context_default_params()
    params.n_ctx = _N_CTX
    params.n_batch = params.n_ubatch = 64
    params.n_seq_max = 1
    params.n_threads = params.n_threads_batch = n_threads
    params.offload_kqv = False
    params.op_offload = False
    params.no_perf = True
    return params


def _read_a_token(model: Any, context: Any, complaints: list[str]) -> None:
    vocab = c.llama_model_get_vocab(model)
    n_vocab = c.llama_vocab_n_tokens(vocab)
    if n_vocab <= 0:
        return  # nothing can be read, which is for the loading process to say
    first = c.llama_vocab_bos(vocab)
    tokens = (c.llama_token * 1)(first if 0 <= first < n_vocab else 0)
    batch = c.llama_batch_get_one(tokens, 1)
    if not c.llama_get_memory(context) and not c.llama_model_has_encoder(model):
        c.llama_set_embeddings(context, True)  # an embedding model, which has no text to give
    if c.llama_model_has_encoder(model):
        status = c.llama_encode(context, batch)
        if status == 0 and c.llama_model_has_decoder(model):
            start = c.llama_model_decoder_start_token(model)
            tokens[0] = start if 0 <= start < n_vocab else tokens[0]
            status = c.llama_decode(context, c.llama_batch_get_one(tokens, 1))
    else:
        status = c.llama_decode(context, batch)
    if status != 0:
        raise _Refused("decode", f"{reason_of(complaints)} ({status})")


def leave_with_parent() -> None:
    """Let this process end when its parent does, also in the midst of a call that never returns."""
    if os.name != "posix":
        return

    def wait() -> None:
        select.select([sys.stdin.fileno()], [], [])  # no more is asked, so this is its end
        os._exit(1)

    threading.Thread(target=wait, name="owm-leave", daemon=True).start()


def _confine() -> None:
    """Leave no core file of a stranger's model, and not more complaints than anyone reads."""
    try:
        import resource
    except ImportError:
        return
    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, _MOST_COMPLAINTS_BYTES)):
        hard = resource.getrlimit(what)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (limit, hard))
