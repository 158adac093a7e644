"""InternLM 2: transformers has no such class, its weights are Llama's in another order."""

from parity.case import SHAPE, Case, Config, Tensors

NAMES = {
    "model.embed_tokens": "model.tok_embeddings",
    "lm_head": "output",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


def to_internlm(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Put queries, keys and values into one tensor, group by group, and give everything its name."""
    import torch

    made: Tensors = {}
    n_kv, width = config["num_key_value_heads"], config["head_dim"]
    for name, tensor in tensors.items():
        if "q_proj" in name:
            parts = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            groups = [part.reshape(n_kv, -1, width, part.shape[-1]) for part in parts]
            joined = torch.cat(groups, 1).reshape(-1, tensor.shape[-1])
            made[name.replace("self_attn.q_proj", "attention.wqkv")] = joined
        elif "k_proj" not in name and "v_proj" not in name:
            old = max((each for each in NAMES if each in name), key=len, default="")
            made[name.replace(old, NAMES[old]) if old else name] = tensor
    config = {key: value for key, value in config.items() if key not in ("head_dim", "attention_bias", "mlp_bias")}
    return made, config | {"model_type": "internlm2", "bias": False, "attn_implementation": "eager"}


def with_dynamic_rope(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Ask for a rope that grows with texts longer than the context, as the published ones do."""
    tensors, config = to_internlm(tensors, config)
    rope = {"rope_theta": config.pop("rope_parameters")["rope_theta"]}
    return tensors, config | rope | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}


CASES = (
    Case(
        id="internlm2-plain",
        hf="InternLM2ForCausalLM",
        made_by="LlamaForCausalLM",
        config=SHAPE | {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}},
        tokenizer="spm-llama",
        rewrite=to_internlm,
    ),
    Case(
        id="internlm2-old",
        hf="InternLM2ForCausalLM",
        made_by="LlamaForCausalLM",
        config=SHAPE
        | {
            "num_attention_heads": 8,
            "num_hidden_layers": 3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
        },
        tokenizer="spm-llama",
        rewrite=to_internlm,
        dialect="old",
        dtype="bfloat16",
        shards=3,
    ),
    Case(
        id="internlm2-dynamic",
        hf="InternLM2ForCausalLM",
        made_by="LlamaForCausalLM",
        config=SHAPE | {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}},
        tokenizer="spm-llama",
        rewrite=with_dynamic_rope,
    ),
    Case(
        id="internlm2-tied",
        hf="InternLM2ForCausalLM",
        made_by="LlamaForCausalLM",
        config=SHAPE | {"tie_word_embeddings": True, "num_key_value_heads": 4},
        tokenizer="spm-llama",
        rewrite=to_internlm,
        reference="leaves the output embeddings out, without which llama.cpp does not load this architecture",
    ),
)
