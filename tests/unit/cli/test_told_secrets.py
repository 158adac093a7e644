"""Passwords, signatures and tokens are taken out of what is said; all else is left as it is."""

import pytest

from owm.cli.secrets import hidden, spoken


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at https://me:hunter2@host:8000/simple/ it", "at https://***@host:8000/simple/ it"),
        ("ERROR: http://me:p@ss@host/simple", "ERROR: http://***@host/simple"),
        ("https://t0ken@host/x", "https://***@host/x"),
        ("GET https://cdn/x.gguf?X-Amz-Signature=abc&e=1 failed", "GET https://cdn/x.gguf?*** failed"),
        ("(https://cdn/x?s1gned)", "(https://cdn/x?***)"),
        ("b'Bearer abc.def-123'", "b'Bearer ***'"),
        ("Authorization: Basic bWU6aHVudGVyMg==", "Authorization: Basic ***"),
        ("the token hf_abcdefghijklmnopqrst of", "the token *** of"),
        ("Cookie: m_session_id=ms-1; x", "Cookie: m_session_id=***; x"),
    ],
)
def test_what_may_be_a_secret_is_hidden(text: str, said: str) -> None:
    assert hidden(text) == said


@pytest.mark.parametrize(
    "text",
    ["", "owner/repo@main:Q4_K_M", "see https://huggingface.co/acme/model, then `owm login`", "which model? none",
     "a bearer of news", "hf_short", "me@example.org", "https://huggingface.co/settings/tokens"],
)  # fmt: skip
def test_all_else_is_left_as_it_is(text: str) -> None:
    assert hidden(text) == text


def test_a_token_of_the_environment_is_hidden_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", " s3cret-value ")
    monkeypatch.setenv("SHORT_TOKEN", "it")
    assert hidden("it is xs3cret-valuex") == "it is x***x"


def test_what_is_said_is_safe_in_both_ways() -> None:
    assert spoken("\x1b[2Jhttps://a:b@c\n") == "\\x1b[2Jhttps://***@c\\n"
