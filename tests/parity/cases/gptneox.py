"""GPT-NeoX, Pythia."""

from parity.case import SHAPE, Case, Config, Tensors

BASE = {key: value for key, value in SHAPE.items() if key not in ("num_key_value_heads", "rms_norm_eps")} | {
    "layer_norm_eps": 0.01
}


def as_published(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Name the rope parameters as Pythia's configs do, and leave out what they leave out; bring their old buffers."""
    import torch

    rope = config.pop("rope_parameters")
    config |= {"rotary_pct": rope["partial_rotary_factor"], "rotary_emb_base": rope["rope_theta"]}
    del config["attention_bias"]
    del config["model_type"]  # else the reference reads the config through transformers 5, which knows no rotary_pct
    for layer in range(config["num_hidden_layers"]):
        name = f"gpt_neox.layers.{layer}.attention"
        tensors[f"{name}.masked_bias"] = torch.tensor(-1e9)
        tensors[f"{name}.rotary_emb.inv_freq"] = torch.ones(2)
        tensors[f"{name}.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    return tensors, config


CASES = (
    Case(
        id="gptneox-plain",
        hf="GPTNeoXForCausalLM",
        config=BASE,
        tokenizer="bpe-gpt2",
        reference="looks for rotary_pct, which transformers 5 does not write",
    ),
    Case(
        id="gptneox-published",
        hf="GPTNeoXForCausalLM",
        config=BASE | {"rope_parameters": {"rope_theta": 10000, "partial_rotary_factor": 0.5}},
        tokenizer="bpe-gpt2",
        rewrite=as_published,
        dialect="old",
        dtype="float16",
        shards=3,
        pad_vocab=8,
        allowed={"general.file_type": "the reference leaves it out for this architecture"},
    ),
    Case(
        id="gptneox-sequential",
        hf="GPTNeoXForCausalLM",
        config=BASE
        | {
            "use_parallel_residual": False,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "linear",
                "factor": 4.0,
                "rope_theta": 700.0,
                "partial_rotary_factor": 1.0,
            },
        },
        tokenizer="bpe-gpt2",
        dtype="bfloat16",
        reference="looks for rotary_pct, which transformers 5 does not write",
    ),
)
