"""How a model is computed with: what can be asked, what it is laid over, and that llama.cpp gets it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from owm.engine.generate import Generation
from owm.engine.model import Model
from owm.engine.request import Request
from owm.engine.sampling import Sampling
from owm.engine.tuning import CACHE_TYPES, Tuning
from owm.engine.wishes import Wishes
from owm.errors import EngineError, UsageError
from owm.native import llama
from owm.settings import keys
from support.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf", n_embd=128)]) as opened:
        yield opened


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_threads": 0}, "--threads must be between 1 and 512: 0"),
        ({"n_threads": 513}, "--threads must be between 1 and 512: 513"),
        ({"n_batch": 0}, "--batch-size must be 1 or more: 0"),
        ({"n_ubatch": -1}, "--ubatch-size must be 1 or more: -1"),
        ({"n_parallel": 0}, "--parallel must be 1 or more: 0"),
        ({"n_gpu_layers": -2}, "--gpu-layers must be -1 or more: -2"),
        ({"type_k": "q6_k"}, "--cache-type-k must be one of"),
        ({"flash_attention": False, "type_v": "q8_0"}, "needs flash attention"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Tuning(**values)


def test_a_tuning_goes_over_another_by_what_it_says() -> None:
    base = Tuning(n_threads=4, type_k="q8_0")
    assert Tuning(n_threads=2, flash_attention=False).over(base) == Tuning(2, None, None, False, "q8_0")
    assert Tuning().over(base) == base
    assert Tuning(flash_attention=False).said() == {"flash_attention": False}
    assert Wishes(n_threads=3, tuning=base).tuned == Tuning(n_threads=3, type_k="q8_0")


def test_the_types_of_the_cache_are_those_of_the_settings_and_known_to_ggml(model: Model) -> None:
    assert keys.CACHE_TYPES == CACHE_TYPES
    for name in CACHE_TYPES:
        with model.scheduler(32, tuning=Tuning(type_k=name)) as scheduler, scheduler.pause() as context:
            assert context.cache_settings["type_k"] == llama._cache_type(name)
    with pytest.raises(EngineError, match="no type q9_9"):
        llama._cache_type("q9_9")


def test_llama_cpp_gets_what_was_asked(model: Model) -> None:
    tuning = Tuning(1, 64, 16, True, "q8_0", "q4_0")
    with model.scheduler(256, tuning=tuning) as scheduler, scheduler.pause() as context:
        assert context.n_batch == 64
        assert llama.c.llama_n_ubatch(context.pointer) == 16
        assert llama.c.llama_n_threads(context.pointer) == llama.c.llama_n_threads_batch(context.pointer) == 1
        assert context.cache_settings["flash_attn_type"] == llama.c.LLAMA_FLASH_ATTN_TYPE_ENABLED
        assert context.cache_settings["type_v"] == llama._cache_type("q4_0")
    with model.scheduler(256) as scheduler, scheduler.pause() as context:
        assert context.n_batch == 256
        assert context.cache_settings["flash_attn_type"] == llama.c.LLAMA_FLASH_ATTN_TYPE_AUTO
        assert context.cache_settings["type_k"] == llama._cache_type("f16")
    with model.scheduler(256, tuning=tuning, is_exact=True) as scheduler, scheduler.pause() as context:
        assert context.cache_settings["flash_attn_type"] == llama.c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        assert context.cache_settings["type_v"] == llama._cache_type("f16")


@pytest.mark.parametrize("tuning", [Tuning(n_batch=1), Tuning(n_batch=3, n_ubatch=64), Tuning(n_ubatch=1, n_threads=1)])
def test_answers_do_not_depend_on_the_pieces_in_which_tokens_are_computed(model: Model, tuning: Tuning) -> None:
    def answers(tuning: Tuning, n: int) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        with model.scheduler(64, n_sequences=n, tuning=tuning) as scheduler:
            for number in range(n):
                request = Request([1, 5, 9, 13 + number] * 5, Sampling(temp=0, seed=1), 8)
                found[scheduler.submit(request)] = []
            for chunk in Generation(scheduler):
                if chunk.token is not None:
                    found[chunk.request_id].append(chunk.token)
        return list(found.values())

    assert answers(tuning, 4) == answers(Tuning(), 4)


def test_tuned_settings_reach_the_context_of_an_answer(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from owm.library.answering import answer

    seen: list[dict[str, Any]] = []
    made = llama.Context.__init__

    def watch(self: llama.Context, *args: Any, **more: Any) -> None:
        seen.append(more)
        made(self, *args, **more)

    monkeypatch.setattr(llama.Context, "__init__", watch)
    list(answer(model, "hi", max_tokens=2, wishes=Wishes(tuning=Tuning(n_threads=1, n_ubatch=8, type_k="q8_0"))))
    assert [(one["n_threads"], one["n_ubatch"], one["type_k"]) for one in seen] == [(1, 8, "q8_0")]


def test_a_type_of_the_cache_that_a_model_cannot_have_is_no_lack_of_memory(tmp_path: Path) -> None:
    with (
        Model([write_tiny_gguf(tmp_path / "m.gguf", n_embd=64)]) as narrow,
        pytest.raises(EngineError, match="block size 32") as caught,
        narrow.scheduler(32, tuning=Tuning(type_k="q8_0")),
    ):
        pass
    assert caught.value.hint == "take the cache in f16"
