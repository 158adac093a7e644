"""Opening models: what is refused before llama.cpp sees it, and how prompts become tokens."""

import contextlib
import os
from pathlib import Path

import pytest

from owm.engine.model import Model
from owm.engine.sampling import Sampling
from owm.engine.scheduler import FinishReason
from owm.errors import EngineError, MalformedFile, TemplateError, Unsupported, UsageError
from owm.library.answering import answer
from support.tiny_gguf import CHATML, write_tiny_gguf

REFUSES_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
USER = [{"role": "user", "content": "the tin"}]
SYSTEM = [{"role": "system", "content": "be on a"}, *USER]


def test_a_damaged_file_never_reaches_llama(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    os.truncate(path, path.stat().st_size - 1000)
    with pytest.raises(MalformedFile, match="truncated"):
        Model([path])


def test_an_architecture_that_llama_does_not_know_is_named(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", metadata={"general.architecture": "nosuch"})
    with pytest.raises(Unsupported, match=r"tiny.gguf: unknown model architecture: 'nosuch'"):
        Model([path])


def test_what_llama_refuses_is_said_with_its_reason(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", metadata={"llama.feed_forward_length": 7})
    with pytest.raises(EngineError, match=r"llama.cpp cannot load tiny.gguf: .*wrong shape"):
        Model([path])


def test_a_model_without_a_vocabulary_is_refused_before_llama_aborts(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", metadata={"tokenizer.ggml.model": "no_vocab"})
    with pytest.raises(Unsupported, match="no vocabulary"):
        Model([path])


def test_a_sentencepiece_vocabulary_without_bytes_is_refused_before_llama_aborts(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", metadata={"tokenizer.ggml.model": "llama"})
    with pytest.raises(MalformedFile, match="no token for some bytes"):
        Model([path])


def test_a_file_name_need_not_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"bad\xff.gguf")
    with Model([write_tiny_gguf(path)]) as model:
        assert model.tokenize("the")


def test_a_closed_model_is_an_error_and_no_crash(tmp_path: Path) -> None:
    endless = Sampling(temp=0, ignore_eos=True)
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf", n_ctx_train=32768)]) as model:
        kept = answer(model, "the tin", sampling=endless, max_tokens=30000)
        next(kept)
        unbegun = answer(model, "the tin")
    reasons: list[FinishReason | None] = []
    with contextlib.suppress(EngineError):
        reasons = [chunk.finish_reason for chunk in kept]
    assert FinishReason.LENGTH not in reasons  # it was cancelled, or is an error
    with pytest.raises(EngineError, match="closed"):
        next(unbegun)
    with pytest.raises(EngineError, match="closed"):
        model.tokenize("the")


def test_leaving_an_answer_cancels_it(tmp_path: Path) -> None:
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf")]) as model:
        for _ in answer(model, "the tin", max_tokens=400):
            break


def test_a_template_that_renders_to_nothing_is_an_error(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", chat_template="{# nothing #}")
    with Model([path]) as model, pytest.raises(TemplateError, match="renders to nothing"):
        model.chat_prompt(USER)


@pytest.mark.parametrize("n_threads", [0, -1, 513, 10**12])
def test_threads_are_bounded_by_what_ggml_takes(tmp_path: Path, n_threads: int) -> None:
    with (
        Model([write_tiny_gguf(tmp_path / "tiny.gguf")]) as model,
        pytest.raises(UsageError, match="--threads must be between 1 and 512"),
        model.scheduler(64, n_threads=n_threads),
    ):
        pass


@pytest.mark.parametrize("kind", ["adapter", "mmproj", "imatrix"])
def test_a_gguf_that_is_no_model_is_refused_by_its_type(tmp_path: Path, kind: str) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", metadata={"general.type": kind})
    with pytest.raises(Unsupported, match=kind):
        Model([path])


def test_a_chat_is_rendered_and_its_control_tokens_are_single(tmp_path: Path) -> None:
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf")]) as model:
        prompt = model.chat_prompt(SYSTEM)
        assert prompt.text == (
            "<|im_start|>system\nbe on a<|im_end|>\n<|im_start|>user\nthe tin<|im_end|>\n<|im_start|>assistant\n"
        )
        start = model.native.tokenize("<|im_start|>", add_special=False, parse_special=True)
        assert len(start) == 1
        assert prompt.tokens.count(start[0]) == 3
        assert prompt.notes == ()


def test_a_template_that_knows_no_system_prompt_gets_it_in_the_first_message(tmp_path: Path) -> None:
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf", chat_template=REFUSES_SYSTEM)]) as model:
        prompt = model.chat_prompt(SYSTEM)
        assert "user\nbe on a\n\nthe tin<|im_end|>" in prompt.text
        assert "system" in prompt.notes[0]


def test_a_template_that_refuses_everything_is_an_error_in_its_own_words(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", chat_template="{{ raise_exception('not today') }}")
    with Model([path]) as model, pytest.raises(TemplateError, match="refuses: not today"):
        model.chat_prompt(USER)


def test_a_base_model_completes_the_prompt_and_that_is_said(tmp_path: Path) -> None:
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf", chat_template=None)]) as model:
        prompt = model.chat_prompt(USER)
        assert prompt.text == "the tin"
        assert "no chat template" in prompt.notes[0]


def test_bos_is_there_once_whether_the_template_writes_it_or_not(tmp_path: Path) -> None:
    for template in (CHATML, "{{ bos_token }}" + CHATML.replace("<|im_start|>", "")):
        path = write_tiny_gguf(
            tmp_path / "tiny.gguf", chat_template=template, metadata={"tokenizer.ggml.add_bos_token": True}
        )
        with Model([path]) as model:
            bos = model.native.tokenize("", add_special=True, parse_special=False)
            assert len(bos) == 1
            tokens = model.chat_prompt(USER).tokens
            assert tokens[0] == bos[0]
            if template is not CHATML:
                assert tokens.count(bos[0]) == 1
