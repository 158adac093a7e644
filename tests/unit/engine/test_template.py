"""Chat templates: real ones rendered as Jinja alone renders them, escapes refused, resource bombs stopped in time."""

import copy
import json
import re
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from owm.engine import limits
from owm.engine.bounds import MAX_SOURCE_CHARS
from owm.engine.template import ChatTemplate
from owm.errors import TemplateError, TemplateRefusal
from support.hostile_templates import BOMBS, ESCAPES
from support.published_escapes import PUBLISHED_ESCAPES
from support.run import ROOT, run
from support.tiny_gguf import CHATML

TEMPLATES = ROOT / "tests" / "support" / "templates"
REAL = {"chatml": CHATML, **{file.stem: file.read_text(encoding="utf-8") for file in sorted(TEMPLATES.glob("*.jinja"))}}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather in a city",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "array", "items": {"type": "integer"}, "default": [1, 2]},
                    "unit": {"enum": ["C", "F"], "nullable": True},
                    "any": {"type": ["string", "null"]},
                },
                "required": ["city"],
            },
        },
    }
]
CALL = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": [1]}}}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one turn": [{"role": "user", "content": "Hello <b>&amp;"}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "  Hello\n"}],
    "turns": [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nBecause."},
        {"role": "user", "content": "Really? {{ 7 * 7 }}"},
    ],
    "tool": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "It is sunny."},
        {"role": "user", "content": "Thanks"},
    ],
    "out of order": [{"role": "assistant", "content": "Hi"}, {"role": "assistant", "content": "Hi again"}],
}


class _Refused(Exception):
    pass


def jinja(source: str, **names: Any) -> str:
    """Render as the model's makers do: Jinja's own sandbox, with the options and functions of transformers."""

    def refuse(message: str) -> None:
        raise _Refused(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **{"ensure_ascii": False, **options})
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda pattern: datetime.now().strftime(pattern)}
    return environment.from_string(source).render(**names)


def render(source: str, messages: list[dict[str, Any]] | None = None, **variables: Any) -> str:
    template = ChatTemplate(source, bos="<s>", eos="</s>", is_trusted=True)  # here, where a failure is seen
    return template.render(messages or CONVERSATIONS["one turn"], **variables)


@pytest.mark.parametrize("with_tools", [False, True])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", REAL)
def test_a_real_template_renders_as_in_jinja_alone(name: str, conversation: str, with_tools: bool) -> None:
    messages = CONVERSATIONS[conversation]
    variables = {"tools": TOOLS if with_tools else None, "date_string": "26 Jul 2024"}
    given_in = copy.deepcopy((messages, variables))
    try:
        expected = jinja(
            REAL[name], messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=True, **variables
        )
    except _Refused as error:
        with pytest.raises(TemplateRefusal, match=re.escape(f"the model's chat template refuses: {error}")):
            render(REAL[name], messages, **variables)
    else:
        assert render(REAL[name], messages, **variables) == expected
    assert (messages, variables) == given_in


def test_what_the_real_templates_make_of_a_conversation() -> None:
    turns = CONVERSATIONS["turns"]
    assert render(CHATML, CONVERSATIONS["system"]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n  Hello\n<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(REAL["deepseek-r1"], turns) == (
        "<s><|User|>Why?<|Assistant|>\n\nBecause.<|end_of_sentence|><|User|>Really? {{ 7 * 7 }}<|Assistant|><think>\n"
    )
    assert render(REAL["gemma"], turns[:1]) == "<s><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n"
    assert render(REAL["qwen3"], turns[:1], enable_thinking=False).endswith("assistant\n<think>\n\n</think>\n\n")
    assert render(REAL["qwen3"], turns[:1], add_generation_prompt=False) == "<|im_start|>user\nWhy?<|im_end|>\n"
    assert f"Current date: {datetime.now():%Y-}" in render(REAL["gpt-oss"], turns)
    assert "days?: number[], // default: [1, 2]" in render(REAL["gpt-oss"], turns, tools=TOOLS)


def test_a_refusal_is_in_the_words_of_the_template() -> None:
    with pytest.raises(TemplateRefusal) as caught:
        render(REAL["gemma"], CONVERSATIONS["system"])
    assert str(caught.value) == "the model's chat template refuses: System role not supported"
    with pytest.raises(TemplateRefusal) as caught:
        render("{{ raise_exception('x' * 5000) }}")
    assert len(str(caught.value)) < 400


def test_the_marks_of_training_are_taken_and_ignored() -> None:
    assert render("{% generation %}{{ messages[0].role }}{% endgeneration %}!") == "user!"


def test_a_long_conversation_is_rendered_whole() -> None:
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"{i} " + "ж" * 2000} for i in range(300)]
    gathering = (
        "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s + m.content %}{% endfor %}{{ ns.s }}"
    )
    assert render(gathering, messages) == "".join(message["content"] for message in messages)
    assert len(render(REAL["qwen3"], messages)) > 600_000
    assert len(render(CHATML, [{"role": "user", "content": "x" * 3_000_000}])) > 3_000_000


@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool", ""]), st.text()), min_size=1, max_size=5)
)
def test_the_text_of_a_conversation_is_never_run(turns: list[tuple[str, str]]) -> None:
    expected = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    messages = [{"role": role, "content": content} for role, content in turns]
    assert render(CHATML, messages, add_generation_prompt=False) == expected


@given(st.text(alphabet=st.sampled_from(list("{}%#'\"[]().|~+-*/ \nabcdefi019_")), max_size=60))
def test_any_source_renders_or_is_a_template_error(source: str) -> None:
    try:
        render(source)
    except TemplateError as error:
        check_sentence(str(error))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{{ messages[0].role",
            "has an error in line 1: unexpected end of template, expected 'end of print statement'",
        ),
        ("\n\n{% if %}", "has an error in line 3: Expected an expression, got 'end of statement block'"),
        ("{% frobnicate %}", "has an error in line 1: Encountered unknown tag 'frobnicate'"),
        ("{{ 'x'|pprint }}", "has an error in line 1: No filter named 'pprint'"),
        ("{{ missing.name }}", "fails: 'missing' is undefined"),
        ("{{ messages[0].name.first }}", "fails: 'dict object' has no attribute 'name'"),
        ("{{ 1 / 0 }}", "fails: division by zero"),
        ("{{ 'a' + 1 }}", 'fails: can only concatenate str (not "int") to str'),
        ("{{ ''.__class__.x }}", "fails: access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ messages.append(1) }}", "fails: access to attribute 'append' of 'list' object is unsafe"),
        ("{% break %}", "fails: 'break' outside loop"),
        ("{% include 'x' %}", "was stopped: it asks for another template"),
        ("{{ 1e999|int }}", "was stopped: a number is too large"),
        ("{% if false %}{{ [-1e999] }}{% endif %}", "was stopped: a number is too large"),
        ("{{ 'a' * 10**9 }}", "was stopped: a repeated text or list is too long"),
    ],
)
def test_an_error_is_one_sentence_that_names_the_cause(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(source)
    assert str(caught.value) == f"the model's chat template {message}"
    assert caught.value.hint == "`--raw` sends the prompt without a template"


def test_an_absurdly_long_source_is_refused() -> None:
    assert render("a" * MAX_SOURCE_CHARS) == "a" * MAX_SOURCE_CHARS
    with pytest.raises(TemplateError, match="is 65537 characters long"):
        ChatTemplate("a" * (MAX_SOURCE_CHARS + 1), is_trusted=True)


LEAKS = ("class", "function", "module", "builtin", "<frame", "subprocess", "root", "import")


@pytest.mark.parametrize("name", [*PUBLISHED_ESCAPES, *ESCAPES])
def test_an_escape_is_refused_or_comes_to_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_STEPS", 1000)
    source = (PUBLISHED_ESCAPES | ESCAPES)[name]
    messages = [{"role": "user", "content": "Hello"}]
    # Each expression by itself, so that the first refusal hides none.
    for part in re.split(r"(?<=}})(?={{)", source) if source.startswith("{{") else [source]:
        try:
            text = render(part, messages)
        except TemplateError as error:
            check_sentence(str(error))
        else:
            assert not any(leak in text.lower() for leak in LEAKS), text
            assert len(text) < 60
    assert messages == [{"role": "user", "content": "Hello"}]


def test_what_the_caller_gives_cannot_be_changed() -> None:
    tools = [{"function": {"name": "x"}}]
    for source in ("{{ dict.update(tools[0], name=1) }}", "{{ tools[0].update(a=1) }}", "{% do tools.append(1) %}"):
        with pytest.raises(TemplateError):
            render(source, tools=tools)
    assert tools == [{"function": {"name": "x"}}]


MAX_SECONDS, MAX_BYTES = 2.0, 256 << 20


@pytest.fixture(scope="module")
def explosions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every bomb set off in a process of its own."""
    file = tmp_path_factory.mktemp("bombs") / "templates.json"
    file.write_text(json.dumps(list(BOMBS.values())), encoding="utf-8")
    return dict(zip(BOMBS, run(["-m", "support.render_all", file], timeout=300).json, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_stopped_in_time(name: str, explosions: dict[str, dict[str, Any]]) -> None:
    result = explosions[name]
    assert result.get("error") == "TemplateError", result
    check_sentence(result["message"])
    assert result["seconds"] < MAX_SECONDS
    assert result["bytes"] < MAX_BYTES


def check_sentence(message: str) -> None:
    """One sentence, no full stop."""
    assert message.startswith("the model's chat template ")
    assert "\n" not in message
    assert not message.endswith(".")
    assert ". " not in message
    assert len(message) < 400
