"""An architecture as data: which checkpoint classes it takes, and how config keys and tensors become a model file's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from owm.convert.hparams import Computed, Config
from owm.convert.rules import Rule
from owm.convert.vocabulary import Vocab
from owm.errors import Unsupported


@dataclass(frozen=True, slots=True)
class Architecture:
    """One entry of the table.

    hf: the class names in config.json's `architectures`.
    gguf: llama.cpp's name of the architecture, which gguf-py's tensor names belong to.
    example: a repo that publishes such a checkpoint.
    vocab: the kinds of tokenizer it may have, in the order to try.
    hparams: config keys to the model file's; a later one overrides.
    tensors: rules over the checkpoint's tensors, in order; names are mapped by gguf-py's table afterwards.
    require: config keys and the values that llama.cpp computes with; any other value is refused. None stands for a key
        that is missing.
    defaults: what the checkpoint's class takes for keys that its config leaves out, where the numbers depend on it.
    ignored: config keys that change nothing, in addition to `IGNORED`.
    types: (pattern of a tensor's name in the model file, its type), for what must not follow `--type`.
    has_output: whether such a model predicts tokens: an embedding model does not.
    is_tied: whether the class ties input and output embeddings when its config does not say.
    note: a limit worth knowing, for the table of architectures.
    gguf_of: returns another of llama.cpp's architectures where a config needs one, else None.
    warn: says in one sentence what llama.cpp will compute otherwise for this config; the keys it reads count as read.
    """

    hf: tuple[str, ...]
    gguf: str
    example: str
    vocab: tuple[Vocab, ...]
    hparams: tuple[Computed, ...]
    tensors: tuple[Rule, ...] = ()
    require: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    types: tuple[tuple[str, str], ...] = ()
    has_output: bool = True
    is_tied: bool = False
    note: str | None = None
    gguf_of: Callable[[Config], str | None] | None = None
    warn: Callable[[Config], str | None] | None = None

    def check(self, config: Config, name: str) -> None:
        """Refuse a config that asks for arithmetic which llama.cpp does not do for this architecture.

        Raises:
            Unsupported: a value is not what the entry requires, or a key that changes the numbers was not read.
        """
        for key, allowed in self.require.items():
            value = config.get(key)
            if value not in allowed:
                shown = ", ".join("nothing" if item is None else str(item) for item in allowed)
                raise Unsupported(
                    f"{name} with {key} {_shown(value)} is not supported", hint=f"llama.cpp computes it with: {shown}"
                )
        for key in config.unread():
            value = config.value_of(key)
            neutral = NEUTRAL.get(key)
            if neutral is not None and key not in self.ignored and not _is_neutral(value, neutral):
                raise Unsupported(
                    f"{name} with {key} {_shown(value)} is not supported: it would be converted wrongly",
                    hint="llama.cpp has no such setting for this architecture",
                )

    def unknown_keys(self, config: Config) -> list[str]:
        """Return the config keys that neither this entry nor the table knows: worth one line to the user."""
        return [key for key in config.unread() if key not in NEUTRAL and key not in self.ignored and not _is_inert(key)]


def ignored_window(config: Config) -> str | None:
    """Return a warning if the config has a sliding window, for architectures that llama.cpp computes without one."""
    if config.get("sliding_window") is None:
        return None
    window, limit = config.integer("sliding_window"), config.integer("max_position_embeddings", default=0)
    if limit and window >= limit:
        return None
    return f"the model looks back {window} tokens and llama.cpp lets it see all: longer texts come out otherwise"


def _shown(value: Any) -> str:
    return ascii(value)[:60]


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    return value is None or any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in neutral)


def _is_inert(key: str) -> bool:
    return (
        key in IGNORED
        or key.startswith("_")
        or key.endswith(("dropout", "_pdrop", "_drop", "_token_id", "_token_ids", "_token_index", "_coef", "_config"))
    )


# Keys that would change the numbers where an architecture has them, and the values with which they change nothing. A
# key that an entry reads or requires is its own business; one that no entry reads must have one of these.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "hidden_activation": ("silu",),
    "activation_function": ("silu",),
    "attention_bias": (False, True),  # the bias is a tensor, which has to find its place
    "mlp_bias": (False, True),
    "use_bias": (False, True),
    "use_qkv_bias": (False, True),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "logits_soft_cap": (),
    "attn_logit_softcap": (),
    "logit_scale": (1, 1.0),
    "logits_scaling": (1, 1.0),
    "logit_scaling": (1, 1.0),
    "embedding_multiplier": (1, 1.0),
    "residual_multiplier": (1, 1.0),
    "attention_multiplier": (),
    "lm_head_multiplier": (1, 1.0),
    "key_multiplier": (1, 1.0),
    "scale_emb": (1, 1.0),
    "scale_depth": (),
    "dim_model_base": (),
    "query_pre_attn_scalar": (),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False, True),
    "use_qk_norm": (False,),
    "qk_layernorm": (False,),
    "qk_norm": (False,),
    "clip_qkv": (),
    "alibi": (False,),
    "parallel_attn": (False,),
    "use_parallel_residual": (False,),
    "residual_in_fp32": (False, True),
    "partial_rotary_factor": (1, 1.0),
    "rotary_pct": (1, 1.0),
    "rotary_dim": (),
    "rope_scaling": (),
    "rope_parameters": (),
    "rope_theta": (),
    "rope_interleaved": (False,),
    "rope_interleave": (),
    "no_rope_layers": ([],),
    "no_rope_layer_interval": (),
    "sliding_window": (),
    "sliding_window_pattern": (),
    "use_sliding_window": (False,),
    "layer_types": (),
    "attention_chunk_size": (),
    "use_sinks": (False,),
    "n_shared_experts": (0,),
    "num_shared_experts": (0,),
    "norm_topk_prob": (),
    "routed_scaling_factor": (1, 1.0),
    "first_k_dense_replace": (0,),
    "moe_layer_freq": (1,),
    "decoder_sparse_step": (1,),
    "mlp_only_layers": ([],),
    "n_group": (1,),
    "topk_group": (1,),
    "scoring_func": ("softmax",),
    "topk_method": ("greedy",),
    "is_decoder": (True, False),
    "add_cross_attention": (False,),
    "position_embedding_type": ("absolute",),
    "num_nextn_predict_layers": (0,),
    "attention_type": (),
    "normalization_type": (),
    "norm_type": (),
    "apply_residual_connection_post_layernorm": (False,),
    "is_causal": (True,),
    "head_dim": (),
    "quantization_config": (),
}

# One function in llama.cpp; they differ from the fourth digit on.
GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh")

# Keys that say how a model was trained, saved or is to be run, not what it computes.
IGNORED = frozenset(
    """
    architectures auto_map bos_token_id cache_implementation chunk_size_feed_forward cross_attention_hidden_size
    diversity_penalty do_sample dtype early_stopping finetuning_task forced_bos_token_id forced_eos_token_id
    gradient_checkpointing id2label label2id initializer_range initializer_factor is_encoder_decoder
    keys_to_ignore_at_inference
    length_penalty max_length max_window_layers min_length model_type name_or_path no_repeat_ngram_size num_beam_groups
    num_beams
    num_return_sequences output_attentions output_hidden_states output_scores prefix pretraining_tp problem_type
    pruned_heads remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p
    torch_dtype torchscript transformers_version typical_p unsloth_version unsloth_fixed use_bfloat16 use_cache
    vocab_size output_router_logits router_jitter_noise input_jitter_noise summary_activation summary_first_dropout
    summary_proj_to_labels summary_type summary_use_proj use_flash_attn encoder_no_repeat_ngram_size bad_words_ids
    begin_suppress_tokens exponential_decay_length_penalty suppress_tokens decoder_start_token_id use_return_dict
    hidden_dropout_prob attention_probs_dropout_prob layerdrop
    """.split()
)
