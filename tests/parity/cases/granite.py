"""Granite: dense, mixtures of experts, hybrids with Mamba 2."""

from parity.case import SHAPE, Case, Config, Tensors

SCALES: Config = {
    "attention_multiplier": 0.2,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.7,
    "logits_scaling": 2.5,
}
MIXER: Config = {
    "mamba_n_heads": 4,
    "mamba_n_groups": 2,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}
HYBRID: Config = {
    **SHAPE,
    **SCALES,
    **MIXER,
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "shared_intermediate_size": 80,
}
ONLY_SCALE = "it scales all logits alike: neither their cosine nor their order changes"
UNREAD = "llama.cpp reads it only where there is a mixer"


def older_names(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Name the layers as published configs do."""
    names = {"linear_attention": "mamba", "full_attention": "attention"}
    config["layer_types"] = [names[kind] for kind in config["layer_types"]]
    config["position_embedding_type"] = config["position_embedding_type"] or "nope"
    config["time_step_limit"] = None
    return tensors, config


CASES = (
    Case(
        id="granite-plain",
        hf="GraniteForCausalLM",
        config=SHAPE | SCALES | {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}},
        tokenizer="bpe-gpt2",
        inert={"logit_scale": ONLY_SCALE},
    ),
    Case(
        id="granite-old",
        hf="GraniteForCausalLM",
        config=SHAPE
        | SCALES
        | {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        tokenizer="bpe-gpt2",
        dialect="old",
        dtype="bfloat16",
        shards=3,
        inert={"logit_scale": ONLY_SCALE},
    ),
    Case(
        id="granite-head_dim",
        hf="GraniteForCausalLM",
        config=SHAPE
        | SCALES
        | {
            "head_dim": 24,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0},
        },
        tokenizer="spm-llama",
        reference="ignores head_dim and makes a file that llama.cpp does not load",
        inert={"logit_scale": ONLY_SCALE},
    ),
    Case(
        id="granite-moe",
        hf="GraniteMoeForCausalLM",
        config=SHAPE | SCALES | {"num_local_experts": 4, "num_experts_per_tok": 2},
        tokenizer="bpe-gpt2",
        shards=2,
        inert={"logit_scale": ONLY_SCALE},
    ),
    Case(
        id="granite-moe-shared",
        hf="GraniteMoeSharedForCausalLM",
        config=SHAPE
        | SCALES
        | {
            "num_local_experts": 5,
            "num_experts_per_tok": 3,
            "shared_intermediate_size": 80,
            "tie_word_embeddings": True,
        },
        tokenizer="bpe-gpt2",
        dtype="float16",
        dialect="old",
        inert={"logit_scale": ONLY_SCALE},
    ),
    Case(
        id="granite-hybrid",
        hf="GraniteMoeHybridForCausalLM",
        config=HYBRID,
        tokenizer="bpe-gpt2",
        reference="knows the kinds of layers only by their older names",
        inert={"logit_scale": ONLY_SCALE, "rope.freq_base": "no rope", "rope.dimension_count": "no rope"},
    ),
    Case(
        id="granite-hybrid-old",
        hf="GraniteMoeHybridForCausalLM",
        config=HYBRID | {"tie_word_embeddings": True},
        tokenizer="bpe-gpt2",
        dialect="old",
        dtype="bfloat16",
        rewrite=older_names,
        shards=2,
        inert={"logit_scale": ONLY_SCALE, "rope.freq_base": "no rope", "rope.dimension_count": "no rope"},
    ),
    Case(
        id="granite-hybrid-dense",
        hf="GraniteMoeHybridForCausalLM",
        config=HYBRID
        | {
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "intermediate_size": 80,
            "position_embedding_type": "rope",
        },
        tokenizer="bpe-gpt2",
        rewrite=older_names,
        reference="leaves rope out of every model that has a mixer",
        inert={"logit_scale": ONLY_SCALE, "expert_shared_feed_forward_length": "read where there are experts"},
    ),
    Case(
        id="granite-hybrid-attention",
        hf="GraniteMoeHybridForCausalLM",
        config=HYBRID
        | {
            "layer_types": ["full_attention"] * 3,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "intermediate_size": 80,
            "position_embedding_type": "rope",
        },
        tokenizer="bpe-gpt2",
        rewrite=older_names,
        inert={
            "logit_scale": ONLY_SCALE,
            "expert_shared_feed_forward_length": "read where there are experts",
            **dict.fromkeys((f"ssm.{key}" for key in ("conv_kernel", "state_size", "group_count")), UNREAD),
            **dict.fromkeys((f"ssm.{key}" for key in ("inner_size", "time_step_rank")), UNREAD),
        },
    ),
    Case(
        id="granite-hybrid-moe",
        hf="GraniteMoeHybridForCausalLM",
        config=HYBRID | {"layer_types": ["full_attention"] * 3, "position_embedding_type": "rope"},
        tokenizer="bpe-gpt2",
        rewrite=older_names,
        inert={
            "logit_scale": ONLY_SCALE,
            "rope.scaling.finetuned": "llama.cpp does not read it for granitemoe, which always has rope",
            **dict.fromkeys((f"ssm.{key}" for key in ("conv_kernel", "state_size", "group_count")), UNREAD),
            **dict.fromkeys((f"ssm.{key}" for key in ("inner_size", "time_step_rank")), UNREAD),
        },
    ),
)
