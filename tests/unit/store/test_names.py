"""Names from strangers: one safe path component for any text, and no path that leaves its repo."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from owm.errors import Damaged
from owm.store.names import MAX_COMPONENT, check_repo_path, safe_component

any_text = st.text(st.characters(codec=None), max_size=200)  # lone surrogates too: JSON can carry them


@pytest.mark.parametrize("name", ["Q4_K_M", "owner", "My.Repo-GGUF", "a+b=c@d", "0.1.2", "x" * MAX_COMPONENT])
def test_ordinary_names_stay_readable(name: str) -> None:
    assert safe_component(name) == name


@given(any_text)
@example("")
@example(".")
@example("..")
@example("../../etc/passwd")
@example("-" * 300)
@example("a/b\\c:d")
@example("\ud800")
@example("\x1b[31mred")
def test_any_text_becomes_one_harmless_component(name: str) -> None:
    safe = safe_component(name)
    assert 0 < len(safe) <= MAX_COMPONENT
    assert safe.isascii()
    assert safe.isprintable()
    assert safe not in (".", "..")
    assert Path("root", safe).parent == Path("root")
    assert not set(safe) & set('/\\:*?"<>|\0')


@given(any_text, any_text)
@example("a/b", "a_b")
@example("a/b", "a:b")
@example("x" * 300, "x" * 301)
@example(".hidden", "hidden")
def test_distinct_texts_stay_distinct(one: str, other: str) -> None:
    assert (safe_component(one) == safe_component(other)) == (one == other)


@pytest.mark.parametrize(
    "path", ["a.gguf", "Q4_K_M/a-00001-of-00002.gguf", "a b (1).gguf", "日本語/モデル.gguf", ".gitattributes"]
)
def test_ordinary_paths_pass_unchanged(path: str) -> None:
    assert check_repo_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../a.gguf",
        "a/../../b.gguf",
        "a//b.gguf",
        "a/",
        "C:a.gguf",
        "c:/a.gguf",
        "\\\\host\\a",
        "a\\..\\b.gguf",
        "a\nb.gguf",
        "\x1b]0;x\x07.gguf",
        "a\x00.gguf",
        "a\x7f.gguf",
        "é" * 128 + ".gguf",
        "x/" + "a" * 256,
        "\ud800.gguf",
    ],
)
def test_paths_that_leave_their_repo_or_surprise_are_refused(path: str) -> None:
    with pytest.raises(Damaged, match="unsafe name"):
        check_repo_path(path)


@given(any_text)
def test_any_path_is_refused_or_stays_inside(path: str) -> None:
    try:
        passed = check_repo_path(path)
    except Damaged:
        return
    assert passed == path
    assert Path("/root", passed).resolve().is_relative_to("/root")
