"""What one proof is about: a kind of checkpoint, and what is known to be different about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Config = dict[str, Any]
Tensors = dict[str, Any]  # name in the checkpoint -> torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Case:
    """A tiny checkpoint of one Hugging Face class, with everything in it random.

    Attributes:
        id: unique, `family-what is special`.
        hf: the class that config.json names.
        config: arguments of the configuration class. `vocab_size` and the ids of special tokens come from the tokenizer
            unless given here.
        tokenizer: a name in `vocabularies.KINDS`.
        made_by: the class of transformers that makes weights and logits, where `hf` is not one of its classes.
        reference: whether the reference converter's file is the right one, else why it makes another or none.
        logits: whether llama.cpp and transformers agree, else why they cannot.
        output: what both models give: logits, or for embedding models the last hidden states.
        shards: how many safetensors files, at least.
        dialect: whose config.json: `old` is that of transformers 4.
        n_tokens: length of the prompt; longer than the sliding window and than the original context of a scaled rope.
        pad_vocab: rows of the embedding beyond the tokenizer's last token.
        gain: standard deviation of matrices in units of 1 / sqrt(fan-in).
        embed_std: standard deviation of embeddings; small enough for the blocks to matter, also when tied.
        fill: called last with the model and a seeded torch.Generator, for tensors with a range of their own.
        rewrite: turns the saved tensors and config.json into those of `hf`.
        files: more files of the checkpoint, name -> text: a chat template, generation_config.json, a model card.
        allowed: metadata key -> why it may differ from the reference's here.
        inert: hparam without its architecture's prefix -> why changing it cannot change the output.
        inert_rules: name of a tensor rule of the class's entry -> why leaving it out cannot matter in any case.
    """

    id: str
    hf: str
    config: Mapping[str, Any]
    tokenizer: str
    made_by: str | None = None
    reference: Literal[True] | str = True
    logits: Literal[True] | str = True
    output: Literal["logits", "hidden"] = "logits"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    shards: int = 1
    dialect: Literal["new", "old"] = "new"
    n_tokens: int = 96
    pad_vocab: int = 0
    gain: float = 1.75
    embed_std: float = 0.3
    fill: Callable[[Any, Any], None] | None = None
    rewrite: Callable[[Tensors, Config], tuple[Tensors, Config]] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    allowed: Mapping[str, str] = field(default_factory=dict)
    inert: Mapping[str, str] = field(default_factory=dict)
    inert_rules: Mapping[str, str] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The first word of the id."""
        return self.id.split("-")[0]


# Every case starts from this: grouped attention, odd sizes, and no value that a converter might put in by itself.
SHAPE: Config = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 0.01,
    "tie_word_embeddings": False,
}
