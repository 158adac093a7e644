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
        (100, 40000, None, ContextSize(32768, "model")),
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


@pytest.mark.parametrize(("max_tokens", "asked"), [(0, None), (-1, None), (None, 0), (5, -8)])
def test_sizes_must_be_positive(header: Header, max_tokens: int | None, asked: int | None) -> None:
    with pytest.raises(UsageError, match="must be positive"):
        choose(header, 10, max_tokens, asked)
