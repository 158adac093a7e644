"""BERT, XLM-RoBERTa and Nomic's BERT."""

import json
from typing import Any

import torch

from parity.case import Case, Config, Tensors

SMALL: Config = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "layer_norm_eps": 0.01,
}
POOLING = "applied to what the tokens give, after the rows that are compared"
ENCODER = {"attention.causal": "llama.cpp's encoder is never causal, whatever the file says"}
INERT = {"pooling_type": POOLING, **ENCODER}
WORDPIECE = {"tokenizer.ggml.pre": "looked up by a hash of the published vocabularies; WordPiece is always cut alike"}
_MASK = "its file lacks <mask>, which SentencePiece's model does not know"
UNIGRAM = dict.fromkeys(("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"), _MASK)


def pooling(**settings: Any) -> dict[str, str]:
    """Return the files by which sentence-transformers says how to pool."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    return {"modules.json": json.dumps(modules), "1_Pooling/config.json": json.dumps(settings)}


def masked_lm(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Name the tensors as the first BERT checkpoints do, with the head that they were trained with."""
    renamed = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): each
        for name, each in tensors.items()
    }
    head = {
        "cls.predictions.bias": torch.zeros(config["vocab_size"]),
        "cls.predictions.transform.dense.weight": torch.zeros(64, 64),
        "cls.seq_relationship.bias": torch.zeros(2),
    }
    return renamed | head, config


def roberta(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Put the older prefix before all names."""
    return {f"roberta.{name}": tensor for name, tensor in tensors.items()}, config


def nomic_published(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Use the keys of the published config, which are GPT-2's."""
    config = {
        "architectures": ["NomicBertModel"],
        "model_type": "nomic_bert",
        "activation_function": "swiglu",
        "causal": False,
        "layer_norm_epsilon": config["layer_norm_eps"],
        "max_trained_positions": 2048,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "n_embd": config["hidden_size"],
        "n_head": config["num_attention_heads"],
        "n_inner": config["intermediate_size"],
        "n_layer": config["num_hidden_layers"],
        "n_positions": 8192,
        "parallel_block": False,
        "prenorm": False,
        "qkv_proj_bias": False,
        "reorder_and_upcast_attn": False,
        "rotary_emb_base": config["rope_parameters"]["rope_theta"],
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
        "torch_dtype": "float32",
        "type_vocab_size": config["type_vocab_size"],
        "use_flash_attn": True,
        "use_rms_norm": False,
        "vocab_size": config["vocab_size"],
    }
    return tensors, config


def nomic_both(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Put the published keys beside those of transformers' own class."""
    return tensors, config | nomic_published(tensors, config)[1]


NOMIC: Config = {
    **SMALL,
    "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
}
CASES = (
    Case(
        id="bert-plain",
        hf="BertModel",
        config=SMALL,
        tokenizer="wordpiece",
        output="hidden",
        allowed=WORDPIECE,
        gain=3.0,
        files=pooling(pooling_mode_cls_token=True, pooling_mode_mean_tokens=False),
        inert=INERT,
    ),
    Case(
        id="bert-mlm",
        hf="BertForMaskedLM",
        made_by="BertModel",
        config=SMALL | {"type_vocab_size": 1, "num_attention_heads": 2},
        tokenizer="wordpiece",
        output="hidden",
        inert=ENCODER,
        allowed=WORDPIECE,
        gain=4.0,
        dialect="old",
        dtype="float16",
        shards=2,
        pad_vocab=8,
        rewrite=masked_lm,
    ),
    Case(
        id="bert-xlm",
        hf="XLMRobertaModel",
        config=SMALL | {"type_vocab_size": 1},
        tokenizer="unigram",
        output="hidden",
        allowed=UNIGRAM,
        gain=3.0,
        files=pooling(pooling_mode="mean"),
        inert=INERT,
    ),
    Case(
        id="bert-roberta",
        hf="XLMRobertaModel",
        config=SMALL,
        tokenizer="unigram",
        output="hidden",
        inert=ENCODER,
        allowed=UNIGRAM,
        gain=3.0,
        dialect="old",
        dtype="bfloat16",
        rewrite=roberta,
    ),
    Case(
        id="bert-nomic",
        hf="NomicBertModel",
        config=NOMIC,
        tokenizer="wordpiece",
        output="hidden",
        gain=3.0,
        reference="looks for n_positions, which transformers 5 does not write",
        files=pooling(pooling_mode_mean_tokens=True),
        inert=INERT,
    ),
    Case(
        id="bert-nomic-both",
        hf="NomicBertModel",
        config=NOMIC | {"type_vocab_size": 1},
        tokenizer="wordpiece",
        output="hidden",
        inert=ENCODER,
        allowed=WORDPIECE,
        gain=3.0,
        dtype="bfloat16",
        shards=2,
        rewrite=nomic_both,
    ),
    Case(
        id="bert-nomic-published",
        hf="NomicBertModel",
        config=NOMIC | {"num_attention_heads": 2},
        tokenizer="wordpiece",
        output="hidden",
        inert=ENCODER,
        gain=3.0,
        rewrite=nomic_published,
        reference="takes sizes from the defaults of transformers' own class",
    ),
)
