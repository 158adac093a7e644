"""The context size: one rule, capped by the model and by memory, and never a prompt that is cut."""

from pathlib import Path

import pytest

from owm.engine import context
from owm.engine.context import ContextSize
from owm.errors import NotEnoughMemory, PromptTooLong, UsageError
from owm.formats import gguf
from owm.formats.gguf import Header
from support.tiny_gguf import write_tiny_gguf

GIB = 1 << 30


@pytest.fixture
def header(tmp_path: Path) -> Header:
    return gguf.read_header(write_tiny_gguf(tmp_path / "tiny.gguf", n_ctx_train=32768))


def choose(
    header: Header,
    n_prompt: int,
    max_tokens: int | None = None,
    asked: int | None = None,
    memory: int = 64 * GIB,
    weights: int = GIB,
) -> ContextSize:
    return context.choose(
        header, n_prompt=n_prompt, max_tokens=max_tokens, asked=asked, weights_bytes=weights, memory_bytes=memory
    )


def test_the_kv_cache_of_a_token_is_two_rows_of_f16_in_every_layer(header: Header) -> None:
    # 2 layers x 2 KV heads x 16 values x (K and V) x 2 bytes
    assert context.kv_bytes_per_token(header) == 2 * 2 * 16 * 2 * 2


@pytest.mark.parametrize(
    ("n_prompt", "max_tokens", "asked", "expected"),
    [
        (100, 50, None, ContextSize(150)),
        (100, None, None, ContextSize(8192)),
        (8000, None, None, ContextSize(10048)),
        (100, None, 300, ContextSize(300)),
        (100, 50, 4096, ContextSize(4096)),
        (100, 32668, None, ContextSize(32768)),
        (100, None, 99999, ContextSize(32768, "model")),
        (31000, None, None, ContextSize(32768, "model")),
    ],
)
def test_the_context_is_what_prompt_and_answer_need(
    header: Header, n_prompt: int, max_tokens: int | None, asked: int | None, expected: ContextSize
) -> None:
    assert choose(header, n_prompt, max_tokens, asked) == expected


def test_memory_caps_the_context(header: Header) -> None:
    room = 1000 * context.kv_bytes_per_token(header)
    memory = int((GIB + context.COMPUTE_BYTES + room) / context.MEMORY_SHARE) + 1
    assert choose(header, 100, memory=memory) == ContextSize(1000, "memory")
    with pytest.raises(NotEnoughMemory) as caught:
        choose(header, 1000, memory=memory)
    assert caught.value.needed > memory * context.MEMORY_SHARE


@pytest.mark.parametrize(
    ("n_prompt", "asked", "holds"), [(32768, None, 32768), (50000, None, 32768), (300, 300, 300), (40000, 99999, 32768)]
)
def test_a_prompt_that_does_not_fit_is_an_error_with_both_counts(
    header: Header, n_prompt: int, asked: int | None, holds: int
) -> None:
    with pytest.raises(PromptTooLong) as caught:
        choose(header, n_prompt, asked=asked)
    assert (caught.value.n_prompt, caught.value.n_ctx) == (n_prompt, holds)
    assert str(n_prompt) in str(caught.value)
    assert str(holds) in str(caught.value)


@pytest.mark.parametrize(
    ("n_prompt", "max_tokens", "asked", "message"),
    [
        (100, 40000, None, "the prompt has 100 tokens and its answer may have 40000, the model's context holds 32768"),
        (100, 32669, None, "the model's context holds 32768"),
        (100, 100, 199, "the prompt has 100 tokens and its answer may have 100, the asked-for context holds 199"),
    ],
)
def test_an_answer_that_was_promised_room_has_it_or_nothing_runs(
    header: Header, n_prompt: int, max_tokens: int, asked: int | None, message: str
) -> None:
    with pytest.raises(PromptTooLong, match=message) as caught:
        choose(header, n_prompt, max_tokens, asked)
    assert "`--max-tokens`" in str(caught.value.hint)
    assert ("`--ctx-size`" in str(caught.value.hint)) == (asked is not None)


def test_a_promised_answer_counts_in_memory_too(header: Header) -> None:
    room = 1000 * context.kv_bytes_per_token(header)
    memory = int((GIB + context.COMPUTE_BYTES + room) / context.MEMORY_SHARE) + 1
    assert choose(header, 100, 900, memory=memory) == ContextSize(1000)
    with pytest.raises(NotEnoughMemory, match="the prompt's 100 tokens and 901 of the answer need"):
        choose(header, 100, 901, memory=memory)


def test_the_ceiling_is_the_smallest_limit(header: Header) -> None:
    def top(asked: int | None, n_memory: int) -> tuple[int, str]:
        memory = int((GIB + context.COMPUTE_BYTES + n_memory * context.kv_bytes_per_token(header)) / 0.9) + 1
        found = context.ceiling(header, asked=asked, weights_bytes=GIB, memory_bytes=memory)
        return found.n_ctx, found.limit

    assert top(None, 50000) == (32768, "model")
    assert top(99999, 50000) == (32768, "model")
    assert top(1000, 50000) == (1000, "asked")
    assert top(1000, 999) == (999, "memory")
    assert top(None, 0) == (0, "memory")


@pytest.mark.parametrize(
    ("n_ctx", "max_tokens", "room"), [(32768, None, 2048), (4096, None, 1024), (4096, 4000, 4000), (0, None, 0)]
)
def test_an_open_answer_keeps_a_quarter_at_most(n_ctx: int, max_tokens: int | None, room: int) -> None:
    assert context.Ceiling(n_ctx, "model").room_for_answer(max_tokens) == room


@pytest.mark.parametrize(("max_tokens", "asked"), [(0, None), (-1, None), (None, 0), (5, -8)])
def test_sizes_must_be_positive(header: Header, max_tokens: int | None, asked: int | None) -> None:
    with pytest.raises(UsageError, match="must be positive"):
        choose(header, 10, max_tokens, asked)
