"""`@file` in a prompt: files are found, everything else with an @ is left alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine import mentions
from owm.engine.mentions import Mentions

FILES = {"a.txt", "src/b.py", "README", "my notes.txt", "odd).txt"}


def find(text: str) -> Mentions:
    return mentions.find(text, is_file=FILES.__contains__)


@pytest.mark.parametrize(
    ("text", "left", "paths"),
    [
        ("sum @a.txt", "sum a.txt", ["a.txt"]),
        ("@a.txt: why?", "a.txt: why?", ["a.txt"]),
        ("is it (@a.txt), `@src/b.py` or '@README'?!", "is it (a.txt), `src/b.py` or 'README'?!",
         ["a.txt", "src/b.py", "README"]),
        ("read @a.txt, then @a.txt.", "read a.txt, then a.txt.", ["a.txt"]),
        ('sum @"my notes.txt"', 'sum "my notes.txt"', ["my notes.txt"]),
        ("sum @'my notes.txt'.", "sum 'my notes.txt'.", ["my notes.txt"]),
        ("see @odd).txt", "see odd).txt", ["odd).txt"]),
        ("line\n@a.txt\tx", "line\na.txt\tx", ["a.txt"]),
    ],
)  # fmt: skip
def test_a_word_that_is_a_file_is_taken_and_its_name_stays(text: str, left: str, paths: list[str]) -> None:
    assert find(text) == Mentions(left, tuple(paths), ())


@pytest.mark.parametrize(
    "text",
    ["mail me@a.txt", "hi @alice and @bob!", "@", "a @ b", "x@@a.txt", "@@ -1,4 +1,6 @@ def f():", "@@count += 1",
     "@dataclass\nclass A: ...", "5 @ 3.50", "git@github.com:a/b", "@@@a.txt"],
)  # fmt: skip
def test_what_names_no_file_is_left_as_it_is(text: str) -> None:
    assert find(text) == Mentions(text, (), ())


@pytest.mark.parametrize(
    ("text", "left"), [("@@a.txt", "@a.txt"), ("(@@README)", "(@README)"), ("@@types/node", "@types/node")]
)
def test_a_doubled_sign_is_a_sign(text: str, left: str) -> None:
    assert find(text) == Mentions(left, (), ())


@pytest.mark.parametrize(
    ("text", "name"),
    [("sum @none.txt.", "none.txt"), ("@src/none", "src/none"), ('@"no such notes"', "no such notes"),
     ("@../x.md?", "../x.md")],
)  # fmt: skip
def test_what_looks_like_a_path_and_is_none_is_said(text: str, name: str) -> None:
    assert find(text) == Mentions(text, (), (f"there is no file {name}, so `@{name}` stays as it is",))


def test_a_folder_is_no_file_and_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "é.txt").write_text("x")
    found = mentions.find("@src @src/ @~/é.txt @é.txt")
    assert found.text == "@src @src/ ~/é.txt é.txt"
    assert found.paths == ("~/é.txt", "é.txt")
    assert found.notes == ("there is no file src/, so `@src/` stays as it is",)


@given(st.text(alphabet="@ab .txt/\"'()\n", max_size=40))
def test_without_files_no_word_is_lost(text: str) -> None:
    found = mentions.find(text, is_file=lambda path: False)
    assert found.paths == ()
    assert found.text.replace("@", "") == text.replace("@", "")
    if "@@" not in text:
        assert found.text == text
