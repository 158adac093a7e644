"""A tiny model packed by hand, that loads and answers, of which any key and any tensor can be made wrong.

What `tiny_gguf` writes through a library, which writes nothing wrong, this packs byte for byte.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from support.packed_gguf import ARRAY, BOOL, F32, I32, STRING, U32, array, key, pack, tensor
from support.tiny_gguf import CHATML, MERGES, vocabulary

Value = tuple[Any, ...]  # (kind, content) of a scalar or text, (ARRAY, kind, items) of an array
Weights = tuple[tuple[int, ...], int, bytes]  # shape with the row length first, ggml's number of the type, bytes
N_EMBD, N_FF, N_HEAD, N_HEAD_KV, HEAD = 64, 128, 4, 2, 16
N_TOKENS = len(vocabulary()[0])


def crafted(
    keys: Mapping[str, Value | None] | None = None,
    tensors: Mapping[str, Weights | None] | None = None,
    *,
    architecture: str = "llama",
    first: bytes = b"",
) -> bytes:
    """Pack the model with these changes.

    Args:
        keys: instead of, or on top of, the usual ones, and behind them; None leaves one out. `{a}` is the architecture.
        tensors: likewise.
        first: packed metadata entries before all others, counted as one.
    """
    changes = {name.replace("{a}", architecture): value for name, value in (keys or {}).items()}
    named = {name: value for name, value in metadata(architecture).items() if name not in changes} | changes
    packed = [pack_value(name, value) for name, value in named.items() if value is not None]
    weights = {name: each for name, each in (dict(_weights()) | dict(tensors or {})).items() if each is not None}
    entries, data = [], b""
    for name, (shape, type_id, raw) in weights.items():
        entries.append(tensor(name, shape, type_id, len(data)))
        data += raw + bytes(-len(raw) % 32)
    return pack([first, *packed] if first else packed, entries, data)


def pack_value(name: str | bytes, value: Value) -> bytes:
    """Pack a metadata entry."""
    return array(name, value[1], value[2]) if value[0] == ARRAY else key(name, value[0], value[1])


def metadata(architecture: str = "llama") -> dict[str, Value]:
    """Return the usual keys."""
    tokens, kinds = vocabulary()
    own = {
        "block_count": (U32, 1),
        "context_length": (U32, 512),
        "embedding_length": (U32, N_EMBD),
        "feed_forward_length": (U32, N_FF),
        "attention.head_count": (U32, N_HEAD),
        "attention.head_count_kv": (U32, N_HEAD_KV),
        "attention.layer_norm_rms_epsilon": (F32, 1e-5),
        "rope.dimension_count": (U32, HEAD),
        "rope.freq_base": (F32, 10000.0),
    }
    return {
        "general.architecture": (STRING, architecture),
        **{f"{architecture}.{name}": value for name, value in own.items()},
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.pre": (STRING, "smollm"),
        "tokenizer.ggml.tokens": (ARRAY, STRING, tokens),
        "tokenizer.ggml.token_type": (ARRAY, I32, kinds),
        "tokenizer.ggml.merges": (ARRAY, STRING, list(MERGES)),
        "tokenizer.ggml.bos_token_id": (U32, tokens.index("<|im_start|>")),
        "tokenizer.ggml.eos_token_id": (U32, tokens.index("<|im_end|>")),
        "tokenizer.ggml.add_bos_token": (BOOL, False),
        "tokenizer.chat_template": (STRING, CHATML),
    }


def weights(*shape: int, seed: int = 0) -> Weights:
    """Return random 32-bit weights of this shape."""
    random = np.random.default_rng([seed, *shape])
    return shape, 0, (random.standard_normal(shape[::-1]) / math.sqrt(shape[0])).astype("<f4").tobytes()


def filled(type_id: int, n_bytes: int, *shape: int) -> Weights:
    """Return weights of any type, all of whose bytes are zero."""
    return shape, type_id, bytes(n_bytes)


@functools.cache
def _weights() -> Mapping[str, Weights]:
    ones = (N_EMBD,), 0, np.ones(N_EMBD, "<f4").tobytes()
    return {
        "token_embd.weight": weights(N_EMBD, N_TOKENS),
        "blk.0.attn_norm.weight": ones,
        "blk.0.attn_q.weight": weights(N_EMBD, N_HEAD * HEAD, seed=1),
        "blk.0.attn_k.weight": weights(N_EMBD, N_HEAD_KV * HEAD, seed=2),
        "blk.0.attn_v.weight": weights(N_EMBD, N_HEAD_KV * HEAD, seed=3),
        "blk.0.attn_output.weight": weights(N_HEAD * HEAD, N_EMBD, seed=4),
        "blk.0.ffn_norm.weight": ones,
        "blk.0.ffn_gate.weight": weights(N_EMBD, N_FF, seed=5),
        "blk.0.ffn_up.weight": weights(N_EMBD, N_FF, seed=6),
        "blk.0.ffn_down.weight": weights(N_FF, N_EMBD, seed=7),
        "output_norm.weight": ones,
        "output.weight": weights(N_EMBD, N_TOKENS, seed=8),
    }
