"""Ernie 4.5, dense. ref: llama.cpp conversion/ernie.py, src/models/ernie4-5.cpp"""

from collections.abc import Mapping

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.hparams import DECODER, Config, only_rope, usual_yarn
from owm.convert.rules import divide, rename
from owm.convert.vocabulary import Vocab
from owm.pipeline.rows import Rows


def queries_keys_values(rows: Rows, config: Config) -> Mapping[str, Rows]:
    """Split the joint projection of attention."""
    n_queries, n_keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    queries, keys, values = transforms.split(rows, (n_queries, n_keys, n_keys))
    return {
        r"\1.q_proj.weight": queries,
        r"\1.k_proj.weight": keys,
        r"\1.v_proj.weight": values,
    }


def gate_and_up(rows: Rows, config: Config) -> Mapping[str, Rows]:
    """Split the joint projection of the feed-forward part; the gate comes first."""
    width = config.integer("intermediate_size")
    gate, up = transforms.split(rows, (width, width))
    return {r"\1.gate_proj.weight": gate, r"\1.up_proj.weight": up}


ERNIE4_5 = Architecture(
    hf=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    gguf="ernie4_5",
    example="baidu/ERNIE-4.5-0.3B-PT",
    vocab=(Vocab.ERNIE,),
    hparams=(*DECODER, only_rope("default", "linear", "yarn"), usual_yarn),
    tensors=(
        rename(r"ernie\.(.*)", r"model.\1"),
        divide(r"(.*\.self_attn)\.qkv_proj\.weight", queries_keys_values),
        divide(r"(.*\.mlp)\.up_gate_proj\.weight", gate_and_up),
    ),
    require={"hidden_act": ("silu", None), "use_bias": (False, None), "compression_ratio": (1, None)},
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 500000.0},
    is_tied=True,
)
