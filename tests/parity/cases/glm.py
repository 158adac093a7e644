"""GLM 4, dense and mixtures."""

from parity.case import SHAPE, Case
from parity.cases.deepseek import NO_DENSE, published_v3

YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 48,
    "partial_rotary_factor": 0.5,
}
MIXTURE = SHAPE | {
    "num_hidden_layers": 3,
    "head_dim": 24,
    "moe_intermediate_size": 40,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7,
}
ONE_GROUP = {"expert_group_used_count": "there is one group"}
GROUPS = {"n_group": 4, "topk_group": 2, "n_routed_experts": 16}

CASES = (
    Case(id="glm4-gqa", hf="Glm4ForCausalLM", config=SHAPE | {"head_dim": 16}, tokenizer="bpe-glm4", dtype="bfloat16"),
    Case(
        id="glm4-yarn",
        hf="Glm4ForCausalLM",
        config=SHAPE | {"head_dim": 24, "num_key_value_heads": 4, "attention_bias": False, "rope_parameters": YARN},
        tokenizer="bpe-glm4",
        dialect="old",
        shards=2,
    ),
    Case(
        id="glm4-tied",
        hf="Glm4ForCausalLM",
        config=SHAPE
        | {
            "head_dim": 32,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.25},
        },
        tokenizer="bpe-glm4",
        pad_vocab=8,
    ),
    Case(
        id="glm4moe-norms",
        hf="Glm4MoeForCausalLM",
        config=MIXTURE | {"use_qk_norm": True, "attention_bias": True},
        tokenizer="bpe-glm4",
        inert=ONE_GROUP,
    ),
    Case(
        id="glm4moe-next",
        hf="Glm4MoeForCausalLM",
        config=MIXTURE | GROUPS,
        tokenizer="bpe-glm4",
        rewrite=lambda tensors, config: (published_v3(tensors, config)[0], config),
        dialect="old",
        dtype="bfloat16",
        shards=3,
    ),
    Case(
        id="glm4moe-yarn",
        hf="Glm4MoeForCausalLM",
        config=MIXTURE
        | {
            "rope_parameters": YARN,
            "num_mtp_layers": 0,
            "norm_topk_prob": False,
            "first_k_dense_replace": 0,
            "tie_word_embeddings": True,
        },
        tokenizer="bpe-glm4",
        dtype="float16",
        inert=NO_DENSE | ONE_GROUP,
    ),
)
