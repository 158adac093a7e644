"""SmolLM3."""

from parity.case import SHAPE, Case, Config, Tensors

BASE = SHAPE | {"num_hidden_layers": 5}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 700.0, "original_max_position_embeddings": 48}


def without_lists(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Leave out what can be told from other keys."""
    return tensors, {key: value for key, value in config.items() if key not in ("no_rope_layers", "layer_types")}


CASES = (
    Case(
        id="smollm3-plain",
        hf="SmolLM3ForCausalLM",
        config=BASE | {"tie_word_embeddings": True},
        tokenizer="bpe-llama3",
    ),
    Case(
        id="smollm3-old",
        hf="SmolLM3ForCausalLM",
        config=BASE | {"num_key_value_heads": 4},
        tokenizer="bpe-llama3",
        rewrite=without_lists,
        dialect="old",
        dtype="bfloat16",
        shards=2,
        pad_vocab=8,
    ),
    Case(
        id="smollm3-yarn",
        hf="SmolLM3ForCausalLM",
        config=BASE | {"head_dim": 24, "rope_parameters": YARN},
        tokenizer="bpe-llama3",
        dtype="float16",
    ),
)
