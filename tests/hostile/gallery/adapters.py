"""Adapters that do not fit: `--lora FILE` over the tiny model. llama.cpp reads values without asking for their type."""

from collections.abc import Mapping

from hostile.gallery.exhibit import hostile
from support.crafted_gguf import N_EMBD, N_TOKENS, Value, Weights, filled, pack_value, weights
from support.packed_gguf import F32, STRING, U32, pack, tensor

MATRIX = "blk.0.attn_q.weight"
FACTORS = {f"{MATRIX}.lora_a": weights(N_EMBD, 4), f"{MATRIX}.lora_b": weights(4, N_EMBD)}


def adapter(keys: Mapping[str, Value], tensors: Mapping[str, Weights] = FACTORS) -> bytes:
    """Pack an adapter with these keys on top of, or instead of, the usual ones."""
    usual: dict[str, Value] = {
        "general.architecture": (STRING, "llama"),
        "general.type": (STRING, "adapter"),
        "adapter.type": (STRING, "lora"),
        "adapter.lora.alpha": (F32, 8.0),
    }
    entries, data = [], b""
    for name, (shape, type_id, raw) in tensors.items():
        entries.append(tensor(name, shape, type_id, len(data)))
        data += raw + bytes(-len(raw) % 32)
    return pack([pack_value(name, value) for name, value in (usual | dict(keys)).items()], entries, data)


@hostile("is no adapter, it is a file of type model", "aborts", kind="adapter", code=5)
def adapter_of_a_type_that_is_a_number() -> bytes:
    """An adapter that says in a number what it is."""
    return adapter({"general.type": (U32, 1)})


@hostile("is an adapter of type None, llama.cpp has only lora", "aborts", kind="adapter", code=5)
def adapter_of_a_kind_that_is_a_number() -> bytes:
    """An adapter that says in a number of which kind it is."""
    return adapter({"adapter.type": (U32, 1)})


@hostile("its adapter.lora.alpha is no 32-bit float", "aborts", kind="adapter")
def strength_that_is_a_whole_number() -> bytes:
    """A strength of another type than the one that is read."""
    return adapter({"adapter.lora.alpha": (U32, 8)})


@hostile("its adapter.lora.alpha is nan", "loads", kind="adapter")
def strength_that_is_no_number() -> bytes:
    """A strength that makes every answer NaN."""
    return adapter({"adapter.lora.alpha": (F32, float("nan"))})


@hostile("its factors of blk.0.attn_q.weight are 64 × 4 and 5 × 64", "refuses", kind="adapter", code=2)
def factors_of_two_ranks() -> bytes:
    """Two factors that cannot be multiplied."""
    return adapter({}, {f"{MATRIX}.lora_a": weights(N_EMBD, 4), f"{MATRIX}.lora_b": weights(5, N_EMBD)})


@hostile("its factors of token_embd.weight are 4 × 267 and 5 × 64", "aborts", kind="adapter", code=2)
def factors_of_embeddings_of_two_ranks() -> bytes:
    """The same for the embeddings, where llama.cpp does not look."""
    name = "token_embd.weight"
    return adapter({}, {f"{name}.lora_a": weights(4, N_TOKENS), f"{name}.lora_b": weights(5, N_EMBD)})


@hostile("has a tensor that cannot be multiplied with: blk.0.attn_q.weight.lora_a", "segfaults", kind="adapter", code=5)
def factor_of_whole_numbers() -> bytes:
    """A factor of 8-bit integers."""
    return adapter({}, FACTORS | {f"{MATRIX}.lora_a": filled(24, 4 * N_EMBD, N_EMBD, 4)})


@hostile("it has only one of the two factors of blk.0.attn_q.weight", "refuses", kind="adapter")
def factor_missing() -> bytes:
    """One factor alone."""
    return adapter({}, {f"{MATRIX}.lora_a": weights(N_EMBD, 4)})
