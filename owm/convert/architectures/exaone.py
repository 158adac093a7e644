"""LG's EXAONE 3 and 4. ref: llama.cpp conversion/exaone.py, src/models/exaone.cpp, src/models/exaone4.cpp"""

from collections.abc import Mapping

from owm.convert.architectures.base import Architecture
from owm.convert.architectures.llama import llama3_rope_factors
from owm.convert.hparams import DECODER, VOCAB_SIZE, Config, Hparam, omit, rope_dimensions
from owm.convert.rules import extra
from owm.convert.vocabulary import Vocab
from owm.errors import Damaged, Unsupported
from owm.formats.gguf_writer import Value

_N_LAYERS_WITH_WINDOW = 64  # llama.cpp slides a window only in the model that was published with one


def _window(config: Config) -> Mapping[str, Value | None]:
    """Translate the sliding window and which layers have it; without one every layer is full and has rope."""
    if config.get("sliding_window") is None:
        return {}
    if config.n_layers != _N_LAYERS_WITH_WINDOW:
        raise Unsupported(
            f"EXAONE 4 with a sliding window and {config.n_layers} layers is not supported",
            hint=f"llama.cpp slides a window only in the model of {_N_LAYERS_WITH_WINDOW} layers",
        )
    return {
        "attention.sliding_window": config.integer("sliding_window"),
        "attention.sliding_window_pattern": _is_sliding(config),
    }


def _is_sliding(config: Config) -> list[bool]:
    pattern, n = config.get("sliding_window_pattern", default=4), config.n_layers
    if kinds := config.items("layer_types"):
        if len(kinds) != n:
            raise Damaged(f"config.json: layer_types has {len(kinds)} entries for {n} layers")
        return [kind == "sliding_attention" for kind in kinds]
    if isinstance(pattern, str) and pattern:
        return [pattern[i % len(pattern)] == "L" for i in range(n)]
    period = config.integer("sliding_window_pattern", default=4)
    return [period <= 0 or (i + 1) % period != 0 for i in range(n)]


EXAONE = Architecture(
    hf=("ExaoneForCausalLM",),
    gguf="exaone",
    example="LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct",
    vocab=(Vocab.BPE,),
    hparams=(
        *DECODER,
        omit("attention.layer_norm_epsilon"),
        Hparam("attention.layer_norm_rms_epsilon", ("layer_norm_epsilon",), float),
        rope_dimensions,
    ),
    tensors=(extra("rope_freqs.weight", llama3_rope_factors),),
    require={"activation_function": ("silu", "swish", None), "partial_rotary_factor": (1.0, None)},
    defaults={"layer_norm_epsilon": 1e-5, "rope_theta": 10000.0},
    ignored=("embed_dropout", "attention_dropout"),
)

EXAONE4 = Architecture(
    hf=("Exaone4ForCausalLM",),
    gguf="exaone4",
    example="LGAI-EXAONE/EXAONE-4.0-1.2B",
    vocab=(Vocab.BPE,),
    hparams=(*DECODER, VOCAB_SIZE, _window),
    tensors=(extra("rope_freqs.weight", llama3_rope_factors),),
    require={"hidden_act": ("silu", "swish", None), "partial_rotary_factor": (1.0, None)},
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 10000.0},
    ignored=("layer_types", "sliding_window_pattern"),
    note="a sliding window only in models of 64 layers",
)
