"""Facts as lines: whole in a pipe, wrapped under their own column on a terminal."""

import io
import os
import sys

import pytest

from owm.cli import facts
from owm.cli.output import Output

LONG = "not for services that had more than 700 million users a month when it came out"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(monkeypatch: pytest.MonkeyPatch, columns: int) -> Screen:
    """Make stdout and stderr a terminal of so many columns, within the test itself."""
    made = Screen()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
    return made


def test_a_pipe_gets_whole_lines_and_what_is_not_known_is_left_out() -> None:
    assert facts.lines({"a": 1, "long": LONG, "gone": None}) == ["a     1", f"long  {LONG}"]
    assert facts.lines({"gone": None}) == []


@pytest.mark.parametrize("n", [40, 60, 100])
def test_a_terminal_gets_lines_that_fit(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    screen(monkeypatch, n)
    shown = facts.lines({"name": "x", "commercial": LONG})
    assert all(len(line) <= n for line in shown)
    assert " ".join(" ".join(shown).split()) == f"name x commercial {LONG}"
    assert all(line.startswith(" " * 12) for line in shown[2:])


def test_on_a_very_narrow_screen_a_fact_goes_below_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    screen(monkeypatch, 30)
    shown = facts.lines({"commercial use": LONG})
    assert shown[0] == "commercial use"
    assert all(line.startswith("  ") and len(line) <= 30 for line in shown[1:])


def test_an_address_is_never_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    screen(monkeypatch, 40)
    address = "https://example.org/" + "a" * 80
    assert any(address in line for line in facts.lines({"text": f"see {address} for more"}))


def test_what_would_steer_the_terminal_is_made_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    screen(monkeypatch, 60)
    assert facts.lines({"data": "x\x1b[2J\ny"}) == ["data  x\\x1b[2J\\ny"]


def test_a_long_note_is_broken_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = screen(monkeypatch, 40)
    facts.note(LONG, Output())
    assert all(len(line) <= 40 for line in shown.getvalue().splitlines())
    assert " ".join(shown.getvalue().split()) == LONG
