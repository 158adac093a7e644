"""Falcon-H1: attention and Mamba 2 side by side in every layer. ref: llama.cpp conversion/falcon_h1.py

The class scales what flows through it by a dozen multipliers; llama.cpp has none of them, so the weights are scaled.
"""

from collections.abc import Callable, Mapping

import numpy as np

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.architectures.mamba import TIME_STEPS, TRAINING, mamba2_rules
from owm.convert.hparams import LAYER_COUNT, VOCAB_SIZE, Config, Hparam
from owm.convert.rules import Rule, apply, divide
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged, Unsupported
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Rows

_LAYER = r"model\.layers\.\d+"


def _factor(name: str) -> Callable[[Config], float]:
    return lambda config: config.number(name, default=1.0)


def _item(name: str, index: int, n: int) -> Callable[[Config], float]:
    return lambda config: _numbers(config, name, n)[index]


def _numbers(config: Config, name: str, n: int) -> list[float]:
    stated = config.items(name) or [1.0] * n
    if len(stated) != n or not all(isinstance(item, int | float) for item in stated):
        raise Damaged(f"config.json: {name} should be {n} numbers: {ascii(stated)[:60]}")
    return [float(item) for item in stated]


def _scaled(pattern: str, *factors: Callable[[Config], float]) -> Rule:
    """Multiply tensors by numbers of the config, one after the other."""

    def by_multipliers(rows: Rows, config: Config) -> Rows:
        for factor in factors:
            rows = transforms.scale(rows, factor(config))
        return rows

    return apply(pattern, by_multipliers)


def _by_parts(rows: Rows, config: Config) -> Rows:
    """Scale the five parts of the mixer's input: z, x, B, C and the time steps."""
    inner, state = config.integer("mamba_d_ssm"), config.integer("mamba_n_groups") * config.integer("mamba_d_state")
    n_heads = rows.shape[0] - 2 * inner - 2 * state
    if n_heads != config.integer("mamba_n_heads"):
        raise Damaged(f"a projection of {rows.shape[0]} rows has no place for the heads that config.json names")
    numbers = np.array(_numbers(config, "ssm_multipliers", 5), np.float32)
    return transforms.scale_rows(rows, np.repeat(numbers, [inner, inner, state, state, n_heads]))


def _own_output(rows: Rows, config: Config) -> Mapping[str, Rows]:
    """Give tied embeddings an output of their own where input and output are scaled by different numbers."""
    kept = {"model.embed_tokens.weight": rows}
    is_tied = config.flag("tie_word_embeddings", default=False)
    if not is_tied or _factor("embedding_multiplier")(config) == _factor("lm_head_multiplier")(config):
        return kept
    return kept | {"lm_head.weight": rows}


def _width(config: Config) -> Mapping[str, Value | None]:
    return {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}


def _mixer(config: Config) -> Mapping[str, Value | None]:
    return {
        "ssm.inner_size": config.integer("mamba_d_ssm"),
        "ssm.time_step_rank": config.integer("mamba_n_heads"),
    }


def _rope(config: Config) -> Mapping[str, Value | None]:
    parameters = config.rope()
    if parameters["rope_type"] != "default":
        raise Unsupported(f"Falcon-H1 with rope scaling is not supported: {ascii(parameters['rope_type'])[:40]}")
    return {"rope.freq_base": float(parameters["rope_theta"])}


def _gated_norm(config: Config) -> Mapping[str, Value | None]:
    if config.flag("mamba_rms_norm", default=False) and config.flag("mamba_norm_before_gate", default=True):
        raise Unsupported(
            "Falcon-H1 with the mixer's norm before its gate is not supported", hint="llama.cpp gates first"
        )
    return {}


FALCON_H1 = Architecture(
    hf=("FalconH1ForCausalLM",),
    gguf="falcon-h1",
    example="tiiuae/Falcon-H1-0.5B-Instruct",
    vocab=(Vocab.BPE,),
    hparams=(
        Hparam("block_count", LAYER_COUNT, is_required=True),
        Hparam("context_length", ("max_position_embeddings",)),
        Hparam("embedding_length", ("hidden_size",), is_required=True),
        Hparam("feed_forward_length", ("intermediate_size",), is_required=True),
        Hparam("attention.head_count", ("num_attention_heads",), is_required=True),
        lambda config: {"attention.head_count_kv": config.n_kv_heads},
        _width,
        _rope,
        Hparam("attention.layer_norm_rms_epsilon", ("rms_norm_eps",), float),
        Hparam("ssm.conv_kernel", ("mamba_d_conv",)),
        Hparam("ssm.state_size", ("mamba_d_state",)),
        Hparam("ssm.group_count", ("mamba_n_groups",)),
        _mixer,
        _gated_norm,
        VOCAB_SIZE,
    ),
    tensors=(
        *mamba2_rules(rf"{_LAYER}\.mamba"),
        divide(r"model\.embed_tokens\.weight", _own_output),
        _scaled(r"model\.embed_tokens\.weight", _factor("embedding_multiplier")),
        _scaled(r"lm_head\.weight", _factor("lm_head_multiplier")),
        _scaled(rf"{_LAYER}\.feed_forward\.gate_proj\.(weight|bias)", _item("mlp_multipliers", 0, 2)),
        _scaled(rf"{_LAYER}\.feed_forward\.down_proj\.(weight|bias)", _item("mlp_multipliers", 1, 2)),
        _scaled(rf"{_LAYER}\.self_attn\.k_proj\.weight", _factor("key_multiplier"), _factor("attention_in_multiplier")),
        _scaled(rf"{_LAYER}\.self_attn\.[qv]_proj\.weight", _factor("attention_in_multiplier")),
        _scaled(rf"{_LAYER}\.self_attn\.o_proj\.weight", _factor("attention_out_multiplier")),
        _scaled(rf"{_LAYER}\.mamba\.out_proj\.weight", _factor("ssm_out_multiplier")),
        _scaled(rf"{_LAYER}\.mamba\.in_proj\.weight", _factor("ssm_in_multiplier")),
        apply(rf"{_LAYER}\.mamba\.in_proj\.weight", _by_parts),
    ),
    require={
        "hidden_act": ("silu", "swish", None),
        "attention_bias": (False, None),
        "projectors_bias": (False, None),
        "mamba_proj_bias": (False, None),
        "mamba_conv_bias": (True, None),
        "time_step_limit": TIME_STEPS,
    },
    defaults={
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "num_key_value_heads": 8,
        "mamba_d_ssm": 1024,
        "mamba_n_heads": 128,
        "mamba_n_groups": 1,
        "mamba_d_state": 256,
        "mamba_d_conv": 4,
    },
    ignored=(
        *TRAINING,
        "mamba_d_head",
        "mamba_expand",
        "num_logits_to_keep",
        "mamba_use_mlp",
        "mlp_expansion_factor",
        "time_step_rank",
    ),
    note="only without biases of attention and of the mixers' projections, and without rope scaling",
)
