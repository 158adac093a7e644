"""StableLM 3B, 2 1.6B and 2 12B. ref: llama.cpp conversion/stablelm.py, src/models/stablelm.cpp"""

from collections.abc import Mapping

from owm.convert.architectures.base import Architecture
from owm.convert.hparams import DECODER, Config, omit, only_rope, rope_dimensions, rope_if_unusual
from owm.convert.rules import stack, untie
from owm.convert.vocabulary import Vocab
from owm.formats.gguf_writer import Value

_NORMS = r"model\.layers\.(\d+)\.self_attn\.{}_layernorm\.norms\.(?P<expert>\d+)\.weight"
_NORM = r"model.layers.\1.self_attn.{}_layernorm.weight"


def _norm(config: Config) -> Mapping[str, Value | None]:
    return {"attention.layer_norm_epsilon": config.number("layer_norm_eps", "norm_eps", default=1e-5)}


def _residual(config: Config) -> Mapping[str, Value | None]:
    """Say as the reference does; llama.cpp goes by whether there is a second norm."""
    is_epoch = config.get("model_type") != "stablelm"
    return {"use_parallel_residual": config.flag("use_parallel_residual", default=is_epoch)}


STABLELM = Architecture(
    hf=("StableLmForCausalLM", "StableLMEpochForCausalLM"),
    gguf="stablelm",
    example="stabilityai/stablelm-2-1_6b",
    vocab=(Vocab.BPE,),
    hparams=(
        *DECODER,
        rope_if_unusual,
        rope_dimensions,
        only_rope("default", "linear", "yarn"),
        omit("attention.layer_norm_rms_epsilon"),  # an older name of the other
        _norm,
        _residual,
    ),
    tensors=(
        stack(_NORMS.format("q"), _NORM.format("q"), count=lambda config: config.n_heads),
        stack(_NORMS.format("k"), _NORM.format("k"), count=lambda config: config.n_kv_heads),
        untie("model.embed_tokens.weight", "lm_head.weight"),
    ),
    require={
        "hidden_act": ("silu", None),
        "qk_layernorm": (False, True, None),
        "rotary_scaling_factor": (1, 1.0, None),
    },
    defaults={"max_position_embeddings": 4096, "num_key_value_heads": 32, "partial_rotary_factor": 0.25},
)
