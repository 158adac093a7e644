"""Worker: what llama.cpp computes for a prompt with a model file, all in f32."""

import ctypes
import resource
from typing import Any

import llama_cpp
import numpy as np

from parity.worker import Request, serve

MEMORY_BYTES = 8 << 30  # a changed hparam may ask for any amount
ERROR = 4  # GGML_LOG_LEVEL_ERROR
_errors: list[str] = []


def outputs(gguf: str, tokens: list[int], kind: str, adapter: str | None) -> np.ndarray:
    """Return one row a token: logits, or for `hidden` the embeddings without pooling; with an adapter if given."""
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model_params.use_extra_bufts = False  # no repacked weights
    model = llama_cpp.llama_model_load_from_file(gguf.encode(), model_params)
    if not model:
        raise ValueError(f"llama.cpp does not load the file: {_errors[0] if _errors else 'no reason given'}")
    n = len(tokens)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = max(n, 256)
    params.n_threads = params.n_threads_batch = 2
    params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.embeddings = kind == "hidden"
    if params.embeddings:
        params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        llama_cpp.llama_model_free(model)
        raise ValueError("llama.cpp makes no context")
    batch = llama_cpp.llama_batch_init(n, 0, 1)
    try:
        if adapter is not None:
            _add_adapter(model, context, adapter)
        batch.n_tokens = n
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        if status := llama_cpp.llama_decode(context, batch):
            raise ValueError(f"llama_decode gives {status}")
        if params.embeddings:
            width, row = llama_cpp.llama_model_n_embd(model), llama_cpp.llama_get_embeddings_ith
        else:
            vocabulary = llama_cpp.llama_model_get_vocab(model)
            width, row = llama_cpp.llama_vocab_n_tokens(vocabulary), llama_cpp.llama_get_logits_ith
        return np.stack([np.ctypeslib.as_array(row(context, i), (width,)).copy() for i in range(n)])
    finally:
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def _add_adapter(model: Any, context: Any, path: str) -> None:
    adapter = llama_cpp.llama_adapter_lora_init(model, path.encode())  # freed with the model
    if not adapter:
        raise ValueError(f"llama.cpp does not load the adapter: {_errors[0] if _errors else 'no reason given'}")
    # The library declares them as pointers to pointers.
    adapters, scales = (ctypes.POINTER(ctypes.c_void_p) * 1)(adapter), (ctypes.c_float * 1)(1.0)
    if status := llama_cpp.llama_set_adapters_lora(context, adapters, 1, scales):
        raise ValueError(f"llama_set_adapters_lora gives {status}")


@llama_cpp.llama_log_callback
def _errors_only(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    if level == ERROR:
        _errors.append(text.decode("utf-8", "replace").strip())
        print(_errors[-1], flush=True)


def answer(request: Request) -> dict[str, Any]:
    """Write the outputs to the file that the request names."""
    _errors.clear()
    np.save(request["to"], outputs(request["gguf"], request["tokens"], request["kind"], request.get("adapter")))
    return {}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    llama_cpp.llama_log_set(_errors_only, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    serve(answer)
