"""Falcon 1 and 2: 7B with one key and value head, 11B, 40B and 180B with groups.

ref: llama.cpp conversion/falcon.py, src/models/falcon.cpp; transformers modeling_falcon.py
"""

from collections.abc import Mapping

from owm.convert import transforms
from owm.convert.architectures.base import GELU, Architecture
from owm.convert.hparams import DECODER, Config, constant, only_rope, rope_if_unusual
from owm.convert.rules import apply
from owm.convert.vocabulary import Vocab
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Rows


def n_kv_heads(config: Config) -> int:
    """Count key and value heads: groups in the newer decoder (the first configs show it by `n_head_kv`), else one."""
    stated = config.get("num_kv_heads", "n_head_kv")
    if config.flag("new_decoder_architecture", default="n_head_kv" in config):
        return config.n_heads if stated is None else config.integer("num_kv_heads", "n_head_kv")
    return 1 if config.flag("multi_query", default=True) else config.n_heads


def _shape(config: Config) -> Mapping[str, Value | None]:
    return {
        "context_length": config.integer("max_position_embeddings", default=2048),
        "feed_forward_length": config.integer("ffn_hidden_size", default=4 * config.n_embd),
        "attention.head_count_kv": n_kv_heads(config),
    }


def by_kind(rows: Rows, config: Config) -> Rows:
    """Separate queries, keys and values, which the checkpoint holds by groups of heads that share a key."""
    return transforms.ungroup_qkv(rows, config.n_heads, n_kv_heads(config))


FALCON = Architecture(
    hf=("FalconForCausalLM", "RWForCausalLM"),
    gguf="falcon",
    example="tiiuae/falcon-7b",
    vocab=(Vocab.BPE,),
    hparams=(
        *DECODER,
        rope_if_unusual,
        only_rope("default", "linear", "yarn"),
        _shape,
        constant("tensor_data_layout", "jploski"),
    ),
    tensors=(apply(r"transformer\.h\.\d+\.self_attention\.query_key_value\.weight", by_kind),),
    require={
        "activation": GELU,
        "alibi": (False, None),
        "bias": (False, None),
        "parallel_attn": (True, None),
        "num_ln_in_parallel_attn": (1, 2, None),
    },
    defaults={"activation": "gelu", "layer_norm_epsilon": 1e-5},
    ignored=("ff_factor",),
    is_tied=True,
    note="not Falcon-RW: llama.cpp computes Falcon without ALiBi, without biases and with parallel attention only",
)
