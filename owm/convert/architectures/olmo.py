"""OLMo, OLMo 2 and 3, OLMoE. ref: llama.cpp conversion/olmo.py, src/models/olmo.cpp, olmo2.cpp, olmoe.cpp"""

from owm.convert.architectures.base import Architecture
from owm.convert.architectures.llama import permute_k, permute_q
from owm.convert.hparams import DECODER, Config, Hparam, constant, kv_heads, only_rope
from owm.convert.rules import apply, stack, untie
from owm.convert.vocabulary import Vocab

_EXPERTS = r"model\.layers\.(\d+)\.mlp\.experts\.(?P<expert>\d+)\.{}\.weight"
_NO_BIAS = {"hidden_act": ("silu", None), "attention_bias": (False, None)}


def n_experts(config: Config) -> int:
    """Count the experts of a layer."""
    return config.integer("num_experts", "num_local_experts")


OLMO = Architecture(
    hf=("OlmoForCausalLM",),
    gguf="olmo",
    example="allenai/OLMo-1B-hf",
    vocab=(Vocab.BPE,),
    hparams=(
        *DECODER,
        kv_heads,
        only_rope("default", "linear", "yarn"),
        constant("attention.layer_norm_epsilon", 1e-5),  # the class has no other
        Hparam("attention.clamp_kqv", ("clip_qkv",), float),
    ),
    tensors=(
        apply(r"model\.layers\.\d+\.self_attn\.q_proj\.weight", permute_q),
        apply(r"model\.layers\.\d+\.self_attn\.k_proj\.weight", permute_k),
    ),
    require=_NO_BIAS,
    defaults={"max_position_embeddings": 2048, "rope_theta": 10000.0},
)

OLMO2 = Architecture(
    hf=("Olmo2ForCausalLM",),
    gguf="olmo2",
    example="allenai/OLMo-2-0425-1B",
    vocab=(Vocab.BPE,),
    hparams=(*DECODER, kv_heads, only_rope("default", "linear", "yarn")),
    tensors=(untie("model.embed_tokens.weight", "lm_head.weight"),),
    require=_NO_BIAS,
    defaults={"max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0},
)

OLMOE = Architecture(
    hf=("OlmoeForCausalLM",),
    gguf="olmoe",
    example="allenai/OLMoE-1B-7B-0924",
    vocab=(Vocab.BPE,),
    hparams=(*DECODER, kv_heads, only_rope("default", "linear", "yarn")),
    tensors=(
        *(
            stack(_EXPERTS.format(name), rf"model.layers.\1.mlp.experts.{name}.weight", count=n_experts)
            for name in ("gate_proj", "up_proj", "down_proj")
        ),
        untie("model.embed_tokens.weight", "lm_head.weight"),
    ),
    require=_NO_BIAS | {"clip_qkv": (None,), "norm_topk_prob": (False, None)},
    defaults={
        "max_position_embeddings": 4096,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    },
    note="llama.cpp has no grouped attention, no clip_qkv and no norm_topk_prob for it",
)
