"""What a line at the prompt of a chat means, and how the commands are listed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.cli.chat.commands import (
    ALIASES,
    COMMANDS,
    Call,
    as_typed,
    find,
    help_text,
    is_block,
    is_open,
    parse,
    prompt_of,
    unquoted,
)
from owm.cli.wrapping import columns
from owm.errors import UsageError


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("/undo", Call("undo", "")),
        ("/edit 3", Call("edit", "3")),
        ("/EDIT  3 ", Call("edit", "3")),
        ("  /help", Call("help", "")),
        ("/system one\ntwo\n", Call("system", "one\ntwo")),
        ("/system\none", Call("system", "one")),
        ("/exit", Call("quit", "")),
        ("/q", Call("quit", "")),
        ("/?", Call("help", "")),
        ("/save-code a b.py", Call("save-code", "a b.py")),
    ],
)
def test_a_command_is_its_name_and_what_stands_after_it(line: str, call: Call) -> None:
    assert parse(line) == call


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        "what does /undo do",
        "//undo",
        "// a comment",
        "/* a comment */",
        "/usr/bin/x is missing",
        "/home/me/notes.txt",
        "/export/home is where it lies",
        "/[a-z]+/ is a pattern",
        "",
    ],
)
def test_anything_else_is_a_prompt(line: str) -> None:
    assert parse(line) is None


@pytest.mark.parametrize(
    ("line", "near"),
    [("/udno", "undo"), ("/moedl x", "model"), ("/undo/", "undo"), ("/und", "undo"), ("/savecode", "save-code")],
)
def test_a_typo_is_an_error_that_suggests_the_nearest(line: str, near: str) -> None:
    with pytest.raises(UsageError, match="no such command") as raised:
        parse(line)
    assert f"did you mean `/{near}`?" in (raised.value.hint or "")


@pytest.mark.parametrize("line", ["/", "/xyzzy", "/bbb"])
def test_what_is_near_to_nothing_only_points_at_help(line: str) -> None:
    with pytest.raises(UsageError, match="no such command: /") as raised:
        parse(line)
    assert "did you mean" not in (raised.value.hint or "")
    assert "`/help`" in (raised.value.hint or "")


def test_a_doubled_slash_is_one_in_the_prompt() -> None:
    assert prompt_of("//undo") == "/undo"
    assert prompt_of("a // b") == "a // b"


@given(st.text())
def test_every_prompt_can_be_typed(prompt: str) -> None:
    typed = as_typed(prompt)
    if not typed[:1].isspace():
        assert parse(typed) is None
        assert prompt_of(typed) == prompt


@given(st.text())
def test_no_line_fails_otherwise_than_by_a_usage_error(line: str) -> None:
    try:
        parse(f"/{line}")
    except UsageError:
        return


def test_every_name_and_alias_is_understood() -> None:
    for name in COMMANDS:
        assert parse(f"/{name}") == Call(name, "")
        assert find(name) is find(f"/{name}") is COMMANDS[name]
    for alias, name in ALIASES.items():
        assert parse(f"/{alias}") == Call(name, "")
    with pytest.raises(UsageError):
        find("udno")
    with pytest.raises(UsageError):
        find("/usr/bin/x")


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ('"""\none\ntwo\n"""', "one\ntwo"),
        ('"""one\ntwo"""', "one\ntwo"),
        ('"""one"""', "one"),
        ('"""\n    indented\n"""\n', "    indented"),
        ('"""\n/undo\n"""', "//undo"),
        ('"""\ndef f():\n    """doc"""\n"""', 'def f():\n    """doc"""'),
    ],
)
def test_a_block_is_what_stands_between_its_quotes_and_never_a_command(text: str, inner: str) -> None:
    assert is_block(text)
    assert not is_open(text)
    assert unquoted(text) == inner
    assert parse(unquoted(text)) is None


@pytest.mark.parametrize(
    "text", ['"""', '"""one', '"""\none', '"""\ndef f():\n    """doc"""', '"""\ndef f():\n    """doc', '"""\na """ b']
)
def test_a_block_is_open_until_a_line_ends_with_quotes_that_close_it(text: str) -> None:
    assert is_open(text)


@pytest.mark.parametrize("text", ["one", 'a """', '"""doc"""\nimport os', '"""a""" and """b"""x', '""', ""])
def test_other_quotes_are_text(text: str) -> None:
    assert not is_block(text)
    assert unquoted(text) == text


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_help_lists_every_command_and_fits_the_window(width: int) -> None:
    text = help_text(width)
    for command in COMMANDS.values():
        assert f"  {command.usage}" in text
    assert max(map(columns, text.splitlines())) <= max(width, 24)
    assert text.endswith("\n")
    assert all(line == line.rstrip() for line in text.splitlines())


def test_help_has_a_command_a_line_where_there_is_room() -> None:
    lines = help_text(120).splitlines()
    undo = next(line for line in lines if line.startswith("  /undo "))
    assert undo.endswith("  take back your last turn and its answer")
    assert "Branches" in lines
