"""Llama and what shares its class: SmolLM, Yi, the R1 distills. ref: llama.cpp conversion/llama.py"""

import numpy as np

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.hparams import DECODER, VOCAB_SIZE, Config, only_rope, rope_dimensions, usual_yarn
from owm.convert.rules import apply, extra
from owm.convert.vocabulary import Vocab
from owm.pipeline.rows import Array, Rows


def permute_q(rows: Rows, config: Config) -> Rows:
    """Pair up the halves of each query head."""
    return transforms.permute(rows, config.n_heads)


def permute_k(rows: Rows, config: Config) -> Rows:
    """Pair up the halves of each key head."""
    return transforms.permute(rows, config.n_kv_heads)


def llama3_rope_factors(config: Config) -> Array | None:
    """Return by what each of the head_dim / 2 frequencies is divided, for Llama 3.1's rope scaling.

    ref: transformers modeling_rope_utils.py, _compute_llama3_parameters
    """
    rope = config.rope()
    if str(rope["rope_type"]).lower() != "llama3":
        return None
    # Every step is rounded as the reference rounds it, so that not a bit differs: a number divided by a float32 is
    # the number times the reciprocal there.
    f32, one = np.float32, np.float32(1)
    base, factor = float(rope.get("rope_theta", 10000.0)), f32(rope.get("factor", 8.0))
    low, high = float(rope.get("low_freq_factor", 1.0)), float(rope.get("high_freq_factor", 4.0))
    original = float(rope.get("original_max_position_embeddings", 8192))
    exponents = np.arange(0, config.head_dim, 2, dtype=f32) / f32(config.head_dim)
    frequencies = one / (base ** exponents.astype(np.float64)).astype(f32)
    wavelengths = one / frequencies * f32(2 * np.pi)
    smooth = (one / wavelengths * f32(original) - f32(low)) / f32(high - low)
    between = one / ((one - smooth) / factor + smooth)
    factors = np.where(
        wavelengths < f32(original / high), one, np.where(wavelengths > f32(original / low), factor, between)
    )
    return factors.astype(f32)


PERMUTE = (
    apply(r"model\.layers\.\d+\.self_attn\.q_proj\.(weight|bias)", permute_q),
    apply(r"model\.layers\.\d+\.self_attn\.k_proj\.(weight|bias)", permute_k),
)
SILU = {"hidden_act": ("silu", "swish", None)}

LLAMA = Architecture(
    hf=("LlamaForCausalLM",),
    gguf="llama",
    example="HuggingFaceTB/SmolLM2-135M-Instruct",
    vocab=(Vocab.AUTO_LLAMA,),
    hparams=(*DECODER, VOCAB_SIZE, rope_dimensions, only_rope("default", "linear", "yarn", "llama3"), usual_yarn),
    tensors=(extra("rope_freqs.weight", llama3_rope_factors), *PERMUTE),
    require=SILU,
    defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    ignored=("sliding_window",),  # the class has none
)
