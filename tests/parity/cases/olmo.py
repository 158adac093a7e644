"""OLMo, OLMo 2, OLMoE."""

from parity.case import SHAPE, Case

LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 700.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 700.0, "original_max_position_embeddings": 48}
PLAIN = {key: value for key, value in SHAPE.items() if key != "rms_norm_eps"}
EXPERTS = {"num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2}

CASES = (
    Case(
        id="olmo-plain",
        hf="OlmoForCausalLM",
        config=PLAIN | {"num_key_value_heads": 4, "tie_word_embeddings": True},
        tokenizer="bpe-gpt2",
    ),
    Case(
        id="olmo-clip",
        hf="OlmoForCausalLM",
        config=PLAIN | {"clip_qkv": 1.5},
        tokenizer="bpe-gpt2",
        dialect="old",
        dtype="bfloat16",
        shards=3,
    ),
    Case(
        id="olmo-linear",
        hf="OlmoForCausalLM",
        config=PLAIN | {"rope_parameters": LINEAR},
        tokenizer="bpe-gpt2",
        dtype="float16",
        pad_vocab=8,
    ),
    Case(id="olmo2-plain", hf="Olmo2ForCausalLM", config=SHAPE | {"num_key_value_heads": 4}, tokenizer="bpe-gpt2"),
    Case(
        id="olmo2-gqa",
        hf="Olmo2ForCausalLM",
        config=SHAPE | {"rope_parameters": YARN},
        tokenizer="bpe-gpt2",
        dialect="old",
        dtype="bfloat16",
        shards=2,
    ),
    Case(
        id="olmo2-tied",
        hf="Olmo2ForCausalLM",
        config=SHAPE | {"tie_word_embeddings": True},
        tokenizer="bpe-gpt2",
        reference="writes no output, which llama.cpp requires",
    ),
    Case(
        id="olmoe-plain",
        hf="OlmoeForCausalLM",
        config=SHAPE | EXPERTS | {"rms_norm_eps": 1e-5},
        tokenizer="bpe-gpt2",
        shards=4,
        dtype="bfloat16",
        dialect="old",
    ),
    Case(
        id="olmoe-tied",
        hf="OlmoeForCausalLM",
        config=SHAPE | EXPERTS | {"tie_word_embeddings": True},
        tokenizer="bpe-gpt2",
        reference="writes an epsilon of 1e-5, whatever config.json says, and no output",
    ),
)
