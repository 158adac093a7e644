"""Cohere's Command models."""

from typing import Any

from parity.case import SHAPE, Case, Config, Tensors

BASE = {key: value for key, value in SHAPE.items() if key != "rms_norm_eps"} | {
    "layer_norm_eps": 0.01,
    "logit_scale": 0.3,
    "tie_word_embeddings": True,
}
WINDOW = BASE | {"num_hidden_layers": 5, "sliding_window": 16}
UNSEEN = {
    "rope.scaling.type": "there is no factor to scale by",
    "logit_scale": "one factor of all logits shows neither in their direction nor in their order; the files show it",
}


def with_output(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Save the tied embeddings twice, as a fine-tune may."""
    return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, config


def with_zeros(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Give the norms biases of zeros, and save the tied embeddings twice."""
    import torch

    zeros = {
        f"model.layers.{layer}.input_layernorm.bias": torch.zeros(config["hidden_size"])
        for layer in range(config["num_hidden_layers"])
    }
    return with_output(tensors | zeros, config)


def as_published(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Bring the keys that transformers 5 does not write."""
    del config["head_dim"]
    return tensors, config | {"rotary_pct": 1.0, "position_embedding_type": "rope_gptj", "layer_switch": 4}


def sharpen(model: Any, generator: Any) -> None:
    """Make queries long, which their norms would leave short: attention would be flat."""
    for name, tensor in model.named_parameters():
        if name.endswith(".q_norm.weight"):
            tensor.mul_(6)


CASES = (
    Case(id="cohere-plain", hf="CohereForCausalLM", config=BASE, tokenizer="bpe-gpt2", inert=UNSEEN),
    Case(
        id="cohere-old",
        hf="CohereForCausalLM",
        config=BASE | {"num_key_value_heads": 4, "model_max_length": 512},
        tokenizer="bpe-llama3",
        dialect="old",
        dtype="float16",
        shards=2,
        pad_vocab=8,
        inert=UNSEEN,
    ),
    Case(
        id="cohere-output",
        hf="CohereForCausalLM",
        config=BASE,
        tokenizer="bpe-gpt2",
        rewrite=with_output,
        reference="writes the second copy of the embeddings, which llama.cpp does not take",
        inert=UNSEEN,
    ),
    Case(
        id="cohere-qk_norm",
        hf="CohereForCausalLM",
        config=BASE | {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 64, "use_qk_norm": True},
        tokenizer="bpe-gpt2",
        fill=sharpen,
        dtype="bfloat16",
        inert=UNSEEN,
    ),
    Case(
        id="cohere2-zeros",
        hf="Cohere2ForCausalLM",
        config=WINDOW,
        tokenizer="bpe-gpt2",
        rewrite=with_zeros,
        reference="looks for rotary_pct, which transformers 5 does not write",
        inert=UNSEEN,
    ),
    Case(
        id="cohere2-published",
        hf="Cohere2ForCausalLM",
        config=WINDOW | {"num_key_value_heads": 4},
        tokenizer="bpe-llama3",
        rewrite=as_published,
        dialect="old",
        dtype="bfloat16",
        shards=2,
        pad_vocab=8,
        inert=UNSEEN,
    ),
    Case(
        id="cohere2-pattern",
        hf="Cohere2ForCausalLM",
        config=WINDOW
        | {
            "num_hidden_layers": 4,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
        },
        tokenizer="bpe-gpt2",
        dtype="float16",
        reference="looks for rotary_pct, and writes nothing of the pattern",
        inert=UNSEEN,
    ),
)
