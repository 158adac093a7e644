"""Phi 2, 3, 3.5 and 4, and the mixture Phi-3.5-MoE.

ref: llama.cpp conversion/phi.py, src/models/phi2.cpp, phi3.cpp, phimoe.cpp; transformers modeling_rope_utils.py
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from owm.convert.architectures.base import Architecture, ignored_window
from owm.convert.hparams import (
    LAYER_COUNT,
    Computed,
    Config,
    Hparam,
    only_rope,
    rope_dimensions,
    rope_if_unusual,
    usual_yarn,
)
from owm.convert.rules import extra, stack, untie
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged, Unsupported
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Array

_LONG = ("longrope", "su")


def _kv_heads(config: Config) -> Mapping[str, Value | None]:
    return {"attention.head_count_kv": config.n_kv_heads}


def _window(config: Config) -> Mapping[str, Value | None]:
    """Say 0 where there is no window: by that the format tells Phi-4 from Phi-3."""
    return {"attention.sliding_window": config.integer("sliding_window", default=0)}


def _phi3_rope(config: Config) -> Mapping[str, Value | None]:
    """Translate the rope, whose scaling llama.cpp takes from two tensors and a factor of attention."""
    rope = config.rope()
    original = _original_length(config)
    found: dict[str, Value | None] = {
        "rope.freq_base": float(rope.get("rope_theta", 10000.0)),
        "rope.scaling.original_context_length": original,
    }
    if rope["rope_type"] not in _LONG:
        return found
    limit = config.integer("max_position_embeddings")
    scale = limit / original
    usual = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    stated, factor = rope.get("attention_factor"), rope.get("factor")
    if (stated is not None and not _is_close(stated, usual)) or (factor is not None and not _is_close(factor, scale)):
        raise Unsupported(
            "a longrope with its own factor or attention_factor is not supported for this architecture",
            hint=f"llama.cpp computes it with: {scale:.6g} and {usual:.6g}",
        )
    return found | {"rope.scaling.attn_factor": usual}


def _original_length(config: Config) -> int:
    value = config.rope().get("original_max_position_embeddings")
    if isinstance(value, bool) or not isinstance(value, int) or value < 2:
        raise Damaged(f"config.json: original_max_position_embeddings should be a whole number: {ascii(value)[:40]}")
    return value


def _is_close(value: object, wanted: float) -> bool:
    return isinstance(value, int | float) and math.isclose(value, wanted, rel_tol=1e-5)


def _factors(name: str) -> Callable[[Config], Array | None]:
    def make(config: Config) -> Array | None:
        rope = config.rope()
        if rope["rope_type"] not in _LONG:
            return None
        given = rope.get(name)
        n = int(rope_dimensions(config)["rope.dimension_count"]) // 2  # type: ignore[arg-type]
        if not isinstance(given, list) or len(given) != n or not all(isinstance(value, int | float) for value in given):
            raise Damaged(f"config.json: {name} of the rope parameters should be {n} numbers")
        return np.array(given, np.float32)

    return make


_ROPE_FACTORS = (
    extra("rope_factors_long.weight", _factors("long_factor")),
    extra("rope_factors_short.weight", _factors("short_factor")),
)
_SIZES: tuple[Computed, ...] = (
    Hparam("block_count", LAYER_COUNT, is_required=True),
    Hparam("context_length", ("max_position_embeddings", "n_positions"), is_required=True),
    Hparam("embedding_length", ("hidden_size", "n_embd"), is_required=True),
    Hparam("feed_forward_length", ("intermediate_size", "n_inner"), is_required=True),
    Hparam("attention.head_count", ("num_attention_heads", "n_head"), is_required=True),
    _kv_heads,
    rope_dimensions,
)
_RMS = Hparam("attention.layer_norm_rms_epsilon", ("rms_norm_eps",), float, is_required=True)
_SILU = {"hidden_act": ("silu", "swish", None)}
_EXPERTS = r"(model\.layers\.\d+\.block_sparse_moe\.experts)\.(?P<expert>\d+)\.{}\.weight"
_NOTE = "a sliding window is not applied: llama.cpp attends to the whole text"
_OTHERWISE = "llama.cpp weighs the two experts and takes the norms otherwise than the original, so results differ"


def _phimoe_warning(config: Config) -> str | None:
    window = ignored_window(config)
    return f"{_OTHERWISE}; {window}" if window else _OTHERWISE


PHI2 = Architecture(
    hf=("PhiForCausalLM",),
    gguf="phi2",
    example="microsoft/phi-2",
    vocab=(Vocab.PHI2,),
    hparams=(
        *_SIZES,
        Hparam("attention.layer_norm_epsilon", ("layer_norm_eps", "layer_norm_epsilon"), float, is_required=True),
        rope_if_unusual,
        only_rope("default", "linear", "yarn"),
        usual_yarn,
    ),
    tensors=(untie("model.embed_tokens.weight", "lm_head.weight"),),
    require={"hidden_act": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", None), "qk_layernorm": (False, None)},
    defaults={"layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5},
)
PHI3 = Architecture(
    hf=("Phi3ForCausalLM",),
    gguf="phi3",
    example="microsoft/Phi-4-mini-instruct",
    vocab=(Vocab.PHI3,),
    hparams=(*_SIZES, _RMS, _phi3_rope, _window, only_rope("default", *_LONG)),
    tensors=_ROPE_FACTORS,
    require=_SILU,
    defaults={"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096, "max_position_embeddings": 4096},
    ignored=("attention_bias",),
    note=_NOTE,
    warn=ignored_window,
)
PHIMOE = Architecture(
    hf=("PhiMoEForCausalLM",),
    gguf="phimoe",
    example="microsoft/Phi-3.5-MoE-instruct",
    vocab=(Vocab.PHI3,),
    hparams=(
        *PHI3.hparams,
        Hparam("expert_count", ("num_local_experts", "num_experts"), is_required=True),
        Hparam("expert_used_count", ("num_experts_per_tok", "num_experts_per_token"), is_required=True),
    ),
    tensors=(
        *_ROPE_FACTORS,
        *(stack(_EXPERTS.format(w), rf"\1.{w}.weight") for w in ("w1", "w2", "w3")),
        untie("model.embed_tokens.weight", "lm_head.weight"),
    ),
    require=_SILU | {"attention_bias": (True,), "lm_head_bias": (True,), "num_experts_per_tok": (2,)},
    defaults={
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_local_experts": 16, "num_experts_per_tok": 2,
        "original_max_position_embeddings": 4096,
    },
    note=f"{_OTHERWISE}; {_NOTE}",
    warn=_phimoe_warning,
)  # fmt: skip
