"""MiniCPM, made by Granite, which has the same scales under other names."""

from parity.case import SHAPE, Case, Config, Tensors

GRANITE = SHAPE | {
    "num_hidden_layers": 4,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.7,
    "attention_multiplier": 0.25,
    "logits_scaling": 4.0,
}

ONLY_SCALE = {"logit_scale": "a factor of all logits, which neither cosine nor rank can show"}


def from_granite(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Say the scales in MiniCPM's way."""
    made = {key: each for key, each in config.items() if not key.endswith(("_multiplier", "_scaling"))}
    return tensors, made | {
        "model_type": "minicpm",
        "scale_emb": config["embedding_multiplier"],
        "scale_depth": config["residual_multiplier"] * config["num_hidden_layers"] ** 0.5,
        "dim_model_base": config["hidden_size"] // int(config["logits_scaling"]),
    }


def long_rope(context: int) -> Config:
    """Describe the rope of MiniCPM 4, whose context of training is the whole context."""
    return {
        "rope_type": "longrope",
        "rope_theta": 700.0,
        "short_factor": [1.0, 1.1, 1.2, 1.4, 1.7, 2.1, 2.6, 3.2],
        "long_factor": [1.0, 1.3, 1.9, 2.8, 4.0, 5.5, 7.3, 9.4],
        "original_max_position_embeddings": context,
    }


CASES = (
    Case(
        id="minicpm-tied",
        hf="MiniCPMForCausalLM",
        made_by="GraniteForCausalLM",
        config=GRANITE | {"num_key_value_heads": 4, "tie_word_embeddings": True},
        tokenizer="spm-llama",
        rewrite=from_granite,
        inert=ONLY_SCALE,
        dialect="old",
        dtype="bfloat16",
    ),
    Case(
        id="minicpm-gqa",
        hf="MiniCPMForCausalLM",
        made_by="GraniteForCausalLM",
        config=GRANITE | {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}},
        tokenizer="spm-llama",
        rewrite=from_granite,
        inert=ONLY_SCALE,
        shards=3,
    ),
    Case(
        id="minicpm-short",
        hf="MiniCPMForCausalLM",
        made_by="GraniteForCausalLM",
        config=GRANITE | {"rope_parameters": long_rope(256)},
        tokenizer="spm-llama",
        rewrite=from_granite,
        inert=ONLY_SCALE,
        dialect="old",
        dtype="float16",
    ),
    Case(
        id="minicpm-long",
        hf="MiniCPMForCausalLM",
        made_by="GraniteForCausalLM",
        config=GRANITE | {"rope_parameters": long_rope(64), "max_position_embeddings": 64},
        tokenizer="spm-llama",
        rewrite=from_granite,
        inert=ONLY_SCALE,
    ),
)
