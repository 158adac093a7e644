"""A tiny checkpoint as publishers lay it out: config.json, tokenizer.json and safetensors, without torch.

The same shape of model as `tiny_gguf`, so that what is made of it runs. Made in milliseconds from a fixed seed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from support.tiny_gguf import CHATML, MERGES, SPECIALS, vocabulary
from support.tiny_safetensors import pack

# The pre-tokenizer of SmolLM: digits one by one, then GPT-2's.
PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
CARD = "---\nlicense: apache-2.0\nlanguage:\n- en\n---\n# Tiny\n"

Arrays = dict[str, np.ndarray | tuple[str, tuple[int, ...], bytes]]


def write_tiny_checkpoint(
    folder: Path,
    *,
    n_shards: int = 1,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write a checkpoint to `folder`, which is made, and return it.

    Args:
        n_shards: files to spread the tensors over; more than one makes an index.
        config: keys on top of the usual ones; None removes a key.
        tensors: tensors on top of the usual ones; None removes one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files_of(n_shards=n_shards, config=config, tensors=tensors, seed=seed).items():
        (folder / name).write_bytes(content)
    return folder


def files_of(
    *,
    n_shards: int = 1,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, bytes]:
    """Return the files of a checkpoint by name; see `write_tiny_checkpoint`."""
    words, _ = vocabulary()
    settings = CONFIG | {"vocab_size": len(words)} | dict(config or {})
    arrays = _arrays(settings, seed) | dict(tensors or {})
    arrays = {name: array for name, array in arrays.items() if array is not None}
    files = {
        "config.json": _json({key: value for key, value in settings.items() if value is not None}),
        "generation_config.json": _json({"temperature": 0.25, "top_p": 0.5, "do_sample": True}),
        "tokenizer.json": _json(_tokenizer(words)),
        "tokenizer_config.json": _json(
            {
                "tokenizer_class": "GPT2Tokenizer",
                "bos_token": "<|im_start|>",
                "eos_token": "<|im_end|>",
                "chat_template": CHATML,
            }
        ),
        "README.md": CARD.encode(),
    }
    return files | _weights(arrays, n_shards)


def _weights(arrays: Mapping[str, Any], n_shards: int) -> dict[str, bytes]:
    if n_shards == 1:
        return {"model.safetensors": pack(arrays)}
    names = list(arrays)
    files, index = {}, {}
    for shard in range(n_shards):
        name = f"model-{shard + 1:05}-of-{n_shards:05}.safetensors"
        held = names[shard::n_shards]
        files[name] = pack({tensor: arrays[tensor] for tensor in held})
        index |= dict.fromkeys(held, name)
    return files | {"model.safetensors.index.json": _json({"metadata": {}, "weight_map": index})}


def bf16(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """Return an array as bfloat16, cut off."""
    return "BF16", array.shape, (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


def _arrays(config: Mapping[str, Any], seed: int) -> Arrays:
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> tuple[str, tuple[int, ...], bytes]:
        few = random.standard_normal(min(rows * columns, 1 << 16)).astype(np.float32)  # again and again in a large one
        return bf16(np.resize(few / np.sqrt(columns), (rows, columns)))

    n_embd, n_ff, n_vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    n_kv = n_embd // config["num_attention_heads"] * config["num_key_value_heads"]
    gain = bf16(np.ones(n_embd, np.float32))
    arrays: Arrays = {"model.embed_tokens.weight": matrix(n_vocab, n_embd)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        arrays |= {
            f"{layer}.input_layernorm.weight": gain,
            f"{layer}.self_attn.q_proj.weight": matrix(n_embd, n_embd),
            f"{layer}.self_attn.k_proj.weight": matrix(n_kv, n_embd),
            f"{layer}.self_attn.v_proj.weight": matrix(n_kv, n_embd),
            f"{layer}.self_attn.o_proj.weight": matrix(n_embd, n_embd),
            f"{layer}.post_attention_layernorm.weight": gain,
            f"{layer}.mlp.gate_proj.weight": matrix(n_ff, n_embd),
            f"{layer}.mlp.up_proj.weight": matrix(n_ff, n_embd),
            f"{layer}.mlp.down_proj.weight": matrix(n_embd, n_ff),
        }
    return arrays | {"model.norm.weight": gain, "lm_head.weight": matrix(n_vocab, n_embd)}


def _tokenizer(words: list[str]) -> dict[str, Any]:
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
            for i, text in enumerate(SPECIALS)
        ],
        "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZER,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {text: i for i, text in enumerate(words)}, "merges": _merges(words),
        },
    }  # fmt: skip


def _merges(words: list[str]) -> list[str]:
    """Return the merges of which both halves are tokens, as `tokenizers` demands."""
    return [merge for merge in MERGES if all(half in words for half in merge.split(" "))]


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()
