"""BLOOM and BLOOMZ. ref: llama.cpp conversion/bloom.py, src/models/bloom.cpp; transformers modeling_bloom.py"""

from collections.abc import Mapping

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.hparams import DECODER, Config
from owm.convert.rules import apply, rename
from owm.convert.vocabulary import Vocab
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Rows


def by_kind(rows: Rows, config: Config) -> Rows:
    """Separate the queries, keys and values of all heads, which the checkpoint holds head by head."""
    return transforms.ungroup_qkv(rows, config.n_heads, config.n_heads)


def _shape(config: Config) -> Mapping[str, Value | None]:
    return {
        "context_length": config.integer("seq_length", default=config.n_embd),  # ALiBi has no limit of its own
        "feed_forward_length": 4 * config.n_embd,
        "attention.head_count_kv": config.n_heads,
    }


BLOOM = Architecture(
    hf=("BloomForCausalLM", "BloomModel"),
    gguf="bloom",
    example="bigscience/bloom-560m",
    vocab=(Vocab.BPE,),
    hparams=(*DECODER, _shape),
    tensors=(
        rename(r"transformer\.(.*)", r"\1"),
        apply(r"h\.\d+\.self_attention\.query_key_value\.(weight|bias)", by_kind),
    ),
    require={"apply_residual_connection_post_layernorm": (False, None)},
    defaults={"layer_norm_epsilon": 1e-5},
    ignored=(
        "attention_softmax_in_fp32",
        "bias_dropout_fusion",
        "masked_softmax_fusion",
        "offset_alibi",
        "skip_bias_add",
        "skip_bias_add_qkv",
        "slow_but_exact",
    ),
    is_tied=True,
)
