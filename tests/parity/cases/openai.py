"""GPT-2 and gpt-oss."""

from typing import Any

from parity.case import SHAPE, Case, Config, Tensors

GPT2: Config = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "layer_norm_epsilon": 0.01}
NO_N_CTX = "looks for n_ctx, which transformers 5 does not write"

GPT_OSS: Config = SHAPE | {
    "head_dim": 32,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 16,
    "attention_bias": True,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 900.0,
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 48,
    "truncate": True,
}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 900.0}

NOT_READ = "llama.cpp reads the width of the experts only"
INERT = {"feed_forward_length": NOT_READ}
INERT_YARN = INERT | dict.fromkeys(
    ("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
    "llama.cpp does not read it for gpt-oss: owm refuses others than its own",
)

FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # and negative, from code 8 on


def bare_gpt2(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Name the tensors as the first repos did."""
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}, config


def published_gpt2(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Add the causal mask too, which is saved in those repos."""
    import torch

    masks = {f"h.{i}.attn.bias": torch.tril(torch.ones(1, 1, 128, 128)) for i in range(config["n_layer"])}
    return bare_gpt2(tensors, config)[0] | masks, config


def fill_sinks(model: Any, generator: Any) -> None:
    """Give sinks and biases of experts values that matter."""
    import torch

    for name, tensor in model.named_parameters():
        if name.endswith(("sinks", "proj_bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))


def fill_mxfp4(model: Any, generator: Any) -> None:
    """Give experts weights that MXFP4 can hold, in blocks of 32 inputs, each with a scale of its own."""
    import torch

    fill_sinks(model, generator)
    values = torch.tensor([*FP4, *(-value for value in FP4)])
    for name, tensor in model.named_parameters():
        if name.endswith(("gate_up_proj", "down_proj")):
            n_experts, n_in, n_out = tensor.shape
            codes = torch.randint(0, 16, (n_experts, n_out, n_in // 32, 32), generator=generator)
            codes[..., 0] = 7  # the largest, from which the scale is known
            exponents = torch.randint(-8, -5, (n_experts, n_out, n_in // 32, 1), generator=generator)
            blocks = values[codes] * torch.exp2(exponents.float())
            tensor.copy_(blocks.reshape(n_experts, n_out, n_in).transpose(1, 2))


def into_mxfp4(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Write the experts as OpenAI's repos do: `blocks` of two codes a byte, neighbours together, and `scales`."""
    import torch

    made: Tensors = {}
    for name, tensor in tensors.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            made[name] = tensor
            continue
        n_experts, n_in, n_out = tensor.shape
        blocks = tensor.float().transpose(1, 2).reshape(n_experts, n_out, n_in // 32, 32)
        scale = blocks.abs().amax(-1, keepdim=True) / 6
        codes = (blocks.abs() / scale).unsqueeze(-1).sub(torch.tensor(FP4)).abs().argmin(-1) + 8 * blocks.signbit()
        pairs = codes.reshape(n_experts, n_out, n_in // 32, 16, 2).to(torch.uint8)
        made[f"{name}_blocks"] = pairs[..., 0] | pairs[..., 1] << 4
        made[f"{name}_scales"] = (scale.squeeze(-1).log2().round() + 127).to(torch.uint8)
    config["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens"],
    }
    return made, config


CASES = (
    Case(id="gpt2-plain", hf="GPT2LMHeadModel", config=GPT2, tokenizer="bpe-gpt2", reference=NO_N_CTX),
    Case(
        id="gpt2-old",
        hf="GPT2LMHeadModel",
        config=GPT2 | {"n_ctx": 128},
        tokenizer="bpe-gpt2",
        dialect="old",
        shards=3,
        rewrite=bare_gpt2,
    ),
    Case(
        id="gpt2-published",
        hf="GPT2LMHeadModel",
        config=GPT2 | {"n_ctx": 128},
        tokenizer="bpe-gpt2",
        dialect="old",
        rewrite=published_gpt2,
        reference="stops at the causal masks that published repos have among their tensors",
    ),
    Case(
        id="gpt2-untied",
        hf="GPT2LMHeadModel",
        config=GPT2 | {"n_ctx": 128, "tie_word_embeddings": False, "n_head": 2, "n_layer": 3},
        tokenizer="bpe-gpt2",
        dtype="bfloat16",
        pad_vocab=5,
    ),
    Case(
        id="gpt2-inner",
        hf="GPT2LMHeadModel",
        config=GPT2 | {"n_ctx": 128, "n_inner": 96},
        tokenizer="bpe-gpt2",
        dtype="float16",
        reference="writes a feed-forward length of 4 × n_embd, whatever n_inner says",
    ),
    Case(
        id="gpt_oss-yarn",
        hf="GptOssForCausalLM",
        config=GPT_OSS | {"num_hidden_layers": 3, "rope_parameters": YARN},
        tokenizer="bpe-gpt4o",
        fill=fill_sinks,
        dtype="bfloat16",
        dialect="old",
        shards=3,
        inert=INERT_YARN,
    ),
    Case(
        id="gpt_oss-plain",
        hf="GptOssForCausalLM",
        config=GPT_OSS | {"rope_parameters": PLAIN_ROPE, "num_key_value_heads": 4, "head_dim": 24},
        tokenizer="bpe-gpt4o",
        fill=fill_sinks,
        inert=INERT,
    ),
    Case(
        id="gpt_oss-layers",
        hf="GptOssForCausalLM",
        config=GPT_OSS
        | {"rope_parameters": PLAIN_ROPE, "layer_types": ["full_attention", "sliding_attention"], "pad_token_id": None},
        tokenizer="bpe-gpt4o",
        fill=fill_sinks,
        dtype="float16",
        reference="does not write which layers have a window",
        inert=INERT,
    ),
    Case(
        id="gpt_oss-published",
        hf="GptOssForCausalLM",
        config=GPT_OSS | {"rope_parameters": YARN | {"truncate": False}},
        tokenizer="bpe-gpt4o",
        fill=fill_sinks,
        dialect="old",
        logits="llama.cpp rounds where yarn begins and ends to whole dimensions, gpt-oss does not (truncate: false)",
    ),
    Case(
        id="gpt_oss-mxfp4",
        hf="GptOssForCausalLM",
        # llama.cpp rounds what it multiplies with MXFP4 weights to 8 bits: no expert may be chosen by a hair.
        config=GPT_OSS | {"rope_parameters": YARN, "num_experts_per_tok": 4},
        tokenizer="bpe-gpt4o",
        fill=fill_mxfp4,
        rewrite=into_mxfp4,
        dtype="bfloat16",
        inert=INERT_YARN,
    ),
)
