"""Mistral, Mixtral, and the language models of Mistral 3 and Ministral 3.

ref: llama.cpp conversion/llama.py, conversion/mistral3.py, src/models/mistral3.cpp
"""

from collections.abc import Mapping

from owm.convert.architectures.base import Architecture, ignored_window
from owm.convert.architectures.llama import PERMUTE, SILU
from owm.convert.hparams import DECODER, VOCAB_SIZE, Config, only_rope, rope_dimensions, usual_yarn
from owm.convert.rules import stack
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged, Unsupported
from owm.formats.gguf_writer import Value
from owm.units import is_number

_WINDOW = "a sliding window is not applied: llama.cpp attends to the whole text"
_EXPERTS = r"model\.layers\.(\d+)\.block_sparse_moe\.experts\.(?P<expert>\d+)\.{}\.weight"


def _mistral_window(config: Config) -> str | None:
    config.get("layer_types")  # MistralForCausalLM computes all layers alike
    return ignored_window(config)


def _number(config: Config, name: str, default: float) -> float:
    value = config.rope().get(name, default)
    if not is_number(value):
        raise Damaged(f"config.json: {name} of the rope parameters should be a number: {ascii(value)[:40]}")
    return float(value)


def _mistral3_rope(config: Config) -> Mapping[str, Value | None]:
    """Translate what Ministral 3 adds to yarn: scales of the rotated values, and of queries far into a text."""
    rope = config.rope()
    if rope["rope_type"] == "yarn" and rope.get("truncate", True) is not True:
        raise Unsupported("a yarn rope with truncate false is not supported for this architecture")
    mscale, mscale_all = _number(config, "mscale", 0.0), _number(config, "mscale_all_dim", 0.0)
    if "attention_factor" in rope or (mscale_all and mscale != 1.0):
        raise Unsupported(
            "a yarn rope with this attention_factor or mscale is not supported for this architecture",
            hint="llama.cpp computes it with an mscale of 1 and no attention_factor",
        )
    if config.get("model_type") != "ministral3":
        if mscale_all:
            raise Unsupported("a yarn rope with mscale_all_dim is not supported for this architecture")
        return {}
    if rope["rope_type"] != "yarn":
        raise Unsupported("Ministral 3 without a yarn rope is not supported")
    return {
        "rope.scaling.yarn_log_multiplier": mscale_all,
        "attention.temperature_scale": _number(config, "llama_4_scaling_beta", 0.0),
    }


MISTRAL = Architecture(
    hf=("MistralForCausalLM",),
    gguf="llama",
    example="mistralai/Mistral-7B-Instruct-v0.3",
    vocab=(Vocab.AUTO_LLAMA,),
    hparams=(*DECODER, VOCAB_SIZE, rope_dimensions, only_rope("default", "linear", "yarn"), usual_yarn),
    tensors=PERMUTE,
    require=SILU,
    defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 131072},
    note=_WINDOW,
    warn=_mistral_window,
)
MIXTRAL = Architecture(
    hf=("MixtralForCausalLM",),
    gguf="llama",
    example="mistralai/Mixtral-8x7B-Instruct-v0.1",
    vocab=(Vocab.AUTO_LLAMA,),
    hparams=MISTRAL.hparams,
    tensors=(
        *PERMUTE,
        *(stack(_EXPERTS.format(w), rf"layers.\1.feed_forward.experts.{w}.weight") for w in ("w1", "w2", "w3")),
    ),
    require=SILU,
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_local_experts": 8, "num_experts_per_tok": 2},
    note=_WINDOW,
    warn=ignored_window,
)
MISTRAL3 = Architecture(
    hf=("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"),
    gguf="mistral3",
    example="mistralai/Mistral-Small-3.2-24B-Instruct-2506",
    vocab=(Vocab.AUTO_LLAMA,),
    hparams=(*DECODER, VOCAB_SIZE, rope_dimensions, only_rope("default", "linear", "yarn"), _mistral3_rope),
    tensors=PERMUTE,
    require=SILU | {"model_type": ("mistral", "ministral3")},
    ignored=(
        "multimodal_projector_bias", "projector_hidden_act", "spatial_merge_size", "vision_feature_layer",
    ),
    is_tied=True,
    note=f"the language model alone, without the images' part; {_WINDOW}",
    warn=_mistral_window,
)  # fmt: skip
