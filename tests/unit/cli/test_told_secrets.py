"""Passwords, signatures and tokens are taken out of what is said; all else is left as it is."""

import time

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
        ("authorization: bearer abcdefghijk", "authorization: bearer ***"),
        ("{'Authorization': 'Bearer abc'}", "{'Authorization': 'Bearer ***'}"),
        ("Authorization: Token abc", "Authorization: Token ***"),
        ("authorization: abcdefghijk", "authorization: ***"),
        ('Authorization: Digest username="x", response="abc"\nnext', "Authorization: Digest ***\nnext"),
        ("Bearer\thf_short", "Bearer\t***"),
        ("Bearer token-abc, Bearer auth_abc", "Bearer *** Bearer ***"),
        ('Bearer "abcdefgh"', 'Bearer "***"'),
        ("a bearer abcdefgh1 of", "a bearer *** of"),
        ("basic bWU6aHVudGVyMg==", "basic ***"),
        ("X-Api-Key: abc", "X-Api-Key: ***"),
        ("PRIVATE-TOKEN: glpat-abc", "PRIVATE-TOKEN: ***"),
        ("a ghp_0123456789abcdefghij b", "a *** b"),
        ("github_pat_11ABCDE0123456789_xyz", "***"),
        ("glpat-abcdefghij0123456789", "***"),
        ("https://u:p/w@h/", "https://***@h/"),
        ("https://u:p?w#x@h/y", "https://***@h/y"),
        ("proxy user:pass@proxy:3128 failed", "proxy ***@proxy:3128 failed"),
        ("//user:pw@host", "//***@host"),
        ("https://t0ken@h:80/x@y", "https://***@h:80/x@y"),
        ("https://h/#access_token=abc&x=1", "https://h/#access_token=***&x=1"),
        ("at https://cdn/x?s1gned, then", "at https://cdn/x?***, then"),
    ],
)
def test_what_may_be_a_secret_is_hidden(text: str, said: str) -> None:
    assert hidden(text) == said


@pytest.mark.parametrize(
    "text",
    ["", "owner/repo@main:Q4_K_M", "see https://huggingface.co/acme/model, then `owm login`", "which model? none",
     "a bearer of news", "Bearer tokens, they", 'Bearer realm="x"', "bearer credentials",
     "a basic idea", "basic information", "token 5 of 7",
     "token 123456789 of", "the token Q4_K_M", "authorization: no", "https://localhost:8000/npm/@scope/x",
     "http://[::1]:80/a@b", "pypi:pkg@1.0", "hf:owner/repo@main", f"x:y@sha256:{'ab12' * 16}", "a // comment: x@y",
     "hf_short", "me@example.org", "https://huggingface.co/settings/tokens"],
)  # fmt: skip
def test_all_else_is_left_as_it_is(text: str) -> None:
    assert hidden(text) == text


@pytest.mark.parametrize(
    "part",
    ["a", " ", "@", ":", "//", "://", "@:", "a:@b:", "x@a.b:1", "?a=", "#token=", "x-a-", "bearer ", "authorization: ",
     "authorization:digest ", "glpat-", "hf_", "https://u:"],
)  # fmt: skip
def test_a_hostile_text_does_not_take_long(part: str) -> None:
    started = time.process_time()
    for before in ("", "x://", "a:", "authorization:", "Bearer "):
        hidden(before + part * (200_000 // len(part)) + "!")
    assert time.process_time() - started < 20  # what is not linear takes minutes


def test_a_token_of_the_environment_is_hidden_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", " s3cret-value ")
    monkeypatch.setenv("SHORT_TOKEN", "it")
    assert hidden("it is xs3cret-valuex") == "it is x***x"


def test_what_is_said_is_safe_in_both_ways() -> None:
    assert spoken("\x1b[2Jhttps://a:b@c\n") == "\\x1b[2Jhttps://***@c\\n"
