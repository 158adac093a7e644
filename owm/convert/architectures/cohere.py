"""Cohere: Command R and R+, Aya, Command R7B.

ref: llama.cpp conversion/command_r.py, src/models/command-r.cpp, cohere2.cpp
"""

from collections.abc import Mapping

from owm.convert.architectures.base import Architecture
from owm.convert.hparams import (
    DECODER,
    VOCAB_SIZE,
    Config,
    Hparam,
    constant,
    head_width,
    kv_heads,
    only_rope,
    rope_dimensions,
)
from owm.convert.rules import Rule, Tensors, drop
from owm.convert.vocabulary import Vocab
from owm.errors import Unsupported
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import read_all

LAYERS_WITH_QK_NORM = 64  # llama.cpp looks for the norms of queries and keys in models with as many layers, in no other
SLIDING_PATTERN = 4  # llama.cpp's own: three layers with a window and rope, one without either


def _qk_norm(config: Config) -> Mapping[str, Value | None]:
    """Refuse norms of queries and keys where llama.cpp has no place for them."""
    if config.flag("use_qk_norm") != (config.n_layers >= LAYERS_WITH_QK_NORM):
        raise Unsupported(
            f"{config.n_layers} layers with use_qk_norm {config.flag('use_qk_norm')} are not supported",
            hint=f"llama.cpp takes these norms with {LAYERS_WITH_QK_NORM} or more layers, and with none less",
        )
    return {}


def _layers(config: Config) -> Mapping[str, Value | None]:
    """Say which layers have a sliding window, unless it is llama.cpp's own pattern."""
    step = config.integer("sliding_window_pattern", default=SLIDING_PATTERN)
    layers = range(1, config.n_layers + 1)
    kinds = config.items("layer_types") or [
        "sliding_attention" if step and layer % step else "full_attention" for layer in layers
    ]
    if len(kinds) != config.n_layers or set(kinds) - {"sliding_attention", "full_attention"}:
        raise Unsupported("config.json: layer_types are not one of two kinds for each layer")
    is_sliding = [kind == "sliding_attention" for kind in kinds]
    usual = [layer % SLIDING_PATTERN != 0 for layer in layers]
    return {} if is_sliding == usual else {"attention.sliding_window_pattern": is_sliding}


def _drop_zero_biases(tensors: Tensors, config: Config) -> Tensors:
    for name, rows in tensors.items():
        if name.endswith(".bias") and read_all(rows).any():
            raise Unsupported(f"the checkpoint has a bias that llama.cpp has no place for: {name}")
    return {name: rows for name, rows in tensors.items() if not name.endswith(".bias")}


# Both tie the embeddings, and llama.cpp takes no second ones.
_TIED = drop(r"lm_head\.weight")

COHERE = Architecture(
    hf=("CohereForCausalLM",),
    gguf="command-r",
    example="CohereLabs/c4ai-command-r-v01",
    vocab=(Vocab.BPE,),
    hparams=(
        *DECODER,
        kv_heads,
        Hparam("context_length", ("model_max_length", "max_position_embeddings")),
        Hparam("logit_scale", ("logit_scale",), float),
        only_rope("default"),
        constant("rope.scaling.type", "none"),
        _qk_norm,
    ),
    tensors=(_TIED,),
    require={"hidden_act": ("silu", None), "attention_bias": (False, None), "tie_word_embeddings": (True, None)},
    defaults={
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    },
    is_tied=True,
    note="norms of queries and keys with 64 or more layers only, as in Command R+",
)

COHERE2 = Architecture(
    hf=("Cohere2ForCausalLM",),
    gguf="cohere2",
    example="CohereLabs/c4ai-command-r7b-12-2024",
    vocab=(Vocab.BPE,),
    hparams=(
        *DECODER,
        VOCAB_SIZE,
        kv_heads,
        head_width,
        Hparam("logit_scale", ("logit_scale",), float),
        Hparam("attention.sliding_window", ("sliding_window",)),
        _layers,
        only_rope("default"),
        constant("rope.scaling.type", "none"),
        rope_dimensions,
    ),
    tensors=(_TIED, Rule("drop biases of zeros", _drop_zero_biases)),
    require={
        "hidden_act": ("silu", None),
        "tie_word_embeddings": (True, None),
        "use_embedding_sharing": (True, None),
        "use_gated_activation": (True, None),
        "use_parallel_block": (True, None),
        "use_parallel_embedding": (False, None),
        "position_embedding_type": ("rope_gptj", None),
        "order_of_interleaved_layers": ("local_attn_first", None),
        "rotary_pct": (1, 1.0, None),
        "partial_rotary_factor": (1, 1.0, None),
    },
    defaults={
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "max_position_embeddings": 8192,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
    },
    ignored=("layer_switch",),
    is_tied=True,
)
