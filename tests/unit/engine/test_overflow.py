"""Prompts that are too long: every count in the error, or a cut at tokens whose sum is right."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owm.engine import context, overflow
from owm.engine.asked import Asked
from owm.engine.model import Model, Prompt
from owm.engine.overflow import Fitted, Mode, fit_prompt, marker
from owm.engine.tokenized import tokenize
from owm.errors import NotEnoughMemory, PromptTooLong, UsageError
from owm.hardware.probe import Memory
from support.tiny_gguf import write_tiny_gguf

N_CTX = 512
SYSTEM = {"role": "system", "content": "be on a"}
CUTS = ("head", "tail", "middle")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("overflow") / "tiny.gguf", n_ctx_train=N_CTX)
    with Model([path], n_gpu_layers=0) as model:
        yield model


def fit(model: Model, asked: Asked, mode: Mode, max_tokens: int | None = None, ctx: int | None = None) -> Fitted:
    return fit_prompt(model, asked, mode=mode, max_tokens=max_tokens, asked_ctx=ctx, render=model.chat_prompt)


def n_tokens(model: Model, text: str) -> int:
    return tokenize(model.native, text).n_tokens


def user_text(prompt: Prompt) -> str:
    found = re.fullmatch(r"(?s).*<\|im_start\|>user\n(.*)<\|im_end\|>\n<\|im_start\|>assistant\n", prompt.text)
    assert found
    return found[1]


def test_what_fits_is_left_alone_in_every_mode(model: Model) -> None:
    asked = Asked("the tin", "on a in")
    for mode in ("error", *CUTS):
        fitted = fit(model, asked, mode, 10)  # type: ignore[arg-type]
        assert fitted.prompt == model.chat_prompt(asked.messages)
        assert fitted.size.n_ctx == len(fitted.prompt.tokens) + 10
        assert (fitted.notes, fitted.n_dropped) == ((), 0)


@pytest.mark.parametrize("mode", ["none", "", "Head"])
def test_a_mode_that_does_not_exist_is_refused(mode: str) -> None:
    with pytest.raises(UsageError, match="--overflow must be error, head, tail or middle"):
        overflow.read_mode(mode)


def test_the_error_has_all_counts_and_their_sum_is_the_prompt(model: Model) -> None:
    turns = (SYSTEM, {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"})
    asked = Asked("what is it?", "the tin\n" * 300, turns=turns)
    with pytest.raises(PromptTooLong) as caught:
        fit(model, asked, "error", 100)
    found = re.fullmatch(
        r"the prompt has (\d+) tokens, the model's context holds 512 \((\d+) of material, (\d+) of instruction,"
        r" (\d+) of earlier turns, (\d+) of the chat template; 100 more for the answer\)",
        str(caught.value),
    )
    assert found, str(caught.value)
    whole, *parts = map(int, found.groups())
    assert whole == len(model.chat_prompt(asked.messages).tokens) == sum(parts) == caught.value.n_prompt
    assert parts[0] == n_tokens(model, asked.material)
    assert parts[1] == n_tokens(model, "what is it?")
    hint = str(caught.value.hint)
    assert "nothing was cut" in hint
    assert "`--overflow head`, `tail` or `middle` cuts the material, `--chunk` reads it in parts" in hint


def test_an_answer_without_its_room_is_an_error_with_the_counts_too(model: Model) -> None:
    with pytest.raises(PromptTooLong, match=r"its answer may have 500, the model's context holds 512 \(.*500 more for"):
        fit(model, Asked("what is it?"), "error", 500)


def test_the_asked_for_context_is_named(model: Model) -> None:
    with pytest.raises(PromptTooLong, match=r"the asked-for context holds 60 \(.*at least 1 more for the answer\)"):
        fit(model, Asked("what is it? " * 20), "error", ctx=60)


def test_memory_that_is_too_small_is_another_error_with_the_same_counts(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(model, monkeypatch, 200)
    with pytest.raises(
        NotEnoughMemory, match=r"of memory with this model.*\(\d+ of material, .* more for the answer\)"
    ):
        fit(model, Asked("why?", "the tin " * 100), "error", 40)
    fitted = fit(model, Asked("why?", "the tin " * 100), "head", 40)
    assert len(fitted.prompt.tokens) == 160
    assert "the context that memory allows holds 200, of which 40 are kept" in fitted.notes[0]


def allow(model: Model, monkeypatch: pytest.MonkeyPatch, n_ctx: int) -> None:
    """Give this process memory for so many tokens."""
    needed = model.weights_bytes + context.COMPUTE_BYTES + n_ctx * context.kv_bytes_per_token(model.header)
    monkeypatch.setattr(overflow.probe, "memory", lambda: Memory(int(needed / context.MEMORY_SHARE) + 1, 0))


MATERIAL = "".join(f"{i} the tin, " for i in range(200))


@pytest.mark.parametrize("mode", CUTS)
def test_material_is_cut_where_it_was_said_and_nothing_else_is(model: Model, mode: Mode) -> None:
    asked = Asked("what is it?", MATERIAL, turns=(SYSTEM,))
    fitted = fit(model, asked, mode, 100)
    text = user_text(fitted.prompt)
    n = n_tokens(model, MATERIAL)
    assert "be on a" in fitted.prompt.text
    kept = text.removesuffix("\n\nwhat is it?")
    assert kept != text
    found = re.match(r"dropped (\d+) of (\d+) tokens, numbers (\d+) to (\d+) of the material: ", fitted.notes[0])
    assert found
    dropped, whole, first, last = map(int, found.groups())
    assert (dropped, whole) == (fitted.n_dropped, n)
    assert dropped == last - first + 1
    tokenized = tokenize(model.native, MATERIAL)
    before, after = tokenized.between(0, first - 1), tokenized.between(last, n)
    line = marker(dropped) if mode == "middle" else ""
    assert kept == before + line + after
    assert {"head": before == "", "tail": after == "", "middle": bool(before and after)}[mode]
    if mode == "middle":
        assert abs(n_tokens(model, before) - n_tokens(model, after)) <= 2
    assert len(fitted.prompt.tokens) == N_CTX - 100  # these tokens do not change at the cut
    assert fitted.size.n_ctx == N_CTX
    assert "the model's context holds 512, of which 100 are kept for the answer" in fitted.notes[0]


def test_an_answer_of_open_length_keeps_a_quarter(model: Model) -> None:
    assert len(fit(model, Asked("why?", MATERIAL), "tail").prompt.tokens) == N_CTX - N_CTX // 4


def test_without_material_the_whole_prompt_is_cut(model: Model) -> None:
    fitted = fit(model, Asked(MATERIAL), "head", 100)
    assert MATERIAL.endswith(user_text(fitted.prompt))
    assert " of the prompt: " in fitted.notes[0]


def test_the_oldest_turns_are_the_head_of_a_conversation(model: Model) -> None:
    words = [f"turn {i}: " + "the tin " * 8 for i in range(31)]
    turns = tuple({"role": ("user", "assistant")[i % 2], "content": word} for i, word in enumerate(words))
    fitted = fit(model, Asked(turns=(SYSTEM, *turns)), "head", 100)
    found = re.findall(r"(?s)<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", fitted.prompt.text)
    assert found[0] == ("system", "be on a")
    roles = [role for role, _ in found[1:]]
    assert roles[0] == "user"
    assert all(before != after for before, after in pairwise(roles))
    kept = [text for _, text in found[1:] if text]
    assert len(kept) < 20
    assert kept[1:] == words[-len(kept) + 1 :]
    assert words[-len(kept)].endswith(kept[0])
    assert " of the conversation: " in fitted.notes[0]
    assert fitted.n_dropped == sum(n_tokens(model, word) for word in words) - sum(n_tokens(model, k) for k in kept)


def test_a_question_after_a_conversation_is_never_cut(model: Model) -> None:
    turns = ({"role": "user", "content": MATERIAL}, {"role": "assistant", "content": "yes"})
    for mode in CUTS:
        assert user_text(fit(model, Asked("and why?", turns=turns), mode, 100).prompt) == "and why?"  # type: ignore[arg-type]


def test_a_cut_that_is_not_enough_is_the_error_again(model: Model) -> None:
    with pytest.raises(PromptTooLong, match=r"the model's context holds 512 \(") as caught:
        fit(model, Asked("why? " * 200, "the tin"), "head", 100)
    assert "leaving out all of the material would not be enough" in str(caught.value.hint)
    with pytest.raises(PromptTooLong):
        fit(model, Asked("why?", "the tin"), "tail", 512)


def test_a_prompt_without_template_is_cut_too(model: Model) -> None:
    def render(messages: list[dict[str, Any]]) -> Prompt:
        return model.raw_prompt(messages[-1]["content"])

    fitted = fit_prompt(model, Asked("", MATERIAL), mode="tail", max_tokens=12, asked_ctx=None, render=render)
    assert len(fitted.prompt.tokens) == 500
    assert MATERIAL.startswith(fitted.prompt.text)


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(["the", " the", "in", "\n", "\n\n", "é", "漢", "😀", ". ", "er", "<|im_end|>"]), min_size=1
    ),
    st.integers(1, 60),
    st.sampled_from(CUTS),
    st.integers(80, 140),
)
def test_a_cut_prompt_fits_and_drops_little_more_than_it_must(
    model: Model, words: list[str], times: int, mode: Mode, ctx: int
) -> None:
    material = "x" + "".join(words) * times + "x"  # what is white space only is no material
    asked = Asked("why?", material)
    fitted = fit(model, asked, mode, 20, ctx)
    assert len(fitted.prompt.tokens) + 20 <= fitted.size.n_ctx <= ctx
    if not fitted.notes:
        assert fitted.prompt == model.chat_prompt(asked.messages)
        return
    kept = user_text(fitted.prompt).removesuffix("\n\nwhy?")
    if mode == "middle":
        before, after = kept.split(marker(fitted.n_dropped))
        assert material.startswith(before)
        assert material.endswith(after)
    else:
        assert material.endswith(kept) if mode == "head" else material.startswith(kept)
    assert len(fitted.prompt.tokens) + 20 >= ctx - 8  # two characters of four bytes
