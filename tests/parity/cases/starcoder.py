"""StarCoder 2."""

from parity.case import SHAPE, Case, Config, Tensors

BASE = {key: value for key, value in SHAPE.items() if key != "rms_norm_eps"} | {"norm_epsilon": 0.01}


def as_published(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Bring the keys that the class does not look at."""
    return tensors, config | {"activation_function": "gelu", "mlp_type": "default", "norm_type": "layer_norm"}


CASES = (
    Case(
        id="starcoder2-plain",
        hf="Starcoder2ForCausalLM",
        config=BASE | {"tie_word_embeddings": True},
        tokenizer="bpe-gpt2",
    ),
    Case(
        id="starcoder2-published",
        hf="Starcoder2ForCausalLM",
        config=BASE | {"num_key_value_heads": 4, "sliding_window": 128},
        tokenizer="bpe-gpt2",
        rewrite=as_published,
        dialect="old",
        dtype="bfloat16",
        shards=3,
        pad_vocab=8,
        allowed={"starcoder2.context_length": "ends at the sliding window, which llama.cpp does not compute"},
    ),
    Case(
        id="starcoder2-linear",
        hf="Starcoder2ForCausalLM",
        config=BASE
        | {"hidden_act": "gelu", "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 700.0}},
        tokenizer="bpe-gpt2",
        dtype="float16",
    ),
)
