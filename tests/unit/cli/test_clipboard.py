"""The clipboard through the programs of a desktop, which here are small scripts, and through the terminal."""

import base64
import io
import sys
from pathlib import Path

import pytest

from owm.cli.chat import clipboard
from owm.errors import OwmError, Unsupported, UsageError


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def put(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A desktop of Wayland, whose clipboard is a file."""
    put(tmp_path, "wl-copy", f"/bin/cat > {tmp_path}/content; /bin/sleep 5 &")
    put(tmp_path, "wl-paste", f'[ "$1" = --no-newline ] && /bin/cat {tmp_path}/content')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    return tmp_path


def test_a_text_goes_there_and_back(desktop: Path) -> None:
    assert clipboard.copy("zwei\nZeilen, 日本語\n") == "`wl-copy`"
    assert clipboard.paste() == "zwei\nZeilen, 日本語\n"


def test_a_program_is_used_only_where_its_desktop_is(desktop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(desktop, "xclip", f'case "$*" in *-o) echo x;; *) /bin/cat > {desktop}/x;; esac')
    monkeypatch.delenv("WAYLAND_DISPLAY")
    monkeypatch.setenv("DISPLAY", ":0")
    assert clipboard.copy("a") == "`xclip`"
    assert clipboard.paste() == "x\n"


def test_without_a_program_the_terminal_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    stdout = Tty()
    monkeypatch.setattr(sys, "stdout", stdout)
    assert clipboard.copy("hé\x1b[2J") == "the terminal (OSC 52)"
    content = stdout.getvalue().removeprefix("\x1b]52;c;").removesuffix("\x07")
    assert base64.b64decode(content).decode() == "hé\x1b[2J"
    with pytest.raises(UsageError, match="at most"):
        clipboard.copy("x" * 100_000)


def test_without_either_there_is_no_clipboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unsupported, match="no clipboard"):
        clipboard.copy("a")
    with pytest.raises(Unsupported, match="no program"):
        clipboard.paste()


def test_what_fails_is_one_sentence(desktop: Path) -> None:
    put(desktop, "wl-paste", "exit 3")
    with pytest.raises(OwmError, match="`wl-paste` fails, with exit code 3"):
        clipboard.paste()
    put(desktop, "wl-paste", r"printf '\377\376'")
    with pytest.raises(OwmError, match="no text"):
        clipboard.paste()
