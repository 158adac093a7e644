"""Google's Gemma 1, 2, 3 and 3n, of multimodal ones the language model. ref: llama.cpp conversion/gemma.py"""

import math
from collections.abc import Mapping

import numpy as np

from owm.convert import hparams, transforms
from owm.convert.architectures.base import Architecture
from owm.convert.hparams import DECODER, Computed, Config, Hparam, sliding_layers, sliding_window
from owm.convert.rules import Rule, Tensors, apply, drop, rename, stack
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged, Unsupported
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import CARRIERS, MappedRows, MemoryRows, Rows
from owm.units import is_number

# "gelu" is the tanh form too in Gemma 1's configs: so their class reads it.
_GELU_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast", None)
_ROPE_BASE = 10000.0  # llama.cpp's where the file names none
_LOCAL_ROPE_BASE = 10000.0


def add_one(rows: Rows, config: Config) -> Rows:
    """Add the 1 that the class adds to the gain of a norm when it runs."""
    return transforms.add(rows, 1.0)


def usual_rope(config: Config) -> Mapping[str, Value | None]:
    """Leave out the base that llama.cpp takes by itself."""
    found = hparams.rope(config)
    return {"rope.freq_base": None} if found.get("rope.freq_base") == _ROPE_BASE else {}


def two_ropes(config: Config) -> Mapping[str, Value | None]:
    """Return the base of layers with a window, which turn by a rope of their own.

    Raises:
        Unsupported: either rope is of a type that llama.cpp would give to all layers.
    """
    full_type = config.rope()["rope_type"]
    if full_type not in ("default", "linear"):
        raise Unsupported(f"Gemma with a rope of type {ascii(full_type)[:40]} is not supported")
    by_kind = config.get("rope_parameters") or {}
    local = by_kind.get("sliding_attention") if isinstance(by_kind, dict) else None
    local = local if isinstance(local, dict) else {}
    if (local_type := local.get("rope_type", "default")) != "default":
        raise Unsupported(f"Gemma with a rope of type {ascii(local_type)[:40]} in sliding layers is not supported")
    base = local.get("rope_theta")
    if base is None:
        base = config.number("rope_local_base_freq", default=_LOCAL_ROPE_BASE)
    if not is_number(base):
        raise Damaged(f"config.json: rope_theta of sliding layers should be a number: {ascii(base)[:40]}")
    return {"rope.freq_base_swa": float(base)}


def gemma3_window(config: Config) -> Mapping[str, Value | None]:
    """Return the window and its layers; nothing where no layer has one, which is how llama.cpp knows."""
    found = sliding_window(6)(config)
    return found if any(sliding_layers(config, 6)) or config.is_null("sliding_window") else {}


def query_scale(n_layers_of_27b: int) -> Computed:
    """Refuse queries scaled otherwise than llama.cpp does: by heads, or for the 27B model by embedding."""

    def check(config: Config) -> Mapping[str, Value | None]:
        scalar = config.number("query_pre_attn_scalar")
        is_27b = config.n_layers == n_layers_of_27b
        expected = config.n_embd // config.n_heads if is_27b else config.head_dim
        if scalar != expected:
            raise Unsupported(
                f"Gemma with query_pre_attn_scalar {scalar:g} is not supported",
                hint=f"llama.cpp computes this model with {expected}",
            )
        return {}

    return check


def softcapping(*names: str, is_needed: bool) -> Computed:
    """Return the bounds of logits; llama.cpp has Gemma 2 always bounded.

    Raises:
        Unsupported: a bound is needed, and config.json says there is none.
    """

    def read(config: Config) -> Mapping[str, Value | None]:
        found: dict[str, Value | None] = {}
        for name in names:
            bound = None if config.is_null(name) or name not in config else config.number(name)
            if not bound and is_needed:
                raise Unsupported(f"Gemma without {name} is not supported: llama.cpp always applies it")
            found[name] = bound or None
        return found

    return read


_NORMS = apply(r".*norm\.weight", add_one)
_NO_BIAS = {"attention_bias": (False, None), "use_bidirectional_attention": (False, None)}
_TIED = {"tie_word_embeddings": (True, None)}
_IMAGES_AND_SOUND = (
    "mm_tokens_per_image",
    "vision_soft_tokens_per_image",
    "audio_soft_tokens_per_image",
    "image_seq_length",
)

GEMMA = Architecture(
    hf=("GemmaForCausalLM",),
    gguf="gemma",
    example="google/gemma-2b",
    vocab=(Vocab.GEMMA,),
    hparams=(*DECODER, usual_rope),
    tensors=(drop(r"lm_head\.weight"), _NORMS),
    require={
        "hidden_act": ("gelu", *_GELU_TANH),
        "hidden_activation": _GELU_TANH,
        **_NO_BIAS,
        **_TIED,
    },
    defaults={
        "vocab_size": 256000,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": _ROPE_BASE,
    },
    is_tied=True,
)

GEMMA2 = Architecture(
    hf=("Gemma2ForCausalLM",),
    gguf="gemma2",
    example="google/gemma-2-2b-it",
    vocab=(Vocab.GEMMA2,),
    hparams=(
        *DECODER,
        usual_rope,
        sliding_window(2),
        softcapping("attn_logit_softcapping", "final_logit_softcapping", is_needed=True),
        query_scale(46),
    ),
    tensors=(drop(r"lm_head\.weight"), _NORMS),
    require={
        "hidden_act": ("gelu", *_GELU_TANH),
        "hidden_activation": _GELU_TANH,
        **_NO_BIAS,
        **_TIED,
    },
    defaults={
        "vocab_size": 256000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": _ROPE_BASE,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    ignored=("sliding_window_size",),
    is_tied=True,
    note="only queries scaled as in the published sizes",
)

GEMMA3 = Architecture(
    hf=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    gguf="gemma3",
    example="google/gemma-3-1b-it",
    vocab=(Vocab.GEMMA2,),
    hparams=(
        *DECODER,
        two_ropes,
        gemma3_window,
        softcapping("final_logit_softcapping", is_needed=False),
        query_scale(62),
    ),
    tensors=(_NORMS,),
    require={
        "hidden_act": ("gelu", *_GELU_TANH),
        "hidden_activation": _GELU_TANH,
        "attn_logit_softcapping": (None,),
        **_NO_BIAS,
    },
    defaults={
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    },
    ignored=_IMAGES_AND_SOUND,
    is_tied=True,
    note="of a multimodal checkpoint the language model only",
)

# What llama.cpp has built in for Gemma 3n.
_N_LAYERS_WITH_KV = 20
_N_SPARSE_LAYERS, _SPARSITY = 10, 0.95
_STD_OF_SPARSITY = {0.95: 1.6448535919189453, 0.0: -math.inf}  # quantiles of the normal distribution, as float32


def _per_layer(config: Config, name: str) -> list[object]:
    value = config.get(name)
    values = value if isinstance(value, list) else [value] * config.n_layers
    if len(values) != config.n_layers:
        raise Damaged(f"config.json: {name} should have {config.n_layers} values, one a layer")
    return values


def gemma3n_feed_forward(config: Config) -> Mapping[str, Value | None]:
    """Return the width of each layer's feed-forward part."""
    widths = [width for width in _per_layer(config, "intermediate_size") if isinstance(width, int) and width > 0]
    if len(widths) != config.n_layers:
        raise Damaged("config.json: intermediate_size should be a whole number, or one a layer")
    return {"feed_forward_length": widths}


def gemma3n_layers(config: Config) -> Mapping[str, Value | None]:
    """Return how layers differ.

    Raises:
        Unsupported: other layers share keys and values, or are sparse, than llama.cpp takes.
    """
    layers = sliding_layers(config, 5)
    shared = config.integer("num_kv_shared_layers")
    last = layers[_N_LAYERS_WITH_KV - 2 : _N_LAYERS_WITH_KV]
    if shared != max(0, config.n_layers - _N_LAYERS_WITH_KV) or (shared and last != [True, False]):
        raise Unsupported(
            f"Gemma 3n with {config.n_layers} layers, of which {shared} share keys and values, is not supported",
            hint=f"llama.cpp has {_N_LAYERS_WITH_KV} layers with keys and values, the last one without a window",
        )
    n_sparse = _N_SPARSE_LAYERS if config.n_layers > _N_SPARSE_LAYERS else 0
    usual = [_SPARSITY] * n_sparse + [0.0] * (config.n_layers - n_sparse)
    sparsity = (
        usual if "activation_sparsity_pattern" not in config else _per_layer(config, "activation_sparsity_pattern")
    )
    if sparsity != [_SPARSITY if i < _N_SPARSE_LAYERS else 0.0 for i in range(config.n_layers)]:
        raise Unsupported(
            "Gemma 3n with another activation_sparsity_pattern is not supported",
            hint=f"llama.cpp computes the first {_N_SPARSE_LAYERS} layers with {_SPARSITY}, the others without",
        )
    return {
        "attention.shared_kv_layers": shared,
        "attention.sliding_window_pattern": list(layers),
        "activation_sparsity_scale": [_STD_OF_SPARSITY[value] for value in sparsity if isinstance(value, float)],
    }


def padded(rows: Rows, config: Config) -> Rows:
    """Give the tokens of pictures and sound, which have no embedding here, rows of zeros."""
    missing = config.integer("vocab_size") - rows.shape[0]
    if missing <= 0:
        return rows
    zeros = MemoryRows(np.zeros((missing, *rows.shape[1:]), CARRIERS[rows.dtype]), rows.dtype)
    return transforms.join([rows, zeros])


def _unused_keys_and_values() -> Rule:
    """Fill in, as zeros, what layers that share keys and values do not have and llama.cpp loads all the same."""

    def run(tensors: Tensors, config: Config) -> Tensors:
        made = dict(tensors)
        for layer in range(_N_LAYERS_WITH_KV, config.n_layers):
            for part in ("k_proj", "v_proj", "k_norm"):
                name = f"model.layers.{layer}.self_attn.{part}.weight"
                like = tensors.get(f"model.layers.0.self_attn.{part}.weight")
                if name not in tensors and like is not None:
                    made[name] = MappedRows(like, lambda block, begin, end: np.zeros_like(block))
        return made

    return Rule("fill in unused keys and values", run, adds=True)


GEMMA3N = Architecture(
    hf=("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
    gguf="gemma3n",
    example="google/gemma-3n-E2B-it",
    vocab=(Vocab.GEMMA2,),
    hparams=(
        *(each for each in DECODER if not (isinstance(each, Hparam) and each.key == "feed_forward_length")),
        gemma3n_feed_forward,
        two_ropes,
        Hparam("attention.sliding_window", ("sliding_window",), is_required=True),
        softcapping("final_logit_softcapping", is_needed=True),
        Hparam("altup.active_idx", ("altup_active_idx",)),
        Hparam("altup.num_inputs", ("altup_num_inputs",)),
        Hparam("embedding_length_per_layer_input", ("hidden_size_per_layer_input",)),
        gemma3n_layers,
    ),
    tensors=(
        rename(r"(.*_scale)", r"\1.weight"),
        apply(r"model\.embed_tokens(_per_layer)?\.weight", padded),
        stack(r"model\.(altup_projections|altup_unembed_projections)\.(?P<expert>\d+)\.weight", r"model.\1.weight"),
        _unused_keys_and_values(),
    ),
    require={
        "hidden_act": _GELU_TANH,
        "hidden_activation": _GELU_TANH,
        "final_logit_softcapping": (30.0,),
        "altup_num_inputs": (4,),
        "altup_active_idx": (0,),
        "altup_correct_scale": (True, None),
        "hidden_size_per_layer_input": (256,),
        "laurel_rank": (64,),
        **_NO_BIAS,
    },
    defaults={
        "vocab_size": 262400,
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "sliding_window": 512,
        "final_logit_softcapping": 30.0,
        "num_kv_shared_layers": 15,
        "hidden_size_per_layer_input": 256,
        "altup_num_inputs": 4,
        "altup_active_idx": 0,
        "laurel_rank": 64,
    },
    ignored=(
        *_IMAGES_AND_SOUND,
        "vocab_size_per_layer_input",
        "altup_coef_clip",
        "altup_lr_multiplier",
        "query_pre_attn_scalar",
    ),
    is_tied=True,
    note="of a multimodal checkpoint the language model only; only the layout of the published sizes",
)
