"""Probabilities of given answers, against plain reads of prompt and answer, one after the other."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from owm.engine import scoring
from owm.engine.model import Model
from owm.engine.scoring import score_choices
from owm.errors import EngineError, PromptTooLong, UsageError
from owm.native import llama
from support.scripted_gguf import END, write_scripted_gguf
from support.tiny_gguf import CHATML, write_tiny_gguf
from support.tiny_recurrent import write_tiny_hybrid, write_tiny_mamba

CHOICES = ["the", "then", "the in", "on", "on a", "on a tin", "x", "é", "yes, of course", "no"]
USER = [{"role": "user", "content": "Why?"}]


def plain(model: Model, prompt: Sequence[int], choices: Sequence[str]) -> list[float]:
    """Return the log probability of each choice and the end of the turn, in float64, one read for each."""
    found = []
    ends = [token for token in range(model.native.n_vocab) if model.native.is_end(token)]
    for choice in choices:
        path = model.native.tokenize(choice, add_special=False, parse_special=False)
        rows = read(model, [*prompt, *path])[len(prompt) - 1 :]
        logprobs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        end = math.log(np.exp(logprobs[-1, ends]).sum())
        found.append(end + sum(logprobs[i, token] for i, token in enumerate(path)))
    return found


def read(model: Model, tokens: Sequence[int]) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Return the logits after each token, which are read one after the other."""
    n = len(tokens)
    context = llama.Context(
        model.native, n_ctx=n, n_batch=n, n_ubatch=512, n_sequences=1, n_threads=1, n_threads_batch=1,
        flash_attention=False,
    )  # fmt: skip
    for position, token in enumerate(tokens):
        context.batch.add(token, position, 0, wants_logits=True)
    assert context.decode() == 0
    rows = context.logit_rows(0, n).astype(np.float64)
    context.close()
    return rows


def check(model: Model, prompt: Sequence[int], choices: Sequence[str]) -> None:
    scores = score_choices(model, prompt, choices, n_threads=1)
    expected = plain(model, prompt, choices)
    assert [score.text for score in scores] == list(choices)
    assert [score.logprob for score in scores] == pytest.approx(expected, abs=2e-3)  # what is in memory is f16
    shares = np.exp(expected) / np.exp(expected).sum()
    assert [score.probability for score in scores] == pytest.approx(shares, abs=1e-4)
    assert math.fsum(score.probability for score in scores) == pytest.approx(1)


@pytest.mark.parametrize("write", [write_tiny_gguf, write_tiny_mamba, write_tiny_hybrid])
def test_scores_are_those_of_reading_each_choice_alone(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    with Model([write(tmp_path / "tiny.gguf")], n_gpu_layers=0) as model:
        check(model, model.chat_prompt([{"role": "user", "content": "the tin on a table"}]).tokens, CHOICES)


def test_a_choice_that_another_begins_with_has_its_own_end(tmp_path: Path) -> None:
    chances = {
        ("n", "o"): {END: 0.25, "t": 0.75},
        ("n", "o", "t"): {END: 0.5, "e": 0.5},
        ("n", "o", "t", "e"): {END: 1.0},
    }
    script = [{"n": 0.8, "y": 0.2}, "o"]
    with Model([write_scripted_gguf(tmp_path / "scripted.gguf", script, chances=chances)], n_gpu_layers=0) as model:
        prompt = model.chat_prompt(USER).tokens
        scores = score_choices(model, prompt, ["no", "not", "note"], n_threads=1)
        alone = score_choices(model, prompt, ["not"], n_threads=1)
    weights = [0.8 * 0.25, 0.8 * 0.75 * 0.5, 0.8 * 0.75 * 0.5]
    assert [score.logprob for score in scores] == pytest.approx(np.log(weights), abs=1e-3)
    assert [score.probability for score in scores] == pytest.approx(np.divide(weights, sum(weights)), abs=1e-3)
    assert [score.n_tokens for score in scores] == [2, 3, 4]
    assert alone[0].probability == 1


def test_every_token_that_ends_a_turn_counts(tmp_path: Path) -> None:
    script = ["A", {"<|im_end|>": 0.5, "<|endoftext|>": 0.3, "B": 0.2}]
    with Model([write_scripted_gguf(tmp_path / "scripted.gguf", script)], n_gpu_layers=0) as model:
        assert {model.native.piece(token, special=True) for token in model.native.ends} == {
            b"<|im_end|>",
            b"<|endoftext|>",
        }
        (score,) = score_choices(model, model.chat_prompt(USER).tokens, ["A"], n_threads=1)
    assert score.logprob == pytest.approx(math.log(0.8), abs=1e-3)


def test_more_choices_than_sequences_are_read_in_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MAX_BRANCHES", 3)
    monkeypatch.setattr(scoring, "MAX_ROWS", 4)
    for write in (write_tiny_gguf, write_tiny_mamba):
        with Model([write(tmp_path / f"{write.__name__}.gguf")], n_gpu_layers=0) as model:
            check(model, model.chat_prompt(USER).tokens, CHOICES)


def test_a_prompt_longer_than_a_batch(tmp_path: Path) -> None:
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf", n_ctx_train=4096)], n_gpu_layers=0) as model:
        check(model, (model.tokenize("the tin on a ") * 1000)[:2500], CHOICES[:4])


def test_what_control_tokens_are_called_is_only_text(tmp_path: Path) -> None:
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf")], n_gpu_layers=0) as model:
        (score, _) = score_choices(model, model.chat_prompt(USER).tokens, ["<|im_end|>", "x"], n_threads=1)
    assert score.n_tokens == len("<|im_end|>")


def test_a_choice_that_does_not_fit_is_said(tmp_path: Path) -> None:
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf", n_ctx_train=64)], n_gpu_layers=0) as model:
        prompt = (model.tokenize("the tin") * 40)[:60]
        with pytest.raises(PromptTooLong):
            score_choices(model, prompt, ["x", "much too long"], n_threads=1)
        assert len(score_choices(model, prompt, ["x", "y"], n_threads=1)) == 2


@pytest.mark.parametrize("choices", [[], ["a", "b", "a"]])
def test_choices_are_different_texts(tmp_path: Path, choices: list[str]) -> None:
    with (
        Model([write_tiny_gguf(tmp_path / "tiny.gguf")], n_gpu_layers=0) as model,
        pytest.raises(UsageError, match="--choice needs"),
    ):
        score_choices(model, [1], choices)


def test_closing_the_model_ends_it(tmp_path: Path) -> None:
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf")], n_gpu_layers=0) as model:
        prompt = model.chat_prompt(USER).tokens
    with pytest.raises(EngineError, match="closed"):
        score_choices(model, prompt, ["a", "b"])


def test_impossible_choices_are_an_error_and_no_division(tmp_path: Path) -> None:
    never = {"x": 1.0}
    with Model([write_scripted_gguf(tmp_path / "s.gguf", [never], template=CHATML)], n_gpu_layers=0) as model:
        scores = score_choices(model, model.chat_prompt(USER).tokens, ["abc", "x"], n_threads=1)
    assert scores[1].probability == pytest.approx(1)
    assert 0 <= scores[0].probability < 1e-6
