"""StableLM."""

from typing import Any

from parity.case import SHAPE, Case, Config, Tensors

BASE = {key: value for key, value in SHAPE.items() if key != "rms_norm_eps"} | {"layer_norm_eps": 0.01}
RESIDUAL = {"use_parallel_residual": "llama.cpp does not read it"}


def as_published(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Name things as the first repos do."""
    config |= {"model_type": "stablelm_epoch", "norm_eps": config.pop("layer_norm_eps")}
    config["rope_pct"] = config.pop("rope_parameters")["partial_rotary_factor"]
    del config["use_parallel_residual"]
    return tensors, config


def sharpen(model: Any, generator: Any) -> None:
    """Make queries long, which their norms would leave short: attention would be flat."""
    for name, tensor in model.named_parameters():
        if ".q_layernorm." in name:
            tensor.mul_(4)


CASES = (
    Case(
        id="stablelm-plain",
        hf="StableLmForCausalLM",
        config=BASE | {"num_key_value_heads": 4},
        tokenizer="bpe-gpt2",
        inert=RESIDUAL,
    ),
    Case(
        id="stablelm-12b",
        hf="StableLmForCausalLM",
        config=BASE
        | {
            "qk_layernorm": True,
            "use_parallel_residual": True,
            "rope_parameters": {"rope_theta": 10000, "partial_rotary_factor": 0.5},
        },
        tokenizer="bpe-gpt2",
        fill=sharpen,
        dialect="old",
        dtype="bfloat16",
        shards=3,
        pad_vocab=8,
        reference="loses the norms of queries and keys",
        inert=RESIDUAL,
    ),
    Case(
        id="stablelm-published",
        hf="StableLMEpochForCausalLM",
        made_by="StableLmForCausalLM",
        config=BASE | {"use_qkv_bias": True},
        tokenizer="bpe-gpt2",
        rewrite=as_published,
        dtype="float16",
        inert=RESIDUAL,
    ),
    Case(
        id="stablelm-tied",
        hf="StableLmForCausalLM",
        config=BASE
        | {
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_theta": 700.0, "partial_rotary_factor": 1.0},
        },
        tokenizer="bpe-gpt2",
        reference="leaves rope_theta out, and writes no output, which llama.cpp requires",
        inert=RESIDUAL,
    ),
)
