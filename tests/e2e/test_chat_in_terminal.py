"""`owm chat` on a terminal: the real program in a real pseudo-terminal, with tiny models that say what is wanted."""

import json
import re
import shlex
import shutil
import signal
import stat
from pathlib import Path

import pytest

from owm.chat.session import Session
from owm.chat.sessions import open_sessions
from owm.store.local import Store
from support.chat_terminal import (
    ALT_ENTER,
    BACKSPACE,
    CTRL_C,
    CTRL_R,
    ENTER,
    EXTERNAL,
    OWM,
    TAB,
    UP,
    ChatTerminal,
)
from support.scripted_gguf import write_scripted_gguf
from support.stored import put_model

pytestmark = pytest.mark.slow

# Few tokens between a question and its answer, so that a script can depend on how the question ends.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)
ASKED = "<|im_end|><|im_start|>"
CODE = "Here:\n\n```python\nprint(1)\n```\n\nand\n\n```sh\nls -l\n```\n"
THINKS = ("<think>", "</think>")
WORDS = [f" {word}" for word in "again and anew it goes on with more of these words, so that a row is filled".split()]


def write(path: Path, *script: str, **answers: str) -> Path:
    """Write a model that gives `answers` to what ends with their names, and else says `script`."""
    return write_scripted_gguf(
        path,
        "".join(script) or "I do not know.",
        after={f"{asked}{ASKED}": answer for asked, answer in answers.items()},
        template=TEMPLATE,
        n_ctx_train=2048,
    )


@pytest.fixture
def talker(tmp_path: Path) -> Path:
    return write(tmp_path / "talker.gguf", one="That was *first*.", two="Now **second**.", code=CODE)


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    return write_scripted_gguf(
        tmp_path / "endless.gguf", [*WORDS, "\n\n"], loop_from=0, template=TEMPLATE, n_ctx_train=1 << 20
    )


def latest() -> Session:
    path = open_sessions().latest()
    assert path is not None
    return Session.read(path)


def said(session: Session) -> list[str]:
    return [turn.content for turn in session.path()]


# -- typing -----------------------------------------------------------------------------------------------------------


def test_prompts_of_several_lines_are_typed_pasted_and_written_elsewhere(talker: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho "and this" >> "$1"\n')
    editor.chmod(0o700)
    with ChatTerminal(talker, env={"VISUAL": str(editor)}) as terminal:
        terminal.wait_for_editor()  # while the model loads
        terminal.type(f"a{ALT_ENTER}b{ENTER}").wait_for("I do not know.")
        terminal.say('"""\n/undo\none\n"""')
        terminal.wait_for_editor().paste("c\nd").wait_for("  d")
        assert terminal.typed == "c\nd"
        terminal.say("")
        terminal.type(f"e{EXTERNAL}").wait_for("and this")
        terminal.say("")
        terminal.say("/multi")
        terminal.type(f"f{ENTER}two").wait_until(lambda: terminal.typed == "f\ntwo")
        assert terminal.toolbar == "Alt-Enter sends"
        assert terminal.say("", end=ALT_ENTER) == "Now second."
        terminal.type("oops").wait_for("oops").type(CTRL_C).wait_until(lambda: not terminal.typed)
        assert terminal.leave() == 0
        assert terminal.is_sane
    assert said(latest())[::2] == ["a\nb", "/undo\none", "c\nd", "e\nand this", "f\ntwo"]


def test_what_is_typed_during_an_answer_is_there_afterwards(endless: Path) -> None:
    with ChatTerminal(endless, "--max-tokens", "500") as terminal:
        terminal.wait_for_prompt().send("Go").wait_for("again and anew")
        terminal.type(f"next{BACKSPACE}d").wait_for("the answer was cut at `max_tokens`")
        terminal.wait_until(lambda: terminal.is_editing and terminal.typed == "nexd")
        assert "next" not in "".join(terminal.lines())


def test_what_is_typed_during_an_answer_is_there_after_it_was_stopped(endless: Path) -> None:
    with ChatTerminal(endless) as terminal:
        terminal.wait_for_prompt().send("Go").wait_for("again and anew")
        terminal.type("next").type(CTRL_C).wait_for("stopped")
        terminal.wait_until(lambda: terminal.is_editing and terminal.typed == "next")


def test_tab_completes_commands_models_settings_branches_and_paths(talker: Path, store: Store, tmp_path: Path) -> None:
    put_model(store, "acme/other-GGUF", "Q4_0")
    (tmp_path / "notes about.txt").write_text("x")
    (tmp_path / "side-by-side.py").write_text("y")
    with ChatTerminal(talker, cwd=tmp_path) as terminal:
        terminal.wait_for_prompt()
        for keys, shown in (
            ("/und", "/undo"),
            ("/model oth", "/model acme/other-GGUF:Q4_0"),
            ("/set temp", "/set temp"),
            ("/set overflow co", "/set overflow compact"),
            ("/think sh", "/think show"),
            ("see @no", 'see @"notes about.txt"'),
            ("/file side", "/file side-by-side.py"),
            ("/raw of", "/raw off"),
        ):
            terminal.type(keys + TAB).wait_until(lambda shown=shown: terminal.typed.rstrip() == shown, shown)
            terminal.type(CTRL_C).wait_until(lambda: not terminal.typed, "the line to be cleared")
        terminal.type(f"/e{TAB}").wait_for("/export").wait_for("change your turn N")
        terminal.type(CTRL_C).type(CTRL_C).wait_until(lambda: not terminal.typed)


def test_what_was_typed_is_there_in_the_next_chat_but_for_private_ones(talker: Path, clean_environment: Path) -> None:
    with ChatTerminal(talker) as terminal:
        terminal.wait_for_prompt().say("one")
        terminal.say("two")
        terminal.leave()
    history = clean_environment / "owm" / "chat-history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    with ChatTerminal(talker, "--private") as terminal:
        terminal.wait_for_editor().type(UP).wait_until(lambda: terminal.typed == "", "nothing")
        terminal.say("a secret")
        assert terminal.leave() == 0
        assert "kept as" not in terminal.text()
    with ChatTerminal(talker) as terminal:
        terminal.wait_for_editor().type(UP + UP).wait_until(lambda: terminal.typed == "one", "one")
        terminal.type(CTRL_C).wait_until(lambda: not terminal.typed)
        terminal.type(f"{CTRL_R}tw").wait_for("search back").wait_until(lambda: "two" in terminal.text())
    left = [path for path in clean_environment.rglob("*") if path.is_file()]
    assert {path.name for path in left} >= {"chat-history"}
    assert not [path for path in left if b"secret" in path.read_bytes()]
    assert len(open_sessions().summaries()) == 1


# -- answers ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_the_answer_and_keeps_what_is_there(endless: Path) -> None:
    with ChatTerminal(endless) as terminal:
        terminal.wait_for_prompt().send("Go").wait_for("again and anew")
        terminal.type(CTRL_C).wait_for("stopped; what is there is kept").wait_for_editor()
        assert re.search(r"endless\.gguf  █░{9} [\d,]+/1,048,576  [\d.]+ t/s", terminal.toolbar)
        terminal.type(CTRL_C).wait_for("Ctrl-D or `/quit` leaves").wait_for_editor()
        assert terminal.leave() == 0
        assert terminal.is_sane
        session = latest()
        assert f"kept as {session.id}; `owm chat --continue` goes on with it" in terminal.text()
    answer = session.path()[1]
    assert (answer.finish_reason, answer.content[:10]) == ("cancelled", " again and")
    with ChatTerminal("--continue") as terminal:
        terminal.wait_for_prompt()
        assert terminal.text().startswith("> Go\n")
        assert "(stopped)" in terminal.text()
        assert terminal.say("/undo") == "took back: Go (0 turns of yours left; `/branches` has it still)"


def test_thoughts_are_dim_and_live_and_one_line_in_the_end(tmp_path: Path) -> None:
    thinker = write_scripted_gguf(
        tmp_path / "thinker.gguf",
        "<think>First this, then that.</think>So it is.",
        after={"<think></think>": "At once."},
        marks=THINKS,
        template=TEMPLATE,
        n_ctx_train=2048,
    )
    muse = write_scripted_gguf(
        tmp_path / "muse.gguf", ["<think>", " hm", " well"], loop_from=1, marks=THINKS, template=TEMPLATE,
        n_ctx_train=1 << 20,
    )  # fmt: skip
    thought = re.compile(r"thought for \S+ m?s, 7 tokens\n\nSo it is\.")
    with ChatTerminal(thinker) as terminal:
        terminal.wait_for_prompt()
        assert thought.fullmatch(terminal.say("Go"))
        assert "7 of them thought" in terminal.say("/stats")
        assert terminal.say("/think show").endswith("\nFirst this, then that.")
        assert terminal.say("Go").startswith("First this, then that.\nthought for ")
        terminal.say("/think hide")
        n_before = len(terminal.raw)
        assert thought.fullmatch(terminal.say("Go"))
        assert b"First" not in terminal.raw[n_before:]
        terminal.say("/think off")
        assert terminal.say("Go") == "At once."
        terminal.say("/think on")
        assert thought.fullmatch(terminal.say("Go"))
        terminal.say(f"/model {muse}")
        n_before = len(terminal.raw)
        terminal.send("Go").wait_for("hm well hm")
        assert re.search(rb"\x1b\[2m ?(hm|well) (hm|well) ", terminal.raw[n_before:])
        terminal.type(CTRL_C).wait_for("stopped; what is there is kept").wait_for_editor()
        assert "hm well" not in terminal.text()
    turns = latest().path()
    assert (turns[-1].content, turns[-1].finish_reason) == ("", "cancelled")
    assert turns[-1].reasoning is not None
    assert turns[1].reasoning == "First this, then that."


def test_a_window_may_change_its_size_while_an_answer_is_written(endless: Path) -> None:
    with ChatTerminal(endless, columns=60, rows=12) as terminal:
        terminal.wait_for_prompt().send("Go").wait_for("again and anew")
        for columns, rows in ((30, 8), (20, 5), (90, 24)):
            terminal.resize(columns, rows)
            n_before = len(terminal.raw)
            terminal.wait_until(lambda n_before=n_before: len(terminal.raw) > n_before + 200, "more of the answer")
        terminal.type(CTRL_C).wait_for("stopped").wait_for_editor()
        rows_seen = terminal.text().split("\n")
        assert rows_seen[-1].startswith("endless.gguf  █░░░░░░░░░ ")
        written = [row for row in rows_seen[:-4] if row]
        assert all(set(f" {row}".split()) <= {word.strip() for word in WORDS} for row in written[1:]), terminal.text()
        assert any(len(row) > 60 for row in written)
        assert terminal.leave() == 0
        assert terminal.is_sane


def test_an_answer_in_a_window_of_20_columns(tmp_path: Path) -> None:
    table = "| a | b |\n|---|---|\n| some words here | more of these |"
    text = f"# A heading of it\n\n{table}\n\n```\nx = 1\n```\n\n漢字漢字漢字漢字漢字漢字 end"
    model = write(tmp_path / "narrow.gguf", text)
    with ChatTerminal(model, columns=20, rows=30) as terminal:
        terminal.wait_for_prompt()
        shown = terminal.say("Go")
        assert "x = 1" in shown.split("\n")
        assert "".join(shown.split()).endswith("漢字漢字漢字漢字漢字漢字end")
        assert terminal.toolbar.startswith("narrow.gguf")
        assert len(terminal.say("/help").split("\n")) > 50
        terminal.say("/context")
        assert terminal.leave() == 0


@pytest.mark.parametrize(("env", "has_color"), [({"NO_COLOR": None}, True), ({"NO_COLOR": "1"}, False)])
def test_colors_are_there_unless_no_color_is_set(talker: Path, env: dict[str, str | None], has_color: bool) -> None:
    with ChatTerminal(talker, env=env) as terminal:
        terminal.wait_for_prompt().say("code")
        terminal.say("/udno")
        terminal.say("two")
        colors = re.findall(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-7]|9[0-7]|[34]8;[0-9;]+)m", terminal.raw)
        assert bool(colors) == has_color
        assert b"\x1b[1msecond" in terminal.raw


def test_a_dumb_terminal_gets_lines_without_escapes(talker: Path) -> None:
    with ChatTerminal(talker, env={"TERM": "dumb"}) as terminal:
        terminal.wait_for(">").type("two\n").wait_for("Now **second**.\n>")
        terminal.type("/undo\n").wait_for("took back: two").type("\x04")
        assert terminal.end() == 0
        assert b"\x1b" not in terminal.raw
        assert terminal.modes_left == terminal.modes_before


# -- going back -------------------------------------------------------------------------------------------------------


def test_undo_retry_edit_fork_and_switch(talker: Path) -> None:
    with ChatTerminal(talker) as terminal:
        terminal.wait_for_prompt()
        assert terminal.say("one") == "That was first."
        assert terminal.say("three") == "I do not know."
        assert terminal.say("/retry") == "I do not know."
        assert terminal.say("/undo") == "took back: three (1 turn of yours left; `/branches` has it still)"
        assert terminal.say("two") == "Now second."
        terminal.say("/edit 1")
        assert terminal.typed == "one"
        terminal.type(BACKSPACE * 3).wait_until(lambda: not terminal.typed)
        assert terminal.say("and two").splitlines() == [
            "in place of turn 1 of yours; `/branches` has what was there",
            "Now second.",
        ]
        assert terminal.say("/fork side").startswith("this is the branch side now")
        terminal.say("one")
        branches = terminal.say("/branches").split("\n")
        assert [" ".join(row.split()) for row in branches] == [
            "1 4 turns I do not know.",
            "2 4 turns I do not know.",
            "3 4 turns two",
            "4 main 2 turns and two",
            "* 5 side 4 turns one",
        ]
        assert terminal.toolbar.endswith("  side")
        assert terminal.say("/switch 3") == "this is the branch 3\n2 turns before\n> two\nNow second."
        assert terminal.toolbar.endswith("  3")
        assert terminal.say("/switch nope") == "error: no branch nope\nhint: there are: 1, 2, 3, main, side"
        terminal.say("/switch side")
        # What was read of the other branches was not thrown away.
        assert re.search(r"read (\d+) tokens? .*, (\d+) were there", terminal.say("/stats") or "")
        terminal.leave()
    assert said(latest()) == ["and two", "Now **second**.", "one", "That was *first*."]


def test_several_answers_side_by_side_of_which_one_is_picked(tmp_path: Path) -> None:
    model = write_scripted_gguf(
        tmp_path / "dice.gguf", [{"One": 0.4, "Two": 0.3, "Three": 0.3}, "."], template=TEMPLATE, n_ctx_train=2048
    )
    with ChatTerminal(model, "--seed", "3", columns=120) as terminal:
        terminal.wait_for_prompt().say("Go")
        asked = terminal.say("/alt 3")
        wide = asked.split("\n")
        assert [cell.strip() for cell in wide[0].split("│")] == ["1:", "2:", "3:"]
        drafts = [cell.strip() for cell in wide[1].split("│")]
        assert all(draft in ("One.", "Two.", "Three.") for draft in drafts)
        assert wide[3:] == ["which one is it?", *(f"  {n}  {text}" for n, text in enumerate(drafts, start=1))]
        terminal.type("9\r").wait_for("one of: 1, 2, 3")
        assert terminal.say("2") == "it goes on from answer 2; `/branches` has the others"
        n_before = len(terminal.raw)
        terminal.resize(60, 40)
        terminal.wait_until(lambda: len(terminal.raw) > n_before).wait_for_editor()
        terminal.send("/alt 2").wait_for("\n1:\n").wait_for("  2  ").wait_for_editor()
        terminal.type(CTRL_C).wait_for("none was picked; everything is as it was").wait_for_editor()
        terminal.leave()
    assert said(latest()) == ["Go", drafts[1]]
    assert len(latest().branches()) == 4


# -- models, files ----------------------------------------------------------------------------------------------------


def test_another_model_goes_on_with_the_conversation(talker: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.gguf", "I am another.")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and no more")
    with ChatTerminal(talker) as terminal:
        terminal.wait_for_prompt().say("one")
        assert terminal.say(f"/model {other}") == "other.gguf goes on with the conversation"
        assert terminal.toolbar.startswith("other.gguf  ")
        assert terminal.say("two") == "I am another."
        assert terminal.say(f"/model {tmp_path}/broken.gguf").startswith("error: ")
        assert terminal.say("two") == "I am another."
        assert terminal.say("/model").startswith("other.gguf, on the CPU")
        terminal.leave()
    session = latest()
    assert said(session) == ["one", "That was *first*.", "two", "I am another.", "two", "I am another."]
    assert session.model == str(other)


def test_files_go_with_a_prompt_and_code_and_conversations_into_files(talker: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("my notes")
    (tmp_path / "a.bin").write_bytes(b"\0")
    (tmp_path / "more.txt").write_text("and more\nof them")
    with ChatTerminal(talker, cwd=tmp_path) as terminal:
        terminal.wait_for_prompt()
        assert terminal.say("/file more.txt") == "more.txt (2 lines) goes with the next prompt"
        terminal.say("look at @notes.txt and code")
        assert terminal.say("/save-code a.py") == (
            "wrote a.py\nit is the first of 2 code blocks; `/save-code FILE N` takes another"
        )
        terminal.say("/save-code a.py 2")
        assert "a.py is there already:" in terminal.text()
        assert terminal.say("n") == "nothing was written"
        assert terminal.say("/save-code b.sh 2") == "wrote b.sh"
        assert terminal.say("/save-code c.sh 3") == "error: the answer has 2 code blocks\nhint: `/save-code c.sh 1`"
        for name in ("a.md", "a.json", "a.html"):
            assert terminal.say(f"/export {name}") == f"wrote {name}"
        assert terminal.say("/export a.txt").startswith("error: a.txt does not end in .md, .json or .html")
        assert terminal.say("see @a.bin").startswith("error: a.bin is binary")
        assert terminal.typed == "see @a.bin"
        terminal.type(CTRL_C)
        assert terminal.say("/copy code") == "copied 5 characters through the terminal (OSC 52)"
        assert b"\x1b]52;c;bHMgLWw=\x07" in terminal.raw
        terminal.leave()
    turn = latest().path()[0]
    assert turn.attachments == ("more.txt", "notes.txt")
    assert "my notes" in turn.content
    assert "and more\nof them" in turn.content
    assert turn.words == "look at @notes.txt and code"
    assert (tmp_path / "a.py").read_text() == "print(1)\n"
    assert (tmp_path / "b.sh").read_text() == "ls -l\n"
    assert "look at @notes.txt and code" in (tmp_path / "a.md").read_text()
    assert json.loads((tmp_path / "a.json").read_text())
    assert (tmp_path / "a.html").read_text().startswith("<!")


# -- the context ------------------------------------------------------------------------------------------------------


def test_a_full_context_is_never_cut_silently(tmp_path: Path) -> None:
    model = write(tmp_path / "m.gguf")
    words = "a question that is long enough"
    with ChatTerminal(model, "--ctx-size", "520") as terminal:
        terminal.wait_for_prompt()
        terminal.say(f"{words} " * 4 + "1")
        terminal.say(f"{words} " * 4 + "2")
        terminal.say(f"{words} " * 4 + "3")
        asked = terminal.text()
        assert "the context is full, by" in asked
        terminal.type("x\r").wait_for("one of: c, d, s")
        assert terminal.say("s").startswith("nothing was sent")
        assert terminal.typed.replace("\n", "").endswith("enough 3")
        terminal.say("")
        assert "2 turns at the beginning will not be read any more; they stay in the file" in terminal.say("d")
        terminal.say("/set overflow error")
        assert "error: the conversation has " in terminal.say(f"{words} " * 4 + "4")
        assert terminal.typed.replace("\n", "").endswith("enough 4")
        terminal.type(CTRL_C).wait_until(lambda: not terminal.typed)
        terminal.say("/set overflow drop")
        assert "2 turns at the beginning will not be read any more" in terminal.say(f"{words} " * 4 + "5")
        assert "up to turn 4: left out" in terminal.say("/context")
        assert "error: this turn alone is too long" in terminal.say("far " * 150)
        assert terminal.typed.endswith("far")
        terminal.type(CTRL_C).wait_until(lambda: not terminal.typed)
        terminal.say("/edit 1")
        assert "error: this turn alone is too long" in terminal.say(" far" * 150)
        assert terminal.typed.endswith("far")
        terminal.type(CTRL_C).wait_until(lambda: not terminal.typed)
        terminal.leave()
    asked_of = [turn.content[-1] for turn in latest().path() if turn.role == "user"]
    assert asked_of == ["1", "2", "3", "5"]


def test_a_summary_stands_for_the_oldest_turns(tmp_path: Path) -> None:
    model = write(tmp_path / "m.gguf", "It was said.")
    words = "a question that is long enough "
    with ChatTerminal(model, "--ctx-size", "2000", "--overflow", "compact") as terminal:
        terminal.wait_for_prompt()
        for number in range(7):
            shown = terminal.say(words * 7 + str(number))
        assert re.search(r"a summary stands for \d+ turns: [\d,]+ tokens are\s[\d,]+ now;", shown), shown
        assert shown.endswith("It was said.")
        assert ": a summary" in terminal.say("/context")
        assert "a summary stands for" in terminal.say("/compact")
        terminal.leave()
    session = latest()
    assert len(session.path()) == 14
    compaction, turns = session.condensed()
    assert compaction is not None
    assert compaction.summary == "It was said."
    assert 2 <= len(turns) <= 4


# -- ends -------------------------------------------------------------------------------------------------------------


def test_after_a_kill_in_the_midst_of_an_answer_all_but_that_is_there(endless: Path, talker: Path) -> None:
    shell = shutil.which("bash")
    assert shell is not None
    with ChatTerminal(command=(shell, "--norc", "--noprofile", "-i"), env={"PS1": "shell: "}) as terminal:
        terminal.wait_for("shell:").type(f'exec_owm() {{ {shlex.join(OWM)} chat "$@"; }}\n')
        terminal.type(f"exec_owm {talker}\n").wait_for_prompt().say("one")
        terminal.say(f"/model {endless}")
        terminal.send("Go").wait_for("again and anew")
        terminal.kill_child()
        terminal.wait_until(lambda: terminal.text().endswith("shell:"), "the shell")
        terminal.type("echo se''en\n").wait_for("\nseen")
        assert terminal.text().count("echo se''en") == 1
        session = latest()
        assert said(session) == ["one", "That was *first*.", "Go"]
        terminal.type("clear\n").wait_until(lambda: "seen" not in terminal.text())
        terminal.type("exec_owm --continue\n").wait_for("this has no answer yet; `/retry` asks for one")
        terminal.wait_for_prompt()
        terminal.say(f"/model {talker}")
        assert terminal.say("/retry") == "I do not know."
        assert terminal.say("one") == "That was first."
        terminal.type("\x04").wait_for("goes on with it").type("exit\n")
        terminal.end()
    assert said(latest()) == ["one", "That was *first*.", "Go", "I do not know.", "one", "That was *first*."]


def test_a_signal_in_the_midst_of_an_answer_keeps_it_and_a_session_is_open_once(endless: Path) -> None:
    with ChatTerminal(endless) as terminal:
        terminal.wait_for_prompt().send("Go").wait_for("again and anew")
        with ChatTerminal("--continue") as other:
            assert other.end() == 1
            assert f"error: another owm has the session {latest().id} open" in other.text()
            assert other.is_sane
        terminal.signal(signal.SIGTERM)
        assert terminal.end() == 128 + signal.SIGTERM
        assert terminal.is_sane
        assert "goes on with it" in terminal.text()
        assert "Traceback" not in terminal.text()
    assert latest().path()[1].finish_reason == "cancelled"


def test_a_session_that_is_not_there(talker: Path) -> None:
    with ChatTerminal("--session", "nope") as terminal:
        assert terminal.end() == 3
        assert terminal.text() == "error: no session nope\nhint: `owm sessions` lists them"
        assert terminal.is_sane


def test_a_terminal_that_goes_away_ends_the_chat_and_keeps_it(talker: Path) -> None:
    with ChatTerminal(talker) as terminal:
        terminal.wait_for_prompt().say("one")
        terminal.hang_up()
    assert said(latest()) == ["one", "That was *first*."]
