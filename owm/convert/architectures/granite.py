"""IBM's Granite: dense, mixtures of experts, and hybrids with Mamba 2. ref: llama.cpp conversion/granite.py"""

from collections.abc import Mapping

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.architectures.llama import permute_k, permute_q
from owm.convert.architectures.mamba import ENDLESS, TIME_STEPS, TRAINING, mamba2_rules
from owm.convert.hparams import DECODER, VOCAB_SIZE, Computed, Config, Hparam, only_rope, rope_dimensions, usual_yarn
from owm.convert.rules import apply, divide
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged, Unsupported
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Rows

_ATTENTION = ("attention", "full_attention")
_SSM = ("mamba", "linear_attention")


def _head(config: Config) -> Mapping[str, Value | None]:
    """Name the width of a head only where it is not what follows from the others."""
    width = None if config.head_dim * config.n_heads == config.n_embd else config.head_dim
    return {"attention.key_length": width, "attention.value_length": width}


def _n_experts(config: Config) -> int:
    return config.integer("num_local_experts", default=0)


def _shared_width(config: Config) -> Mapping[str, Value | None]:
    return {"expert_shared_feed_forward_length": config.integer("shared_intermediate_size", default=0) or None}


def _gate_and_up(rows: Rows, config: Config) -> Mapping[str, Rows]:
    """Divide what the experts have in one: (n_experts, 2 × width, n_embd), gate before up."""
    gate, up = transforms.split_each(rows, 2)
    return {r"blk.\1.ffn_gate_exps.weight": gate, r"blk.\1.ffn_up_exps.weight": up}


def _shared_gate_and_up(rows: Rows, config: Config) -> Mapping[str, Rows]:
    """Divide the shared expert's, which is a plain feed-forward network where there are no other experts."""
    width = config.integer("shared_intermediate_size")
    gate, up = transforms.split(rows, (width, width))
    kind = "_shexp" if _n_experts(config) else ""
    return {rf"blk.\1.ffn_gate{kind}.weight": gate, rf"blk.\1.ffn_up{kind}.weight": up}


def _shared_down(rows: Rows, config: Config) -> Mapping[str, Rows]:
    return {rf"blk.\1.ffn_down{'_shexp' if _n_experts(config) else ''}.weight": rows}


def _kinds(config: Config) -> list[str]:
    """Return the kind of each layer, of the config's older ways to say so too."""
    kinds = config.items("layer_types")
    if not kinds and (stated := config.items("attn_layer_indices")):
        kinds = ["attention" if i in stated else "mamba" for i in range(config.n_layers)]
    kinds = kinds or ["mamba"] * config.n_layers
    if len(kinds) != config.n_layers:
        raise Damaged(f"config.json: layer_types has {len(kinds)} entries for {config.n_layers} layers")
    if unknown := next((kind for kind in kinds if kind not in _ATTENTION + _SSM), None):
        raise Unsupported(f"config.json asks for a kind of layer that owm does not know: {ascii(unknown)[:40]}")
    return kinds


def _hybrid_kind(config: Config) -> str | None:
    """Return the plain architecture of a hybrid that has only attention."""
    if any(kind in _SSM for kind in _kinds(config)):
        return None
    if not _n_experts(config):
        return "granite"
    if config.get("position_embedding_type") != "rope":
        raise Unsupported("Granite 4 with experts, attention in every layer and no rope is not supported")
    return "granitemoe"


def _hybrid(config: Config) -> Mapping[str, Value | None]:
    kinds = _kinds(config)
    has_rope = config.get("position_embedding_type") == "rope"
    found: dict[str, Value | None] = {
        "attention.head_count_kv": [config.n_kv_heads if kind in _ATTENTION else 0 for kind in kinds],
        "ssm.inner_size": config.integer("mamba_expand") * config.n_embd,
        "rope.scaling.finetuned": has_rope,  # llama.cpp's switch for rope in this architecture
    }
    if not has_rope:
        found["context_length"] = ENDLESS
    if not _n_experts(config):  # the shared expert is all there is
        found |= {"feed_forward_length": config.integer("shared_intermediate_size"), "expert_used_count": 0}
    return found


_SCALES = (
    Hparam("attention.scale", ("attention_multiplier",), float),
    Hparam("embedding_scale", ("embedding_multiplier",), float),
    Hparam("residual_scale", ("residual_multiplier",), float),
    Hparam("logit_scale", ("logits_scaling",), float),
)
_ROPE = (only_rope("default", "linear", "yarn"), usual_yarn)
_COMMON: tuple[Computed, ...] = (*DECODER, VOCAB_SIZE, rope_dimensions, *_ROPE, _head, *_SCALES)
_PERMUTED = (
    apply(r"model\.layers\.\d+\.self_attn\.q_proj\.(weight|bias)", permute_q),
    apply(r"model\.layers\.\d+\.self_attn\.k_proj\.(weight|bias)", permute_k),
)
_EXPERTS = (
    divide(r"model\.layers\.(\d+)\.block_sparse_moe\.input_linear\.weight", _gate_and_up),
    divide(r"model\.layers\.(\d+)\.shared_mlp\.input_linear\.weight", _shared_gate_and_up),
)
_SHARED_DOWN = divide(r"model\.layers\.(\d+)\.shared_mlp\.output_linear\.weight", _shared_down)
_REQUIRE = {"hidden_act": ("silu", "swish", None), "sliding_window": (None,)}
_DEFAULTS = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "attention_multiplier": 1.0,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "logits_scaling": 1.0,
}

GRANITE = Architecture(
    hf=("GraniteForCausalLM",),
    gguf="granite",
    example="ibm-granite/granite-3.3-2b-instruct",
    vocab=(Vocab.AUTO_LLAMA,),
    hparams=_COMMON,
    tensors=_PERMUTED,
    require=_REQUIRE,
    defaults=_DEFAULTS,
)

GRANITE_MOE = Architecture(
    hf=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    gguf="granitemoe",
    example="ibm-granite/granite-3.1-3b-a800m-instruct",
    vocab=(Vocab.AUTO_LLAMA,),
    hparams=(*_COMMON, _shared_width),
    tensors=(*_PERMUTED, *_EXPERTS),
    require=_REQUIRE,
    defaults=_DEFAULTS | {"num_local_experts": 8, "num_experts_per_tok": 2},
)

GRANITE_HYBRID = Architecture(
    hf=("GraniteMoeHybridForCausalLM",),
    gguf="granitehybrid",
    gguf_of=_hybrid_kind,
    example="ibm-granite/granite-4.0-h-tiny",
    vocab=(Vocab.SENTENCEPIECE, Vocab.BPE),
    hparams=(
        *_COMMON,
        _shared_width,
        Hparam("ssm.conv_kernel", ("mamba_d_conv",)),
        Hparam("ssm.state_size", ("mamba_d_state",)),
        Hparam("ssm.group_count", ("mamba_n_groups",)),
        Hparam("ssm.time_step_rank", ("mamba_n_heads",)),
        _hybrid,
    ),
    tensors=(*_PERMUTED, *mamba2_rules(r"model\.layers\.\d+\.mamba"), *_EXPERTS, _SHARED_DOWN),
    require=_REQUIRE
    | {
        "position_embedding_type": ("rope", "nope", None),
        "normalization_function": ("rmsnorm", None),
        "mamba_expand": (2,),
        "mamba_proj_bias": (False, None),
        "mamba_conv_bias": (True, None),
        "time_step_limit": TIME_STEPS,
    },
    defaults=_DEFAULTS
    | {
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 1024,
        "mamba_n_heads": 128,
        "mamba_n_groups": 1,
        "mamba_d_state": 256,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
    },
    ignored=(*TRAINING, "mamba_d_head", "attention_dropout"),
    note="only with an expansion of 2, without biases of the mixers' projections; with rope where no layer has a mixer "
    "and there are experts",
)
