"""BERT, XLM-RoBERTa and Nomic's BERT: models that make embeddings. ref: llama.cpp conversion/bert.py"""

from collections.abc import Mapping

from owm.convert import transforms
from owm.convert.architectures.base import Architecture
from owm.convert.hparams import DECODER, Config, constant
from owm.convert.rules import apply, drop, rename
from owm.convert.vocabulary import Vocab
from owm.formats.gguf_writer import Value
from owm.pipeline.rows import Rows

_BIDIRECTIONAL = constant("attention.causal", False)
# What the training of a model needed and its embeddings do not.
_HEADS = drop(
    r"(embeddings\.position_ids|pooler\.dense\.(weight|bias)|lm_head\..*|cls\.(predictions|seq_relationship)\..*)"
)
_REQUIRE = {
    "hidden_act": ("gelu", "gelu_new", "gelu_pytorch_tanh", None),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
}


def _offset(config: Config) -> int:
    """Return the row of the first token's position: those before are the padding's."""
    return 1 + config.integer("pad_token_id")


def _from_first_position(rows: Rows, config: Config) -> Rows:
    """Drop the positions that no token has."""
    return transforms.part(rows, min(_offset(config), rows.shape[0]), rows.shape[0])


def _n_positions(config: Config) -> Mapping[str, Value | None]:
    return {"context_length": config.integer("max_position_embeddings") - _offset(config)}


def _trained_positions(config: Config) -> Mapping[str, Value | None]:
    """Return the context that Nomic's models were trained for, not the one they can be stretched to."""
    n = config.integer("n_positions", "max_position_embeddings")
    trained = config.integer("max_trained_positions", default=2048)
    if "n_positions" in config and trained == 2048:
        n = {8192: 2048, 2048: 512}.get(n, n)
    return {"context_length": n}


BERT = Architecture(
    hf=("BertModel", "BertForMaskedLM"),
    gguf="bert",
    example="BAAI/bge-small-en-v1.5",
    vocab=(Vocab.WORDPIECE,),
    hparams=(*DECODER, _BIDIRECTIONAL),
    tensors=(
        rename(r"bert\.(.*)", r"\1"),
        rename(r"(.*)\.gamma", r"\1.weight"),
        rename(r"(.*)\.beta", r"\1.bias"),
        _HEADS,
    ),
    require=_REQUIRE,
    defaults={"norm_epsilon": 1e-12},
    ignored=("classifier_dropout", "type_vocab_size", "output_past"),
    has_output=False,
)

XLM_ROBERTA = Architecture(
    hf=("XLMRobertaModel",),
    gguf="bert",
    example="BAAI/bge-m3",
    vocab=(Vocab.UNIGRAM,),
    hparams=(*DECODER, _BIDIRECTIONAL, _n_positions),
    tensors=(
        rename(r"roberta\.(.*)", r"\1"),
        _HEADS,
        apply(r"embeddings\.position_embeddings\.weight", _from_first_position),
    ),
    require=_REQUIRE | {"lora_adaptations": (None,)},
    defaults={"norm_epsilon": 1e-12, "pad_token_id": 1},
    ignored=("classifier_dropout", "type_vocab_size", "output_past"),
    has_output=False,
)

NOMIC_BERT = Architecture(
    hf=("NomicBertModel",),
    gguf="nomic-bert",
    example="nomic-ai/nomic-embed-text-v1.5",
    vocab=(Vocab.WORDPIECE, Vocab.UNIGRAM),
    hparams=(*DECODER, _BIDIRECTIONAL, _trained_positions),
    require={
        "hidden_act": ("silu", "swish", None),
        "activation_function": ("swiglu", None),
        "causal": (False, None),
        "prenorm": (False, None),
        "parallel_block": (False, None),
        "use_rms_norm": (False, None),
        "qkv_proj_bias": (False, None),
        "mlp_fc1_bias": (False, None),
        "mlp_fc2_bias": (False, None),
        "rotary_emb_fraction": (1.0, None),
        "rotary_emb_interleaved": (False, None),
        "rotary_emb_scale_base": (None,),
        "rotary_scaling_factor": (None,),
        "moe_every_n_layers": (None, 0),
    },
    defaults={"norm_epsilon": 1e-12},
    ignored=("classifier_dropout",
        "type_vocab_size", "dense_seq_output", "fused_bias_fc", "fused_dropout_add_ln", "use_xentropy",
             "pad_vocab_size_multiple", "parallel_block_tied_norm", "resid_pdrop"),
    has_output=False,
    note="not the mixtures of experts (v2-moe)",
)  # fmt: skip
