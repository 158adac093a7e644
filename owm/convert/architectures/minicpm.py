"""MiniCPM: Llama with scaled embeddings, residuals and logits. ref: llama.cpp conversion/minicpm.py

The scales' defaults are those of the published configuration_minicpm.py.
"""

from collections.abc import Mapping

import numpy as np

from owm.convert.architectures.base import Architecture
from owm.convert.architectures.llama import permute_k, permute_q
from owm.convert.hparams import DECODER, Config, only_rope, usual_yarn
from owm.convert.rules import apply, extra
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged, Unsupported
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Array


def _scales(config: Config) -> Mapping[str, Value | None]:
    n_layers, width = config.n_layers, config.number("dim_model_base")
    if n_layers <= 0 or width <= 0:
        raise Damaged("config.json: num_hidden_layers and dim_model_base should be above 0")
    return {
        "embedding_scale": config.number("scale_emb"),
        "residual_scale": config.number("scale_depth") / n_layers**0.5,
        "logit_scale": config.n_embd / width,
    }


def _long_rope(config: Config) -> Mapping[str, Value | None]:
    """Refuse a scaled attention, which the file cannot say: it comes with a context beyond that of training."""
    rope = config.rope()
    context = config.get("max_position_embeddings")
    if rope["rope_type"] == "longrope" and rope.get("original_max_position_embeddings", context) != context:
        raise Unsupported("longrope that scales attention is not supported for this architecture")
    return {}


def long_factors(config: Config) -> Array | None:
    """Return the divisors of the frequencies for texts longer than the original context, head_dim / 2."""
    return _factors(config, "long_factor")


def short_factors(config: Config) -> Array | None:
    """Return the divisors of the frequencies for texts within the original context, head_dim / 2."""
    return _factors(config, "short_factor")


def _factors(config: Config, name: str) -> Array | None:
    rope = config.rope()
    if rope["rope_type"] != "longrope":
        return None
    factors = rope.get(name)
    if (
        not isinstance(factors, list)
        or len(factors) != config.head_dim // 2
        or not all(isinstance(item, int | float) for item in factors)
    ):
        raise Damaged(f"config.json: {name} should be {config.head_dim // 2} numbers")
    return np.asarray(factors, np.float32)


MINICPM = Architecture(
    hf=("MiniCPMForCausalLM",),
    gguf="minicpm",
    example="openbmb/MiniCPM-2B-sft-bf16",
    vocab=(Vocab.SENTENCEPIECE, Vocab.BPE),
    hparams=(*DECODER, _scales, only_rope("default", "linear", "yarn", "longrope"), usual_yarn, _long_rope),
    tensors=(
        extra("rope_factors_short.weight", short_factors),
        extra("rope_factors_long.weight", long_factors),
        apply(r"model\.layers\.\d+\.self_attn\.q_proj\.(weight|bias)", permute_q),
        apply(r"model\.layers\.\d+\.self_attn\.k_proj\.(weight|bias)", permute_k),
    ),
    require={"hidden_act": ("silu", None), "num_experts": (0, None)},
    defaults={
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "scale_emb": 1,
        "scale_depth": 1,
        "dim_model_base": 1,
    },
    is_tied=True,
    note="Sparse attention over long texts (`sparse_config`) is computed as full attention.",
)
