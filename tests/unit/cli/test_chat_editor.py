"""The editor of a chat, with real keys and a screen that a person would see."""

import os
import random
import re
import stat
import sys
import threading
from pathlib import Path

import pytest

from owm.cli.chat.completion import Facts
from owm.cli.chat.toolbar import Status
from owm.errors import StoreError
from support.editor import Desk

UP, DOWN, ALT_ENTER, CTRL_C, CTRL_D, TAB = "\x1b[A", "\x1b[B", "\x1b\r", "\x03", "\x04", "\t"
ELSEWHERE, SEARCH_BACK, HOME = "\x18\x05", "\x12", "\x01"
FULL = Status(model="smollm2:135m:Q4_K_M", n_used=3400, n_ctx=8192, rate=47.3, branch="fork-1", n_branches=2)


def test_enter_sends_the_line() -> None:
    with Desk() as desk:
        assert desk.read("hello\r") == "hello"
        assert desk.text() == "> hello"


def test_blank_lines_are_not_sent() -> None:
    with Desk() as desk:
        assert desk.read("\r  \r\n\rhello\r") == "hello"


def test_alt_enter_begins_a_new_line_and_enter_sends_all() -> None:
    with Desk() as desk:
        assert desk.read(f"one{ALT_ENTER}two\x1b\nthree\r") == "one\ntwo\nthree"
        assert desk.text() == "> one\n  two\n  three"


def test_three_quotes_open_a_block_that_three_quotes_close() -> None:
    with Desk() as desk:
        desk.begin().type('"""\rone\r\r  two\r').wait_for('""" ends it')
        assert desk.type('"""\r').end() == "one\n\n  two"
        assert desk.read('"""/undo"""\r') == "//undo"


def test_code_with_quotes_of_its_own_can_be_pasted_as_it_is() -> None:
    code = '"""What it does."""\nimport os'
    with Desk() as desk:
        assert desk.begin().paste(code).type("\r").end() == code


def test_a_paste_of_several_lines_is_never_sent_by_itself() -> None:
    with Desk() as desk:
        desk.begin().paste("one\r\ntwo\rthree\n").wait_for("three")
        assert desk.buffer() == "one\ntwo\nthree\n"
        assert desk.type("four\r").end() == "one\ntwo\nthree\nfour"


def test_a_paste_can_be_taken_back_at_once() -> None:
    with Desk() as desk:
        desk.begin().type("keep ").paste("a\nb").wait_for("b")
        assert desk.type("\x1f\r").end() == "keep "


def test_what_steers_a_terminal_is_shown_by_its_number_and_sent_as_it_is() -> None:
    text = "a\x1b[31mred\x07 \u202eright\u200f\tend \x9b2J"
    with Desk(columns=100) as desk:
        desk.begin().paste(text).wait_for("x9b2J")
        assert desk.text() == "> a\\x1b[31mred\\x07 \\u202eright\\u200f  end \\x9b2J"
        assert desk.type("\r").end() == text
        assert "\u202e" not in desk.raw
        assert "\x1b[31m" not in desk.raw
        assert "\x07" not in desk.raw


def test_the_cursor_stands_right_beside_what_is_shown_by_its_number() -> None:
    with Desk() as desk:
        desk.begin().paste("\x1b\x1b").type("x").wait_for("\\x1b\\x1bx")
        assert desk._screen.cursor.x == len("> \\x1b\\x1bx")
        assert desk.type("\x02\x02y\r").end() == "\x1by\x1bx"


def test_bytes_that_are_no_text_are_replaced() -> None:
    with Desk() as desk:
        assert desk.begin().type(b"caf\xe9 \xff\r").end() == "caf\ufffd \ufffd"


def test_wide_characters_take_two_columns() -> None:
    with Desk(columns=20) as desk:
        desk.begin().type("猫" * 12).wait_for("猫")
        desk.wait_until(lambda: len(desk.text().splitlines()) == 2)
        assert desk._screen.cursor.x == 2 + 2 * 3
        assert desk.type("\x7f\x7f🐈\r").end() == "猫" * 10 + "🐈"


def test_a_large_paste_is_taken_whole() -> None:
    text = "\n".join(f"line {number} of a log with some words in it" for number in range(2_000))
    with Desk() as desk:
        desk.begin().paste(text).wait_for("line 1999")
        assert desk.type("\r").end() == text


def test_ctrl_c_clears_the_line_and_up_brings_it_back() -> None:
    with Desk() as desk:
        desk.begin().type(f"one{ALT_ENTER}two").wait_for("two").type(CTRL_C)
        desk.wait_until(lambda: desk.text().rstrip() == ">")
        assert desk.type(f"{UP}!\r").end() == "one\ntwo!"


def test_ctrl_c_with_nothing_typed_interrupts() -> None:
    with Desk() as desk:
        with pytest.raises(KeyboardInterrupt):
            desk.read(CTRL_C)
        with pytest.raises(KeyboardInterrupt):
            desk.read(f"text{CTRL_C}{CTRL_C}")


def test_ctrl_d_leaves_only_if_nothing_is_typed() -> None:
    with Desk() as desk:
        with pytest.raises(EOFError):
            desk.read(CTRL_D)
        assert desk.read(f"abc{HOME}{CTRL_D}\r") == "bc"


def test_a_keyboard_that_is_gone_ends_the_reading() -> None:
    with Desk() as desk:
        desk.begin()
        desk._keys.close()
        with pytest.raises(EOFError):
            desk.end()


def test_in_multi_mode_enter_begins_a_new_line_and_alt_enter_sends() -> None:
    with Desk(is_multi=True) as desk:
        desk.begin().type("one\rtwo").wait_for("Alt-Enter sends")
        assert desk.type(ALT_ENTER).end() == "one\ntwo"
        assert desk.read(f"one\rtwo{CTRL_D}") == "one\ntwo"
        assert desk.read("/multi off\r") == "/multi off"
        desk.editor.is_multi = False
        assert desk.read("one\r") == "one"


def test_tab_at_the_beginning_of_a_line_of_several_indents() -> None:
    with Desk() as desk:
        assert desk.read(f"def f():{ALT_ENTER}{TAB}pass\r") == "def f():\n    pass"


def test_a_text_can_be_there_to_begin_with() -> None:
    with Desk() as desk:
        assert desk.read("!\r", text="one\ntwo") == "one\ntwo!"


def test_history_is_found_by_another_editor(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with Desk(history=path) as desk:
        desk.read("first\r")
        desk.read(f"two{ALT_ENTER}lines\r")
        desk.read(f"never sent{CTRL_C}/undo\r")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Desk(history=path) as desk:
        assert desk.read(f"{UP}\r") == "/undo"
        assert desk.read(f"{UP}{UP}{UP}{UP}{UP}{UP}\r") == "first"
        assert desk.read(f"{UP}{UP}{DOWN}\r") == "first"


def test_history_is_searched_backwards(tmp_path: Path) -> None:
    with Desk(history=tmp_path / "history") as desk:
        for line in ("alpha one", "beta two", "gamma three"):
            desk.read(f"{line}\r")
        desk.begin().type(f"{SEARCH_BACK}alp").wait_for("search back: alp")
        desk.wait_for("> alpha one")
        assert desk.type("\r\r").end() == "alpha one"


def test_ctrl_c_leaves_the_search_first() -> None:
    with Desk() as desk:
        desk.read("alpha\r")
        desk.begin().type(f"{SEARCH_BACK}alp").wait_for("search back").type(CTRL_C)
        desk.wait_until(lambda: "search back" not in desk.text())
        assert desk.type("x\r").end() == "x"


def test_without_a_file_history_lasts_as_long_as_the_editor(tmp_path: Path) -> None:
    with Desk() as desk:
        desk.read("one\r")
        assert desk.read(f"{UP}\r") == "one"
    assert not list(tmp_path.iterdir())


def test_history_that_cannot_be_kept_is_told_once(tmp_path: Path) -> None:
    with Desk(history=tmp_path) as desk:
        desk.begin().wait_for("what you type is not kept for other chats: cannot read")
        assert desk.type("one\r").end() == "one"
        assert desk.read(f"{UP}!\r") == "one!"
        assert desk.text().count("not kept") == 1


def test_a_damaged_history_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b'"one"\n\xff\xfe{"\n"two"\n"thr')
    with Desk(history=path) as desk:
        assert desk.read(f"{UP}{UP}\r") == "one"


def test_tab_completes_a_command_and_its_argument() -> None:
    with Desk(Facts(branch_names=lambda: ["main", "fork-1"])) as desk:
        assert desk.read(f"/und{TAB}\r") == "/undo"
        assert desk.read(f"/sw{TAB}f{TAB}\r") == "/switch fork-1"


def test_several_offers_are_listed_under_the_line_and_enter_takes_one() -> None:
    with Desk() as desk:
        desk.begin().type(f"/e{TAB}").wait_for("/export [FILE]").wait_for("change your turn N")
        desk.type(TAB).wait_for("> /edit")
        desk.type("\r")
        desk.wait_until(lambda: "/export [FILE]" not in desk.text())
        assert desk.type("2\r").end() == "/edit 2"


def test_ctrl_c_closes_the_list_and_gives_the_line_back() -> None:
    with Desk() as desk:
        desk.begin().type(f"/e{TAB}").wait_for("/export")
        desk.type(TAB).wait_for("> /edit").type(CTRL_C)
        desk.wait_until(lambda: "/export" not in desk.text())
        assert desk.buffer() == "/e"


def test_tab_completes_a_path_with_blanks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my file.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    with Desk() as desk:
        assert desk.read(f"see @my{TAB} please\r") == 'see @"my file.txt" please'
        assert desk.read(f"/file my{TAB}\r") == '/file "my file.txt"'


def test_facts_that_cannot_be_had_offer_nothing() -> None:
    def fail() -> list[str]:
        raise StoreError("the store cannot be read")

    with Desk(Facts(model_names=fail)) as desk:
        assert desk.read(f"/model x{TAB}y\r") == "/model xy"


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (60, "smollm2:135m:Q4_K_M  ████░░░░░░ 3,400/8,192  47 t/s  fork-1"),
        (100, "smollm2:135m:Q4_K_M  ████░░░░░░ 3,400/8,192  47 t/s  fork-1"),
        (200, "smollm2:135m:Q4_K_M  ████░░░░░░ 3,400/8,192  47 t/s  fork-1"),
        (30, "smollm2:135m:Q4_K_M"),
    ],
)
def test_the_toolbar_stands_right_under_the_line_and_is_gone_afterwards(columns: int, line: str) -> None:
    with Desk(status=lambda: FULL, columns=columns) as desk:
        desk.begin().type("hi").wait_for("> hi")
        assert desk.text() == f"> hi\n{line}"
        desk.type("\r").end()
        assert desk.text() == "> hi"


def test_the_toolbar_is_drawn_anew_when_asked() -> None:
    model = ["loading"]
    with Desk(status=lambda: Status(model=model[0])) as desk:
        desk.begin().wait_for("loading")
        model[0] = "ready"
        desk.editor.refresh()
        desk.wait_for("ready")
        desk.type("x\r").end()
        desk.editor.refresh()


def test_notes_are_written_above_what_is_typed() -> None:
    with Desk(status=lambda: FULL) as desk:
        desk.editor.note("before it opens")
        desk.begin().type("half a li").wait_for("half a li")
        note = threading.Thread(target=desk.editor.note, args=("the model is\x1b[2J there",))
        note.start()
        note.join()
        desk.wait_for("the model is")
        desk.wait_for("> half a li")
        assert desk.type("ne\r").end() == "half a line"
        assert desk.text() == "before it opens\nthe model is\\x1b[2J there\n> half a line"


def test_a_window_of_another_size_is_drawn_anew() -> None:
    text = "words that are a little longer than the window will be"
    with Desk(status=lambda: FULL, columns=100) as desk:
        desk.begin().type(text).wait_for("fork-1")
        desk.resize(30, 10)
        desk.wait_until(lambda: "smollm2" in desk.text() and "fork-1" not in desk.text())
        desk.resize(120, 40)
        desk.wait_for("fork-1")
        assert desk.type("\r").end() == text


@pytest.mark.parametrize(("columns", "rows"), [(8, 3), (1, 1), (20, 2), (2, 10)])
def test_windows_of_any_size_can_be_typed_in(columns: int, rows: int) -> None:
    with Desk(status=lambda: FULL, columns=columns, rows=rows) as desk:
        assert desk.read(f"some words 猫 and more{ALT_ENTER}than fits\r") == "some words 猫 and more\nthan fits"


def test_without_colour_no_colour_is_written() -> None:
    with Desk(status=lambda: FULL, has_color=False) as desk:
        desk.begin().type(f"/e{TAB}").wait_for("/export").type(f"{CTRL_C}\x1b[31m").type("\r")
        desk.end()
        codes = {int(code) for found in re.findall(r"\x1b\[([\d;]+)m", desk.raw) for code in found.split(";")}
        assert codes
        assert max(codes) < 30


def test_the_terminal_is_never_asked_where_its_cursor_is() -> None:
    with Desk() as desk:
        desk.read("one\r")
        assert "\x1b[6n" not in desk.raw


def test_paste_mode_is_off_and_the_cursor_is_shown_after_every_end() -> None:
    def fail() -> Status:
        if len(seen) > 3:
            raise ZeroDivisionError("broken")
        seen.append(1)
        return Status()

    seen: list[int] = []
    with Desk(status=fail) as desk:
        with pytest.raises(ZeroDivisionError):
            desk.begin().type("abcdef").end()
        assert desk.raw.rstrip().rfind("\x1b[?2004l") > desk.raw.rfind("\x1b[?2004h")
        assert desk.has_cursor()


def _script(folder: Path, body: str) -> str:
    script = folder / "my editor.py"
    script.write_text(f"import sys, os\nfrom pathlib import Path\nfile = Path(sys.argv[-1])\n{body}\n")
    return f"{sys.executable} '{script}' --wait"


def test_the_external_editor_gets_the_text_and_gives_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "f'{file.name} {oct(os.stat(file.parent).st_mode)} {file.read_text()}'"
    body = f"Path({str(tmp_path / 'seen')!r}).write_text({said})"
    monkeypatch.setenv("EDITOR", "no-such-program")
    monkeypatch.setenv("VISUAL", _script(tmp_path, f"{body}\nfile.write_text('猫\\n  two\\n')"))
    with Desk() as desk:
        desk.begin().type(f"one{ALT_ENTER}more{ELSEWHERE}").wait_for("  two")
        assert (tmp_path / "seen").read_text() == "prompt.md 0o40700 one\nmore\n"
        assert desk.type("!\r").end() == "猫\n  two!"


def test_an_editor_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = f"file.write_text('other')\nPath({str(tmp_path / 'done')!r}).touch()\nsys.exit(1)"
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", _script(tmp_path, body))
    with Desk() as desk:
        desk.begin().type(f"one{ELSEWHERE}")
        desk.wait_until((tmp_path / "done").exists)
        desk.wait_until(lambda: not desk.editor.is_elsewhere)
        assert desk.type("!\r").end() == "one!"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/no/such/program --wait", "cannot start /no/such/program: No such file or directory"),
        ("'unclosed", "$EDITOR is no command"),
    ],
)
def test_an_editor_that_does_not_start_is_told_of(command: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", command)
    with Desk(columns=120) as desk:
        desk.begin().type(f"one{ELSEWHERE}").wait_for(said)
        assert desk.type("!\r").end() == "one!"


def test_an_editor_that_leaves_no_text_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", _script(tmp_path, "file.write_bytes(b'caf\\xe9')"))
    with Desk(columns=120) as desk:
        desk.begin().type(f"one{ELSEWHERE}").wait_for("your editor left no UTF-8 text (byte 3)")
        assert desk.type("!\r").end() == "one!"


ANSWERS = {"c": "compact the oldest turns", "d": "drop the oldest turns", "s": "stop"}


@pytest.mark.parametrize(("keys", "answer"), [("c\r", "c"), ("Drop\r", "d"), ("x\r\rs\r", "s"), (CTRL_C, None)])
def test_a_question_is_asked_until_it_is_answered(keys: str, answer: str | None) -> None:
    with Desk() as desk:
        desk.begin(desk.editor.choose, "the next turn will not fit:", ANSWERS)
        listed = "\n".join(f"  {key}  {meaning}" for key, meaning in ANSWERS.items())
        desk.wait_for(f"the next turn will not fit:\n{listed}\n>")
        assert desk.type(keys).end() == answer
        assert desk.read("next\r") == "next"


def test_a_wrong_answer_is_told_what_the_right_ones_are() -> None:
    with Desk() as desk:
        desk.begin(desk.editor.choose, "which?", {"1": "", "2": ""}).type("3\r").wait_for("one of: 1, 2")
        assert desk.type("2\r").end() == "2"


def test_keys_that_nobody_knows_do_nothing() -> None:
    with Desk() as desk:
        assert desk.read("a\x1b[1;9Z\x1bOq\x1b[<0;1;1M\x00b\x1c\r") is not None


def test_no_keys_whatever_make_it_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = random.Random(11)
    pieces = [UP, DOWN, ALT_ENTER, CTRL_C, TAB, SEARCH_BACK, "\x1b[31m", "\x1b[200~a\nb\x1b[201~"]
    pieces += ['"""', "/", "猫", "@"]
    pieces += [chr(code) for code in range(32) if code not in (0x04, 0x1A)] + ["\x1b[<0;1M", "\x1b[M", "\x1b[Z", "\x1b"]
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.delenv("VISUAL", raising=False)
    with Desk(columns=40, rows=12) as desk:
        for _ in range(60):
            keys = "".join(chosen.choice(pieces) if chosen.random() < 0.7 else "a b" for _ in range(40))
            desk.begin().type(keys)
            while True:
                desk.type("\x07\x07 \x1b[201~")
                desk.type("\r\x1b\r")
                desk._thread.join(0.05)  # type: ignore[union-attr]
                if not desk._is_running():
                    break
            assert isinstance(desk._result, str | KeyboardInterrupt), keys


def test_the_module_costs_no_prompt_toolkit() -> None:
    code = (
        "import sys, owm.cli.chat.editor, owm.cli.chat.commands, owm.cli.chat.completion, owm.cli.chat.terminal\n"
        "print([name for name in sys.modules if name.startswith('prompt_toolkit')])"
    )
    from support.run import run

    assert run(["-c", code]) == "[]\n"
    assert os.environ["NO_COLOR"] == "1"
