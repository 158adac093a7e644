"""EXAONE 3 and 4."""

from typing import Any

from parity.case import SHAPE, Case, Config, Tensors
from parity.cases.llama import LLAMA3_ROPE

_NAMES = {
    "model.embed_tokens": "transformer.wte",
    "model.norm": "transformer.ln_f",
    "model.layers.": "transformer.h.",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.o_proj": "attn.attention.out_proj",
    "self_attn.": "attn.attention.",
    "mlp.gate_proj": "mlp.c_fc_0",
    "mlp.up_proj": "mlp.c_fc_1",
    "mlp.down_proj": "mlp.c_proj",
}
_KEYS = {"num_hidden_layers": "num_layers", "rms_norm_eps": "layer_norm_epsilon", "hidden_act": "activation_function"}
_NORM = "it names the norm's epsilon by a key that llama.cpp does not read here"


def exaone(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Turn a Llama checkpoint into EXAONE's, which has the same arithmetic under GPT-2's names."""
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in _NAMES.items():
            name = name.replace(old, new)
        renamed[name] = tensor
    config = {_KEYS.get(key, key): value for key, value in config.items() if key not in ("mlp_bias", "attention_bias")}
    return renamed, config | {"model_type": "exaone", "architectures": ["ExaoneForCausalLM"]}


def sharpen(model: Any, generator: Any) -> None:
    """Let the attention of deep layers choose: their states are all alike."""
    for name, tensor in model.named_parameters():
        if name.endswith("q_norm.weight"):
            tensor.mul_(1.8)


ALLOWED = {"exaone.attention.layer_norm_epsilon": _NORM, "exaone.attention.layer_norm_rms_epsilon": _NORM}
CASES = (
    Case(
        id="exaone-plain",
        hf="ExaoneForCausalLM",
        made_by="LlamaForCausalLM",
        config=SHAPE | {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}},
        tokenizer="bpe-gpt2",
        rewrite=exaone,
        allowed=ALLOWED,
    ),
    Case(
        id="exaone-rope3",
        hf="ExaoneForCausalLM",
        made_by="LlamaForCausalLM",
        config=SHAPE | {"rope_parameters": LLAMA3_ROPE, "num_key_value_heads": 4, "tie_word_embeddings": True},
        tokenizer="bpe-gpt2",
        rewrite=exaone,
        dialect="old",
        dtype="bfloat16",
        shards=3,
        reference="transformers 5 reads no rope scaling in the config of a class that it does not know",
    ),
    Case(
        id="exaone4-plain",
        hf="Exaone4ForCausalLM",
        config=SHAPE | {"sliding_window": None, "layer_types": ["full_attention"] * 2, "rope_parameters": LLAMA3_ROPE},
        tokenizer="bpe-gpt2",
        shards=2,
    ),
    Case(
        id="exaone4-old",
        hf="Exaone4ForCausalLM",
        config=SHAPE
        | {
            "sliding_window": None,
            "layer_types": ["full_attention"] * 2,
            "num_key_value_heads": 4,
            "tie_word_embeddings": True,
        },
        tokenizer="bpe-gpt2",
        dialect="old",
        dtype="bfloat16",
    ),
    Case(
        id="exaone4-window",
        hf="Exaone4ForCausalLM",
        config=SHAPE | {"num_hidden_layers": 64, "sliding_window": 24, "rope_parameters": LLAMA3_ROPE},
        fill=sharpen,
        tokenizer="bpe-gpt2",
    ),
)
