"""OpenAI's GPT-2 and gpt-oss. ref: llama.cpp conversion/gpt2.py, conversion/gpt_oss.py; ggml-common.h, block_mxfp4"""

from collections.abc import Mapping

import numpy as np

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.hparams import DECODER, Config, Hparam, sliding_window
from owm.convert.rules import apply, combine, divide, drop, rename
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged, Unsupported
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Array, MappedRows, Rows

_MXFP4_NIBBLES = 16  # bytes of a quant block without its scale


def transposed(rows: Rows, config: Config) -> Rows:
    """Turn (inputs, outputs) into (outputs, inputs), of each expert where there are some."""
    return transforms.transpose(rows)


def gpt2_feed_forward(config: Config) -> Mapping[str, Value | None]:
    """Return the width of the feed-forward part, four times the model's where none is given."""
    return {"feed_forward_length": config.integer("n_inner", default=4 * config.n_embd)}


GPT2 = Architecture(
    hf=("GPT2LMHeadModel",),
    gguf="gpt2",
    example="openai-community/gpt2",
    vocab=(Vocab.BPE,),
    hparams=(
        *(hparam for hparam in DECODER if not isinstance(hparam, Hparam)),
        Hparam("block_count", ("n_layer", "num_hidden_layers"), is_required=True),
        Hparam("context_length", ("n_positions", "max_position_embeddings", "n_ctx"), is_required=True),
        Hparam("embedding_length", ("n_embd", "hidden_size"), is_required=True),
        Hparam("attention.head_count", ("n_head", "num_attention_heads"), is_required=True),
        gpt2_feed_forward,
    ),
    tensors=(
        drop(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)"),  # the causal mask, in old checkpoints
        apply(r"(transformer\.)?h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight", transposed),
    ),
    require={
        "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", None),
        "scale_attn_weights": (True, None),
        "scale_attn_by_inverse_layer_idx": (False, None),
        "add_cross_attention": (False, None),
    },
    defaults={"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "layer_norm_epsilon": 1e-5},
    ignored=("n_special", "predict_special_tokens"),
    is_tied=True,
)


def _gates_and_ups(rows: Rows) -> list[Rows]:
    """Part the rows of each expert, (experts, 2 × rows, …), which are gate and up by turns."""
    if len(rows.shape) < 3 or rows.shape[1] % 2:
        raise Damaged(f"gates and ups of {rows.shape} cannot be told apart; the checkpoint contradicts itself")
    n_experts, n_both, *inner = rows.shape
    width = int(np.prod(inner))
    pairs = transforms.reshape(rows, (n_experts, n_both // 2, 2 * width))
    halves: list[Rows] = []
    for begin in (0, width):

        def half(block: Array, _begin: int, _end: int, begin: int = begin) -> Array:
            return block[:, begin : begin + width]

        part = MappedRows(pairs, half, shape=(n_experts, n_both // 2, width))
        halves.append(transforms.reshape(part, (n_experts, n_both // 2, *inner)))
    return halves


def _columns(rows: Rows) -> list[Rows]:
    """Part a tensor whose columns are gate and up by turns."""
    if rows.shape[-1] % 2:
        raise Damaged(f"gates and ups of {rows.shape} cannot be told apart; the checkpoint contradicts itself")
    shape = (*rows.shape[:-1], rows.shape[-1] // 2)
    return [
        MappedRows(rows, lambda block, begin, end: block[:, 0::2], shape=shape),
        MappedRows(rows, lambda block, begin, end: block[:, 1::2], shape=shape),
    ]


def quantized_gates_and_ups(rows: Rows, config: Config) -> Mapping[str, Rows]:
    """Part blocks or scales of gates and ups."""
    gate, up = _gates_and_ups(rows)
    return {r"\1.gate_proj_\2": gate, r"\1.up_proj_\2": up}


def gates_and_ups(rows: Rows, config: Config) -> Mapping[str, Rows]:
    """Part the weights of gates and ups, which are (experts, inputs, 2 × outputs)."""
    gate, up = _columns(rows)
    return {r"\1.gate_proj.weight": transforms.transpose(gate), r"\1.up_proj.weight": transforms.transpose(up)}


def gate_and_up_biases(rows: Rows, config: Config) -> Mapping[str, Rows]:
    """Part the biases of gates and ups, which are (experts, 2 × outputs)."""
    gate, up = _columns(rows)
    return {r"\1.gate_proj.bias": gate, r"\1.up_proj.bias": up}


def mxfp4(parts: Mapping[str, Rows], config: Config) -> Rows:
    """Put quant blocks and their scales together: not a value changes, only where its bits lie.

    Takes `blocks` (experts, outputs, n, 16), whose bytes hold neighbours, and `scales` (experts, outputs, n). A block
    of the model file is its scale and then 16 bytes that hold the values i and i + 16.
    """
    blocks, scales = parts.get("blocks"), parts.get("scales")
    if blocks is None or scales is None:
        raise Damaged("the checkpoint has MXFP4 blocks without scales, or scales without blocks")
    if blocks.shape != (*scales.shape, _MXFP4_NIBBLES) or {blocks.dtype, scales.dtype} != {"U8"}:
        raise Damaged(f"MXFP4 blocks {blocks.shape} and scales {scales.shape} do not belong together")
    n_experts, n_out, n_blocks = scales.shape

    def pack(block: Array, begin: int, end: int) -> Array:
        pairs = block.reshape(end - begin, n_blocks, _MXFP4_NIBBLES)
        values = np.stack((pairs & 15, pairs >> 4), axis=-1).reshape(end - begin, n_blocks, 2 * _MXFP4_NIBBLES)
        packed = np.empty((end - begin, n_blocks, 1 + _MXFP4_NIBBLES), np.uint8)
        packed[..., 0] = scales.read(begin, end)
        packed[..., 1:] = values[..., :_MXFP4_NIBBLES] | values[..., _MXFP4_NIBBLES:] << 4
        return packed.reshape(end - begin, -1)

    flat = transforms.reshape(blocks, (n_experts, n_out, n_blocks * _MXFP4_NIBBLES))
    return MappedRows(flat, pack, dtype="MXFP4", shape=(n_experts, n_out, n_blocks * 2 * _MXFP4_NIBBLES))


def usual_yarn(config: Config) -> Mapping[str, Value | None]:
    """Refuse a rope that llama.cpp does not compute for gpt-oss: it reads only the factor and the original context."""
    rope = config.rope()
    if rope["rope_type"] not in ("default", "linear", "yarn"):
        raise Unsupported(f"gpt-oss with a rope of type {ascii(rope['rope_type'])[:40]} is not supported")
    for name, usual in (("beta_fast", 32), ("beta_slow", 1), ("attention_factor", None), ("mscale", None)):
        if rope["rope_type"] == "yarn" and rope.get(name, usual) != usual:
            raise Unsupported(f"gpt-oss with {name} {ascii(rope[name])[:40]} is not supported")
    return {}


def rounded_yarn(config: Config) -> str | None:
    """Return what llama.cpp does otherwise with gpt-oss's yarn."""
    rope = config.rope()
    if rope["rope_type"] != "yarn" or rope.get("truncate", True):
        return None
    return "llama.cpp rounds where yarn begins and ends to whole dimensions of a head, which gpt-oss does not"


_EXPERTS = r"(model\.layers\.\d+\.mlp\.experts)"

GPT_OSS = Architecture(
    hf=("GptOssForCausalLM",),
    gguf="gpt-oss",
    example="openai/gpt-oss-20b",
    vocab=(Vocab.BPE,),
    hparams=(
        *DECODER,
        usual_yarn,
        sliding_window(2),
        Hparam("expert_feed_forward_length", ("intermediate_size",)),
    ),
    tensors=(
        rename(r"(model\.layers\.\d+\.self_attn\.sinks)", r"\1.weight"),
        divide(_EXPERTS + r"\.gate_up_proj_(blocks|scales)", quantized_gates_and_ups),
        combine(_EXPERTS + r"\.(gate|up|down)_proj_(?P<part>blocks|scales)", r"\1.\2_proj.weight", mxfp4),
        divide(_EXPERTS + r"\.gate_up_proj", gates_and_ups),
        divide(_EXPERTS + r"\.gate_up_proj_bias", gate_and_up_biases),
        apply(_EXPERTS + r"\.down_proj", transposed),
        rename(_EXPERTS + r"\.down_proj", r"\1.down_proj.weight"),
        rename(_EXPERTS + r"\.down_proj_bias", r"\1.down_proj.bias"),
    ),
    require={
        "hidden_act": ("silu", None),
        "attention_bias": (True, None),
        "tie_word_embeddings": (False, None),
        "swiglu_limit": (7.0, None),
        "swiglu_alpha": (1.702, None),
    },
    defaults={
        "num_hidden_layers": 36,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "head_dim": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "sliding_window": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 150000.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    },
    ignored=("experts_per_token", "initial_context_length"),
    note="llama.cpp rounds where yarn begins and ends to whole dimensions of a head; only the published yarn's betas",
    warn=rounded_yarn,
)
