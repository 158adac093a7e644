"""What Tab offers: commands, their arguments, and paths."""

import os
import shlex
from pathlib import Path

import pytest

from owm.cli.chat.commands import COMMANDS
from owm.cli.chat.completion import Facts, offers
from owm.engine import mentions

FACTS = Facts(
    model_names=lambda: ["smollm2:135m", "llama3.2:3b", "someone/Big-Model:Q4_K_M"],
    branch_names=lambda: ["main", "fork-1", "zweite Idee"],
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of all kinds of names, which is where the program stands."""
    plain = ("notes.txt", "notes2.txt", "猫.txt", ".hidden", "Zebra", "back\\s")
    for name in (*plain, "my file.txt", 'a"b.txt', "it's.md"):
        (tmp_path / name).write_text("")
    (tmp_path / "docs dir").mkdir()
    (tmp_path / "docs dir" / "in side.md").write_text("")
    (tmp_path / "new\nline").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def completed(before: str, facts: Facts = FACTS) -> list[str]:
    """Return the whole lines that Tab would make."""
    return [before[: offer.start] + offer.text for offer in offers(before, facts)]


def test_a_slash_offers_every_command() -> None:
    assert [line.strip()[1:] for line in completed("/")] == list(COMMANDS)
    assert all(offer.about for offer in offers("/", FACTS))


def test_the_beginning_of_a_command_offers_those_that_begin_so() -> None:
    assert completed("/un") == ["/undo"]
    assert completed("/ED") == ["/edit "]
    assert completed("/exit") == ["/exit"]
    assert completed("/xyz") == []


@pytest.mark.parametrize("before", ["", "hello", "hello /un", "//un", "one\n/un"])
def test_a_prompt_offers_nothing(before: str) -> None:
    assert completed(before) == []


def test_models_are_offered_by_their_beginning_or_any_part() -> None:
    assert completed("/model ") == ["/model smollm2:135m", "/model llama3.2:3b", "/model someone/Big-Model:Q4_K_M"]
    assert completed("/model SMOL") == ["/model smollm2:135m"]
    assert completed("/model big") == ["/model someone/Big-Model:Q4_K_M"]


def test_branches_are_offered_with_blanks_and_all() -> None:
    assert completed("/switch ") == ["/switch main", "/switch fork-1", "/switch zweite Idee"]
    assert completed("/switch zweite I") == ["/switch zweite Idee"]


def test_settings_are_offered_and_then_the_values_that_have_names() -> None:
    assert completed("/set te") == ["/set temp "]
    assert "/set top_k " in completed("/set ")
    assert completed("/set top-") == ["/set top_k ", "/set top_p "]
    assert completed("/set effort ") == [f"/set effort {value}" for value in ("low", "medium", "high", "default")]
    assert completed("/set effort m") == ["/set effort medium"]
    assert completed("/set temp ") == ["/set temp default"]
    assert completed("/set nonsense ") == []
    assert next(offer.about for offer in offers("/set te", FACTS)) == "temperature, 0 is greedy"


def test_switches_and_other_arguments_are_offered() -> None:
    assert completed("/think o") == ["/think on", "/think off"]
    assert completed("/raw ") == ["/raw on", "/raw off"]
    assert completed("/help und") == ["/help undo"]
    assert completed("/undo ") == []


def test_paths_are_offered_after_an_at_sign(folder: Path) -> None:
    assert completed("see @notes") == ["see @notes.txt", "see @notes2.txt"]
    assert completed("see (@not") == ["see (@notes.txt", "see (@notes2.txt"]
    assert completed("one\n@Ze") == ["one\n@Zebra"]
    assert completed("me@not") == []
    assert completed("see @nothing-like-it") == []


def test_names_with_blanks_are_quoted_and_quotes_are_continued(folder: Path) -> None:
    assert completed("see @my") == ['see @"my file.txt"']
    assert completed('see @"my f') == ['see @"my file.txt"']
    assert completed("see @'my f") == ["see @'my file.txt'"]
    assert completed('see @"docs') == ['see @"docs dir/']
    assert completed('see @"docs dir/') == ['see @"docs dir/in side.md"']
    assert completed("see @a") == ['see @a"b.txt']
    assert completed("see @it") == ["see @it's.md"]


def test_what_is_offered_after_an_at_sign_is_the_file_that_is_attached(folder: Path) -> None:
    lines = completed("@")
    assert len(lines) == 9
    for line in lines:
        if not line.endswith("/"):
            assert len(mentions.find(line).paths) == 1, line


def test_hidden_files_are_offered_by_their_dot_only(folder: Path) -> None:
    assert "@.hidden" not in completed("@")
    assert completed("@.h") == ["@.hidden"]


def test_home_is_understood(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert completed("@~/Ze") == ["@~/Zebra"]


def test_the_files_of_a_command_are_words_of_a_line(folder: Path) -> None:
    assert completed("/file notes") == ["/file notes.txt", "/file notes2.txt"]
    assert completed("/file notes.txt Ze") == ["/file notes.txt Zebra"]
    assert completed("/file my") == ['/file "my file.txt"']
    assert completed("/file a") == ["/file 'a\"b.txt'"]
    assert completed("/file it") == ['/file "it\'s.md"']
    assert completed("/file my\\ f") == ['/file "my file.txt"']
    assert completed('/file "docs dir/in') == ['/file "docs dir/in side.md"']


def test_what_is_offered_after_file_is_what_a_shell_would_read(folder: Path) -> None:
    (folder / """both ' and ".txt""").write_text("")
    lines = completed("/file ")
    assert len(lines) == 9
    for line in lines:
        if not line.endswith("/"):
            assert Path(shlex.split(line)[1]).is_file(), line


def test_the_file_of_a_command_that_takes_one_is_the_rest_of_the_line(folder: Path) -> None:
    assert completed("/save-code my f") == ["/save-code my file.txt"]
    assert completed("/export ") == ["/export docs dir/", "/export it's.md"]


def test_names_that_cannot_be_typed_are_not_offered(folder: Path) -> None:
    (folder / os.fsdecode(b"bad\xff")).write_text("")
    assert completed("@new") == []
    assert completed("@bad") == []


def test_names_cannot_steer_the_list(folder: Path) -> None:
    (folder / "rev\u202etxt").write_text("")
    assert [offer.shown for offer in offers("@rev", FACTS)] == ["rev\\u202etxt"]


@pytest.mark.parametrize("before", ["@/no/such/folder/x", "@\0/x", "/file /root\0/", f"@{'x/' * 5000}"])
def test_folders_that_cannot_be_read_offer_nothing(before: str) -> None:
    assert completed(before) == []
