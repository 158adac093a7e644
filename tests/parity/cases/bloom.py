"""BLOOM."""

from parity.case import Case, Config, Tensors

BASE = {"hidden_size": 64, "n_layer": 2, "n_head": 4, "layer_norm_epsilon": 0.01}


def as_published(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Name tensors and keys as the first repos do."""
    config["num_attention_heads"] = config.pop("n_head")
    config["n_embed"] = config.pop("hidden_size")
    config |= {"offset_alibi": 100, "seq_length": 256, "skip_bias_add": True, "attention_softmax_in_fp32": True}
    return {name.removeprefix("transformer."): each for name, each in tensors.items()}, config


CASES = (
    Case(id="bloom-plain", hf="BloomForCausalLM", config=BASE, tokenizer="bpe-gpt2"),
    Case(
        id="bloom-published",
        hf="BloomModel",
        made_by="BloomForCausalLM",
        config=BASE | {"hidden_size": 96, "n_head": 6},  # the slopes of heads that are no power of two are others
        tokenizer="bpe-gpt2",
        rewrite=as_published,
        dialect="old",
        dtype="bfloat16",
        shards=2,
        pad_vocab=8,
    ),
    Case(
        id="bloom-untied",
        hf="BloomForCausalLM",
        config=BASE | {"tie_word_embeddings": False, "seq_length": 128},
        tokenizer="bpe-gpt2",
        dtype="float16",
    ),
)
