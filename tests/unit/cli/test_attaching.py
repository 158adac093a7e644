"""Files that go with a prompt."""

from pathlib import Path

import pytest

from owm.cli.chat.attaching import attach
from owm.engine.material import Piece
from owm.errors import UsageError


def test_a_prompt_without_files_is_itself() -> None:
    found = attach("Mail me at a@b.org, @you")
    assert (found.content, found.typed, found.names) == ("Mail me at a@b.org, @you", "Mail me at a@b.org, @you", ())


def test_mentioned_files_stand_before_the_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.py").write_text("print(1)\n")
    found = attach("What does @a.py do?")
    assert found.content == "=== a.py ===\nprint(1)\n\nWhat does a.py do?"
    assert found.typed == "What does @a.py do?"
    assert found.names == ("a.py",)


def test_waiting_files_come_first_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.py").write_text("new")
    found = attach("Compare with @a.py", [Piece("b.txt", "B"), Piece("a.py", "old")])
    assert found.content == "=== b.txt ===\nB\n\n=== a.py ===\nold\n\nCompare with a.py"
    assert found.names == ("b.txt", "a.py")


def test_a_name_that_is_no_file_is_noted_and_a_binary_one_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\0\1")
    assert "there is no file" in attach("see @src/nothing.py").notes[0]
    with pytest.raises(UsageError, match="binary"):
        attach(f"see @{tmp_path}/a.bin")
