"""Mamba and Mamba 2, and what hybrids share with them. ref: llama.cpp conversion/mamba.py, src/models/mamba-base.cpp"""

from collections.abc import Mapping

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.hparams import LAYER_COUNT, Config, Hparam, constant
from owm.convert.rules import Rule, apply, drop, rename
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Rows

ENDLESS = 1 << 20  # the context of a model that has none
# How a range without bounds is written: by hand, or as transformers 5 writes it. Other ranges clamp the time steps.
TIME_STEPS = (None, [0.0, float("inf")], [0.0, {"__float__": "Infinity"}], [0.0, "Infinity"])
TRAINING = ("mamba_chunk_size", "chunk_size", "time_step_min", "time_step_max", "time_step_floor", "time_step_scale",
            "time_step_init_scheme", "rescale_prenorm_residual", "use_mambapy", "use_associative_scan")  # fmt: skip


def squeeze(rows: Rows, config: Config) -> Rows:
    """Drop the middle axis of a convolution's kernel: (channels, 1, width) to (channels, width)."""
    return transforms.squeeze(rows)


def decay(rows: Rows, config: Config) -> Rows:
    """Return the decay of each state from its logarithm."""
    return transforms.negative_exp(rows)


def column(rows: Rows, config: Config) -> Rows:
    """Make a column of a vector: one number a head."""
    return transforms.reshape(rows, (rows.shape[0], 1))


def groups(rows: Rows, config: Config) -> Rows:
    """Give every group of the gated norm a row."""
    n = config.integer("n_groups", "mamba_n_groups")
    if n <= 0 or len(rows.shape) != 1 or rows.shape[0] % n:
        raise Damaged(f"a norm of {rows.shape} does not split into {n} groups; config.json contradicts the weights")
    return transforms.reshape(rows, (n, rows.shape[0] // n))


def mamba2_rules(mixer: str) -> tuple[Rule, ...]:
    """Return the rules for the tensors of a Mamba 2 mixer, whose name is a pattern."""
    return (
        rename(rf"({mixer})\.dt_bias", r"\1.dt_proj.bias"),
        apply(rf"{mixer}\.conv1d\.weight", squeeze),
        apply(rf"{mixer}\.A_log", decay),
        apply(rf"{mixer}\.(A_log|D)", column),
        apply(rf"{mixer}\.norm\.weight", groups),
    )


def _time_step_rank(config: Config) -> Mapping[str, Value | None]:
    if config.get("time_step_rank", default="auto") == "auto":
        return {"ssm.time_step_rank": -(-config.n_embd // 16)}
    return {"ssm.time_step_rank": config.integer("time_step_rank")}


def _heads(config: Config) -> Mapping[str, Value | None]:
    size, width = 2 * config.n_embd, config.integer("head_dim")
    if width <= 0 or size % width:
        raise Damaged(f"config.json: {size} channels do not split into heads of {width}")
    return {"ssm.time_step_rank": size // width}


def _is_tied(config: Config) -> bool:
    return config.flag("tie_word_embeddings", default=True)


_PURE = (
    constant("context_length", ENDLESS),
    Hparam("embedding_length", ("hidden_size",), is_required=True),
    constant("feed_forward_length", 0),
    constant("attention.head_count", 0),
    Hparam("block_count", LAYER_COUNT, is_required=True),
    Hparam("ssm.conv_kernel", ("conv_kernel",)),
    lambda config: {"ssm.inner_size": 2 * config.n_embd},
    Hparam("ssm.state_size", ("state_size",)),
    Hparam("attention.layer_norm_rms_epsilon", ("layer_norm_epsilon",), float),
)
_PURE_REQUIRE = {
    "expand": (2, None),
    "hidden_act": ("silu", "swish", None),
    "use_bias": (False, None),
    "use_conv_bias": (True, None),
    "time_step_limit": TIME_STEPS,
    "rms_norm": (True, None),
}
_OLDER = (
    "d_inner",
    "fused_add_norm",
    "pad_vocab_size_multiple",
    "ssm_cfg",
)  # of the first configs, said again by others

MAMBA = Architecture(
    hf=("MambaForCausalLM",),
    gguf="mamba",
    example="state-spaces/mamba-130m-hf",
    vocab=(Vocab.BPE, Vocab.SENTENCEPIECE),
    hparams=(*_PURE, _time_step_rank, constant("ssm.dt_b_c_rms", False)),
    tensors=(
        drop(r"lm_head\.weight", when=_is_tied),
        apply(r"backbone\.layers\.\d+\.mixer\.conv1d\.weight", squeeze),
        apply(r"backbone\.layers\.\d+\.mixer\.A_log", decay),
    ),
    require=_PURE_REQUIRE,
    defaults={"layer_norm_epsilon": 1e-5, "conv_kernel": 4, "state_size": 16},
    ignored=(*TRAINING, *_OLDER, "intermediate_size"),
    is_tied=True,
    note="only with an expansion of 2, without biases of the projections and with that of the convolution",
)

MAMBA2 = Architecture(
    hf=("Mamba2ForCausalLM",),
    gguf="mamba2",
    example="mistralai/Mamba-Codestral-7B-v0.1",
    vocab=(Vocab.SENTENCEPIECE, Vocab.BPE),
    hparams=(*_PURE, _heads, Hparam("ssm.group_count", ("n_groups",))),
    tensors=(
        rename(r"model\.((backbone|lm_head)\..*)", r"\1"),
        *mamba2_rules(r"backbone\.layers\.\d+\.mixer"),
    ),
    require=_PURE_REQUIRE,
    defaults={"layer_norm_epsilon": 1e-5, "conv_kernel": 4, "state_size": 128, "n_groups": 8, "head_dim": 64},
    ignored=(*TRAINING, *_OLDER, "intermediate_size", "num_heads", "time_step_rank", "norm_before_gate"),
    note="only with an expansion of 2, without biases of the projections and with that of the convolution",
)
