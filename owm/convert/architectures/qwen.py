"""Qwen 2, 2.5 and 3, dense and mixtures of experts.

ref: llama.cpp conversion/qwen.py, src/models/qwen2.cpp, qwen2moe.cpp, qwen3.cpp, qwen3moe.cpp
"""

from collections.abc import Mapping

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.hparams import DECODER, Config, Hparam, only_rope, usual_yarn
from owm.convert.rules import divide, rename, stack, untie
from owm.convert.vocabulary import Vocab
from owm.errors import Unsupported
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Rows


def _no_sliding_layers(config: Config) -> Mapping[str, Value | None]:
    """Refuse layers that look back over a window: llama.cpp has none in these models. The classes differ in which."""
    kinds = config.items("layer_types")
    n_full = config.integer("max_window_layers", default=0)
    if config.flag("use_sliding_window"):
        dense = config.get("model_type") in ("qwen2", "qwen3")
        is_used = "sliding_attention" in kinds if kinds else not (dense and n_full >= config.n_layers)
    else:
        is_used = "sliding_attention" in kinds
    window, limit = config.get("sliding_window"), config.integer("max_position_embeddings", default=0)
    if is_used and window is not None and not config.integer("sliding_window") >= limit > 0:
        raise Unsupported(
            f"a sliding window of {ascii(window)[:20]} tokens is not supported for this architecture",
            hint="llama.cpp computes it with full attention in every layer",
        )
    return {}


def _gate_and_up(rows: Rows, config: Config) -> Mapping[str, Rows]:
    """Cut what newer checkpoints keep as one stack: (experts, gate rows then up rows, inputs)."""
    gate, up = transforms.split_each(rows, 2)
    return {r"\1.gate_proj.weight": gate, r"\1.up_proj.weight": up}


_MLP = r"model\.layers\.\d+\.mlp"
_EXPERTS = (
    divide(rf"({_MLP}\.experts)\.gate_up_proj(?:\.weight)?", _gate_and_up),
    rename(rf"({_MLP}\.experts)\.down_proj", r"\1.down_proj.weight"),
    *(
        stack(rf"({_MLP}\.experts)\.(?P<expert>\d+)\.{name}\.weight", rf"\1.{name}.weight")
        for name in ("gate_proj", "up_proj", "down_proj")
    ),
)
_HPARAMS = (*DECODER, only_rope("default", "linear", "yarn"), usual_yarn, _no_sliding_layers)
_EXPERT_WIDTH = Hparam("expert_feed_forward_length", ("moe_intermediate_size",))
_SILU = {"hidden_act": ("silu", "swish", None)}
_NO_DENSE_LAYERS = {"mlp_only_layers": ([], None), "decoder_sparse_step": (1, None)}
_NOTE = "checkpoints with sliding-window layers are refused"

QWEN2 = Architecture(
    hf=("Qwen2ForCausalLM",),
    gguf="qwen2",
    example="Qwen/Qwen2.5-7B-Instruct",
    vocab=(Vocab.SENTENCEPIECE, Vocab.BPE),
    hparams=_HPARAMS,
    require=_SILU,
    defaults={"rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28},
    note=_NOTE,
)
QWEN2_MOE = Architecture(
    hf=("Qwen2MoeForCausalLM",),
    gguf="qwen2moe",
    example="Qwen/Qwen1.5-MoE-A2.7B",
    vocab=(Vocab.BPE,),
    hparams=(
        *_HPARAMS,
        _EXPERT_WIDTH,
        Hparam("expert_shared_feed_forward_length", ("shared_expert_intermediate_size",)),
    ),
    tensors=(*_EXPERTS, untie("model.embed_tokens.weight", "lm_head.weight")),
    require=_SILU | _NO_DENSE_LAYERS | {"norm_topk_prob": (False, None)},
    defaults={
        "rms_norm_eps": 1e-6, "sliding_window": 4096, "num_experts": 60, "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
    },
    note=_NOTE,
)  # fmt: skip
QWEN3 = Architecture(
    hf=("Qwen3ForCausalLM",),
    gguf="qwen3",
    example="Qwen/Qwen3-8B",
    vocab=(Vocab.SENTENCEPIECE, Vocab.BPE),
    hparams=_HPARAMS,
    require=_SILU,
    defaults={"rms_norm_eps": 1e-6, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
    note=_NOTE,
)
QWEN3_MOE = Architecture(
    hf=("Qwen3MoeForCausalLM",),
    gguf="qwen3moe",
    example="Qwen/Qwen3-30B-A3B",
    vocab=(Vocab.BPE,),
    hparams=(*_HPARAMS, _EXPERT_WIDTH),
    tensors=_EXPERTS,
    require=_SILU | _NO_DENSE_LAYERS | {"norm_topk_prob": (True,)},
    defaults={
        "rms_norm_eps": 1e-6, "sliding_window": 4096, "num_experts": 128, "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
    },
    note=_NOTE,
)  # fmt: skip
