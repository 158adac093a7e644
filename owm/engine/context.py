"""How large a context to make: one rule for every command, capped by the model and by memory, never by cutting."""

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
BYTES_PER_STATE_VALUE = 4  # f32


Limit = Literal["asked", "model", "memory"]


@dataclass(frozen=True, slots=True)
class ContextSize:
    """Tokens in the context, and what kept it from being as large as wanted."""

    n_ctx: int
    capped_by: Literal["model", "memory"] | None = None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The largest context that there can be, and what limits it. Memory may have no room for a single token."""

    n_ctx: int
    limit: Limit

    def room_for_answer(self, max_tokens: int | None) -> int:
        """Return the tokens to keep for an answer: `max_tokens`, or at most a quarter if its end is open."""
        return max_tokens if max_tokens is not None else min(ROOM_FOR_ANSWER, max(self.n_ctx, 0) // 4)


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


def state_bytes(header: Header) -> int:
    """Return an upper bound of the recurrent state's bytes of one sequence (every block is counted), 0 without one.

    ref: llama.cpp, src/llama-hparams.cpp, n_embd_r and n_embd_s
    """

    def of(name: str) -> int:
        return header.integer(name) or 0

    n_embd, n_inner, n_state = of("embedding_length"), of("ssm.inner_size"), of("ssm.state_size")
    ssm = n_state * n_inner + max(of("ssm.conv_kernel") - 1, 0) * (n_inner + 2 * of("ssm.group_count") * n_state)
    wkv = n_embd * (of("wkv.head_size") + (of("token_shift_count") or 2)) if of("wkv.head_size") else 0
    convolution = n_embd * max(of("shortconv.l_cache") - 1, 0)
    return of("block_count") * (ssm + wkv + convolution) * BYTES_PER_STATE_VALUE


def tokens_in_memory(header: Header, *, weights_bytes: int, memory_bytes: int) -> int | None:
    """Return how many tokens' KV cache memory can hold beside the weights; None if it needs none that is known of."""
    per_token = kv_bytes_per_token(header)
    room = int(memory_bytes * MEMORY_SHARE) - weights_bytes - COMPUTE_BYTES
    return max(room // per_token, 0) if per_token else None


def ceiling(header: Header, *, asked: int | None, weights_bytes: int, memory_bytes: int) -> Ceiling:
    """Return the largest context for one sequence: the asked-for, the model's, or what memory holds.

    Raises:
        UsageError: what was asked for is not positive.
    """
    window = _window(header, asked)
    n_memory = tokens_in_memory(header, weights_bytes=weights_bytes, memory_bytes=memory_bytes)
    return window if n_memory is None or window.n_ctx <= n_memory else Ceiling(n_memory, "memory")


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

    An answer of open length needs room for one token; it gets `ROOM_FOR_ANSWER` where there is so much.

    Args:
        n_prompt: tokens of the prompt (0 for a chat that is yet to begin).
        max_tokens: tokens the answer may have, None for an open end.
        asked: `--ctx-size`.
        memory_bytes: all the memory that this process may have.

    Raises:
        PromptTooLong: prompt and answer have no room in the model's or the asked-for context.
        NotEnoughMemory: they would have room there, but not in memory.
        UsageError: a size is not positive.
    """
    if max_tokens is not None and max_tokens <= 0:
        raise UsageError(f"--max-tokens must be positive: {max_tokens}")
    window = _window(header, asked)
    n_memory = tokens_in_memory(header, weights_bytes=weights_bytes, memory_bytes=memory_bytes)
    needed = n_prompt + (max_tokens or 1)
    if needed > window.n_ctx:
        raise _too_long(window, n_prompt, max_tokens)
    if n_memory is not None and needed > n_memory:
        needed_bytes = needed * kv_bytes_per_token(header) + weights_bytes + COMPUTE_BYTES
        answer = f" and {max_tokens} of the answer" if max_tokens is not None else ""
        raise NotEnoughMemory(
            f"the prompt's {n_prompt} tokens{answer} need {format_bytes(needed_bytes)} of memory with this model,"
            f" {format_bytes(int(memory_bytes * MEMORY_SHARE))} can be used",
            needed=needed_bytes,
            free=memory_bytes,
            hint="take a smaller model or quant, or shorten the prompt",
        )
    open_end = max(DEFAULT_CONTEXT, n_prompt + ROOM_FOR_ANSWER)
    wanted = asked or (needed if max_tokens is not None else open_end)
    n_train = _window(header, None).n_ctx
    n_ctx = min(wanted, n_train, wanted if n_memory is None else n_memory)
    if n_ctx == wanted:
        return ContextSize(n_ctx)
    return ContextSize(n_ctx, "model" if n_ctx == n_train else "memory")


def choose_for_drafts(
    header: Header,
    size: ContextSize,
    *,
    n_prompt: int,
    n_drafts: int,
    max_tokens: int | None,
    asked: int | None,
    weights_bytes: int,
    memory_bytes: int,
) -> ContextSize:
    """Choose the context of each of several answers to one prompt, which is kept once, from the size for one.

    Raises:
        NotEnoughMemory: so many answers of `max_tokens` have no room together.
    """
    n_each = size.n_ctx - n_prompt
    if max_tokens is None and asked is None:
        n_each = min(n_each, ROOM_FOR_ANSWER)
    n_memory = tokens_in_memory(header, weights_bytes=weights_bytes, memory_bytes=memory_bytes)
    n_fitting = n_each if n_memory is None else max(0, n_memory - n_prompt) // n_drafts
    if n_fitting >= n_each:
        return ContextSize(n_prompt + n_each, size.capped_by)
    least = max_tokens or 1
    if n_fitting < least:
        needed = (n_prompt + n_drafts * least) * kv_bytes_per_token(header) + weights_bytes + COMPUTE_BYTES
        raise NotEnoughMemory(
            f"{n_drafts} drafts of {least} tokens need {format_bytes(needed)} of memory with this model,"
            f" {format_bytes(int(memory_bytes * MEMORY_SHARE))} can be used",
            needed=needed,
            free=memory_bytes,
            hint="ask for fewer `--drafts`, or fewer `--max-tokens`",
        )
    return ContextSize(n_prompt + n_fitting, "memory")


def _window(header: Header, asked: int | None) -> Ceiling:
    if asked is not None and asked <= 0:
        raise UsageError(f"--ctx-size must be positive: {asked}")
    n_train = header.integer("context_length") or DEFAULT_CONTEXT
    return Ceiling(asked, "asked") if asked is not None and asked < n_train else Ceiling(n_train, "model")


def _too_long(window: Ceiling, n_prompt: int, max_tokens: int | None) -> PromptTooLong:
    is_asked = window.limit == "asked"
    whose = "the asked-for context" if is_asked else "the model's context"
    ways = ["shorten the prompt, the answer needs room too"]
    if is_asked:
        ways.insert(0, "ask for a larger `--ctx-size`")
    if n_prompt < window.n_ctx:
        needed = f"the prompt has {n_prompt} tokens and its answer may have {max_tokens}"
        ways.insert(0, "ask for fewer `--max-tokens`")
    else:
        needed = f"the prompt has {n_prompt} tokens"
    return PromptTooLong(
        f"{needed}, {whose} holds {window.n_ctx}",
        n_prompt=n_prompt,
        n_ctx=window.n_ctx,
        hint=f"nothing was cut; {' or '.join(ways)}",
    )
