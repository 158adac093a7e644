"""Files whose numbers contradict each other, or the architecture: some end the process only with the first token."""

from hostile.gallery.exhibit import hostile
from support.crafted_gguf import HEAD, N_EMBD, N_HEAD, N_TOKENS, crafted, weights
from support.packed_gguf import ARRAY, F32, I32, STRING, U32, U64

NAN = float("nan")


@hostile("its architecture is not a text", "refuses")
def architecture_that_is_a_number() -> bytes:
    """An architecture of a type that nobody expects."""
    return crafted({"general.architecture": (U32, 1)})


@hostile("'general.architecture' holds a zero byte", "aborts")
def architecture_behind_a_zero_byte() -> bytes:
    """An architecture `llama\\0x`: C reads `llama.` keys, whoever checks those of `llama\\0x.` checks nothing."""
    return crafted({"general.architecture": (STRING, "llama\0x"), "{a}.block_count": (U32, 5000)})


@hostile("unknown model architecture: ''", "refuses", code=5)
def architecture_missing() -> bytes:
    """A model that does not say what it is."""
    return crafted({"general.architecture": None})


@hostile("it has 0 layers", "aborts")
def no_layers() -> bytes:
    """A model of no layers."""
    return crafted({"{a}.block_count": (U32, 0)})


@hostile("it has 4294967295 layers", "aborts")
def layers_of_every_number() -> bytes:
    """2^32 - 1 layers, where C's array has room for 512."""
    return crafted({"{a}.block_count": (U32, 2**32 - 1)})


@hostile("it has 1 layers, 3 of them for prediction", "aborts")
def more_layers_for_prediction_than_there_are() -> bytes:
    """Three of one layer are for prediction."""
    return crafted({"{a}.nextn_predict_layers": (U32, 3)})


@hostile("its context length is 0", "refuses")
def context_of_nothing() -> bytes:
    """A model that was trained on texts of no tokens."""
    return crafted({"{a}.context_length": (U32, 0)})


@hostile("its embedding length is 0", "refuses")
def embeddings_of_nothing() -> bytes:
    """Embeddings of no numbers."""
    return crafted({"{a}.embedding_length": (U32, 0)})


@hostile("it uses 2 of 1025 experts", "aborts")
def too_many_experts() -> bytes:
    """1,025 experts, where C's array has room for 1,024."""
    return crafted({"{a}.expert_count": (U32, 1025), "{a}.expert_used_count": (U32, 2)})


@hostile("it uses 0 of 8 experts", "aborts")
def experts_of_whom_none_is_used() -> bytes:
    """Eight experts, none of whom is asked."""
    return crafted({"{a}.expert_count": (U32, 8)})


@hostile("it uses 9 of 8 experts", "aborts")
def more_experts_used_than_there_are() -> bytes:
    """Nine of eight experts are asked."""
    return crafted({"{a}.expert_count": (U32, 8), "{a}.expert_used_count": (U32, 9)})


@hostile("it uses 4294967295 of 8 experts", "aborts")
def experts_of_a_negative_number() -> bytes:
    """-1 experts in a signed array, which is read as an unsigned one."""
    return crafted({"{a}.expert_count": (U32, 8), "{a}.expert_used_count": (ARRAY, I32, [-1])})


@hostile("its expert_used_count lies where it cannot be checked", "aborts")
def experts_behind_a_long_text() -> bytes:
    """Values that matter, behind more text than a reader takes into memory: it could pass over them."""
    return crafted({**_texts(), "{a}.expert_count": (U32, 8), "{a}.expert_used_count": (ARRAY, U32, [9])})


@hostile("it uses 1 of 3 groups of 8 experts", "aborts")
def groups_that_do_not_divide() -> bytes:
    """Eight experts in three groups."""
    groups = {"{a}.expert_group_count": (U32, 3), "{a}.expert_group_used_count": (U32, 1)}
    return crafted({"{a}.expert_count": (U32, 8), "{a}.expert_used_count": (U32, 2), **groups})


@hostile("it has no experts, the architecture llada-moe needs some", "aborts")
def mixture_of_no_experts() -> bytes:
    """A mixture of experts without experts."""
    return crafted(architecture="llada-moe")


@hostile("its layer_norm_rms_epsilon is nan", "aborts")
def epsilon_that_is_no_number() -> bytes:
    """A norm that divides by NaN."""
    return crafted({"{a}.attention.layer_norm_rms_epsilon": (F32, NAN)})


@hostile("its layer_norm_rms_epsilon is -1.0", "aborts")
def negative_epsilon() -> bytes:
    """A norm that takes the root of a negative number."""
    return crafted({"{a}.attention.layer_norm_rms_epsilon": (F32, -1.0)})


@hostile("its rope scaling 'su' is not known", "aborts")
def unknown_scaling_of_positions() -> bytes:
    """A scaling of positions that old files have and llama.cpp does not know any more."""
    return crafted({"{a}.rope.scaling.type": (STRING, "su")})


@hostile("its rope.scaling.type lies where it cannot be checked", "aborts")
def scaling_behind_a_long_text() -> bytes:
    """The same, behind more texts than a reader takes into memory at once."""
    return crafted({**_texts(), "{a}.rope.scaling.type": (STRING, "su")})


@hostile("it rotates 8 of 16 numbers of a head, the architecture qwen3 all of them", "aborts")
def rotation_of_half_a_head() -> bytes:
    """Contradictory numbers of the rotation: the model loads, the process dies when a context is made."""
    norms = {f"blk.0.attn_{which}_norm.weight": weights(HEAD) for which in "qk"}
    return crafted({"{a}.rope.dimension_count": (U32, 8)}, norms, architecture="qwen3")


@hostile("it rotates 32 of 16 numbers of a head", "aborts")
def rotation_of_more_than_a_head() -> bytes:
    """A rotation of more numbers than a head has."""
    return _phi2(32)


@hostile("it rotates 7 numbers of a head, which are no pairs", "aborts")
def rotation_of_an_odd_number() -> bytes:
    """A rotation of seven numbers, which are taken in pairs."""
    return _phi2(7)


@hostile("its heads have keys of 16 and values of 32, the architecture llama the same of both", "aborts")
def heads_of_two_sizes() -> bytes:
    """Keys and values of different sizes, with matrices to fit."""
    tensors = {"blk.0.attn_v.weight": weights(N_EMBD, 64), "blk.0.attn_output.weight": weights(N_HEAD * HEAD, N_EMBD)}
    return crafted({"{a}.attention.key_length": (U32, 16), "{a}.attention.value_length": (U32, 32)}, tensors)


@hostile("its 4 heads do not divide among 3 of keys and values", "aborts")
def heads_that_do_not_divide() -> bytes:
    """Four heads over three of keys and values, with matrices to fit."""
    tensors = {f"blk.0.attn_{which}.weight": weights(N_EMBD, 3 * HEAD) for which in "kv"}
    return crafted({"{a}.attention.head_count_kv": (U32, 3)}, tensors)


@hostile("wrong array length; expected 1, got 5", "refuses", code=1)
def heads_of_layers_that_are_not_there() -> bytes:
    """Numbers of heads for five layers, of which there is one."""
    return crafted({"{a}.attention.head_count": (ARRAY, U32, [4] * 5)})


@hostile("tensor 'blk.0.attn_q.weight' has wrong shape; expected     64,      0, got", "refuses", code=1)
def no_heads() -> bytes:
    """A model of no heads, to divide by."""
    return crafted({"{a}.attention.head_count": (U32, 0)})


@hostile("key llama.embedding_length has wrong type u64", "refuses", code=1)
def length_of_another_type() -> bytes:
    """A number of 64 bits where one of 32 is read."""
    return crafted({"{a}.embedding_length": (U64, N_EMBD)})


@hostile("its rope.freq_base is nan", "loads")
def frequencies_that_are_no_number() -> bytes:
    """A base of frequencies that makes every answer NaN."""
    return crafted({"{a}.rope.freq_base": (F32, NAN)})


@hostile("its rope.scaling.factor is -4.0", "loads")
def negative_scaling() -> bytes:
    """A scaling of positions by a negative number, of which a logarithm is taken."""
    return crafted({"{a}.rope.scaling.type": (STRING, "yarn"), "{a}.rope.scaling.factor": (F32, -4.0)})


@hostile("its sections of positions are all empty", "aborts")
def positions_of_no_sections() -> bytes:
    """A model that sees, whose positions have four parts of no numbers."""
    biases = {f"blk.0.attn_{which}.bias": weights(n) for which, n in (("q", 64), ("k", 32), ("v", 32))}
    return crafted({"{a}.rope.dimension_sections": (ARRAY, I32, [0] * 4)}, biases, architecture="qwen2vl")


def _phi2(n_rotated: int) -> bytes:
    """A model of an architecture that rotates a part of each head."""
    tensors = {
        f"{name}.bias": weights(n)
        for name, n in {
            "blk.0.attn_norm": N_EMBD, "output_norm": N_EMBD, "output": N_TOKENS, "blk.0.attn_output": N_EMBD,
            "blk.0.ffn_down": N_EMBD, "blk.0.ffn_up": 128, "blk.0.attn_q": 64, "blk.0.attn_k": 32, "blk.0.attn_v": 32,
        }.items()
    }  # fmt: skip
    unused = dict.fromkeys(("blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight"))
    keys = {"{a}.rope.dimension_count": (U32, n_rotated), "{a}.attention.layer_norm_epsilon": (F32, 1e-5)}
    return crafted(keys, tensors | unused, architecture="phi2")


def _texts() -> dict[str, tuple[int, str]]:
    """Return texts that fill, to the last byte, what a reader takes into memory."""
    return {f"general.text.{i}": (STRING, "x" * (1 << (45 - i) // 2)) for i in range(46)}
