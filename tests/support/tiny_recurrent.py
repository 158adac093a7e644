"""Tiny models that keep a state of what they read: Mamba, and LFM2, which has attention too; of random weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from owm.convert.conversion import execute, plan_folder
from support.tiny_checkpoint import files_of
from support.tiny_gguf import vocabulary
from support.tiny_safetensors import pack

N_EMBD, N_INNER, N_FF, N_STATE, N_RANK = 64, 128, 96, 12, 5

Tensors = dict[str, Any]


def write_tiny_mamba(path: Path) -> Path:
    """Write a tiny Mamba of two blocks to `path` (`.gguf`) and return it; its checkpoint stays beside it."""
    make = _Maker(3)
    tensors: Tensors = {"backbone.embeddings.weight": make(len(vocabulary()[0]), N_EMBD, scale=4)}
    for i in range(2):
        mixer = f"backbone.layers.{i}.mixer"
        tensors |= {
            f"backbone.layers.{i}.norm.weight": make(N_EMBD, around=1),
            f"{mixer}.A_log": np.log(np.tile(np.arange(1, N_STATE + 1, dtype=np.float32), (N_INNER, 1))),
            f"{mixer}.D": make(N_INNER, around=1),
            f"{mixer}.conv1d.weight": make(N_INNER, 1, 4),
            f"{mixer}.conv1d.bias": make(N_INNER),
            f"{mixer}.in_proj.weight": make(2 * N_INNER, N_EMBD),
            f"{mixer}.x_proj.weight": make(N_RANK + 2 * N_STATE, N_INNER),
            f"{mixer}.dt_proj.weight": make(N_INNER, N_RANK),
            f"{mixer}.dt_proj.bias": make(N_INNER),
            f"{mixer}.out_proj.weight": make(N_EMBD, N_INNER),
        }
    tensors["backbone.norm_f.weight"] = make(N_EMBD, around=1)
    config = {
        "architectures": ["MambaForCausalLM"],
        "model_type": "mamba",
        "rope_theta": None,
        "num_hidden_layers": 2,
        "state_size": N_STATE,
        "time_step_rank": N_RANK,
        "intermediate_size": N_INNER,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    }
    return _converted(path, config, tensors)


def write_tiny_hybrid(path: Path) -> Path:
    """Write a tiny LFM2 with a block of each kind to `path` (`.gguf`) and return it."""
    make = _Maker(4)
    tensors: Tensors = {"model.embed_tokens.weight": make(len(vocabulary()[0]), N_EMBD, scale=4)}
    for i in range(2):
        layer = f"model.layers.{i}"
        tensors |= {f"{layer}.{name}.weight": make(N_EMBD, around=1) for name in ("operator_norm", "ffn_norm")}
        tensors |= {f"{layer}.feed_forward.{name}.weight": make(N_FF, N_EMBD) for name in ("w1", "w3")}
        tensors[f"{layer}.feed_forward.w2.weight"] = make(N_EMBD, N_FF)
    tensors |= {
        "model.layers.0.conv.conv.weight": make(N_EMBD, 1, 3),
        "model.layers.0.conv.in_proj.weight": make(3 * N_EMBD, N_EMBD),
        "model.layers.0.conv.out_proj.weight": make(N_EMBD, N_EMBD),
        "model.layers.1.self_attn.q_layernorm.weight": make(16, around=1),
        "model.layers.1.self_attn.k_layernorm.weight": make(16, around=1),
        "model.layers.1.self_attn.q_proj.weight": make(N_EMBD, N_EMBD),
        "model.layers.1.self_attn.k_proj.weight": make(32, N_EMBD),
        "model.layers.1.self_attn.v_proj.weight": make(32, N_EMBD),
        "model.layers.1.self_attn.out_proj.weight": make(N_EMBD, N_EMBD),
        "model.embedding_norm.weight": make(N_EMBD, around=1),
    }
    config = {
        "architectures": ["Lfm2ForCausalLM"],
        "model_type": "lfm2",
        "num_hidden_layers": 2,
        "layer_types": ["conv", "full_attention"],
        "intermediate_size": N_FF,
        "block_auto_adjust_ff_dim": False,
        "conv_L_cache": 3,
        "conv_bias": False,
        "norm_eps": 1e-5,
        "tie_word_embeddings": True,
    }
    return _converted(path, config, tensors)


class _Maker:
    """Makes random tensors, one after the other."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def __call__(self, *shape: int, around: float = 0, scale: float = 1) -> Any:
        spread = scale / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
        return (around + spread * self._random.standard_normal(shape)).astype(np.float32)


def _converted(path: Path, config: Mapping[str, Any], tensors: Tensors) -> Path:
    folder = path.with_suffix("")
    folder.mkdir()
    for name, content in (files_of(config=config) | {"model.safetensors": pack(tensors)}).items():
        (folder / name).write_bytes(content)
    execute(plan_folder(folder, type_name="f32"), [path])
    return path
