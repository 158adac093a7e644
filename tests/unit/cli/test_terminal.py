"""Text that would steer a terminal is made visible; all other text is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.cli.terminal import one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext é 漢 🙂", "plain\n\ttext é 漢 🙂"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb\x08c\x7f", "a\\x0db\\x08c\\x7f"),
        ("abc\u202ecba", "abc\\u202ecba"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("zero\ufeffwidth", "zero\\ufeffwidth"),
    ],
)
def test_what_steers_a_terminal_is_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_emoji_and_scripts_that_join_characters_keep_their_joiners() -> None:
    family = "👩\u200d👩\u200d👧 क्\u200dष"
    assert visible(family) == family


@given(st.text())
def test_no_control_character_but_newline_and_tab_is_left(text: str) -> None:
    assert not [c for c in visible(text) if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]
    assert "\n" not in one_line(text)


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert visible(text) == text
