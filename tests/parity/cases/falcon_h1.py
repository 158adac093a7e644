"""Falcon-H1."""

from parity.case import SHAPE, Case, Config

MULTIPLIERS: Config = {
    "embedding_multiplier": 2.5,
    "lm_head_multiplier": 0.4,
    "mlp_multipliers": [0.8, 1.7],
    "key_multiplier": 0.6,
    "attention_in_multiplier": 1.3,
    "attention_out_multiplier": 0.7,
    "ssm_in_multiplier": 1.2,
    "ssm_out_multiplier": 0.8,
    "ssm_multipliers": [0.7, 1.4, 0.6, 1.2, 0.8],
}
FALCON_H1: Config = {
    **SHAPE,
    **MULTIPLIERS,
    "head_dim": 24,
    "mamba_d_ssm": 96,
    "mamba_n_heads": 6,
    "mamba_n_groups": 2,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
}

CASES = (
    Case(
        id="falcon_h1-plain",
        hf="FalconH1ForCausalLM",
        config=FALCON_H1 | {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}},
        tokenizer="bpe-gpt2",
        shards=2,
    ),
    Case(
        id="falcon_h1-norm",
        hf="FalconH1ForCausalLM",
        config=FALCON_H1
        | {
            "mamba_rms_norm": True,
            "mamba_norm_before_gate": False,
            "mlp_bias": True,
            "num_key_value_heads": 4,
            "head_dim": 16,
        },
        tokenizer="bpe-gpt2",
        dialect="old",
        dtype="bfloat16",
    ),
    Case(
        id="falcon_h1-tied",
        hf="FalconH1ForCausalLM",
        config={key: value for key, value in FALCON_H1.items() if key != "head_dim"}
        | {"tie_word_embeddings": True, "mamba_d_ssm": 128, "mamba_n_heads": 4},
        tokenizer="bpe-gpt2",
        reference="has one scale for tied embeddings, where the class has two",
    ),
)
