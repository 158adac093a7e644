"""Mamba and Mamba 2."""

from parity.case import Case, Config, Tensors

MAMBA: Config = {"hidden_size": 64, "state_size": 12, "num_hidden_layers": 2, "layer_norm_epsilon": 0.01}
MAMBA2: Config = {**MAMBA, "num_heads": 4, "head_dim": 32, "n_groups": 2, "state_size": 16, "chunk_size": 32}
UNREAD = "llama.cpp reads it and has no use for it in this architecture"


def doubled(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Save tied embeddings twice, as some published checkpoints do."""
    return tensors | {"lm_head.weight": tensors["backbone.embeddings.weight"].clone()}, config


def codestral(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Name the tensors as Mamba-Codestral does."""
    return {f"model.{name}": tensor for name, tensor in tensors.items()}, config


INERT = {
    "feed_forward_length": UNREAD,
    "attention.head_count": UNREAD,
}
CASES = (
    Case(
        id="mamba-plain",
        hf="MambaForCausalLM",
        config=MAMBA | {"time_step_rank": 5, "tie_word_embeddings": False},
        tokenizer="bpe-gpt2",
        inert=INERT,
    ),
    Case(
        id="mamba-tied",
        hf="MambaForCausalLM",
        config=MAMBA | {"conv_kernel": 3},
        tokenizer="bpe-gpt2",
        dialect="old",
        dtype="bfloat16",
        shards=2,
        rewrite=doubled,
        inert=INERT,
        inert_rules={
            r"drop lm_head\.weight": "what it drops is a copy, which the file would hold for nothing",
        },
    ),
    Case(
        id="mamba-two",
        hf="Mamba2ForCausalLM",
        config=MAMBA2,
        tokenizer="bpe-gpt2",
        pad_vocab=8,
        inert=INERT,
    ),
    Case(
        id="mamba-two-names",
        hf="Mamba2ForCausalLM",
        config=MAMBA2 | {"n_groups": 1, "conv_kernel": 3, "tie_word_embeddings": True},
        tokenizer="spm-llama",
        dialect="old",
        dtype="float16",
        shards=2,
        pad_vocab=8,
        rewrite=codestral,
        inert=INERT,
    ),
    Case(
        id="mamba-two-odd",
        hf="Mamba2ForCausalLM",
        config=MAMBA2 | {"head_dim": 16, "num_heads": 8},
        tokenizer="bpe-gpt2",
        pad_vocab=3,
        reference="rounds the number of tokens up beyond that of the embeddings",
        inert=INERT,
    ),
)
