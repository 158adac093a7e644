"""LoRA adapters as llama.cpp holds them: loaded beside a model's weights, set on contexts, freed before the weights."""

import ctypes
import os
from pathlib import Path
from typing import Any

from owm.errors import EngineError
from owm.native import llama
from owm.native.binding import llama as c

_Pointer = ctypes.POINTER(ctypes.c_void_p)


class Adapters:
    """Adapters of one model, each with the factor by which it counts; their changes add up."""

    def __init__(self, model: llama.Model) -> None:
        self._model = model
        self._loaded: list[tuple[Any, float]] = []

    def add(self, path: Path, scale: float) -> None:
        """Load a file, which was checked: llama.cpp aborts on some that are damaged.

        Raises:
            EngineError: llama.cpp does not take it.
        """
        llama.forget_complaints()
        pointer = c.llama_adapter_lora_init(self._model.pointer, os.fsencode(path))
        if not pointer:
            raise EngineError(f"llama.cpp cannot load the adapter {path.name}: {llama.complaint()}")
        self._loaded.append((pointer, scale))

    def set_on(self, context: Any) -> None:
        """Let a context compute with all of them."""
        n = len(self._loaded)
        pointers = (_Pointer * n)(*(pointer for pointer, _ in self._loaded))
        scales = (ctypes.c_float * n)(*(scale for _, scale in self._loaded))
        if status := c.llama_set_adapters_lora(context, pointers, n, scales):
            raise EngineError(f"llama.cpp cannot use the adapters ({status})")

    def close(self) -> None:
        """Free them; no context may use them any more."""
        while self._loaded:
            c.llama_adapter_lora_free(self._loaded.pop()[0])
