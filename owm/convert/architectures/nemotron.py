"""Nemotron and Minitron (not Nemotron-H). ref: llama.cpp conversion/nemotron.py, src/models/nemotron.cpp"""

from collections.abc import Mapping

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.hparams import DECODER, VOCAB_SIZE, Config, head_width, kv_heads, only_rope, rope_dimensions
from owm.convert.rules import apply, untie
from owm.convert.vocabulary import Vocab
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Rows


def add_one(rows: Rows, config: Config) -> Rows:
    """Turn the deviation of a norm's gain from 1 into the gain."""
    return transforms.add(rows, 1)


def _norm(config: Config) -> Mapping[str, Value | None]:
    return {
        "attention.layer_norm_epsilon": config.number(
            "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"
        )
    }


def _scaling(config: Config) -> Mapping[str, Value | None]:
    return {} if config.rope()["rope_type"] == "linear" else {"rope.scaling.type": "none"}


NEMOTRON = Architecture(
    hf=("NemotronForCausalLM",),
    gguf="nemotron",
    example="nvidia/Minitron-4B-Base",
    vocab=(Vocab.NEMOTRON,),
    hparams=(
        *DECODER,
        VOCAB_SIZE,
        kv_heads,
        head_width,
        _norm,
        rope_dimensions,
        only_rope("default", "linear"),
        _scaling,
    ),
    tensors=(
        apply(r"model\.(norm|layers\.\d+\.(input|post_attention)_layernorm)\.weight", add_one),
        untie("model.embed_tokens.weight", "lm_head.weight"),
    ),
    require={"hidden_act": ("relu2", None)},
    defaults={
        "max_position_embeddings": 4096,
        "norm_eps": 1e-5,
        "partial_rotary_factor": 0.5,
        "rope_theta": 10000.0,
    },
)
