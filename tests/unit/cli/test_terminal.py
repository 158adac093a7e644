"""Text that would steer a terminal is made visible; all other text is left alone."""

import io
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.cli.terminal import Shown, one_line, speak_utf8, visible


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
        ("\x90+q544e\x9c", "\\x90+q544e\\x9c"),
        ("\x1bP+q544e\x1b\\", "\\x1bP+q544e\\x1b\\"),
        ("\x9d0;title\x9c", "\\x9d0;title\\x9c"),
        ("\x1b]8;;http://evil.example\x1b\\", "\\x1b]8;;http://evil.example\\x1b\\"),
        ("a byte that is no text \udc9b31m", "a byte that is no text \\x9b31m"),
        ("half a character \ud83d", "half a character \\ud83d"),
        ("a\ufe0f", "a\\ufe0f"),
        ("❤\ufe0f 1\ufe0f\u20e3 あ\ufe00", "❤\ufe0f 1\ufe0f\u20e3 あ\ufe00"),
        ("❤\ufe0f\ufe0f", "❤\ufe0f\\ufe0f"),
        ("葛\U000e0100 a\U000e0100 é\U000e01ef", "葛\U000e0100 a\\U000e0100 é\\U000e01ef"),
        ("葛\U000e0100\U000e0101", "葛\U000e0100\\U000e0101"),
        ("\U000e0100", "\\U000e0100"),
        ("é\u200d\u2800", "é\u200d\u2800"),
    ],
)
def test_what_steers_a_terminal_is_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("llama\u200b", "llama\\u200b"),
        ("lla\u200dma", "lla\\u200dma"),
        ("\u200cllama", "\\u200cllama"),
        ("qwen\xad3", "qwen\\xad3"),
        ("qwen\u3164", "qwen\\u3164"),
        ("é\u200d", "é\\u200d"),
        ("漢\u200cя\u200d", "漢\\u200cя\\u200d"),
        ("a\u2800", "a\\u2800"),
        ("a\U0001d173\U0001d17a", "a\\U0001d173\\U0001d17a"),
        ("a\U0001bca0\U0001bca3", "a\\U0001bca0\\U0001bca3"),
        ("a\U00013430\U0001343f", "a\\U00013430\\U0001343f"),
        ("\ufe0fa\ufe00é\ufe0f", "\\ufe0fa\\ufe00é\\ufe0f"),
        ("llama-3\ufe0f", "llama-3\\ufe0f"),
        ("a\U000e0100", "a\\U000e0100"),
        ("葛\U000e0100", "葛\U000e0100"),
        ("1\ufe0f\u20e3 ❤\ufe0f ❤\ufe0f\u200d🔥 👩🏽\u200d🚀", "1\ufe0f\u20e3 ❤\ufe0f ❤\ufe0f\u200d🔥 👩🏽\u200d🚀"),
        ("👩\u200d", "👩\\u200d"),
        ("क्\u200dष", "क्\u200dष"),
        ("两行\n第二", "两行\\n第二"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian is written with it
        ("ខ្ញុំ\u200bចង់", "ខ្ញុំ\u200bចង់"),  # Khmer parts its words by it
    ],
)
def test_what_nobody_sees_in_a_name_is_made_visible(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_an_escape_that_comes_in_pieces_is_made_visible() -> None:
    whole = "\x1b]52;c;aGk=\x07\x9b2J\u202e"
    assert "".join(map(visible, whole)) == visible(whole)


def test_a_stream_for_what_writes_of_its_own_accord() -> None:
    stream = io.StringIO()
    shown = Shown(stream)
    shown.write("a\x1b[2J\nb\n")
    shown.flush()
    assert stream.getvalue() == "a\\x1b[2J\nb\n"


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_whatever_is_written_to_stdout_writing_it_does_not_fail(locale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    encoding = "ascii" if locale == "C" else "utf-8"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    speak_utf8()
    print(os.fsdecode(b"m\x9b\xff.gguf"), "\ud83d\udcff", "é")
    sys.stdout.flush()
    assert raw.getvalue() == b"m\x9b\xff.gguf \\ud83d\xff \xc3\xa9\n"


def test_emoji_and_scripts_that_join_characters_keep_their_joiners() -> None:
    family = "👩\u200d👩\u200d👧 क्\u200dष"
    assert visible(family) == family


def test_a_selector_that_comes_in_a_piece_of_its_own_stays() -> None:
    assert "".join(map(visible, ["❤", "\ufe0f"])) == "❤\ufe0f"


@given(
    st.text(st.sampled_from("a1éا漢❤\u17b4\u180e\u200b\u200c\u200d\u20e3\u2028\u2800\ufe00\ufe0f\U000e0100\U0001f3fb"))
)
def test_a_line_that_was_made_safe_is_safe(text: str) -> None:
    assert one_line(one_line(text)) == one_line(text)


@given(st.text(st.characters(codec=None)))
def test_no_control_character_but_newline_and_tab_is_left(text: str) -> None:
    assert not [c for c in visible(text) if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]
    assert "\n" not in one_line(text)
    assert one_line(one_line(text)) == one_line(text)
    visible(text).encode()


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert visible(text) == text
