"""The loop of a conversation and its commands, with real tiny models and a person who types what is written here."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from owm.chat.session import Session
from owm.chat.sessions import open_sessions
from owm.cli.chat.actions import ACTIONS
from owm.cli.chat.commands import COMMANDS
from support.chat_front import talk
from support.scripted_gguf import write_scripted_gguf
from support.tiny_gguf import CHATML

CODE = "Use this:\n```python\nprint(1)\n```\nor\n```\nls\n```\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_scripted_gguf(tmp_path / "m.gguf", "Hello there.", n_ctx_train=2048)


def words(session: Session) -> list[str]:
    return [turn.content for turn in session.path()]


def test_every_command_of_the_table_does_something() -> None:
    assert set(ACTIONS) == set(COMMANDS)


def test_prompts_are_answered_and_kept(model: Path) -> None:
    front, session = talk(model, "Hi", "How are you?")
    assert front.heard == ["< Hello there.", "< Hello there."]
    session.close()
    again = Session.read(session.file or Path())
    assert words(again) == ["Hi", "Hello there.", "How are you?", "Hello there."]
    assert again.model == str(model)


def test_ctrl_c_at_an_empty_prompt_hints_and_ctrl_d_leaves(model: Path) -> None:
    front, _ = talk(model, KeyboardInterrupt, EOFError, "never read")
    assert front.heard == ["Ctrl-D or `/quit` leaves"]


def test_a_typo_and_an_error_end_nothing(model: Path) -> None:
    front, session = talk(model, "/udno", "/undo", "/file nothing.txt", "see @/dev/null/x.txt", "/quit", "no more")
    assert front.heard[0].startswith("error: no such command: /udno (did you mean `/undo`?")
    assert front.heard[1] == "error: there is no turn to go back to (the conversation has not begun)"
    assert front.heard[2] == "error: no such file: nothing.txt (check the path)"
    assert words(session)[0] == "see @/dev/null/x.txt"


def test_a_doubled_slash_begins_a_prompt(model: Path) -> None:
    _, session = talk(model, "//undo is a command")
    assert words(session)[0] == "/undo is a command"


def test_undo_retry_and_what_is_left(model: Path) -> None:
    front, session = talk(model, "one", "two", "/undo", "/retry", "/branches")
    assert front.heard[2] == "took back: two (1 turn of yours left; `/branches` has it still)"
    assert words(session) == ["one", "Hello there."]
    assert len(session.children(1)) == 2
    assert [line.split()[:2] for line in front.heard[4].splitlines()] == [["1", "4"], ["*", "2"]]


def test_a_turn_is_edited_in_the_prompt_and_only_what_is_sent_changes_anything(model: Path) -> None:
    front, session = talk(model, "one", "two", "/edit 1", "uno", "/edit", KeyboardInterrupt, "/edit 7")
    assert front.offered[3] == "one"
    assert words(session) == ["uno", "Hello there."]
    assert front.offered[5] == "uno"
    assert front.heard[-3:] == [
        "the turn stays as it was",
        "Ctrl-D or `/quit` leaves",
        "error: there is no turn 7 of yours (there are: 1 to 1)",
    ]


def test_forks_and_switches(model: Path) -> None:
    lines = ("one", "/fork side", "two", "/switch main", "/title  A  name ", "/title", "/switch nope")
    front, session = talk(model, *lines)
    assert session.title == "A name"
    assert session.branch == "main"
    assert words(session) == ["one", "Hello there."]
    assert "past: 2 turns" in front.heard
    assert front.heard[-1] == "error: no branch nope (there are: main, side)"


def test_one_of_several_answers_is_picked_and_the_others_stay_beside_it(tmp_path: Path) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", [{"red": 0.4, "blue": 0.3, "green": 0.3}], n_ctx_train=2048)
    front, session = talk(model, "A colour?", "/alt 4", temp=1.0, seed=3, choices=["2"])
    assert front.questions == ["which one is it? 1/2/3/4"]
    drafts = [line[2:] for line in front.heard[1:5]]
    assert len(set(drafts)) > 1
    assert words(session) == ["A colour?", drafts[1]]
    assert [turn.content for turn in session.children(1)][1:] == [drafts[0], drafts[2], drafts[3], drafts[1]]


def test_if_none_is_picked_everything_is_as_it_was(model: Path) -> None:
    front, session = talk(model, "/alt", "Hi", "/alt 2", "/alt 9", choices=[None])
    assert front.heard[0].startswith("error: there is no turn to go back to")
    assert front.heard[-2:] == [
        "none was picked; everything is as it was",
        "error: /alt makes 2 to 4 answers: 9",
    ]
    assert words(session) == ["Hi", "Hello there."]


def test_files_go_with_one_prompt(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("one\ntwo\n")
    front, session = talk(model, f"/file '{tmp_path}/a b.txt'", "/file", "Read it", "Again")
    assert front.heard[0] == f"{tmp_path}/a b.txt (2 lines) goes with the next prompt"
    assert front.heard[1] == f"with the next prompt: {tmp_path}/a b.txt"
    assert words(session)[0] == f"=== {tmp_path}/a b.txt ===\none\ntwo\n\nRead it"
    assert session.path()[0].typed == "Read it"
    assert session.path()[0].attachments == (f"{tmp_path}/a b.txt",)
    assert words(session)[2] == "Again"


def test_code_is_saved_and_files_are_not_written_over_unasked(tmp_path: Path) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", CODE, n_ctx_train=2048)
    one, two = tmp_path / "one.py", tmp_path / "two.sh"
    names = ("x", "", str(one), f"{two} 2", str(one), f"{one} 5")
    lines = [f"/save-code {name}" if name else "Hi" for name in names]
    front, _ = talk(model, *lines, choices=["n"])
    assert front.heard[0].startswith("error: there is no answer yet")
    assert (one.read_text(), two.read_text()) == ("print(1)\n", "ls\n")
    assert front.heard[2:] == [
        f"wrote {one}",
        "it is the first of 2 code blocks; `/save-code FILE N` takes another",
        f"wrote {two}",
        "nothing was written",
        f"error: the answer has 2 code blocks (`/save-code {one} 1`)",
    ]


@pytest.mark.parametrize("ending", ["md", "json", "html"])
def test_exports(model: Path, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out.{ending}"
    front, _ = talk(model, "/export x.md", "Hi", f"/export {path}", "/export x.txt", "/export")
    assert front.heard[0] == "error: there is nothing to export yet"
    assert front.heard[2] == f"wrote {path}"
    assert front.heard[3].startswith("error: x.txt does not end in .md, .json or .html")
    assert "Hello there." in front.heard[4]
    text = path.read_text()
    assert "Hello there." in text
    if ending == "json":
        assert [message["content"] for message in json.loads(text)["messages"]] == ["Hi", "Hello there."]


def test_settings_are_shown_changed_kept_and_refused(model: Path) -> None:
    lines = ("/set temp 0.5", "/set temp", "/set tmp 1", "/set temp hot", "/set overflow drop", "Hi")
    front, session = talk(model, *lines)
    assert front.heard[:2] == ["temp is 0.5 from the next answer on", "temp  0.5  (this conversation)"]
    assert "did you mean `temp`" in front.heard[2]
    assert front.heard[3] == "error: temp is not a number: hot"
    assert session.settings == {"temp": 0.5, "overflow": "drop"}
    assert session.path()[1].settings["temp"] == 0.5
    session.close()
    front, session = talk(model, "/set temp", "/set overflow default", session=Session.open(session.file or Path()))
    assert front.heard[0] == "temp  0.0  (--temp)"  # a flag holds for this run
    assert session.settings == {"temp": 0.5}


def test_the_system_prompt(model: Path) -> None:
    front, session = talk(model, "/system", "/system Be brief.", "/system", "Hi", "/system none")
    assert front.heard[0] == "(no system prompt)"
    assert front.heard[2] == "Be brief."
    assert session.system is None


def test_thoughts_are_switched(tmp_path: Path) -> None:
    model = write_scripted_gguf(
        tmp_path / "m.gguf", "<think>Well, yes.</think>Yes.", marks=("<think>", "</think>"), n_ctx_train=2048
    )
    front, session = talk(model, "Hi", "/think show", "/think", "/think low", "/think off", "/think low", "/think loud")
    assert front.manner.thoughts == "live"
    assert front.heard[:4] == [
        "< Yes.",
        "thoughts stay on the screen",
        "thought: Well, yes.",
        "think: show, effort: its own",
    ]
    assert front.heard[-1].startswith("error: think must be one of on, off, show, hide: loud")
    assert session.settings == {"think": "on", "effort": "low"}


def test_what_is_known_of_the_last_answer_and_the_context(model: Path) -> None:
    front, _ = talk(model, "/stats", "Hi", "/stats", "/context")
    assert front.heard[0] == "nothing was answered since this chat was opened"
    assert front.heard[2].startswith("first token after ")
    assert "of 2,048 tokens (the most of this model)" in front.heard[3]
    assert front.heard[3].splitlines()[-1].endswith("  model: Hello there.")


def test_another_model_goes_on_with_the_conversation(model: Path, tmp_path: Path) -> None:
    other = write_scripted_gguf(tmp_path / "other.gguf", "Moin.", n_ctx_train=2048)
    front, session = talk(model, "Hi", f"/model {other}", "Again", "/model nothing-known", "/model")
    assert front.heard[1:3] == ["other.gguf goes on with the conversation", "< Moin."]
    assert front.heard[3].startswith("error: ")
    assert front.heard[4].startswith("other.gguf")
    assert [turn.model for turn in session.path()] == [None, str(model), None, str(other)]
    assert session.model == str(other)


def test_a_model_that_cannot_be_opened_leaves_the_old_one(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[:3000])
    front, session = talk(model, "Hi", f"/model {broken}", "Again")
    assert front.heard[1].startswith("error: broken.gguf is not a usable GGUF file")
    assert front.heard[2] == "< Hello there."
    assert session.model == str(model)


def test_a_new_conversation_leaves_the_old_one_kept(model: Path) -> None:
    front, session = talk(model, "/system Be brief.", "Hi", "/new", "Ho")
    assert words(session) == ["Ho", "Hello there."]
    assert session.system == "Be brief."
    session.close()
    assert [summary.n_turns for summary in open_sessions().summaries()] == [2, 2]
    assert front.heard[2].startswith("a new conversation; `owm chat --session ")


LONG = "word " * 60  # 300 tokens: this vocabulary has no words


@pytest.mark.parametrize(
    ("overflow", "choices", "heard"),
    [
        ("drop", [], ["2 turns at the beginning will not be read any more; they stay in the file", "< Hello there."]),
        ("ask", ["d"], ["2 turns at the beginning will not be read any more; they stay in the file", "< Hello there."]),
        ("ask", [None], ["nothing was sent"]),
        ("ask", ["s"], ["nothing was sent"]),
    ],
)
def test_a_full_context_is_never_cut_silently(
    tmp_path: Path, overflow: str, choices: Sequence[str | None], heard: list[str]
) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", "Hello there.", n_ctx_train=1024)
    front, session = talk(model, LONG, LONG, LONG, overflow=overflow, choices=choices)
    assert front.heard[2:] == heard
    assert len(session.turns) == (6 if "< " in heard[-1] else 4)
    if overflow == "ask":
        assert front.questions[0].startswith("the context is full, by ")
        assert front.questions[0].endswith("c/d/s")


def test_where_nothing_is_to_be_done_nothing_is_sent_and_the_text_is_there_again(tmp_path: Path) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", "Hello there.", n_ctx_train=1024)
    front, session = talk(model, LONG, LONG, LONG, KeyboardInterrupt, LONG * 9, overflow="error")
    assert front.heard[2].startswith("error: the conversation has ")
    assert front.offered[3] == LONG
    assert len(session.turns) == 4


def test_the_oldest_turns_become_a_summary(tmp_path: Path) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", "Hello there.", n_ctx_train=2048)
    front, session = talk(model, "/compact", "one", "two", "/compact", "three", overflow="compact")
    assert front.heard[0] == "error: there is nothing to summarise (the conversation has not begun)"
    assert front.heard[3].startswith("a summary stands for 2 turns: ")
    assert front.heard[4] == "thought: Hello there."
    assert len(session.turns) == 6
    assert session.condensed()[0] is not None


def test_an_answer_that_is_cut_says_so(model: Path) -> None:
    front, _ = talk(model, "Hi", max_tokens=2)
    assert front.heard[1] == "the answer was cut at `max_tokens`; `/set max_tokens default` takes that away"


def test_a_mistake_of_owm_ends_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(loop: object, rest: str) -> None:
        raise KeyError("x")

    monkeypatch.setitem(ACTIONS, "stats", fail)  # type: ignore[misc]
    front, _ = talk(model, "/stats", "Hi")
    assert front.heard[0].startswith("error: owm made a mistake: KeyError: 'x', at line ")
    assert front.heard[1] == "< Hello there."


def test_screen_commands(model: Path) -> None:
    front, _ = talk(model, "/help", "/help undo", "/help nope", "/raw", "/raw off", "/raw loud", "/multi on", "/clear")
    assert "/undo" in front.heard[0]
    assert front.heard[1] == "/undo: take back your last turn and its answer"
    assert front.heard[2].startswith("error: no such command")
    assert front.heard[3:] == [
        "answers as the model writes them",
        "answers as rendered Markdown",
        "error: /raw takes on or off: loud",
        "Enter begins a new line, Alt-Enter sends",
        "cleared",
    ]


def test_a_conversation_is_kept_while_nobody_types(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    from owm.cli.chat import desk as chat_desk
    from owm.library.chatting import Chat

    kept = []
    monkeypatch.setattr(chat_desk, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(Chat, "keep", lambda chat: kept.append(len(chat.session.turns)))

    def lines() -> Iterator[str]:
        yield "Hi"
        deadline = time.monotonic() + 20
        while not kept and time.monotonic() < deadline:
            time.sleep(0.01)
        yield "Ho"

    front, _ = talk(model, lines())
    assert kept[0] == 2
    assert front.heard == ["< Hello there.", "< Hello there."]


def test_an_answer_that_cannot_be_made_ends_nothing(tmp_path: Path) -> None:
    refusal = "{% if messages[-1].content == 'boom' %}{{ raise_exception('no such words') }}{% endif %}"
    model = write_scripted_gguf(tmp_path / "m.gguf", "Hello there.", template=refusal + CHATML, n_ctx_train=2048)
    front, session = talk(model, "Hi", "boom", "Hi")
    hint = "`/model NAME` goes on with another model"
    assert front.heard[1] == f"error: the model's chat template refuses: no such words ({hint})"
    assert front.heard[2] == "< Hello there."
    assert len(session.turns) == 4
    assert front.offered[2] == "boom"
