"""DeepSeek: the first mixture, V2, V3."""

from typing import Any

import torch

from parity.case import SHAPE, Case, Config, Tensors

MIXTURE = {
    "moe_intermediate_size": 40,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7,
    "n_group": 1,
    "topk_group": 1,
}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "rms_norm_eps": 1e-6,  # the class has this for the latent's norm, llama.cpp one for all
}
BASE = SHAPE | {"num_hidden_layers": 3} | MIXTURE | LATENT
GROUPS = {"n_group": 4, "topk_group": 2, "n_routed_experts": 16}
THETA = {"rope_type": "default", "rope_theta": 700.0}
ONE_GROUP = {"expert_group_used_count": "there is one group"}
VALUES = {"attention.value_length": "llama.cpp takes values from the latent part of the keys"}
BETAS = dict.fromkeys(("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"), "llama.cpp does not read it")
NO_DENSE = {"feed_forward_length": "every layer is a mixture"}
UNREAD = {"expert_gating_func": "llama.cpp does not read it", "rope.scaling.type": "there is no factor"}


def yarn(scale: float) -> Config:
    """Describe yarn with both of its scales."""
    return {
        "rope_type": "yarn",
        "rope_theta": 60.0,
        "factor": 4.0,
        "original_max_position_embeddings": 48,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": scale,
        "mscale_all_dim": scale,
    }


def published_v2(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Give config.json the keys that the published ones have and transformers 5 does not write."""
    return tensors, config | {
        "scoring_func": "softmax",
        "moe_layer_freq": 1,
        "aux_loss_alpha": 0.001,
        "seq_aux": True,
        "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV2Config"},
    }


def published_v3(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """The same for V3, and a layer after the last one that predicts a further token."""
    generator = torch.Generator().manual_seed(3)
    last, n_layers = f"model.layers.{config['num_hidden_layers'] - 1}.", config["num_hidden_layers"]
    more = {
        name.replace(last, f"model.layers.{n_layers}."): torch.randn(each.shape, generator=generator)
        for name, each in tensors.items()
        if name.startswith(last)
    }
    width = config["hidden_size"]
    for name, shape in (
        ("eh_proj.weight", (width, 2 * width)),
        ("enorm.weight", (width,)),
        ("hnorm.weight", (width,)),
        ("shared_head.norm.weight", (width,)),
        ("shared_head.head.weight", (config["vocab_size"], width)),
        ("embed_tokens.weight", (config["vocab_size"], width)),
    ):
        more[f"model.layers.{n_layers}.{name}"] = torch.randn(shape, generator=generator)
    return tensors | more, config | {
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "moe_layer_freq": 1,
        "ep_size": 1,
        "num_nextn_predict_layers": 1,
    }


def with_other_output(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Add output embeddings that a tied model does not use."""
    other = torch.randn(tensors["model.embed_tokens.weight"].shape, generator=torch.Generator().manual_seed(5))
    return tensors | {"lm_head.weight": other}, config


def no_gate(model: Any, generator: torch.Generator) -> None:
    """Let Qwen's shared expert pass by half, whatever the token."""
    for name, tensor in model.named_parameters():
        if "shared_expert_gate" in name:
            tensor.zero_()


def from_qwen2_moe(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Turn Qwen 2's mixture, with its shared expert's gate half open, into the first DeepSeek's."""
    made = {}
    for name, each in tensors.items():
        if "shared_expert_gate" not in name:
            half = name.endswith("shared_expert.down_proj.weight")
            made[name.replace("shared_expert.", "shared_experts.")] = each * 0.5 if half else each
    kept = SHAPE.keys() | {"vocab_size", "bos_token_id", "eos_token_id", "architectures", "dtype", "rope_parameters",
                           "norm_topk_prob", "num_experts_per_tok", "moe_intermediate_size", "hidden_act"}  # fmt: skip
    return made, {key: each for key, each in config.items() if key in kept} | {
        "model_type": "deepseek",
        "first_k_dense_replace": len(config["mlp_only_layers"]),
        "n_routed_experts": config["num_experts"],
        "n_shared_experts": config["shared_expert_intermediate_size"] // config["moe_intermediate_size"],
        "moe_layer_freq": 1,
        "scoring_func": "softmax",
        "aux_loss_alpha": 0.001,
    }


QWEN = SHAPE | {
    "num_hidden_layers": 3,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 80,
    "qkv_bias": False,
    "norm_topk_prob": False,
    "mlp_only_layers": [0],
}

CASES = (
    Case(
        id="deepseek-moe-plain",
        hf="DeepseekForCausalLM",
        made_by="Qwen2MoeForCausalLM",
        config=QWEN | {"num_key_value_heads": 4, "rope_parameters": THETA},
        tokenizer="bpe-deepseek3",
        fill=no_gate,
        rewrite=from_qwen2_moe,
        dialect="old",
        inert=UNREAD,
    ),
    Case(
        id="deepseek-moe-gqa",
        hf="DeepseekForCausalLM",
        made_by="Qwen2MoeForCausalLM",
        config=QWEN | {"mlp_only_layers": [0, 1]},
        tokenizer="spm-llama",
        fill=no_gate,
        rewrite=from_qwen2_moe,
        dtype="float16",
        shards=3,
        inert=UNREAD,
    ),
    Case(
        id="deepseek-v2-yarn",
        hf="DeepseekV2ForCausalLM",
        config=BASE | {"qk_rope_head_dim": 16, "rope_parameters": yarn(0.707)},
        tokenizer="bpe-deepseek3",
        rewrite=published_v2,
        dialect="old",
        dtype="bfloat16",
        shards=3,
        inert=VALUES | ONE_GROUP | BETAS,
    ),
    Case(
        id="deepseek-v2-lite",
        hf="DeepseekV2ForCausalLM",
        config=BASE | {"num_hidden_layers": 27, "q_lora_rank": None, "rope_parameters": THETA},
        tokenizer="bpe-deepseek3",
        inert=VALUES | ONE_GROUP,
    ),
    Case(
        id="deepseek-v2-no_q_lora",
        hf="DeepseekV2ForCausalLM",
        config=BASE | {"q_lora_rank": None, "first_k_dense_replace": 0, "rope_parameters": THETA},
        tokenizer="bpe-llama3",
        reference="says nothing of q_lora_rank, and llama.cpp loads that with 26 or 27 layers only",
        inert=VALUES | ONE_GROUP | NO_DENSE,
    ),
    Case(
        id="deepseek-v2-groups",
        hf="DeepseekV2ForCausalLM",
        config=BASE | GROUPS | {"topk_method": "group_limited_greedy", "rope_parameters": THETA},
        tokenizer="bpe-deepseek3",
        logits="llama.cpp ranks groups of experts by the sum of their best two, the class by the best",
    ),
    Case(
        id="deepseek-v2-greedy",
        hf="DeepseekV2ForCausalLM",
        config=BASE | GROUPS | {"topk_method": "greedy", "rope_parameters": THETA},
        tokenizer="bpe-deepseek3",
        reference="writes groups of experts, which the class does not look at",
        inert=VALUES,
    ),
    Case(
        id="deepseek-v2-tied",
        hf="DeepseekV2ForCausalLM",
        config=BASE | {"tie_word_embeddings": True},
        tokenizer="bpe-deepseek3",
        rewrite=with_other_output,
        inert=VALUES | ONE_GROUP,
    ),
    Case(
        id="deepseek-v3-plain",
        hf="DeepseekV3ForCausalLM",
        config=BASE | GROUPS | {"rope_parameters": THETA},
        tokenizer="bpe-deepseek3",
        allowed={"deepseek2.expert_gating_func": "transformers 5 does not write scoring_func; the class has sigmoid"},
        pad_vocab=8,
        inert=VALUES,
    ),
    Case(
        id="deepseek-v3-r1",
        hf="DeepseekV3ForCausalLM",
        config=BASE
        | GROUPS
        | {"qk_rope_head_dim": 16, "rope_parameters": yarn(1.0), "num_hidden_layers": 4, "first_k_dense_replace": 2},
        tokenizer="bpe-deepseek3",
        rewrite=published_v3,
        dialect="old",
        dtype="bfloat16",
        shards=4,
        inert=VALUES | BETAS,
    ),
    Case(
        id="deepseek-v3-tied",
        hf="DeepseekV3ForCausalLM",
        config=BASE | {"tie_word_embeddings": True, "q_lora_rank": None, "norm_topk_prob": False, "num_mtp_layers": 0},
        tokenizer="bpe-llama3",
        rewrite=with_other_output,
        reference="says nothing of q_lora_rank, and llama.cpp loads that with 26 or 27 layers only",
        dtype="float16",
        inert=VALUES | ONE_GROUP,
    ),
)
