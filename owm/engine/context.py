"""How large a context to make: one rule for every command, capped by the model and by memory."""

from dataclasses import dataclass
from typing import Literal

from owm.errors import NotEnoughMemory, PromptTooLong, UsageError
from owm.formats.gguf import Header
from owm.units import format_bytes

DEFAULT_CONTEXT = 8192
ROOM_FOR_ANSWER = 2048  # at least this much is made for an answer of open length
COMPUTE_BYTES = 512 << 20  # allowance for compute buffers and the rest of the process
MEMORY_SHARE = 0.9  # of the memory that this process may have at most
BYTES_PER_KV_VALUE = 2  # f16


@dataclass(frozen=True, slots=True)
class ContextSize:
    """Tokens in the context, and what kept it from being as large as wanted."""

    n_ctx: int
    capped_by: Literal["model", "memory"] | None = None


def kv_bytes_per_token(header: Header) -> int:
    """Return an upper bound of the KV cache's bytes for one token (sliding windows are counted in full)."""
    n_layers = header.integer("block_count") or 0
    n_embd = header.integer("embedding_length") or 0
    heads = header.integer("attention.head_count") or 0
    if not (n_layers and n_embd and heads):
        return 0
    kv_heads = header.integers("attention.head_count_kv", n_layers) or [heads] * n_layers
    k_length = header.integer("attention.key_length") or n_embd // heads
    v_length = header.integer("attention.value_length") or n_embd // heads
    return sum(kv_heads) * (k_length + v_length) * BYTES_PER_KV_VALUE


def choose(
    header: Header,
    *,
    n_prompt: int,
    max_tokens: int | None,
    asked: int | None,
    weights_bytes: int,
    memory_bytes: int,
) -> ContextSize:
    """Choose the context for a prompt and its answer: prompt + `max_tokens`, or what was asked for.

    Args:
        n_prompt: tokens of the prompt (0 for a chat that is yet to begin).
        max_tokens: tokens the answer may have, None for an open end.
        asked: `--ctx-size`.
        memory_bytes: all the memory that this process may have.

    Raises:
        PromptTooLong: the prompt has no room in the model's or the asked-for context.
        NotEnoughMemory: it would have room there, but not in memory.
        UsageError: a size is not positive.
    """
    if asked is not None and asked <= 0:
        raise UsageError(f"--ctx-size must be positive: {asked}")
    if max_tokens is not None and max_tokens <= 0:
        raise UsageError(f"--max-tokens must be positive: {max_tokens}")
    n_train = header.integer("context_length") or DEFAULT_CONTEXT
    open_end = max(DEFAULT_CONTEXT, n_prompt + ROOM_FOR_ANSWER)
    wanted = asked or (n_prompt + max_tokens if max_tokens is not None else open_end)
    per_token = kv_bytes_per_token(header)
    room = int(memory_bytes * MEMORY_SHARE) - weights_bytes - COMPUTE_BYTES
    n_memory = room // per_token if per_token else wanted
    if n_prompt >= min(wanted, n_train):
        limit, whose = (
            (asked, "the asked-for context") if asked and asked < n_train else (n_train, "the model's context")
        )
        larger = " ask for a larger `--ctx-size` or" if asked and asked < n_train else ""
        raise PromptTooLong(
            f"the prompt has {n_prompt} tokens, {whose} holds {limit}",
            n_prompt=n_prompt,
            n_ctx=limit,
            hint=f"nothing was cut;{larger} shorten the prompt, the answer needs room too",
        )
    if n_prompt >= n_memory:
        needed = (n_prompt + 1) * per_token + weights_bytes + COMPUTE_BYTES
        raise NotEnoughMemory(
            f"the prompt's {n_prompt} tokens need {format_bytes(needed)} of memory with this model,"
            f" {format_bytes(int(memory_bytes * MEMORY_SHARE))} can be used",
            needed=needed,
            free=memory_bytes,
            hint="take a smaller model or quant, or shorten the prompt",
        )
    n_ctx = min(wanted, n_train, n_memory)
    if n_ctx == wanted:
        return ContextSize(n_ctx)
    return ContextSize(n_ctx, "model" if n_ctx == n_train else "memory")
