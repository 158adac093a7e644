"""Mistral, Mixtral and Mistral 3."""

from parity.case import SHAPE, Case, Config, Tensors

_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 8,
    "image_size": 28,
    "patch_size": 14,
}
MISTRAL3 = SHAPE | _ROPE | {"model_type": "mistral", "head_dim": 24, "sliding_window": None}
MINISTRAL3 = SHAPE | {
    "model_type": "ministral3",
    "head_dim": 32,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 700.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 4.0,
        "beta_slow": 1.5,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
        "llama_4_scaling_beta": 0.3,
    },
}


def newer_names(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Name the tensors as transformers 5 has them in memory."""
    made = {}
    for name, tensor in tensors.items():
        new = name.replace("language_model.model.", "model.language_model.").replace(
            "language_model.lm_head", "lm_head"
        )
        made[new if new.startswith(("model.", "lm_head")) else f"model.{new}"] = tensor
    return made, config


CASES = (
    Case(
        id="mistral-head_dim",
        hf="MistralForCausalLM",
        config=SHAPE | {"head_dim": 24, "sliding_window": None},
        tokenizer="bpe-tekken",
        dialect="old",
    ),
    Case(
        id="mistral-window",
        hf="MistralForCausalLM",
        config=SHAPE | _ROPE | {"sliding_window": 120},
        tokenizer="spm-llama",
        dtype="bfloat16",
        shards=3,
    ),
    Case(
        id="mistral-beyond",
        hf="MistralForCausalLM",
        config=SHAPE | {"sliding_window": 32},
        tokenizer="spm-llama",
        dialect="old",
        logits="llama.cpp does not apply the window",
    ),
    Case(
        id="mistral-tied",
        hf="MistralForCausalLM",
        config=SHAPE | {"sliding_window": None, "tie_word_embeddings": True, "num_key_value_heads": 4},
        tokenizer="spm-llama-model",
        dtype="float16",
    ),
    Case(
        id="mixtral-plain",
        hf="MixtralForCausalLM",
        config=SHAPE | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
        tokenizer="spm-llama",
        shards=2,
    ),
    Case(
        id="mixtral-old",
        hf="MixtralForCausalLM",
        config=SHAPE
        | _ROPE
        | {"num_local_experts": 8, "num_experts_per_tok": 3, "head_dim": 32, "num_key_value_heads": 1},
        tokenizer="spm-llama",
        dialect="old",
        dtype="bfloat16",
        shards=7,
    ),
    Case(
        id="mixtral-tied",
        hf="MixtralForCausalLM",
        config=SHAPE | {"num_local_experts": 3, "num_experts_per_tok": 1, "tie_word_embeddings": True},
        tokenizer="bpe-tekken",
        dtype="float16",
    ),
    Case(
        id="mistral3-plain",
        hf="Mistral3ForConditionalGeneration",
        config={"text_config": MISTRAL3, "vision_config": _VISION, "tie_word_embeddings": False},
        tokenizer="bpe-tekken",
        dialect="old",
        dtype="bfloat16",
        shards=2,
    ),
    Case(
        id="mistral3-newer",
        hf="Mistral3ForConditionalGeneration",
        config={"text_config": MISTRAL3, "vision_config": _VISION, "tie_word_embeddings": False},
        tokenizer="bpe-tekken",
        rewrite=newer_names,
    ),
    Case(
        id="mistral3-tied",
        hf="Mistral3ForConditionalGeneration",
        config={"text_config": MISTRAL3, "vision_config": _VISION},
        tokenizer="bpe-tekken",
    ),
    Case(
        id="mistral3-ministral",
        hf="Mistral3ForConditionalGeneration",
        config={"text_config": MINISTRAL3, "vision_config": _VISION, "tie_word_embeddings": False},
        tokenizer="bpe-tekken",
        dtype="bfloat16",
        n_tokens=160,
    ),
    Case(
        id="ministral3-plain",
        hf="Ministral3ForCausalLM",
        config=MINISTRAL3,
        tokenizer="bpe-tekken",
        shards=3,
        n_tokens=160,
    ),
    Case(
        id="ministral3-tied",
        hf="Ministral3ForCausalLM",
        config=MINISTRAL3 | {"tie_word_embeddings": True, "num_key_value_heads": 4},
        tokenizer="bpe-tekken",
        dtype="float16",
        n_tokens=160,
    ),
)
