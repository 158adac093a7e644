"""InternLM 2 and 2.5: Llama with one projection for queries, keys and values.

ref: llama.cpp conversion/internlm.py, src/models/internlm2.cpp
"""

from collections.abc import Mapping

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.architectures.llama import SILU
from owm.convert.hparams import DECODER, Config, only_rope, rope, usual_yarn
from owm.convert.rules import divide, untie
from owm.convert.vocabulary import Vocab
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Rows


def _separate(rows: Rows, config: Config) -> Mapping[str, Rows]:
    """Take apart the groups of query heads, each with its key and value, and pair up the halves of the heads."""
    n_heads, n_kv_heads, width = config.n_heads, config.n_kv_heads, config.head_dim
    sizes = [n_heads * width, n_kv_heads * width, n_kv_heads * width]
    q, k, v = transforms.split(transforms.ungroup_qkv(rows, n_heads, n_kv_heads), sizes)
    return {
        r"blk.\1.attn_q.weight": transforms.permute(q, n_heads),
        r"blk.\1.attn_k.weight": transforms.permute(k, n_kv_heads),
        r"blk.\1.attn_v.weight": v,
    }


def _is_dynamic(config: Config) -> bool:
    return bool(config.rope()["rope_type"] == "dynamic")


def _rope(config: Config) -> Mapping[str, Value | None]:
    """Translate the rope; a dynamic one is the plain one up to the context's length."""
    if not _is_dynamic(config):
        return rope(config)
    base = config.rope().get("rope_theta")
    return {} if base is None else {"rope.freq_base": float(base)}


def _longer_texts(config: Config) -> str | None:
    if not _is_dynamic(config):
        return None
    limit = config.integer("max_position_embeddings")
    return f"the model scales its rope dynamically beyond {limit} tokens, llama.cpp does not: keep to that context"


INTERNLM2 = Architecture(
    hf=("InternLM2ForCausalLM",),
    gguf="internlm2",
    example="internlm/internlm2_5-7b-chat",
    vocab=(Vocab.INTERNLM2,),
    hparams=(
        *(_rope if hparam is rope else hparam for hparam in DECODER),
        only_rope("default", "linear", "yarn", "dynamic"),
        usual_yarn,
    ),
    tensors=(
        divide(r"model\.layers\.(\d+)\.attention\.wqkv\.weight", _separate),
        untie("model.tok_embeddings.weight", "output.weight"),
    ),
    require=SILU | {"bias": (False,)},
    defaults={"rms_norm_eps": 1e-6},
    ignored=("attn_implementation",),
    note="dynamic rope scaling is not applied beyond the context's length",
    warn=_longer_texts,
)
