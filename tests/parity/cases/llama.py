"""Llama and what shares its class."""

from parity.case import SHAPE, Case

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 48,
}
YARN = {"rope_type": "yarn", "rope_theta": 700.0, "factor": 4.0, "original_max_position_embeddings": 48}
LINEAR = {"rope_type": "linear", "rope_theta": 700.0, "factor": 2.5}

CASES = (
    Case(
        id="llama-plain",
        hf="LlamaForCausalLM",
        config=SHAPE | {"num_key_value_heads": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 700.0}},
        tokenizer="spm-llama",
    ),
    Case(id="llama-gqa", hf="LlamaForCausalLM", config=SHAPE, tokenizer="bpe-llama3", shards=4, dtype="bfloat16"),
    Case(
        id="llama-head_dim",
        hf="LlamaForCausalLM",
        config=SHAPE | {"head_dim": 24},
        tokenizer="bpe-gpt2",
        pad_vocab=24,
    ),
    Case(
        id="llama-biases",
        hf="LlamaForCausalLM",
        config=SHAPE | {"attention_bias": True, "mlp_bias": True},
        tokenizer="spm-llama-json",
        dtype="float16",
        allowed={"tokenizer.ggml.scores": "the ranks of the merges; the reference writes the same score for all"},
    ),
    Case(
        id="llama-tied",
        hf="LlamaForCausalLM",
        config=SHAPE | {"tie_word_embeddings": True},
        tokenizer="bpe-llama3",
    ),
    Case(
        id="llama-old",
        hf="LlamaForCausalLM",
        config=SHAPE | {"rope_parameters": LLAMA3_ROPE},
        tokenizer="bpe-llama3",
        dialect="old",
    ),
    Case(
        id="llama-rope3",
        hf="LlamaForCausalLM",
        config=SHAPE | {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True, "head_dim": 32},
        tokenizer="bpe-llama3",
    ),
    Case(
        id="llama-linear",
        hf="LlamaForCausalLM",
        config=SHAPE | {"rope_parameters": LINEAR},
        tokenizer="spm-llama",
        dialect="old",
        dtype="float16",
    ),
    Case(
        id="llama-yarn",
        hf="LlamaForCausalLM",
        config=SHAPE | {"rope_parameters": YARN, "head_dim": 32},
        tokenizer="spm-llama",
        dialect="old",
        shards=5,
    ),
    Case(
        id="llama-yi",
        hf="LlamaForCausalLM",
        config=SHAPE
        | {
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "num_hidden_layers": 3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6},
        },
        tokenizer="spm-llama-model",
        dialect="old",
        dtype="bfloat16",
    ),
    Case(
        id="llama-smollm",
        hf="LlamaForCausalLM",
        config=SHAPE
        | {
            "hidden_size": 72,
            "intermediate_size": 192,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
        },
        tokenizer="bpe-gpt2",
        dtype="bfloat16",
        shards=9,
    ),
)
