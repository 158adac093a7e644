"""Nemotron."""

from parity.case import SHAPE, Case

BASE = {key: value for key, value in SHAPE.items() if key != "rms_norm_eps"} | {"norm_eps": 0.01}
UNREAD = {"attention.layer_norm_rms_epsilon": "llama.cpp does not read it"}
UNSCALED = UNREAD | {"rope.scaling.type": "there is no factor to scale by"}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 700.0, "partial_rotary_factor": 0.25}

CASES = (
    Case(id="nemotron-plain", hf="NemotronForCausalLM", config=BASE, tokenizer="spm-llama", inert=UNSCALED),
    Case(
        id="nemotron-biases",
        hf="NemotronForCausalLM",
        config=BASE | {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
        tokenizer="spm-llama",
        dialect="old",
        dtype="bfloat16",
        shards=3,
        inert=UNSCALED,
    ),
    Case(
        id="nemotron-linear",
        hf="NemotronForCausalLM",
        config=BASE | {"rope_parameters": LINEAR},
        tokenizer="spm-llama-model",
        dtype="float16",
        pad_vocab=8,
        inert=UNREAD,
    ),
    Case(
        id="nemotron-tied",
        hf="NemotronForCausalLM",
        config=BASE | {"tie_word_embeddings": True},
        tokenizer="spm-llama",
        reference="writes no output, which llama.cpp requires",
        inert=UNSCALED,
    ),
)
