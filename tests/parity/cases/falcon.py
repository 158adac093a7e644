"""Falcon, both decoders."""

from parity.case import Case, Config, Tensors

BASE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "layer_norm_epsilon": 0.01}
LAYOUT = {"tensor_data_layout": "llama.cpp does not read it"}
GROUPED = {"new_decoder_architecture": True, "num_kv_heads": 2}


def as_published(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Leave out what the config of the 7B model leaves out."""
    left_out = ("num_kv_heads", "ffn_hidden_size", "rope_parameters", "max_position_embeddings", "activation")
    # With a type that transformers knows, the reference would read the config through it, which adds num_kv_heads.
    return tensors, {key: value for key, value in config.items() if key not in left_out} | {"model_type": "RefinedWeb"}


def as_refined_web(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Name things as the first config of the 40B model does."""
    for new, old in (
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
        ("num_kv_heads", "n_head_kv"),
    ):
        config[old] = config.pop(new)
    del config["new_decoder_architecture"]
    return as_published(tensors, config)


CASES = (
    Case(
        id="falcon-7b",
        hf="FalconForCausalLM",
        config=BASE | {"tie_word_embeddings": False},
        tokenizer="bpe-gpt2",
        rewrite=as_published,
        dialect="old",
        dtype="bfloat16",
        shards=2,
        inert=LAYOUT,
    ),
    Case(
        id="falcon-40b",
        hf="FalconForCausalLM",
        config=BASE | GROUPED | {"tie_word_embeddings": False},
        tokenizer="bpe-gpt2",
        inert=LAYOUT,
    ),
    Case(
        id="falcon-11b",
        hf="FalconForCausalLM",
        config=BASE
        | GROUPED
        | {
            "num_ln_in_parallel_attn": 1,
            "ffn_hidden_size": 96,
            "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
        },
        tokenizer="bpe-gpt2",
        pad_vocab=8,
        reference="takes an FFN of 4 × hidden and leaves rope_theta out",
        inert=LAYOUT,
    ),
    Case(
        id="falcon-multi_query",
        hf="FalconForCausalLM",
        config=BASE,
        tokenizer="bpe-gpt2",
        dtype="float16",
        reference="takes num_kv_heads, which transformers 5 writes and the class does not look at with multi_query",
        inert=LAYOUT,
    ),
    Case(
        id="falcon-multi_head",
        hf="FalconForCausalLM",
        config=BASE | {"multi_query": False},
        tokenizer="bpe-gpt2",
        inert=LAYOUT,
    ),
    Case(
        id="falcon-refined_web",
        hf="RWForCausalLM",
        made_by="FalconForCausalLM",
        config=BASE | GROUPED,
        tokenizer="bpe-gpt2",
        rewrite=as_refined_web,
        inert=LAYOUT,
    ),
)
