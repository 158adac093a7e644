"""Hunyuan, dense. ref: llama.cpp conversion/hunyuan.py, src/models/hunyuan-vl.cpp"""

from collections.abc import Mapping

from owm.convert.architectures.base import Architecture
from owm.convert.architectures.deepseek import is_tied
from owm.convert.hparams import DECODER, Config, omit, only_rope, rope, usual_yarn
from owm.convert.rules import drop
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged, Unsupported
from owm.formats.gguf_writer import Value

_LONG_CONTEXT = 256 * 1024
_PUBLISHED_CONTEXTS = (32 * 1024, _LONG_CONTEXT)


def stretched_rope(config: Config) -> Mapping[str, Value | None]:
    """Translate rope parameters; "dynamic" is a base stretched by a fixed `alpha` here: nothing is left to scale.

    Published configs name the context of training, though the stretched base reaches to 256 Ki.
    """
    parameters = config.rope()
    if parameters["rope_type"] != "dynamic":
        return rope(config)
    alpha, base, width = parameters.get("alpha"), parameters.get("rope_theta"), config.head_dim
    if not alpha:
        raise Unsupported("rope that changes with the length of the text is not supported", hint="llama.cpp lacks it")
    if not all(isinstance(item, int | float) and item > 0 for item in (alpha, base)) or width <= 2:
        raise Damaged("config.json: alpha and rope_theta of the rope parameters should be numbers above 0")
    found: dict[str, Value | None] = {
        "rope.freq_base": float(base * alpha ** (width / (width - 2))),
        "rope.scaling.type": "none",
        "rope.scaling.factor": 1.0,
    }
    if config.get("max_position_embeddings") in _PUBLISHED_CONTEXTS:
        found |= {"rope.scaling.original_context_length": _LONG_CONTEXT, "context_length": _LONG_CONTEXT}
    return found


HUNYUAN = Architecture(
    hf=("HunYuanDenseV1ForCausalLM",),
    gguf="hunyuan-dense",
    example="tencent/Hunyuan-4B-Instruct",
    vocab=(Vocab.HUNYUAN,),
    hparams=(
        *(stretched_rope if hparam is rope else hparam for hparam in DECODER),
        only_rope("default", "linear", "yarn", "dynamic"),
        usual_yarn,
        omit("expert_count"),
    ),
    tensors=(drop(r"lm_head\.weight", when=is_tied),),
    require={
        "hidden_act": ("silu", None),
        "attention_bias": (False, None),
        "use_qk_norm": (True, None),
        "use_cla": (False, None),
        "num_experts": (1, None),
        "norm_type": ("rms", "hf_rms", None),
    },
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 10000.0},
    note="Rope that changes with the length of the text (`dynamic` without `alpha`) is refused.",
)
