"""A tiny mixture of experts that really loads: Mixtral's layout, converted from a checkpoint of random weights."""

from pathlib import Path
from typing import Any

import numpy as np

from owm.convert.conversion import execute, plan_folder
from support.tiny_checkpoint import CONFIG, bf16, write_tiny_checkpoint


def write_tiny_moe(path: Path, *, n_experts: int = 8, n_used: int = 2, n_embd: int = 64, n_ff: int = 64) -> Path:
    """Write a tiny model of two blocks to `path` (`.gguf`) and return it; its checkpoint stays beside it."""
    random = np.random.default_rng(5)

    def matrix(rows: int, columns: int) -> Any:
        return bf16((random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32))

    tensors: dict[str, Any] = {}
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        tensors |= {f"{layer}.mlp.{name}_proj.weight": None for name in ("gate", "up", "down")}
        tensors[f"{layer}.block_sparse_moe.gate.weight"] = matrix(n_experts, n_embd)
        for expert in range(n_experts):
            prefix = f"{layer}.block_sparse_moe.experts.{expert}"
            tensors |= {
                f"{prefix}.w1.weight": matrix(n_ff, n_embd),
                f"{prefix}.w2.weight": matrix(n_embd, n_ff),
                f"{prefix}.w3.weight": matrix(n_ff, n_embd),
            }
    config = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": n_embd,
        "intermediate_size": n_ff,
        "num_local_experts": n_experts,
        "num_experts_per_tok": n_used,
        "sliding_window": None,
    }
    folder = write_tiny_checkpoint(path.with_suffix(""), config=config, tensors=tensors)
    execute(plan_folder(folder, type_name="f32"), [path])
    return path
