"""The scripted models that other tests rely on: they say what was written, with the probabilities that were given."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from owm.engine.model import Model
from owm.engine.sampling import Sampling
from owm.engine.scheduler import FinishReason, Request
from owm.native import llama
from support.run import run_here
from support.scripted_gguf import END, HARMONY, pieces, typed, write_scripted_gguf

USER = [{"role": "user", "content": "Why? Yes\n\nno"}]
HARMONIC = (
    "{% for message in messages %}{{ '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)


@contextmanager
def opened(folder: Path, *script: Any, **options: Any) -> Iterator[Model]:
    with Model([write_scripted_gguf(folder / "scripted.gguf", *script, **options)], n_gpu_layers=0) as model:
        yield model


def say(
    model: Model, tokens: list[int], max_tokens: int = 64, **sampling: Any
) -> tuple[list[str], FinishReason | None]:
    """Return the pieces of an answer, special ones too, and why it ended."""
    with model.scheduler(512, n_threads=1) as scheduler:
        scheduler.submit(Request(tokens, Sampling(**{"temp": 0, **sampling}), max_tokens))
        found: list[str] = []
        for _ in range(max_tokens + 10):
            for chunk in scheduler.step():
                assert chunk.token is not None
                found.append(model.native.piece(chunk.token, special=True).decode("utf-8", "replace"))
                if chunk.finish_reason is not None:
                    return found, chunk.finish_reason
    raise AssertionError("the answer does not end")


def probabilities(model: Model, tokens: list[int]) -> np.ndarray:
    """Return the raw softmax after a prompt."""
    sizes = {"n_ctx": 512, "n_batch": 512, "n_ubatch": 512, "n_sequences": 1, "n_threads": 1, "n_threads_batch": 1}
    context = llama.Context(model.native, **sizes)
    for i, token in enumerate(tokens):
        context.batch.add(token, i, 0, wants_logits=i == len(tokens) - 1)
    assert context.decode() == 0
    logits = context.logits(len(tokens) - 1).astype(np.float64)
    context.close()
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


SCRIPTS: dict[str, tuple[str | list[str], dict[str, Any]]] = {
    "words": ('{"name": "Ada", "tags": ["a", "b", "a"]}', {}),
    "one piece": (["Yes"], {}),
    "nothing": ([], {}),
    "pieces of the prompt": (["Why", "\n", "Yes", "\n", "\n", "Yes", "n"], {}),
    "repeated": ("no no no no no, no and no", {}),
    "as the template ends": ("assistant\nassistant\nuser", {}),
    "characters and bytes": (["é", "日", "byte 226", "byte 130", "byte 172", "é", "🙂"], {}),
    "a thought": ("<think>\nhm, hm\n</think>\n\nBecause <think> is a mark.", {"marks": ("<think>", "</think>")}),
    "harmony": (
        "<|channel|>analysis<|message|>The user asks.<|end|><|start|>assistant<|channel|>final<|message|>The answer.",
        {"control": HARMONY, "eos": "<|return|>", "template": HARMONIC},
    ),
    "a base model": ("the end of the text", {"template": None}),
    "long": ([f"word{i}" for i in range(200)], {}),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_answer_is_the_script_and_then_the_end(name: str, tmp_path: Path) -> None:
    script, options = SCRIPTS[name]
    with opened(tmp_path, script, **options) as model:
        tokens = model.chat_prompt(USER).tokens if options.get("template", "") is not None else model.tokenize("Why?")
        said, reason = say(model, tokens, 300)
        known = [*options.get("control", ()), *options.get("marks", ())]
        listed = pieces(script, known) if isinstance(script, str) else script
        assert reason is FinishReason.STOP
        assert len(said) == len(listed) + 1
        assert said[-1] == options.get("eos", "<|im_end|>")
        if "byte 226" not in listed:
            assert said[:-1] == listed
        sampled, _ = say(model, tokens, 300, temp=0.8, seed=3)
        assert sampled == said


def test_a_loop_never_ends_by_itself(tmp_path: Path) -> None:
    with opened(tmp_path, ["<think>", " hm", " so", " hm", ","], loop_from=1, marks=("<think>",)) as model:
        said, reason = say(model, model.chat_prompt(USER).tokens, 50)
    assert reason is FinishReason.LENGTH
    assert "".join(said) == "<think>" + (" hm so hm," * 13)[: len("".join(said)) - len("<think>")]


def test_what_is_fed_later_can_have_an_answer_of_its_own(tmp_path: Path) -> None:
    options = {"loop_from": 1, "marks": ("<think>", "</think>"), "after": {"</think>\n\n": "Yes.", "[": "1, 2]"}}
    with opened(tmp_path, "<think> hm", **options) as model:
        prompt = model.chat_prompt(USER).tokens
        for fed, answer in (("<think> hm</think>\n\n", "Yes."), ("<think> hm hm [", "1, 2]")):
            more = model.native.tokenize(fed, add_special=False, parse_special=True)
            said, reason = say(model, prompt + more)
            assert (said[:-1], reason) == (pieces(answer, []), FinishReason.STOP)


def test_who_bans_the_end_hears_it_again(tmp_path: Path) -> None:
    with opened(tmp_path, "a b c") as model:
        said, reason = say(model, model.chat_prompt(USER).tokens, 7, ignore_eos=True)
    assert (said, reason) == (["a", " b", " c"] * 2 + ["a"], FinishReason.LENGTH)


def test_probabilities_are_those_given(tmp_path: Path) -> None:
    script = [{"re": 0.7, "blue": 0.2, "green": 0.1}]
    chances = {("re",): {"d": 0.6, "al": 0.3, END: 0.1}, ("re", "d"): {END: 0.8, "dish": 0.2}}
    with opened(tmp_path, script, chances=chances) as model:
        prompt = model.chat_prompt(USER).tokens
        ids = {model.native.piece(token, special=True): token for token in range(model.native.n_vocab)}
        for said, expected in [
            ([], script[0]),
            ([b"re"], chances["re",]),
            ([b"re", b"d"], chances["re", "d"]),
            ([b"blue"], {END: 1.0}),
        ]:
            found = probabilities(model, prompt + [ids[piece] for piece in said])
            for piece, p in expected.items():
                token = ids[b"<|im_end|>" if piece == END else piece.encode()]
                assert math.isclose(found[token], p, abs_tol=2e-6), (said, piece)


def test_a_script_that_no_context_can_tell_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="repeats itself"):
        write_scripted_gguf(tmp_path / "scripted.gguf", ["no"] * 12 + ["yes"])


def test_text_is_cut_as_llama_cuts_it(tmp_path: Path) -> None:
    with opened(tmp_path, "<think> hm the the", marks=("<think>", "</think>")) as model:
        text = "Why? <think> hm\n\n  é日</think>\n"
        tokens = model.native.tokenize(text, add_special=False, parse_special=True)
        assert len(tokens) == len(typed(text, ["<think>", "</think>"]))


def test_it_answers_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    path = write_scripted_gguf(tmp_path / "scripted.gguf", '{"a": [1, 2]}')
    said = run_here(capsys, "run", path, "Why?", "--threads", "1")
    assert (said, said.exit_code) == ('{"a": [1, 2]}\n', 0), said.stderr
