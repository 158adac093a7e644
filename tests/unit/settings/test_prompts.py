"""Kept prompts: names stay in their folder, placeholders are all filled, texts come back as they were."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import NotFound, StoreError, UsageError
from owm.settings.prompts import Prompts, fill, open_prompts, placeholders


@pytest.fixture
def prompts(tmp_path: Path) -> Prompts:
    return Prompts(tmp_path / "prompts")


def test_placeholders_come_once_and_in_their_order() -> None:
    assert placeholders("{b} and {a}, {{no}} {b} {{{c-1}}}") == ["b", "a", "c-1"]
    assert placeholders("") == []


def test_filling_is_done_once_and_braces_become_single() -> None:
    text = 'Say {{"{key}": {value}}} in {lang}'
    assert fill(text, {"key": "{lang}", "value": "}}", "lang": "{{"}) == 'Say {"{lang}": }}} in {{'


def test_all_that_is_missing_is_named_with_the_flags_to_give() -> None:
    with pytest.raises(UsageError, match=r"^the prompt needs: a, input, b$") as caught:
        fill("{a} {input} {b} {c}", {"c": ""})
    assert caught.value.hint == (
        "give it `--var a=…` and `--var b=…` and a text from a pipe, or the prompt as an argument"
    )


def test_a_variable_for_nothing_is_a_typo() -> None:
    with pytest.raises(UsageError, match=r"^the prompt has no placeholder for: langauge, x$") as caught:
        fill("{language}", {"language": "a", "langauge": "b", "x": "c"})
    assert caught.value.hint == "it has: language"


@pytest.mark.parametrize(
    ("text", "line", "brace"), [("{", 1, "{"), ("a\n}\n", 2, "}"), ('\n\n{"a": 1}', 3, "{"), ("{a b}", 1, "{")]
)
def test_a_stray_brace_is_named_with_its_line(text: str, line: int, brace: str) -> None:
    for use in (placeholders, lambda text: fill(text, {})):
        with pytest.raises(UsageError, match=f"^a brace in line {line} of the prompt belongs to no placeholder: .$"):
            use(text)


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]*", fullmatch=True), st.text(), max_size=4), st.text())
def test_whatever_is_around_comes_out_as_it_was(variables: dict[str, str], around: str) -> None:
    escaped = around.replace("{", "{{").replace("}", "}}")
    text = escaped.join("{" + name + "}" for name in variables)
    assert placeholders(text) == list(variables)
    assert fill(text, variables) == around.join(variables.values())


# -- the folder --------------------------------------------------------------------------------------------------------


def test_a_prompt_comes_back_as_it_was_saved(prompts: Prompts) -> None:
    text = "Größe: {input}\n\n\ttab\r\nend"
    assert prompts.save("a.b-C_1", text) is False
    assert prompts.load("a.b-C_1") == text
    assert prompts.path("a.b-C_1").read_bytes() == text.encode() + b"\n"
    assert prompts.save("a.b-C_1", "other\n") is True
    assert prompts.load("a.b-C_1") == "other"
    assert os.listdir(prompts.folder) == ["a.b-C_1.txt"]


def test_names_are_listed_and_other_files_are_not(prompts: Prompts) -> None:
    assert prompts.names() == []
    prompts.save("b", "x")
    prompts.save("a", "x")
    for other in ("readme.md", ".hidden.txt", "b.txt.123.incomplete", "with space.txt"):
        (prompts.folder / other).write_text("x")
    assert prompts.names() == ["a", "b"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", ".x", "-x", "a b", "a\n", "ä", "a\0", "x" * 101]
)
def test_a_name_that_could_leave_the_folder_is_none(name: str, prompts: Prompts) -> None:
    for use in (prompts.load, prompts.remove, lambda name: prompts.save(name, "x")):
        with pytest.raises(UsageError, match=r"^not a name for a prompt: "):
            use(name)
    assert not prompts.folder.exists()


def test_a_missing_prompt_suggests_the_nearest(prompts: Prompts) -> None:
    prompts.save("review", "x")
    for use in (prompts.load, prompts.remove):
        with pytest.raises(NotFound, match=r"^no prompt named reviev$") as caught:
            use("reviev")
        assert caught.value.hint == "did you mean `review`? `owm prompts` lists them"


def test_a_removed_prompt_is_gone(prompts: Prompts) -> None:
    prompts.save("a", "x")
    prompts.remove("a")
    assert prompts.names() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n", "the prompt is empty"),
        ("a {", "a brace in line 1 of the prompt belongs to no placeholder: {"),
        ("\udcff", "the prompt is not UTF-8 text"),
    ],
)
def test_what_cannot_be_a_prompt_is_not_saved(text: str, message: str, prompts: Prompts) -> None:
    prompts.save("a", "old")
    with pytest.raises(UsageError) as caught:
        prompts.save("a", text)
    assert str(caught.value) == message
    assert prompts.load("a") == "old"


def test_a_file_of_another_encoding_is_named(prompts: Prompts) -> None:
    prompts.save("a", "x")
    prompts.path("a").write_bytes(b"gr\xfc\xdf dich")
    with pytest.raises(UsageError, match=r"a.txt is not UTF-8 text \(byte 2\)$"):
        prompts.load("a")


def test_what_cannot_be_read_or_written_is_an_error_of_ours(prompts: Prompts) -> None:
    prompts.folder.parent.joinpath("file").write_text("")
    broken = Prompts(prompts.folder.parent / "file" / "prompts")
    with pytest.raises(StoreError, match=r"^cannot write "):
        broken.save("a", "x")
    with pytest.raises(StoreError, match=r"^cannot read "):
        broken.load("a")
    with pytest.raises(StoreError, match=r"^cannot read "):
        broken.names()


def test_they_lie_beside_the_config_file(clean_environment: Path) -> None:
    assert open_prompts().folder == clean_environment / "owm" / "prompts"
