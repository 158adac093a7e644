"""GPT-NeoX: Pythia, Dolly, RedPajama. ref: llama.cpp conversion/gptneox.py, src/models/gptneox.cpp"""

from owm.convert import transforms
from owm.convert.architectures.base import GELU, Architecture
from owm.convert.hparams import DECODER, Config, Hparam, only_rope, rope_dimensions, rope_if_unusual
from owm.convert.rules import apply, untie
from owm.convert.vocabulary import Vocab
from owm.pipeline.rows import Rows


def by_kind(rows: Rows, config: Config) -> Rows:
    """Separate the queries, keys and values of all heads, which the checkpoint holds head by head."""
    return transforms.ungroup_qkv(rows, config.n_heads, config.n_heads)


GPT_NEOX = Architecture(
    hf=("GPTNeoXForCausalLM",),
    gguf="gptneox",
    example="EleutherAI/pythia-70m",
    vocab=(Vocab.BPE,),
    hparams=(
        *DECODER,
        rope_if_unusual,
        rope_dimensions,
        only_rope("default", "linear", "yarn"),
        Hparam("use_parallel_residual", ("use_parallel_residual",), bool, is_required=True),
    ),
    tensors=(
        apply(r"gpt_neox\.layers\.\d+\.attention\.query_key_value\.(weight|bias)", by_kind),
        untie("gpt_neox.embed_in.weight", "embed_out.weight"),
    ),
    require={"hidden_act": GELU, "attention_bias": (True, None)},
    defaults={
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
        "rotary_pct": 0.25,
        "use_parallel_residual": True,
    },
)
