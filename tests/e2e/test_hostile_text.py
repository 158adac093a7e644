"""Text of strangers on a real terminal: nothing of it steers the terminal, and all of it can be seen for what it is.

The registry of fields is in `support.hostile_fields`; a test sees to it that no command is left out.
"""

import io
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import support.hostile_fields.answers
import support.hostile_fields.files
import support.hostile_fields.kept
import support.hostile_fields.sources  # noqa: F401  each of them registers its cases
from owm.chat import export
from owm.chat.sessions import open_sessions
from owm.cli.app import COMMANDS, main
from owm.hardware import bandwidth, matmul
from owm.library import fit_speeds
from owm.store.local import Store
from support.chat_terminal import CTRL_C, TAB, ChatTerminal
from support.hostile_fields import CASES, Stage
from support.hostile_fields.answers import THINKING, write_model
from support.hostile_text import IN_FILE_NAME, Seen, is_shown, planted, run_on_terminal, steering
from support.run import run_here
from support.scripted_gguf import write_scripted_gguf
from support.stored import put_model
from support.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes no time."""
    monkeypatch.setattr(bandwidth, "measure", lambda *, n_threads: 2.5e10)
    monkeypatch.setattr(matmul, "measure", lambda type_name, *, n_threads: 1e11)
    monkeypatch.setattr(fit_speeds, "MEASURING_SECONDS", 0.0)


def check(seen: Seen) -> None:
    """Assert that nothing steers the terminal."""
    assert steering(seen.output) == [], seen.output


@pytest.mark.parametrize("title", CASES)
def test_planted_text_is_seen_and_steers_nothing(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    case = CASES[title]
    monkeypatch.chdir(tmp_path)
    words = case.plant(Stage(tmp_path, monkeypatch, request))
    seen = run_on_terminal(monkeypatch, *words, typed=case.typed)
    check(seen)
    missing = [field for field in case.fields if not is_shown(field, seen.output)]
    assert not missing, seen.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_was_called_with_safely(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = run_on_terminal(monkeypatch, command, f"--{planted('flag')}")
    check(seen)
    assert is_shown("flag", seen.output)


def test_no_command_is_without_a_field() -> None:
    shown = {title.partition(",")[0].partition(" ")[0] for title in CASES}
    assert set(COMMANDS) - shown == {"ls", "logout", "cache"}  # `list`, no text of strangers, numbers


def test_names_of_files_that_are_no_text_fail_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Into a pipe the bytes go as they are, so that `$(owm path …)` names the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d\udc9b").mkdir()
    path = write_tiny_gguf(tmp_path / "d\udc9b" / "m\udc9b\udcff.gguf", n_blocks=1)
    (tmp_path / "rows\udc9b.txt").write_text("Why?\n")
    lines: list[list[str | Path]] = [
        ["show", path], ["show", path, "--json"], ["fit", path], ["quantize", path, "Q8_0", "-o", "o\udc9b.gguf"],
        ["import", "--from", path.parent, "--dry-run"], ["import", "--from", path.parent], ["list"],
        ["list", "--json"], ["du"], ["run", path, "Hi", "-n", "1"],
        ["batch", "rows\udc9b.txt", "-m", path, "-n", "1", "-o", "a\udc9b.jsonl"],
        ["split", path, "--max-size", "100K", "--dry-run"], ["verify", path], ["export", path, "d\udc9b"],
        ["logs", "path"], ["prompts", "save", "mine", "rows\udc9b.txt"],
    ]  # fmt: skip
    for words in lines:
        check(run_on_terminal(monkeypatch, *words))
        main([*map(os.fspath, words)])
        assert b"\x9b" not in capsysbinary.readouterr().err
    assert main(["path", os.fspath(path)]) == 0
    assert capsysbinary.readouterr().out == os.fsencode(path) + b"\n"


def test_an_answer_goes_into_a_pipe_as_it_is_and_a_thought_beside_it_is_made_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(Stage(tmp_path, monkeypatch, request))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    done = run_here(capsys, "run", model, "Why?", "--temp", "0", "--think", "show")
    assert done.rstrip("\n") == planted("answer")
    assert steering(done.stderr) == []
    assert is_shown("thought", done.stderr)


def test_a_hostile_conversation_on_the_screen_of_a_chat_steers_nothing(tmp_path: Path, store: Store) -> None:
    """The answer in Markdown, its thought, the toolbar, the menu of completions, errors, and the past."""
    script = ["<think>", *"thought\x1b[1;5H\x9b\u2067\x85", "</think>", *planted("answer")]
    name = f"m{IN_FILE_NAME}.gguf".replace("\udc9b", "")
    write_scripted_gguf(tmp_path / name, script, template=THINKING, marks=("<think>", "</think>"), n_ctx_train=1024)
    put_model(store, "acme/menu", f"label{IN_FILE_NAME}".replace("\udc9b", ""))
    (tmp_path / f"entry{IN_FILE_NAME}").mkdir()
    raw = ""
    with ChatTerminal(f"./{name}", "--temp", "0", "--think", "show", cwd=tmp_path, columns=180) as terminal:
        terminal.wait_for_prompt().send("Why?")
        terminal.wait_for("FORGED").wait_for_editor()
        terminal.type("/model acme/").type(TAB).wait_for("menu").type(CTRL_C)
        terminal.type("/file entry").type(TAB).wait_until(lambda: "/" in terminal.typed[6:]).type(CTRL_C)
        terminal.say(f"/model {IN_FILE_NAME[:3]}none")
        for command in ("/title x\x9b31my", "/show", "/set", "/copy nothing", "/think show", "/raw on"):
            terminal.say(command)
        terminal.leave()
        raw += terminal.raw.decode("utf-8", "surrogateescape")
    with ChatTerminal("--continue", cwd=tmp_path, columns=180) as terminal:
        terminal.wait_for_editor()
        terminal.leave()
        raw += terminal.raw.decode("utf-8", "surrogateescape")
    rest = re.sub(r"\x1b\[(?!66;99|1;5H)[?>]?[\d;]*(?: q|[A-Za-z])|\x1b[=>]", "", raw)
    assert steering(re.sub("[\r\b]", "", rest)) == []
    assert is_shown("answer", rest)
    assert is_shown("thought", rest)


class _Page(HTMLParser):
    """What a browser would make of a page: its elements and the places that it leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += attrs


def test_a_page_of_a_conversation_runs_nothing_and_loads_nothing(tmp_path: Path) -> None:
    evil = (
        "<script>alert(1)</script><img src=x onerror=alert(1)><svg/onload=alert(1)></title></style>"
        "[a](javascript:alert(1)) [b](data:text/html,x) [c](VBSCRIPT:x) ![d](https://evil.example/x) "
        '<a href="https://evil.example" onclick=x>e</a> ```"><script>1</script>\n"onmouseover="x\n``` '
        "</details></div><iframe src=//evil.example> &lt;script&gt; \x1b]52;c;aGk=\x07\x9b2J"
    )
    with open_sessions().create() as session:
        session.set_model(evil, "0" * 64)
        session.set_system(evil)
        session.add_turn("user", evil, attachments=[evil])
        session.add_turn("assistant", evil, reasoning=evil, finish_reason=evil)
        session.set_title(evil)
    page = export.as_html(session)
    read = _Page()
    read.feed(page)
    allowed = "html head meta title style body header h1 h2 h3 p span div details summary a code pre em strong br"
    assert read.elements <= set(allowed.split())
    assert not [name for name, _ in read.attributes if name.startswith("on") or name in ("src", "srcdoc", "style")]
    assert not [value for name, value in read.attributes if name == "href" and not str(value).startswith("http")]
    assert "default-src 'none'" in page
    assert not [c for c in page if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]
