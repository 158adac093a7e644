"""How large llama.cpp would make its buffers for a model, told by its log over a file with no weights in it.

ref: llama.cpp src/llama-kv-cache.cpp, src/llama-memory-recurrent.cpp, src/llama-context.cpp
"""

import re
from pathlib import Path
from typing import Any

import psutil

from owm.errors import EngineError, OwmError
from owm.native import llama
from owm.native.binding import llama as c
from owm.native.quants import type_ids

_MIB = 1 << 20
_BUFFER = re.compile(
    r"^\w+: +(?P<place>\S+) +(?P<kind>KV|RS|output|compute|DSV4 .* state) buffer size = +(?P<mib>[\d.]+) MiB", re.M
)
_CACHE = re.compile(r"^llama_kv_cache\w*: size = +(?P<mib>[\d.]+) MiB \(", re.M)
_UNUSED = re.compile(r"^model has unused tensor (?P<name>\S+) \(size = \d+ bytes\) -- ignoring", re.M)
_KINDS = {"RS": "state", "output": "output", "compute": "compute"}

_opened: dict[tuple[object, ...], tuple[llama.Model, list[str]]] = {}


def measure(path: Path, context: Any, *, n_gpu_layers: int) -> dict[str, object]:
    """Return the fields of `guard.Sizes`; the process may abort.

    Args:
        context: has the attributes of `guard.ContextWish`.
    """
    before = psutil.Process().memory_info().rss
    try:
        model, unused = _open(path, n_gpu_layers)
        places, kv_bytes = _sizes(model, context, n_outputs=0)
        touched, _ = _sizes(model, context, n_outputs=context.n_sequences)
    except (OwmError, OSError) as error:
        return {"error": str(error).partition(": ")[2] or str(error)}
    return {
        "error": None,
        "places": places,
        "kv_bytes": kv_bytes,
        "touched_bytes": touched.get("CPU", {}).get("compute", 0),
        "process_bytes": max(psutil.Process().memory_info().rss, before),
        "unused": unused,
    }


def _open(path: Path, n_gpu_layers: int) -> tuple[llama.Model, list[str]]:
    """Return a model, and its tensors that llama.cpp does not load; the last one stays open for other contexts."""
    status = path.stat()
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, str(path), n_gpu_layers)
    if key not in _opened:
        while _opened:
            _opened.popitem()[1][0].close()
        log = _Log()
        model = llama.Model(path, n_gpu_layers=n_gpu_layers, has_weights=False)
        _opened[key] = model, [found["name"] for found in _UNUSED.finditer(log.text())]
    return _opened[key]


def _sizes(model: llama.Model, context: Any, *, n_outputs: int) -> tuple[dict[str, dict[str, int]], int]:
    """Make a context and return bytes by place and kind, and those of the KV cache wherever it is."""
    log = _Log()
    params = c.llama_context_default_params()
    params.n_ctx = context.n_ctx
    params.n_batch = context.n_batch
    params.n_ubatch = context.n_ubatch
    params.n_seq_max = context.n_sequences
    params.n_outputs_max = n_outputs
    params.kv_unified = context.is_unified
    params.no_perf = True
    if context.flash_attention is not None:
        on, off = c.LLAMA_FLASH_ATTN_TYPE_ENABLED, c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.flash_attn_type = on if context.flash_attention else off
    if context.type_k is not None:
        params.type_k = type_ids()[context.type_k.upper()]
    if context.type_v is not None:
        params.type_v = type_ids()[context.type_v.upper()]
    llama.forget_complaints()
    pointer = c.llama_init_from_model(model.pointer, params)
    if not pointer:
        raise EngineError(f"no context of {context.n_ctx} tokens: {llama.complaint()}")
    c.llama_free(pointer)
    text = log.text()
    places: dict[str, dict[str, int]] = {}
    for found in _BUFFER.finditer(text):
        if (kind := _KINDS.get(found["kind"], "state")) and found["kind"] != "KV":
            place = places.setdefault(found["place"], {})
            place[kind] = place.get(kind, 0) + round(float(found["mib"]) * _MIB)
    return places, sum(round(float(found["mib"]) * _MIB) for found in _CACHE.finditer(text))


class _Log:
    """What llama.cpp says from now on."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        llama.start(self._parts.append)

    def text(self) -> str:
        return "".join(self._parts)
