"""Tiny models that forget on purpose: Gemma 3, of whose layers most see a short window, and Falcon-H1, of which each
layer has attention and a state side by side; of random weights.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from support.tiny_gguf import MERGES, vocabulary

N_EMBD, N_FF, N_HEADS, N_KV_HEADS, HEAD = 64, 96, 4, 2, 16
WINDOW = 16
N_INNER, N_STATE, N_SSM_HEADS, N_CONV = 64, 16, 4, 4

Arrays = dict[str, np.ndarray]


def write_tiny_gemma3(path: Path) -> Path:
    """Write a tiny Gemma 3 to `path` and return it: five layers see a window of `WINDOW` tokens, the sixth sees all."""
    make = _Maker(5)
    arrays = {"token_embd.weight": make(len(vocabulary()[0]), N_EMBD)}
    for i in range(6):
        arrays |= _attention(make, i) | _feed_forward(make, i)
        arrays |= {f"blk.{i}.attn_{part}_norm.weight": make(HEAD, around=1) for part in "qk"}
        arrays |= {f"blk.{i}.{part}_norm.weight": make(N_EMBD, around=1) for part in ("post_attention", "post_ffw")}
    arrays |= _output(make)
    return _write(path, "gemma3", 6, {"attention.sliding_window": WINDOW}, arrays)


def write_tiny_falcon_h1(path: Path) -> Path:
    """Write a tiny Falcon-H1 of two blocks to `path` and return it."""
    make = _Maker(6)
    arrays = {"token_embd.weight": make(len(vocabulary()[0]), N_EMBD)}
    n_conv = N_INNER + 2 * N_STATE
    for i in range(2):
        arrays |= _attention(make, i) | _feed_forward(make, i)
        arrays[f"blk.{i}.ffn_norm"] = arrays.pop(f"blk.{i}.ffn_norm.weight")  # so it is named there
        arrays |= {
            f"blk.{i}.ssm_in.weight": make(N_INNER + n_conv + N_SSM_HEADS, N_EMBD),
            f"blk.{i}.ssm_conv1d.weight": make(n_conv, N_CONV),
            f"blk.{i}.ssm_conv1d.bias": make(n_conv),
            f"blk.{i}.ssm_dt.bias": make(N_SSM_HEADS),
            f"blk.{i}.ssm_a": -np.arange(1, N_SSM_HEADS + 1, dtype=np.float32).reshape(-1, 1),
            f"blk.{i}.ssm_d": make(N_SSM_HEADS, 1),
            f"blk.{i}.ssm_norm.weight": make(1, N_INNER, around=1),
            f"blk.{i}.ssm_out.weight": make(N_EMBD, N_INNER),
        }
    arrays |= _output(make)
    keys = {
        "ssm.conv_kernel": N_CONV,
        "ssm.inner_size": N_INNER,
        "ssm.state_size": N_STATE,
        "ssm.time_step_rank": N_SSM_HEADS,
        "ssm.group_count": 1,
    }
    return _write(path, "falcon-h1", 2, keys, arrays)


class _Maker:
    """Makes random tensors, one after the other."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def __call__(self, *shape: int, around: float = 0, scale: float = 1) -> np.ndarray:
        spread = scale / math.sqrt(shape[-1]) if len(shape) > 1 else 0.1
        return (around + spread * self._random.standard_normal(shape)).astype(np.float32)


def _attention(make: _Maker, i: int) -> Arrays:
    rows = {"q": N_HEADS * HEAD, "k": N_KV_HEADS * HEAD, "v": N_KV_HEADS * HEAD}
    made = {f"blk.{i}.attn_{part}.weight": make(n, N_EMBD) for part, n in rows.items()}
    made[f"blk.{i}.attn_norm.weight"] = make(N_EMBD, around=1)
    return made | {f"blk.{i}.attn_output.weight": make(N_EMBD, N_HEADS * HEAD)}


def _feed_forward(make: _Maker, i: int) -> Arrays:
    made = {f"blk.{i}.ffn_{part}.weight": make(N_FF, N_EMBD) for part in ("gate", "up")}
    made[f"blk.{i}.ffn_norm.weight"] = make(N_EMBD, around=1)
    return made | {f"blk.{i}.ffn_down.weight": make(N_EMBD, N_FF)}


def _output(make: _Maker) -> Arrays:
    return {"output_norm.weight": make(N_EMBD, around=1), "output.weight": make(len(vocabulary()[0]), N_EMBD, scale=4)}


def _write(path: Path, architecture: str, n_blocks: int, keys: Mapping[str, int], arrays: Arrays) -> Path:
    words, kinds = vocabulary()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(n_blocks)
    writer.add_context_length(4096)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    for key, value in keys.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_bos_token_id(words.index("<|im_start|>"))
    writer.add_eos_token_id(words.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_merges(list(MERGES))
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
