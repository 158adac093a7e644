"""DeepSeek: the first mixture, V2 and V3 with latent attention, R1. ref: llama.cpp conversion/deepseek.py

V2 and V3 keep one latent vector a token instead of keys and values. llama.cpp multiplies queries into the latent space,
so the projection from there is split in a part for keys, transposed, and a part for values.
"""

import re
from collections.abc import Mapping

import numpy as np

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.architectures.llama import permute_k, permute_q
from owm.convert.hparams import DECODER, VOCAB_SIZE, Computed, Config, Hparam, constant, only_rope, rope_dimensions
from owm.convert.rules import Rule, Tensors, apply, divide, drop, stack
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged, Unsupported
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Rows

_LAYER = re.compile(r"model\.layers\.(\d+)\..*")


def is_tied(config: Config) -> bool:
    """Tell whether output embeddings are the input's, so that a copy of them is left out."""
    return config.flag("tie_word_embeddings", default=False)


def n_experts(config: Config) -> int:
    """Count the routed experts of a layer."""
    return config.integer("n_routed_experts")


EXPERTS = tuple(
    stack(
        rf"(model\.layers\.\d+)\.mlp\.experts\.(?P<expert>\d+)\.{w}\.weight",
        rf"\1.mlp.experts.{w}.weight",
        count=n_experts,
    )
    for w in ("down_proj", "gate_proj", "up_proj")
)


def _beyond(tensors: Tensors, config: Config) -> Tensors:
    n_layers = config.n_layers
    return {
        name: rows
        for name, rows in tensors.items()
        if not (match := _LAYER.fullmatch(name)) or int(match[1]) < n_layers
    }


def latent_to_heads(rows: Rows, config: Config) -> Mapping[str, Rows]:
    """Split a projection from the latent space: (heads × (key + value), latent).

    Gives keys as (heads, latent, key) and values as (heads, value, latent).
    """
    key, value = config.integer("qk_nope_head_dim"), config.integer("v_head_dim")
    n_heads, latent = config.n_heads, rows.shape[-1]
    if min(key, value) <= 0 or rows.shape[0] != n_heads * (key + value):
        raise Damaged(
            f"{rows.shape[0]} rows are not {n_heads} heads of {key} + {value}; config.json contradicts the weights"
        )
    index = np.arange(rows.shape[0]).reshape(n_heads, key + value)
    keys = transforms.pick(rows, index[:, :key].reshape(-1))
    values = transforms.pick(rows, index[:, key:].reshape(-1))
    return {
        r"\1.k_b_proj.weight": transforms.transpose(transforms.reshape(keys, (n_heads, key, latent))),
        r"\1.v_b_proj.weight": transforms.reshape(values, (n_heads, value, latent)),
    }


def _latent_lengths(config: Config) -> Mapping[str, Value | None]:
    """Widths as llama.cpp sees them: one head in the latent space, and what heads are after it."""
    latent, rope = config.integer("kv_lora_rank"), config.integer("qk_rope_head_dim")
    return {
        "attention.kv_lora_rank": latent,
        "attention.key_length": latent + rope,
        "attention.value_length": latent,
        "attention.key_length_mla": config.integer("qk_nope_head_dim") + rope,
        "attention.value_length_mla": config.integer("v_head_dim"),
        "rope.dimension_count": rope,
        "attention.head_count_kv": 1,
    }


def _query_latent(config: Config) -> Mapping[str, Value | None]:
    """Width of the queries' latent; 0 says that there is none, where llama.cpp does not take that for granted.

    ref: llama.cpp src/models/deepseek2.cpp, is_lite
    """
    rank = config.get("q_lora_rank")
    if rank is not None:
        return {"attention.q_lora_rank": config.integer("q_lora_rank")}
    is_lite = config.n_layers in (26, 27) or (config.n_layers == 48 and config.get("vocab_size") == 128256)
    return {} if is_lite else {"attention.q_lora_rank": 0}


def _groups(config: Config) -> Mapping[str, Value | None]:
    """Leave out groups of experts that restrict nothing: llama.cpp stops at them."""
    n_groups, n_used = config.integer("n_group", default=1), config.integer("topk_group", default=1)
    if n_groups > 1 and (n_used >= n_groups or config.get("topk_method") == "greedy"):
        return {"expert_group_count": None, "expert_group_used_count": None}
    return {}


def _weights_norm(config: Config) -> Mapping[str, Value | None]:
    return {"expert_weights_norm": True} if config.flag("norm_topk_prob") else {}


def _yarn_scale(config: Config) -> Mapping[str, Value | None]:
    """Write the scale of yarn's attention. llama.cpp takes `mscale` to be the same, and both to be given.

    ref: llama.cpp src/llama-context.cpp and src/models/deepseek2.cpp
    """
    rope = config.rope()
    scale = rope.get("mscale_all_dim")
    if rope["rope_type"] == "yarn":
        if not scale or rope.get("mscale", 1.0) != scale or "attention_factor" in rope:
            raise Unsupported(
                "a yarn rope whose mscale and mscale_all_dim are not the same is not supported for this architecture"
            )
        for name, usual in (("beta_fast", 32), ("beta_slow", 1), ("truncate", True)):
            if rope.get(name, usual) != usual:
                raise Unsupported(
                    f"a yarn rope with {name} {ascii(rope[name])[:40]} is not supported for this architecture",
                    hint=f"llama.cpp computes it with: {usual}",
                )
    if scale is None:
        return {}
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise Damaged(f"config.json: mscale_all_dim should be a number: {ascii(scale)[:40]}")
    return {"rope.scaling.yarn_log_multiplier": 0.1 * scale}


_LATENT: tuple[Computed, ...] = (
    *DECODER,
    only_rope("default", "yarn"),
    VOCAB_SIZE,
    Hparam("leading_dense_block_count", ("first_k_dense_replace",)),
    _latent_lengths,
    _query_latent,
    _groups,
    Hparam("expert_feed_forward_length", ("moe_intermediate_size",)),
    Hparam("expert_shared_count", ("n_shared_experts",)),
    Hparam("expert_weights_scale", ("routed_scaling_factor",), float),
    _weights_norm,
    _yarn_scale,
)
_LATENT_TENSORS = (
    drop(r"(model\.)?lm_head\.weight", when=is_tied),
    *EXPERTS,
    divide(r"(model\.layers\.\d+\.self_attn)\.kv_b_proj\.weight", latent_to_heads),
)
_REQUIRED = {
    "hidden_act": ("silu", None),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "moe_layer_freq": (1, None),
    "rms_norm_eps": (1e-6, 1e-5),  # that of the latent's norm is 1e-6 always; llama.cpp has one for all
}
# Training's business, and repetitions of what other keys say.
_IGNORED = (
    "aux_loss_alpha",
    "seq_aux",
    "ep_size",
    "qk_head_dim",
    "head_dim",
    "num_key_value_heads",
    "num_nextn_predict_layers",
)

DEEPSEEK = Architecture(
    hf=("DeepseekForCausalLM",),
    gguf="deepseek",
    example="deepseek-ai/deepseek-moe-16b-chat",
    vocab=(Vocab.SENTENCEPIECE, Vocab.BPE),
    hparams=(
        *DECODER,
        only_rope("default"),
        rope_dimensions,
        constant("rope.scaling.type", "none"),
        VOCAB_SIZE,
        Hparam("leading_dense_block_count", ("first_k_dense_replace",), is_required=True),
        Hparam("expert_feed_forward_length", ("moe_intermediate_size",), is_required=True),
        Hparam("expert_shared_count", ("n_shared_experts",), is_required=True),
        constant("expert_weights_scale", 1.0),
    ),
    tensors=(
        apply(r"model\.layers\.\d+\.self_attn\.q_proj\.(weight|bias)", permute_q),
        apply(r"model\.layers\.\d+\.self_attn\.k_proj\.(weight|bias)", permute_k),
        *EXPERTS,
    ),
    require={
        "hidden_act": ("silu", None),
        "attention_bias": (False, None),
        "moe_layer_freq": (1, None),
        "norm_topk_prob": (False, None),
        "scoring_func": ("softmax", None),
    },
    defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "first_k_dense_replace": 0},
    ignored=("aux_loss_alpha", "seq_aux"),
)

DEEPSEEK2 = Architecture(
    hf=("DeepseekV2ForCausalLM",),
    gguf="deepseek2",
    example="deepseek-ai/DeepSeek-V2-Lite-Chat",
    vocab=(Vocab.BPE,),
    hparams=_LATENT,
    tensors=_LATENT_TENSORS,
    require=_REQUIRED
    | {
        "norm_topk_prob": (False, None),
        "scoring_func": ("softmax", None),
        "topk_method": ("greedy", "group_limited_greedy", None),
    },
    defaults={
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "first_k_dense_replace": 0,
        "n_shared_experts": 2,
        "topk_method": "greedy",
    },
    ignored=_IGNORED,
    note="Groups of experts are ranked by llama.cpp as V3 does (the sum of the best two), V2 takes the best.",
)

DEEPSEEK3 = Architecture(
    hf=("DeepseekV3ForCausalLM",),
    gguf="deepseek2",
    example="deepseek-ai/DeepSeek-R1",
    vocab=(Vocab.BPE,),
    hparams=(*_LATENT, constant("expert_gating_func", 2)),  # sigmoid; transformers 5 does not write it
    tensors=(Rule("drop the layers that predict further tokens", _beyond), *_LATENT_TENSORS),
    require=_REQUIRED
    | {
        "scoring_func": ("sigmoid", None),
        "topk_method": ("noaux_tc", None),
        "rope_interleave": (True, None),
    },
    defaults={
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "first_k_dense_replace": 3,
        "n_shared_experts": 1,
        "n_group": 8,
        "topk_group": 4,
        "num_experts_per_tok": 8,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
    },
    ignored=_IGNORED,
    note="Layers that predict further tokens are left out.",
)
