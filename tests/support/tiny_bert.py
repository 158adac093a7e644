"""A tiny BERT that llama.cpp loads, with a WordPiece vocabulary of a few words, and the same arithmetic in numpy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("the", "cat", "dog", "sat", "on", "mat", "a", "fish", "swims", "query", "passage", ":")
TOKENS = (*SPECIALS, *(f"▁{word}" for word in WORDS), *(f"▁{chr(code)}" for code in range(98, 123)), "s", "ing")
CLS, SEP = TOKENS.index("[CLS]"), TOKENS.index("[SEP]")
N_EMBD, N_FF, N_HEAD, N_BLOCKS, EPSILON = 32, 64, 4, 2, 1e-5


def weights(n_ctx: int, seed: int = 0) -> dict[str, Array]:
    """Return the tensors, rows first."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> Array:
        return (random.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(np.float32)

    def vector(n: int, around: float = 0.0) -> Array:
        return (around + 0.1 * random.standard_normal(n)).astype(np.float32)

    tensors = {
        "token_embd.weight": matrix(len(TOKENS), N_EMBD, 3.0),
        "token_types.weight": matrix(2, N_EMBD),
        "position_embd.weight": matrix(n_ctx, N_EMBD, 2.0),
    }
    tensors |= {"token_embd_norm.weight": vector(N_EMBD, 1.0), "token_embd_norm.bias": vector(N_EMBD)}
    shapes = {
        "attn_q": (N_EMBD, N_EMBD), "attn_k": (N_EMBD, N_EMBD), "attn_v": (N_EMBD, N_EMBD),
        "attn_output": (N_EMBD, N_EMBD), "ffn_up": (N_FF, N_EMBD), "ffn_down": (N_EMBD, N_FF),
    }  # fmt: skip
    for i in range(N_BLOCKS):
        for name, (rows, columns) in shapes.items():
            tensors[f"blk.{i}.{name}.weight"] = matrix(rows, columns, 1.5)
            tensors[f"blk.{i}.{name}.bias"] = vector(rows)
        for name in ("attn_output_norm", "layer_output_norm"):
            tensors[f"blk.{i}.{name}.weight"] = vector(N_EMBD, 1.0)
            tensors[f"blk.{i}.{name}.bias"] = vector(N_EMBD)
    return tensors


def write_tiny_bert(
    path: Path,
    *,
    pooling: gguf.PoolingType | None = gguf.PoolingType.MEAN,
    n_ctx: int = 128,
    seed: int = 0,
    metadata: Mapping[str, bool] | None = None,
) -> Path:
    """Write a tiny BERT; `pooling` None leaves the key out."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("Tiny BERT of the tests")
    writer.add_block_count(N_BLOCKS)
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    for key, value in (metadata or {}).items():
        writer.add_bool(key, value)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(TOKENS))
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token in SPECIALS else normal for token in TOKENS])
    writer.add_token_type_count(2)
    writer.add_bos_token_id(CLS)
    writer.add_sep_token_id(SEP)
    writer.add_eos_token_id(SEP)
    writer.add_unk_token_id(TOKENS.index("[UNK]"))
    writer.add_pad_token_id(TOKENS.index("[PAD]"))
    for name, tensor in weights(n_ctx, seed).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def hidden(tokens: list[int], *, n_ctx: int = 128, seed: int = 0) -> Array:
    """Return what the model makes of each token (n × N_EMBD)."""
    w = {name: tensor.astype(np.float64) for name, tensor in weights(n_ctx, seed).items()}
    x = w["token_embd.weight"][tokens] + w["token_types.weight"][0] + w["position_embd.weight"][: len(tokens)]
    x = _norm(x, w, "token_embd_norm")
    for i in range(N_BLOCKS):
        q, k, v = (_linear(x, w, f"blk.{i}.attn_{each}").reshape(len(x), N_HEAD, -1) for each in "qkv")
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(N_EMBD // N_HEAD)
        attention = np.exp(scores - scores.max(-1, keepdims=True))
        attention /= attention.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", attention, v).reshape(len(x), N_EMBD)
        x = _norm(x + _linear(mixed, w, f"blk.{i}.attn_output"), w, f"blk.{i}.attn_output_norm")
        up = _linear(x, w, f"blk.{i}.ffn_up")
        gelu = up / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
        x = _norm(x + _linear(gelu, w, f"blk.{i}.ffn_down"), w, f"blk.{i}.layer_output_norm")
    return x


def _linear(x: Array, w: Mapping[str, Array], name: str) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(x: Array, w: Mapping[str, Array], name: str) -> Array:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * w[f"{name}.weight"] + w[f"{name}.bias"]
