"""GLM 4 and the mixtures from 4.5 on. ref: llama.cpp conversion/glm.py, src/models/glm4.cpp, src/models/glm4-moe.cpp"""

from collections.abc import Mapping

from owm.convert.architectures.base import Architecture
from owm.convert.architectures.deepseek import EXPERTS
from owm.convert.hparams import DECODER, Config, Hparam, constant, only_rope, rope_dimensions, usual_yarn
from owm.convert.vocabulary import Vocab
from owm.formats.gguf_writer import Value


def _blocks(config: Config) -> Mapping[str, Value | None]:
    """Count the layers that predict further tokens too: they are kept."""
    n_more = config.integer("num_nextn_predict_layers", default=0)
    return {"block_count": config.n_layers + n_more}


_ROPE = (only_rope("default", "linear", "yarn"), usual_yarn, rope_dimensions)

GLM4 = Architecture(
    hf=("Glm4ForCausalLM",),
    gguf="glm4",
    example="zai-org/GLM-4-9B-0414",
    vocab=(Vocab.GLM4,),
    hparams=(*DECODER, *_ROPE),
    require={"hidden_act": ("silu", None)},
    defaults={"rms_norm_eps": 1.5625e-07, "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
)

GLM4_MOE = Architecture(
    hf=("Glm4MoeForCausalLM",),
    gguf="glm4moe",
    example="zai-org/GLM-4.5-Air",
    vocab=(Vocab.GLM4_MOE,),
    hparams=(
        *DECODER,
        *_ROPE,
        _blocks,
        Hparam("expert_feed_forward_length", ("moe_intermediate_size",), is_required=True),
        Hparam("expert_shared_count", ("n_shared_experts",)),
        Hparam("leading_dense_block_count", ("first_k_dense_replace",)),
        constant("expert_gating_func", 2),  # sigmoid
        Hparam("expert_weights_scale", ("routed_scaling_factor",), float),
        Hparam("expert_weights_norm", ("norm_topk_prob",), bool),
        Hparam("nextn_predict_layers", ("num_nextn_predict_layers",)),
    ),
    tensors=EXPERTS,
    require={
        "hidden_act": ("silu", None),
        "use_qk_norm": (True, False, None),  # the norms are tensors, which have to find their place
        "scoring_func": ("sigmoid", None),
        "topk_method": ("noaux_tc", None),
    },
    defaults={
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "first_k_dense_replace": 1,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
    },
)
