"""SmolLM3: Llama in which every fourth layer has no rope.

ref: llama.cpp conversion/llama.py, src/models/smollm3.cpp; transformers modeling_smollm3.py
"""

from collections.abc import Mapping

from owm.convert.architectures.base import Architecture
from owm.convert.architectures.llama import permute_k, permute_q
from owm.convert.hparams import DECODER, VOCAB_SIZE, Config, only_rope, rope_dimensions
from owm.convert.rules import apply
from owm.convert.vocabulary import Vocab
from owm.errors import Unsupported
from owm.formats.gguf_writer import Value

NO_ROPE_INTERVAL = 4  # fixed in llama.cpp


def _layers(config: Config) -> Mapping[str, Value | None]:
    """Refuse other layers than llama.cpp computes; nothing of it is in the file."""
    interval = config.integer("no_rope_layer_interval", default=NO_ROPE_INTERVAL)
    layers = range(1, config.n_layers + 1)
    stated = config.items("no_rope_layers") or [int(layer % interval != 0) for layer in layers if interval]
    # The list says where there is a rope, in spite of its name.
    if [bool(each) for each in stated[: config.n_layers]] != [layer % NO_ROPE_INTERVAL != 0 for layer in layers]:
        raise Unsupported("SmolLM3 with another pattern of layers without rope than every fourth is not supported")
    if set(config.items("layer_types")) - {"full_attention"}:
        raise Unsupported("SmolLM3 with sliding windows is not supported")
    return {}


SMOLLM3 = Architecture(
    hf=("SmolLM3ForCausalLM",),
    gguf="smollm3",
    example="HuggingFaceTB/SmolLM3-3B",
    vocab=(Vocab.AUTO_LLAMA,),
    hparams=(*DECODER, VOCAB_SIZE, rope_dimensions, only_rope("default", "linear", "yarn"), _layers),
    tensors=(
        apply(r"model\.layers\.\d+\.self_attn\.q_proj\.weight", permute_q),
        apply(r"model\.layers\.\d+\.self_attn\.k_proj\.weight", permute_k),
    ),
    require={
        "hidden_act": ("silu", None),
        "attention_bias": (False, None),
        "mlp_bias": (False, None),
        "use_sliding_window": (False, None),
    },
    defaults={
        "max_position_embeddings": 32768,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6,
        "rope_theta": 2000000.0,
    },
    ignored=("sliding_window",),  # not without use_sliding_window
    is_tied=True,
    note="only with every fourth layer without rope",
)
