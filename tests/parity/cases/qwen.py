"""Qwen 2 and 3, dense and mixtures."""

import math
from typing import Any

from parity.case import SHAPE, Case, Config, Tensors
from parity.cases.llama import YARN

YARN_INERT = {
    "rope.scaling.yarn_beta_fast": "llama.cpp does not read it for this architecture: it computes with 32",
    "rope.scaling.yarn_beta_slow": "llama.cpp does not read it for this architecture: it computes with 1",
    "rope.scaling.yarn_attn_factor": "llama.cpp does not read it for this architecture: it follows from the factor",
}
USUAL = {"beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 0.1 * math.log(YARN["factor"]) + 1}
EXPERTS = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
}
OWN_WIDTHS = {"feed_forward_length": "llama.cpp takes the widths of the experts and of the shared one"}
QWEN2_MOE = SHAPE | EXPERTS | {"shared_expert_intermediate_size": 80}
QWEN3_MOE = SHAPE | EXPERTS | {"head_dim": 24, "norm_topk_prob": True}


def fused_experts(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Keep the experts of a layer as two stacks, as transformers 5 has them in memory."""
    import torch

    made: dict[str, Any] = {name: each for name, each in tensors.items() if ".experts." not in name}
    for i in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{i}.mlp.experts"
        gate, up, down = (
            torch.stack([tensors[f"{prefix}.{j}.{name}_proj.weight"] for j in range(EXPERTS["num_experts"])])
            for name in ("gate", "up", "down")
        )
        made |= {f"{prefix}.gate_up_proj": torch.cat([gate, up], 1), f"{prefix}.down_proj": down}
    return made, config


CASES = (
    Case(id="qwen2-plain", hf="Qwen2ForCausalLM", config=SHAPE, tokenizer="bpe-qwen2"),
    Case(
        id="qwen2-tied",
        hf="Qwen2ForCausalLM",
        config=SHAPE | {"tie_word_embeddings": True},
        tokenizer="bpe-qwen2",
        dialect="old",
        dtype="bfloat16",
        pad_vocab=8,
    ),
    Case(
        id="qwen2-yarn",
        hf="Qwen2ForCausalLM",
        config=SHAPE | {"rope_parameters": YARN, "hidden_size": 128, "num_hidden_layers": 3},
        tokenizer="bpe-qwen2",
        dialect="old",
        shards=3,
    ),
    Case(
        id="qwen2-window",
        hf="Qwen2ForCausalLM",
        config=SHAPE | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2},
        tokenizer="bpe-qwen2",
        dtype="float16",
    ),
    Case(
        id="qwen2moe-plain",
        hf="Qwen2MoeForCausalLM",
        config=QWEN2_MOE,
        tokenizer="bpe-qwen2",
        shards=2,
        inert=OWN_WIDTHS,
    ),
    Case(
        id="qwen2moe-old",
        hf="Qwen2MoeForCausalLM",
        config=QWEN2_MOE | {"num_key_value_heads": 4, "num_experts_per_tok": 3},
        tokenizer="bpe-qwen2",
        dialect="old",
        dtype="bfloat16",
        inert=OWN_WIDTHS,
    ),
    Case(
        id="qwen2moe-tied",
        hf="Qwen2MoeForCausalLM",
        config=QWEN2_MOE | {"tie_word_embeddings": True},
        tokenizer="bpe-qwen2",
        reference="leaves the output embeddings out, without which llama.cpp does not load this architecture",
        inert=OWN_WIDTHS,
    ),
    Case(
        id="qwen2moe-fused",
        hf="Qwen2MoeForCausalLM",
        config=QWEN2_MOE,
        tokenizer="bpe-qwen2",
        rewrite=fused_experts,
        dtype="bfloat16",
        inert=OWN_WIDTHS,
    ),
    Case(id="qwen3-plain", hf="Qwen3ForCausalLM", config=SHAPE | {"head_dim": 24}, tokenizer="bpe-qwen2"),
    Case(
        id="qwen3-tied",
        hf="Qwen3ForCausalLM",
        config=SHAPE | {"head_dim": 32, "tie_word_embeddings": True, "rope_parameters": YARN | USUAL},
        tokenizer="bpe-qwen2",
        dialect="old",
        dtype="bfloat16",
        shards=4,
        inert=YARN_INERT,
    ),
    Case(
        id="qwen3moe-plain",
        hf="Qwen3MoeForCausalLM",
        config=QWEN3_MOE,
        tokenizer="bpe-qwen2",
        shards=3,
        inert=OWN_WIDTHS,
    ),
    Case(
        id="qwen3moe-tied",
        hf="Qwen3MoeForCausalLM",
        config=QWEN3_MOE | {"tie_word_embeddings": True, "num_experts_per_tok": 4, "rope_parameters": YARN},
        tokenizer="bpe-qwen2",
        dialect="old",
        dtype="bfloat16",
        inert=OWN_WIDTHS,
    ),
    Case(
        id="qwen3moe-fused",
        hf="Qwen3MoeForCausalLM",
        config=QWEN3_MOE,
        tokenizer="bpe-qwen2",
        rewrite=fused_experts,
        inert=OWN_WIDTHS,
    ),
)
