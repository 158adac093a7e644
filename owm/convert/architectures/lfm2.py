"""Liquid's LFM2: short convolutions and a few layers of attention. ref: llama.cpp conversion/lfm2.py"""

from collections.abc import Mapping

from owm.convert.architectures.base import Architecture
from owm.convert.architectures.mamba import squeeze
from owm.convert.hparams import DECODER, VOCAB_SIZE, Config, Hparam
from owm.convert.rules import apply
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged, Unsupported
from owm.formats.gguf_writer import Value


def _kv_heads(config: Config) -> Mapping[str, Value | None]:
    """Count the key and value heads of each layer: none in a convolution."""
    n = config.n_layers
    kinds = config.items("layer_types")
    if not kinds:
        full = config.items("full_attn_idxs") if "full_attn_idxs" in config else list(range(n))
        kinds = ["full_attention" if i in full else "conv" for i in range(n)]
    if len(kinds) != n:
        raise Damaged(f"config.json: layer_types has {len(kinds)} entries for {n} layers")
    if unknown := next((kind for kind in kinds if kind not in ("conv", "full_attention")), None):
        raise Unsupported(f"config.json asks for a kind of layer that owm does not know: {ascii(unknown)[:40]}")
    return {"attention.head_count_kv": [0 if kind == "conv" else config.n_kv_heads for kind in kinds]}


def _width(config: Config) -> Mapping[str, Value | None]:
    """Return the width of the feed-forward networks, which the class makes smaller and round."""
    width = config.integer("block_ff_dim", "intermediate_size")
    if config.flag("block_auto_adjust_ff_dim", default=True):
        multiple = config.integer("block_multiple_of", default=256)
        if multiple <= 0:
            raise Damaged(f"config.json: block_multiple_of should be positive: {multiple}")
        width = int(config.number("block_ffn_dim_multiplier", default=1.0) * int(2 * width / 3))
        width = -(-width // multiple) * multiple
    return {"feed_forward_length": width}


LFM2 = Architecture(
    hf=("Lfm2ForCausalLM",),
    gguf="lfm2",
    example="LiquidAI/LFM2-1.2B",
    vocab=(Vocab.BPE,),
    hparams=(*DECODER, VOCAB_SIZE, _kv_heads, _width, Hparam("shortconv.l_cache", ("conv_L_cache",))),
    tensors=(apply(r"model\.layers\.\d+\.conv\.conv\.weight", squeeze),),
    require={"conv_bias": (False, None), "use_pos_enc": (True, None), "block_use_swiglu": (True, None)},
    defaults={"norm_eps": 1e-5, "rope_theta": 1e6, "conv_L_cache": 3},
    ignored=("tie_embedding", "layer_types", "full_attn_idxs", "block_dim", "block_mlp_init_scale", "block_norm_eps",
             "block_out_init_scale", "block_use_xavier_init", "conv_dim", "conv_dim_out", "conv_use_xavier_init",
             "num_heads"),
    is_tied=True,
    note="only without biases of the convolutions",
)  # fmt: skip
