"""Text that wants to steer the terminal, to break the layout, or to take very long."""

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.cli.look import Look
from owm.cli.markdown.stream import MarkdownStream, markdown_lines
from support.window import Window

pytestmark = pytest.mark.slow

SECONDS = 5.0  # generous: a quadratic step takes minutes
PLAIN = Look(has_color=False, is_plain=True)
OWN_ESCAPES = re.compile(r"\x1b\[(?:\d+(?:;\d+)*m|\d*[AJ]|\?(?:7|25|2026)[hl])")
STEERING = ["\x1b]0;title\x07", "\x1b[2J", "\x1b[10A", "\x9b31m", "\u202egnp.exe", "\x07", "\x08" * 5, "\x00", "\u2066"]
PLACES = [
    *("{}", "# {}", "- {}", "> {}", "**{}**", "`{}`", "[{}](https://x.example)", "[x](<https://x.example/{}>)"),
    *("```{}\ncode\n```", "```python\n{}\n```", "    {}", "| {} | b |\n|---|---|\n| 1 | {} |", "![{}](y)", "\\({}\\)"),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("steering", STEERING, ids=ascii)
def test_nothing_in_a_text_steers_the_terminal(place: str, steering: str) -> None:
    window = Window(60, 20)
    window.show(place.replace("{}", f"a{steering}b") + "\n\nend")
    own = OWN_ESCAPES.sub("", window.raw()).replace("\r\n", "").replace("\r", "")
    assert not [character for character in own if unicodedata.category(character) in ("Cc", "Cf") and character != "\n"]
    assert window.lines()[-1] == "end"


@pytest.mark.parametrize("entity", ["&#27;[2J", "&#x202e;", "&#x9b;31m", "&#7;", "&#xfeff;", "&rlm;", "&#13;", "&#10;"])
def test_entities_do_not_bring_in_what_steers(entity: str) -> None:
    for line in markdown_lines(f"a {entity} b [x](</{entity}>) `{entity}`", width=60, look=PLAIN):
        assert not [character for character in line if unicodedata.category(character) in ("Cc", "Cf")]


@given(st.text(max_size=300), st.sampled_from([1, 2, 20, 80]))
def test_any_text_is_drawn(text: str, columns: int) -> None:
    window = Window(columns, 6)
    window.show(text)
    assert window.screen.cursor.x == 0


@given(
    st.lists(st.text("abc日本語שלום🙂é\u0301\u200d", min_size=1, max_size=50), min_size=1, max_size=20),
    st.sampled_from([4, 20, 60]),
)
def test_no_character_is_lost_by_wrapping(words: list[str], columns: int) -> None:
    lines = markdown_lines(" ".join(words), width=columns, look=PLAIN)
    assert "".join("".join(lines).split()) == "".join("".join(words).split())


LONG = {
    "one line": "word " * 100_000,
    "one word": "a" * 300_000,
    "wide word": "語" * 100_000,
    "brackets": "[" * 50_000,
    "images": "![" * 25_000,
    "stars": "*a " * 20_000,
    "nested stars": "**a *b " * 10_000,
    "backticks": "".join("`" * n + " " for n in range(300)),
    "open links": "[a](" * 10_000,
    "open formulas": "\\(" * 20_000,
    "quotes": ">" * 20_000 + "a",
    "nested quotes": "".join(">" * n + " a\n" for n in range(300)),
    "nested items": "- " * 10_000 + "a",
    "deepening list": "".join(" " * 2 * n + "- a\n" for n in range(300)),
    "lines": "a\n" * 5_000,
    "marked lines": "**a\n" * 3_000,
    "blanks": "\n" * 100_000,
    "spaces": " " * 200_000 + "a",
    "marks": "#" * 100_000,
    "dashes": "- " * 50_000,
    "columns": "|a" * 300 + "|\n" + "|-" * 300 + "|\n" + "|b" * 300 + "|\n",
    "rows": "|a|b|\n|-|-|\n" + "|c|d|\n" * 2000,
    "unclosed comment": "```js\n" + "/* a\n" * 300,
    "unclosed string": '```python\nx = """\n' + "a 'b \"\n" * 300,
    "long code line": "```json\n" + '{"a": ' * 50_000 + "\n```",
    "long tabs": "\t" * 50_000 + "a",
    "zalgo": "a" + "\u0301" * 5000 + " b",
}


@pytest.mark.parametrize("name", LONG)
def test_a_text_made_to_take_long_does_not(name: str) -> None:
    window_frames: list[str] = []
    began = time.process_time()
    markdown_lines(LONG[name], width=80, look=Look())
    with MarkdownStream(window_frames.append, width=lambda: 80, height=lambda: 24, look=Look()) as stream:
        size = max(len(LONG[name]) // 20, 1)
        for n, at in enumerate(range(0, len(LONG[name]), size)):
            stream.feed(LONG[name][at : at + size])
            stream.tick(1000 * n)
            assert window_frames == [] or window_frames[-1].count("\r\n") <= len(LONG[name]) + 24
    assert time.process_time() - began < SECONDS


def test_a_line_that_does_not_end_is_shown_at_its_end() -> None:
    window = Window(40, 6)
    stream = window.stream()
    for n in range(50):
        stream.feed(f"{n}-" + "x" * 2000)
        stream.tick(n)
        assert window.frames[-1].count("\r\n") <= 5
    stream.feed("END")
    stream.tick(100)
    assert "END" in "".join(window.screen.display)


@pytest.mark.parametrize(("columns", "rows"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_a_window_without_room_breaks_nothing(columns: int, rows: int) -> None:
    text = "# A\n\n- b\n  1. c\n\n| a | 語 |\n|---|---|\n| 1 | 2 |\n\n> quote\n\n```py\nx = 1\n```\n"
    with MarkdownStream(lambda text: None, width=lambda: columns, height=lambda: rows, look=Look()) as stream:
        for n, character in enumerate(text):
            stream.feed(character)
            stream.tick(n)


def test_a_lone_surrogate_can_be_written() -> None:
    for line in markdown_lines("a \ud800 b", width=40, look=PLAIN):
        assert line.encode() == rb"a \ud800 b"


def test_rows_stay_in_their_place_where_the_terminal_takes_characters_for_wider() -> None:
    """The terminal of this test takes every letter to be one column wide; what is drawn is said to be narrower."""
    window = Window(10, 12)
    stream = MarkdownStream(window.write, width=lambda: 30, height=lambda: 12, look=Look(), clock=lambda: 0.0)
    for n in range(12):
        stream.feed("some words ")
        stream.tick(n)
    assert len(window.lines()) == -(-12 * 11 // 30)
