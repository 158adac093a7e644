"""What a model is told: thinking turned on and off as its template can, old thoughts dropped, no prompt lost."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine import family
from owm.engine.conversation import Composed, Conversation
from owm.engine.model import Model
from owm.engine.sampling import Sampling
from owm.engine.scheduler import FinishReason, Request
from owm.engine.template import ChatTemplate, Thinking
from owm.errors import TemplateError, UsageError
from owm.formats import gguf
from support.run import ROOT
from support.scripted_gguf import HARMONY, write_scripted_gguf
from support.thinking_templates import CLOSING, HARMONIC, LEVELLED, OPENING, SILENT, SWITCHED, TOLD, WORDED
from support.tiny_gguf import CHATML, write_tiny_gguf

REAL = {file.stem: file.read_text("utf-8") for file in (ROOT / "tests/support/templates").glob("*.jinja")}
ASK = {"role": "user", "content": "Why <think>?"}
SYSTEM = {"role": "system", "content": "Be brief."}
EMPTY = "<think>\n\n</think>\n\n"
MARKS = ("<think>", "</think>")


compiled = functools.cache(functools.partial(ChatTemplate, is_trusted=True))


def compose(
    template: str, thinking: Thinking | str = "auto", turns: Sequence[dict[str, Any]] = (ASK,), **options: Any
) -> Composed:
    wish = Thinking(thinking) if isinstance(thinking, str) else thinking  # type: ignore[arg-type]
    takes_system = options.pop("takes_system", True)
    return Conversation(compiled(template), turns, takes_system=takes_system).compose(wish, **options)


@pytest.mark.parametrize(
    ("template", "mode", "end", "inside"),
    [
        (SWITCHED, "auto", "assistant\n", False),
        (SWITCHED, "on", "assistant\n", False),
        (SWITCHED, "off", "assistant\n" + EMPTY, False),
        (REAL["qwen3"], "off", "assistant\n" + EMPTY, False),
        (OPENING, "auto", "assistant\n<think>\n", True),
        (OPENING, "off", "assistant\n" + EMPTY, False),
        (REAL["deepseek-r1"], "auto", "<|Assistant|><think>\n", True),
        (REAL["deepseek-r1"], "off", "<|Assistant|>" + EMPTY, False),
        (CLOSING, "auto", "assistant\n</think>", False),
        (CLOSING, "on", "assistant\n<think>", True),
        (CLOSING, "off", "assistant\n</think>", False),
        (SILENT, "auto", "assistant\n", False),
        (SILENT, "off", "assistant\n" + EMPTY, False),
        (TOLD, "on", "assistant\n", False),
        (TOLD, "off", "Why <think>?<|im_end|>\n<|im_start|>assistant\n", False),
        (WORDED, "auto", "assistant\n<think>\n", True),
        (WORDED, "off", "assistant\n<think></think>", False),
        (LEVELLED, "auto", "assistant\n<think></think>", False),
        (LEVELLED, "on", "assistant\n<think>", True),
        (LEVELLED, "off", "assistant\n<think></think>", False),
        (CHATML, "off", "assistant\n", False),
        (HARMONIC, "off", "<|start|>assistant", False),
    ],
)
def test_thinking_is_turned_on_and_off_as_the_template_can(template: str, mode: str, end: str, inside: bool) -> None:
    made = compose(template, mode)
    assert made.text.endswith(end)
    assert not made.text.removesuffix(end).endswith("</think>\n\n")
    assert made.thinks_at_start is inside
    assert made.reasoning is not None
    if template is not HARMONIC:
        assert made.notes == ()


def test_the_formats_are_those_of_the_templates() -> None:
    for template, name in [(SWITCHED, "think"), (TOLD, "granite"), (HARMONIC, "harmony"), (REAL["gpt-oss"], "harmony")]:
        made = compose(template)
        assert made.reasoning is not None
        assert made.reasoning.name == name


def test_a_template_without_a_word_of_thoughts_is_believed_only_where_the_answer_has_a_shape() -> None:
    assert compose(CHATML).reasoning is not None  # a thought in a pipe would be worse than looking for one
    assert compose(CHATML, is_shaped=True).reasoning is None
    assert "knows of no thoughts" in compose(CHATML, "on").notes[0]


@pytest.mark.parametrize(
    ("template", "mode", "expects_thought"),
    [
        (SWITCHED, "auto", True),
        (SWITCHED, "off", False),
        (OPENING, "auto", True),
        (OPENING, "off", False),
        (CLOSING, "auto", False),
        (CLOSING, "on", True),
        (SILENT, "auto", True),
        (TOLD, "auto", False),
        (TOLD, "on", True),
        (TOLD, "off", False),
        (HARMONIC, "auto", True),
        (HARMONIC, "off", True),
    ],
)
def test_an_answer_with_a_shape_follows_a_thought_only_where_one_is_expected(
    template: str, mode: str, expects_thought: bool
) -> None:
    free, shaped = compose(template, mode), compose(template, mode, is_shaped=True)
    assert free.reasoning is not None
    assert (shaped.reasoning is not None) is expects_thought
    assert (shaped.text, shaped.thinks_at_start) == (free.text, free.thinks_at_start)


def test_a_shaped_answer_begins_after_its_own_mark() -> None:
    template = (
        "{{ messages[0].content + '<|CHATBOT_TOKEN|>' }}{% if add_generation_prompt %}{{ '<|START_THINKING|>' }}"
        "{% if not reasoning %}{{ '<|END_THINKING|>' }}{% endif %}{% endif %}{# <|START_TEXT|> #}"
    )
    assert compose(template, "off").text.endswith("<|START_THINKING|><|END_THINKING|>")
    made = compose(template, "off", is_shaped=True)
    assert made.text.endswith("<|START_THINKING|><|END_THINKING|><|START_TEXT|>")
    assert compose(template, "on", is_shaped=True).thinks_at_start


def test_an_effort_is_told_to_models_that_know_it() -> None:
    for template in (HARMONIC, REAL["gpt-oss"]):
        for effort in ("low", "medium", "high"):
            made = compose(template, Thinking(effort=effort))
            assert f"Reasoning: {effort}" in made.text
            assert made.notes == ()
    made = compose(LEVELLED, Thinking(effort="low"))
    assert made.text.startswith("effort low")
    assert made.thinks_at_start


def test_an_effort_that_a_model_does_not_know_is_noted() -> None:
    for template in (SWITCHED, CHATML, "{# reasoning_effort #}" + SWITCHED):
        made = compose(template, Thinking(effort="high"))
        assert made.text == compose(template).text
        assert made.notes == ("this model knows no levels of effort, so `--effort high` changes nothing",)
    made = compose(LEVELLED, Thinking(effort="medium"), [SYSTEM, ASK])
    assert made.text == compose(LEVELLED, turns=[SYSTEM, ASK]).text
    assert made.notes == ("this model knows no effort `medium`, only low and high, so it chooses its own",)


def test_what_cannot_be_turned_off_is_made_small_and_said() -> None:
    made = compose(HARMONIC, "off")
    assert "Reasoning: low" in made.text
    assert made.notes == ("this model always thinks, so it was told to think little, and the thought is hidden",)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"mode": "off", "effort": "low"}, "no effort to choose"),
        ({"mode": "never"}, "must be auto, on or off: never"),
        ({"effort": "huge"}, "--effort must be low, medium or high: huge"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Thinking(**wish)


def past(**turn: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "One"}, {"role": "assistant", **turn}, ASK]


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content", "thinking"])
@pytest.mark.parametrize("template", [SWITCHED, CHATML, HARMONIC, "{{ messages|tojson }}" + SWITCHED])
def test_thoughts_of_old_turns_are_dropped(template: str, key: str) -> None:
    for content in ("Yes <b>.", "<think>\nHM\n</think>\n\nYes <b>."):
        made = compose(template, turns=past(**{"content": content, key: "HM"}))
        assert "HM" not in made.text
        assert "Yes <b>." in made.text


@pytest.mark.parametrize(
    ("template", "content"),
    [
        (SWITCHED, "HM\n</think>\n\nYes"),
        (REAL["qwen3"], "HM</think>\nYes"),
        (HARMONIC, "<|channel|>analysis<|message|>HM<|end|><|start|>assistant<|channel|>final<|message|>Yes<|return|>"),
        (HARMONIC, "<think>HM</think>Yes"),
    ],
)
def test_thoughts_in_old_answers_are_found_as_they_were_written(template: str, content: str) -> None:
    text = compose(template, turns=past(content=content)).text
    assert "HM" not in text
    assert "Yes" in text
    assert "<|return|>" not in text


@given(st.text(alphabet="ab <>/\n", max_size=30))
def test_an_old_answer_without_a_thought_stays_as_it_is(answer: str) -> None:
    turns = past(content=answer)
    assert compose(CHATML, turns=turns).text == compiled(CHATML).render(turns)


def test_an_answer_that_speaks_of_marks_is_no_thought() -> None:
    answer = "Write <think>x</think> or </think>, then the answer."
    assert answer in compose(CHATML, turns=past(content=answer)).text
    assert answer in compose(HARMONIC, turns=past(content=answer)).text


def test_thoughts_stay_in_the_turn_that_is_under_way() -> None:
    call = {"role": "assistant", "content": "", "reasoning": "HM", "tool_calls": [{"function": {"name": "f"}}]}
    tool = {"role": "tool", "content": "sunny"}
    assert "analysis<|message|>HM<|end|>" in compose(HARMONIC, turns=[ASK, call, tool]).text
    assert "HM" not in compose(HARMONIC, turns=[ASK, call, tool, ASK]).text
    assert "HM" not in compose(HARMONIC, turns=[ASK, {**call, "content": "I look."}, tool]).text
    assert "<think>\nHM\n</think>" in compose(REAL["qwen3"], turns=[ASK, _in_text(call), tool]).text


def _in_text(turn: dict[str, Any]) -> dict[str, Any]:
    return {"role": turn["role"], "content": f"<think>\n{turn['reasoning']}\n</think>\n\n{turn['content']}"}


def test_the_system_prompt_of_harmony_is_the_developers() -> None:
    for template in (HARMONIC, REAL["gpt-oss"]):
        late = {"role": "system", "content": "Be kind."}
        text = compose(template, turns=[SYSTEM, ASK, {"role": "assistant", "content": "Hi"}, late, ASK]).text
        assert "<|start|>developer<|message|># Instructions\n\nBe brief.\n\nBe kind.<|end|>" in text
        assert text.count("Be brief.") == text.count("Be kind.") == 1


def test_the_last_turn_of_harmony_ends_as_in_a_prompt() -> None:
    turns = [ASK, {"role": "assistant", "content": "Hi"}]
    assert compiled(HARMONIC).render(turns, add_generation_prompt=False).endswith("Hi<|return|>")
    made = compose(HARMONIC, turns=turns, is_open=False)
    assert made.text.endswith("final<|message|>Hi<|end|>")
    assert not made.thinks_at_start


@pytest.mark.parametrize(
    ("template", "is_folded"),
    [
        (CHATML, False),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML, True),
        (CHATML.replace("in messages %}", "in messages if message.role != 'system' %}"), True),
    ],
)
@pytest.mark.parametrize("thinking", [Thinking(), Thinking("off"), Thinking(effort="low")])
def test_a_system_prompt_is_never_lost(template: str, is_folded: bool, thinking: Thinking) -> None:
    made = compose(template, thinking, [SYSTEM, ASK])
    assert made.text.count("Be brief.") == 1
    assert ("user\nBe brief.\n\nWhy" in made.text) is is_folded
    assert any("no system prompt" in note for note in made.notes) is is_folded


def test_a_family_that_wants_no_system_prompt_gets_it_in_the_first_message() -> None:
    made = compose(OPENING, turns=[SYSTEM, ASK], takes_system=False)
    assert "user\nBe brief.\n\nWhy" in made.text
    assert made.notes == ("this model is made for no system prompt, so it was put before the first message",)
    assert compose(OPENING, turns=[ASK], takes_system=False).notes == ()


@pytest.mark.parametrize(
    ("metadata", "template", "sampling", "takes_system"),
    [
        ({"general.name": "DeepSeek R1 Distill Qwen 1.5B"}, OPENING, {"temp": 0.6, "top_p": 0.95}, False),
        ({"general.basename": "DeepSeek-R1-0528-Qwen3"}, OPENING, {"temp": 0.6, "top_p": 0.95}, True),
        ({}, "{{ '<｜Assistant｜><think>\n' }}", {"temp": 0.6, "top_p": 0.95}, False),
        ({"general.name": "DeepSeek R10"}, SWITCHED, {}, True),
        ({}, CHATML, {}, True),
    ],
)
def test_deepseek_r1_is_known(
    tmp_path: Path, metadata: dict[str, str], template: str, sampling: dict[str, float], takes_system: bool
) -> None:
    path = write_tiny_gguf(tmp_path / "model.gguf", chat_template=template, metadata=metadata)
    header = gguf.read_header(path)
    assert family.sampling_defaults(header) == sampling
    assert family.takes_system(header) is takes_system
    with Model([path], n_gpu_layers=0) as model:
        if "messages" in template:
            assert ("user\nBe brief.\n\nWhy" in model.chat_prompt([SYSTEM, ASK]).text) is not takes_system


def test_errors_of_the_template_stay_errors() -> None:
    for thinking in (Thinking(), Thinking("off"), Thinking(effort="low")):
        with pytest.raises(TemplateError, match="refuses: not today"):
            compose("{{ raise_exception('not today') }}<think></think>", thinking, [SYSTEM, ASK])
    only_open = "{% if not add_generation_prompt %}{{ nothing.at.all }}{% endif %}" + OPENING
    assert compose(only_open).thinks_at_start


@pytest.mark.parametrize(
    ("template", "script", "options", "reasoning"),
    [
        (SWITCHED, "<think>\nhm, hm\n</think>\n\nYes <think>.", {"marks": MARKS}, "hm, hm"),
        (SWITCHED, ["<th", "ink>", "hm", "</", "think>", "\n\n", "Yes", " <think>."], {}, "hm"),
        (OPENING, "hm\n</think>\n\nYes <think>.", {"marks": MARKS}, "hm"),
        (
            HARMONIC,
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes <think>.",
            {"control": HARMONY, "eos": "<|return|>"},
            "hm",
        ),
    ],
)
def test_a_model_that_thinks_answers_apart(
    tmp_path: Path, template: str, script: Any, options: dict[str, Any], reasoning: str
) -> None:
    path = write_scripted_gguf(tmp_path / "model.gguf", script, template=template, **options)
    with Model([path], n_gpu_layers=0) as model:
        prompt = model.chat_prompt([ASK], thinking=Thinking())
        request = Request(
            prompt.tokens, Sampling(temp=0), 64, reasoning=prompt.reasoning, thinks_at_start=prompt.thinks_at_start
        )
        with model.scheduler(512, n_threads=1) as scheduler:
            scheduler.submit(request)
            chunks = []
            while not scheduler.is_idle:
                chunks += scheduler.step()
    assert "".join(chunk.reasoning for chunk in chunks) == reasoning
    assert "".join(chunk.text for chunk in chunks) == "Yes <think>."
    assert chunks[-1].finish_reason is FinishReason.STOP
