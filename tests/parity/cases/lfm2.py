"""LFM2."""

from parity.case import SHAPE, Case, Config, Tensors

LFM2: Config = {key: value for key, value in SHAPE.items() if key not in ("rms_norm_eps", "tie_word_embeddings")} | {
    "num_hidden_layers": 3,
    "norm_eps": 0.01,
    "conv_L_cache": 3,
}


def first_published(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Use the keys of the first published configs."""
    del config["layer_types"]
    config["block_ff_dim"] = config.pop("intermediate_size")
    return tensors, config


CASES = (
    Case(
        id="lfm2-plain",
        hf="Lfm2ForCausalLM",
        config=LFM2
        | {
            "layer_types": ["conv", "full_attention", "conv"],
            "block_auto_adjust_ff_dim": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
        },
        tokenizer="bpe-llama3",
        shards=2,
    ),
    Case(
        id="lfm2-old",
        hf="Lfm2ForCausalLM",
        config=LFM2
        | {
            "full_attn_idxs": [0, 2],
            "block_multiple_of": 24,
            "block_ffn_dim_multiplier": 1.3,
            "conv_L_cache": 4,
            "num_key_value_heads": 4,
        },
        tokenizer="bpe-gpt2",
        dialect="old",
        dtype="bfloat16",
        rewrite=first_published,
    ),
    Case(
        id="lfm2-untied",
        hf="Lfm2ForCausalLM",
        config=LFM2 | {"full_attn_idxs": [1], "block_multiple_of": 8, "tie_word_embeddings": False},
        tokenizer="bpe-gpt2",
        dtype="float16",
    ),
)
