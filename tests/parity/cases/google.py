"""Gemma, all generations."""

from typing import Any

from parity.case import SHAPE, Case, Config, Tensors
from parity.vocabularies import N_TOKENS

NO_MODEL = "writes a byte-level BPE where there is no tokenizer.model"
GEMMA: Config = SHAPE | {"head_dim": 24, "tie_word_embeddings": True}
GEMMA2: Config = GEMMA | {
    "num_hidden_layers": 4,
    "sliding_window": 16,
    "query_pre_attn_scalar": 24,
    "attn_logit_softcapping": 6.0,
    "final_logit_softcapping": 0.5,
}
GEMMA3: Config = GEMMA | {
    "num_hidden_layers": 7,
    "head_dim": 32,
    "sliding_window": 16,
    "query_pre_attn_scalar": 32,
}
ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 3000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
}
VISION: Config = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "vision_use_head": False,
}
GEMMA3N: Config = SHAPE | {
    "num_hidden_layers": 25,
    "head_dim": 24,
    "intermediate_size": 512,
    "sliding_window": 16,
    "num_kv_shared_layers": 5,
    "hidden_size_per_layer_input": 256,
    "vocab_size_per_layer_input": N_TOKENS,
    "tie_word_embeddings": True,
    "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 15,
}
GEMMA3N_SHORT = GEMMA3N | {
    "num_hidden_layers": 12,
    "num_kv_shared_layers": 0,
    "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 2,
}
GEMMA3N_INERT = dict.fromkeys(
    (
        "altup.active_idx",
        "altup.num_inputs",
        "embedding_length_per_layer_input",
        "attention.shared_kv_layers",
        "activation_sparsity_scale",
        "final_logit_softcapping",
    ),
    "llama.cpp does not read it: owm refuses others than its own",
)
NO_SHARED = "leaves out keys and values of layers that share them, which llama.cpp loads: its file does not load"


def with_output(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Add the output embeddings, which are the input's, as some tools save them."""
    return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, config


def brief_gemma3(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Name the tensors as they are called in memory, and leave out of config.json what is the class's own."""
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        new = name.replace("language_model.model.", "language_model.", 1)
        renamed[new if new.startswith("lm_head") else f"model.{new}"] = tensor
    text = config["text_config"]
    for key in ("layer_types", "max_position_embeddings", "num_key_value_heads", "tie_word_embeddings"):
        text.pop(key)
    return renamed, config


def with_unused_keys(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Give every layer keys and values, as the published repos have them."""
    import torch

    generator = torch.Generator().manual_seed(7)
    for i in range(20, config["num_hidden_layers"]):
        for part in ("k_proj", "v_proj", "k_norm"):
            like = tensors[f"model.layers.0.self_attn.{part}.weight"]
            tensors[f"model.layers.{i}.self_attn.{part}.weight"] = torch.randn(like.shape, generator=generator)
    return tensors, config


def nested_gemma3n(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Nest the language model's config and names as the multimodal class has them."""
    tensors, config = with_unused_keys(tensors, config)
    text = config | {"architectures": ["Gemma3nForCausalLM"]}
    made: Tensors = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in tensors.items()}
    return made, {"architectures": config["architectures"], "model_type": "gemma3n", "text_config": text}


def fill_altup(model: Any, generator: Any) -> None:
    """Give the scale of corrections values around one (it is zero in a new model), and keep 25 layers from chaos."""
    import torch

    for name, tensor in model.named_parameters():
        if name.endswith("correct_output_scale"):
            tensor.copy_(1 + 0.3 * torch.randn(tensor.shape, generator=generator))
        elif name.endswith("_coefs.weight"):
            tensor.mul_(0.1)
        elif name.endswith(("q_norm.weight", "k_norm.weight")):
            tensor.mul_(0.5)  # queries are not divided by the root of their width


def fill_altup_like_llama(model: Any, generator: Any) -> None:
    """Let the sparse layers take the deviation of a sample, as llama.cpp does; the class takes that of all.

    At the published widths (8192 and more) it is the same in four digits, at tiny ones it would hide everything else:
    `gemma3n-wide` is computed as the class does.
    """
    import torch

    fill_altup(model, generator)

    def sparse(gate: Any) -> Any:
        cutoff = gate.mean(-1, keepdim=True) + gate.std(-1, keepdim=True) * torch.special.ndtri(torch.tensor(0.95))
        return torch.relu(gate - cutoff)

    for layer in model.model.layers:
        layer.mlp._gaussian_topk = sparse


CASES = (
    Case(
        id="gemma-plain",
        hf="GemmaForCausalLM",
        config=GEMMA,
        tokenizer="spm-gemma",
        dialect="old",
        embed_std=0.1,
        rewrite=with_output,
    ),
    Case(
        id="gemma-one",
        hf="GemmaForCausalLM",
        config=GEMMA | {"num_key_value_heads": 1, "hidden_act": "gelu_pytorch_tanh"},
        tokenizer="spm-gemma",
        dtype="float16",
        shards=2,
        pad_vocab=8,
        embed_std=0.1,
    ),
    Case(
        id="gemma-rope",
        hf="GemmaForCausalLM",
        config=GEMMA
        | {
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 700.0, "factor": 2.0},
        },
        tokenizer="spm-gemma-json",
        dtype="bfloat16",
        embed_std=0.1,
        reference="does not take a checkpoint without tokenizer.model, and writes nothing of the rope",
    ),
    Case(
        id="gemma2-plain",
        hf="Gemma2ForCausalLM",
        config=GEMMA2,
        tokenizer="spm-gemma",
        embed_std=0.1,
        rewrite=with_output,
    ),
    Case(
        id="gemma2-27b",
        hf="Gemma2ForCausalLM",
        config=GEMMA2 | {"num_hidden_layers": 46, "query_pre_attn_scalar": 16, "num_key_value_heads": 4},
        tokenizer="spm-gemma",
        dtype="bfloat16",
        shards=3,
        dialect="old",
        embed_std=0.1,
    ),
    Case(
        id="gemma2-layers",
        hf="Gemma2ForCausalLM",
        config=GEMMA2
        | {
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
        },
        tokenizer="spm-gemma-json",
        embed_std=0.1,
        reference="does not take a checkpoint without tokenizer.model, and writes nothing of the layers and the rope",
    ),
    Case(id="gemma3-sliding", hf="Gemma3ForCausalLM", config=GEMMA3, tokenizer="spm-gemma", embed_std=0.1),
    Case(
        id="gemma3-ropes",
        hf="Gemma3ForCausalLM",
        config=GEMMA3 | {"rope_parameters": ROPES, "final_logit_softcapping": 0.5, "num_key_value_heads": 4},
        tokenizer="spm-gemma",
        dialect="old",
        dtype="bfloat16",
        shards=3,
        pad_vocab=8,
        embed_std=0.1,
    ),
    Case(
        id="gemma3-untied",
        hf="Gemma3ForCausalLM",
        config=GEMMA3 | {"tie_word_embeddings": False, "head_dim": 24, "query_pre_attn_scalar": 24},
        tokenizer="spm-gemma-json",
        dtype="float16",
        embed_std=0.1,
        reference=NO_MODEL,
    ),
    Case(
        id="gemma3-layers",
        hf="Gemma3ForCausalLM",
        config=GEMMA3
        | {
            "num_hidden_layers": 4,
            "layer_types": [*["sliding_attention", "full_attention"] * 2],
            "rope_parameters": ROPES,
        },
        tokenizer="spm-gemma",
        embed_std=0.1,
        reference="does not write which layers have a window",
    ),
    Case(
        id="gemma3-full",
        hf="Gemma3ForCausalLM",
        config=GEMMA3 | {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2, "rope_parameters": ROPES},
        tokenizer="spm-gemma",
        embed_std=0.1,
        reference="writes a window where no layer has one",
        inert={"rope.freq_base_swa": "no layer has a window"},
    ),
    Case(
        id="gemma3-27b",
        hf="Gemma3ForCausalLM",
        config=GEMMA3 | {"num_hidden_layers": 62, "query_pre_attn_scalar": 16, "hidden_size": 64},
        tokenizer="spm-gemma",
        dtype="bfloat16",
        embed_std=0.1,
    ),
    Case(
        id="gemma3-nested",
        hf="Gemma3ForConditionalGeneration",
        config={"text_config": GEMMA3 | {"rope_parameters": ROPES}, "vision_config": VISION, "mm_tokens_per_image": 4},
        tokenizer="spm-gemma",
        embed_std=0.1,
    ),
    Case(
        id="gemma3-brief",
        hf="Gemma3ForConditionalGeneration",
        config={
            "text_config": GEMMA3
            | {"rope_parameters": ROPES, "max_position_embeddings": 131072, "num_key_value_heads": 4},
            "vision_config": VISION,
            "mm_tokens_per_image": 4,
        },
        tokenizer="spm-gemma",
        dialect="old",
        dtype="bfloat16",
        shards=2,
        rewrite=brief_gemma3,
        embed_std=0.1,
    ),
    Case(
        id="gemma3n-plain",
        hf="Gemma3nForCausalLM",
        config=GEMMA3N_SHORT,
        tokenizer="spm-gemma",
        embed_std=0.1,
        fill=fill_altup_like_llama,
        inert=GEMMA3N_INERT,
    ),
    Case(
        id="gemma3n-wide",
        hf="Gemma3nForCausalLM",
        config=GEMMA3N_SHORT | {"intermediate_size": 4096, "vocab_size_per_layer_input": N_TOKENS},
        tokenizer="spm-gemma",
        embed_std=0.1,
        fill=fill_altup,
        inert=GEMMA3N_INERT,
    ),
    Case(
        id="gemma3n-shared",
        hf="Gemma3nForCausalLM",
        config=GEMMA3N | {"num_key_value_heads": 4},
        tokenizer="spm-gemma",
        embed_std=0.1,
        fill=fill_altup_like_llama,
        inert=GEMMA3N_INERT,
        reference=NO_SHARED,
    ),
    Case(
        id="gemma3n-published",
        hf="Gemma3nForCausalLM",
        config=GEMMA3N,
        tokenizer="spm-gemma",
        dtype="bfloat16",
        shards=2,
        dialect="old",
        embed_std=0.1,
        fill=fill_altup_like_llama,
        rewrite=with_unused_keys,
        inert=GEMMA3N_INERT,
    ),
    Case(
        id="gemma3n-nested",
        hf="Gemma3nForConditionalGeneration",
        made_by="Gemma3nForCausalLM",
        config=GEMMA3N_SHORT,
        pad_vocab=8,
        tokenizer="spm-gemma",
        dtype="bfloat16",
        embed_std=0.1,
        fill=fill_altup_like_llama,
        rewrite=nested_gemma3n,
        inert=GEMMA3N_INERT,
    ),
)
