"""LoRA adapters for the tiny models: random factors as a GGUF file, written directly, or as PEFT saves them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from support.tiny_safetensors import pack

RANK, ALPHA = 4, 6
Array = np.ndarray[Any, np.dtype[Any]]
# Modules of the tiny checkpoint, (outputs, inputs).
MODULES = {
    "model.layers.0.self_attn.q_proj": (64, 64),
    "model.layers.1.self_attn.v_proj": (32, 64),
    "model.layers.1.mlp.down_proj": (64, 128),
    "lm_head": (267, 64),
}


def factors(name: str, n_out: int, n_in: int, *, seed: int = 0, rank: int = RANK) -> tuple[Array, Array]:
    """Return A (rank × inputs) and B (outputs × rank), which change what a model says."""
    random = np.random.default_rng([seed, *name.encode()])
    a = random.standard_normal((rank, n_in)) / np.sqrt(n_in)
    b = random.standard_normal((n_out, rank)) * 0.5
    return a.astype(np.float32), b.astype(np.float32)


def write_peft_adapter(folder: Path, *, seed: int = 0) -> Path:
    """Write an adapter of the tiny checkpoint as PEFT saves it."""
    folder.mkdir()
    tensors = {}
    for module, (n_out, n_in) in MODULES.items():
        a, b = factors(module, n_out, n_in, seed=seed)
        tensors |= {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(pack(tensors))
    return folder


def change(module: str, *, seed: int = 0) -> Array:
    """Return what such an adapter adds to a module's weight."""
    a, b = factors(module, *MODULES[module], seed=seed)
    return b @ a * np.float32(ALPHA / RANK)


def write_adapter(
    path: Path,
    tensors: Mapping[str, Array],
    *,
    metadata: Mapping[str, Any] | None = None,
    architecture: str = "llama",
) -> Path:
    """Write an adapter file of these tensors (rows first, as numpy has them).

    Args:
        metadata: on top of what an adapter says; None leaves a key out, a float becomes 32 bits.
    """
    keys: dict[str, Any] = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": float(ALPHA)}
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (keys | dict(metadata or {})).items():
        if isinstance(value, np.float64):
            writer.add_float64(key, float(value))
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None:
            writer.add_string(key, value) if isinstance(value, str) else writer.add_array(key, value)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
