"""Ernie 4.5, dense."""

import torch

from parity.case import SHAPE, Case, Config, Tensors


def joined(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Name and join tensors as the class of the first published repos did."""
    made = dict(tensors)
    for i in range(config["num_hidden_layers"]):
        for part, names, new in (
            ("self_attn", ("q_proj", "k_proj", "v_proj"), "qkv_proj"),
            ("mlp", ("gate_proj", "up_proj"), "up_gate_proj"),
        ):
            place = f"model.layers.{i}.{part}"
            pieces = [made.pop(f"{place}.{name}.weight") for name in names]
            made[f"{place}.{new}.weight"] = torch.cat(pieces)
    return {name.replace("model.", "ernie."): each for name, each in made.items()}, config


CASES = (
    Case(
        id="ernie-tied",
        hf="Ernie4_5ForCausalLM",
        config=SHAPE | {"tie_word_embeddings": True, "head_dim": 24},
        tokenizer="spm-llama",
        dtype="bfloat16",
    ),
    Case(
        id="ernie-plain",
        hf="Ernie4_5ForCausalLM",
        config=SHAPE
        | {
            "num_key_value_heads": 4,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 900.0},
        },
        tokenizer="spm-llama",
        dialect="old",
        shards=3,
    ),
    Case(
        id="ernie-joined",
        hf="Ernie4_5_ForCausalLM",
        made_by="Ernie4_5ForCausalLM",
        config=SHAPE | {"head_dim": 16},
        tokenizer="spm-llama",
        rewrite=joined,
        dtype="float16",
    ),
)
