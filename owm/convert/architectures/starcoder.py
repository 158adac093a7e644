"""StarCoder 2. ref: llama.cpp conversion/starcoder.py, src/models/starcoder2.cpp"""

from collections.abc import Mapping

from owm.convert.architectures.base import GELU, Architecture
from owm.convert.hparams import DECODER, Config, only_rope
from owm.convert.vocabulary import Vocab
from owm.formats.gguf_writer import Value


def _context(config: Config) -> Mapping[str, Value | None]:
    """End the context where the sliding window would begin to matter: llama.cpp has none for this architecture."""
    if config.get("sliding_window") is None:
        return {}
    return {"context_length": min(config.integer("sliding_window"), config.integer("max_position_embeddings"))}


STARCODER2 = Architecture(
    hf=("Starcoder2ForCausalLM",),
    gguf="starcoder2",
    example="bigcode/starcoder2-3b",
    vocab=(Vocab.BPE,),
    hparams=(*DECODER, only_rope("default", "linear", "yarn"), _context),
    require={
        "hidden_act": GELU,
        "use_bias": (True, None),
        "mlp_type": ("default", None),
        "norm_type": ("layer_norm", None),
    },
    defaults={
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 4096,
        "norm_epsilon": 1e-5,
        "num_key_value_heads": 2,
        "rope_theta": 10000.0,
    },
    ignored=("activation_function", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"),
    is_tied=True,
    note="the context ends at the sliding window, which llama.cpp does not compute",
)
