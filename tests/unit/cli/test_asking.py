"""What makes the question: arguments, a pipe, files, saved prompts, conversations, and what cannot be put together."""

import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from owm.cli import asking
from owm.cli.asking import AskOptions, gather, text_of
from owm.engine.asked import Asked
from owm.errors import NotFound, OwmError, Unsupported, UsageError
from owm.settings import prompts
from support.tiny_pdf import tiny_pdf


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (("a.txt", "text a\n"), ("b.py", "x = 1\n"), ("ask.txt", "Why?\n")):
        (tmp_path / name).write_text(text)
    return tmp_path


def pipe(raw: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8")


class Terminal(io.TextIOWrapper):
    def __init__(self, raw: bytes = b"") -> None:
        super().__init__(io.BytesIO(raw), encoding="utf-8")

    def isatty(self) -> bool:
        return True


def asked(prompt: str | None = None, stdin: Any = None, **options: Any) -> Asked:
    return gather(AskOptions("MODEL", prompt, **options), stdin)


def conversation(*roles: str, name: str = "chat.json") -> str:
    Path(name).write_text(json.dumps([{"role": role, "content": f"the {role}'s text"} for role in roles]))
    return name


# -- where texts come from ---------------------------------------------------------------------------------------------


def test_the_argument_alone_is_the_instruction() -> None:
    assert asked("Why?") == Asked("Why?")
    assert asked("Why?", Terminal(b"typed ahead")) == Asked("Why?")
    assert asked("Why?", pipe(b"")) == Asked("Why?")
    assert asked("Why?", pipe(b" \n\n")) == Asked("Why?")


def test_a_pipe_is_material_and_the_argument_the_instruction() -> None:
    assert asked("Why?", pipe(b"a log\n")) == Asked("Why?", "a log")
    assert asked(None, pipe(b"a log\r\n")).question == "a log"
    assert asked("Why?", pipe(b"\xef\xbb\xbfa log\n\n")).material == "a log\n"


def test_files_stand_in_their_order_below_the_pipe_under_their_names() -> None:
    found = asked("Why?", pipe(b"a log"), files=("b.py", "a.txt", "b.py"))
    assert found.material == "=== stdin ===\na log\n\n=== b.py ===\nx = 1\n\n=== a.txt ===\ntext a"
    assert found.instruction == "Why?"


def test_a_dash_is_the_pipe_in_its_place_and_alone_without_a_header() -> None:
    found = asked("Why?", pipe(b"a log"), files=("b.py", "-", "a.txt"))
    assert found.material == "=== b.py ===\nx = 1\n\n=== stdin ===\na log\n\n=== a.txt ===\ntext a"
    assert asked("Why?", pipe(b"a log"), files=("-",)).material == "a log"
    assert asked("Why?", Terminal(b"typed"), files=("-",)).material == "typed"


def test_a_file_in_the_prompt_becomes_material_and_keeps_its_name_there() -> None:
    found = asked("Compare @a.txt, @b.py and me@a.txt.", files=("a.txt",))
    assert found.instruction == "Compare a.txt, b.py and me@a.txt."
    assert found.material == "=== a.txt ===\ntext a\n\n=== b.py ===\nx = 1"


def test_a_file_that_a_prompt_seems_to_name_and_pages_without_text_are_notes() -> None:
    Path("half.pdf").write_bytes(tiny_pdf(["one", ""]))
    found = asked("See @none.txt", files=("half.pdf",))
    assert found.instruction == "See @none.txt"
    assert found.notes == (
        "there is no file none.txt, so `@none.txt` stays as it is",
        "1 of the 2 pages of half.pdf hold no text, only images",
    )


def test_an_at_sign_counts_in_the_argument_only() -> None:
    Path("ask.txt").write_text("What is @a.txt?")
    found = asked(None, pipe(b"mail @b.py"), prompt_file="ask.txt", system="be @a.txt")
    assert found.question == "mail @b.py\n\nWhat is @a.txt?"
    assert found.turns == ({"role": "system", "content": "be @a.txt"},)


def test_a_prompt_from_a_file_is_the_instruction_above_the_argument() -> None:
    assert asked("In a word.", pipe(b"a log"), prompt_file="ask.txt") == Asked("Why?\n\nIn a word.", "a log")
    assert asked(None, pipe(b"Why?\n"), prompt_file="-") == Asked("Why?")


# -- saved prompts -----------------------------------------------------------------------------------------------------


def test_a_saved_prompt_is_filled_and_stands_above_the_argument() -> None:
    prompts.open_prompts().save("review", "Review it for {topic}, {{not}} {tone}.")
    found = asked("Shortly.", pipe(b"a diff"), template="review", variables=("topic=a = b", "tone="))
    assert found == Asked("Review it for a = b, {not} .\n\nShortly.", "a diff")


def test_a_saved_prompt_with_a_place_for_input_takes_the_material_there() -> None:
    prompts.open_prompts().save("twice", "Is {input} in {tongue}? Once more: {input}")
    found = asked("Now.", pipe(b"the text"), template="twice", variables=("tongue=English",))
    assert found.question == "Is the text in English? Once more: the text\n\nNow."
    assert found.material == "the text"
    assert found.with_cut(["xt"]).question == "Is xt in English? Once more: xt\n\nNow."


def test_without_material_the_prompt_goes_into_that_place() -> None:
    prompts.open_prompts().save("say", "Say {input} again")
    assert asked("hello", template="say") == Asked("Say hello again")
    with pytest.raises(UsageError, match="the prompt needs: input"):
        asked(None, template="say")
    assert asked(None, template="say", variables=("input=it",)) == Asked("Say it again")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ((), "the prompt needs: topic"),
        (("topic=a", "other=b"), "the prompt has no placeholder for: other"),
        (("topic",), "--var needs a name and a value: topic"),
        (("=x",), "--var needs a name and a value: =x"),
        (("topic=a", "topic=b"), "--var gives topic twice"),
    ],
)
def test_variables_that_do_not_fill_a_saved_prompt_are_refused(variables: tuple[str, ...], message: str) -> None:
    prompts.open_prompts().save("review", "Review it for {topic}.")
    with pytest.raises(UsageError, match=message):
        asked("x", template="review", variables=variables)


def test_a_saved_prompt_that_is_not_there_and_variables_for_none_are_refused() -> None:
    with pytest.raises(NotFound, match="no prompt named none"):
        asked("x", template="none")
    with pytest.raises(UsageError, match="--var fills a saved prompt, and none is named"):
        asked("x", variables=("a=b",))


# -- conversations -----------------------------------------------------------------------------------------------------


def test_a_conversation_goes_before_and_the_prompt_is_its_next_turn() -> None:
    name = conversation("system", "user", "assistant")
    found = asked("And why?", pipe(b"a log"), messages=name)
    assert [turn["role"] for turn in found.messages] == ["system", "user", "assistant", "user"]
    assert found.messages[-1]["content"] == "a log\n\nAnd why?"
    assert found.material == "a log"


def test_a_conversation_that_ends_with_a_question_needs_no_prompt() -> None:
    for last in ("user", "tool"):
        found = asked(messages=conversation("user", "assistant", last))
        assert found.messages[-1] == {"role": last, "content": f"the {last}'s text"}


def test_a_conversation_can_come_from_the_pipe_which_is_then_no_material() -> None:
    found = asked("Why?", pipe(b'{"role": "user", "content": "hello"}\n'), messages="-")
    assert found == Asked("Why?", turns=({"role": "user", "content": "hello"},))


def test_a_system_prompt_goes_before_a_conversation_that_has_none() -> None:
    assert asked("Why?", system="be brief", messages=conversation("user", "assistant")).turns[0] == {
        "role": "system",
        "content": "be brief",
    }
    with pytest.raises(UsageError, match=r"--system and a system turn in chat.json are two system prompts"):
        asked("Why?", system="be brief", messages=conversation("system", "user", "assistant"))


@pytest.mark.parametrize(
    ("roles", "message", "hint"),
    [
        (["user", "assistant"], "the last turn of chat.json is the assistant's", "--answer-prefix"),
        (["system"], "the last turn of chat.json asks nothing", "PROMPT"),
    ],
)
def test_a_conversation_that_asks_nothing_is_refused(roles: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        asked(messages=conversation(*roles))
    assert hint in str(caught.value.hint)


# -- what cannot be put together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stdin", [b"", b"\n \n", None])
@pytest.mark.parametrize("prompt", [None, "", " \n"])
def test_a_question_needs_a_text(stdin: bytes | None, prompt: str | None) -> None:
    with pytest.raises(UsageError, match="the prompt is empty") as caught:
        asked(prompt, None if stdin is None else pipe(stdin), system="be brief")
    assert "owm run MODEL" in str(caught.value.hint)


def test_without_a_template_there_is_no_place_for_turns() -> None:
    with pytest.raises(UsageError, match="--raw sends no template, so --system has no place"):
        asked("Why?", system="be brief", is_raw=True)
    with pytest.raises(UsageError, match="--raw sends no template, so --messages has no place"):
        asked("Why?", messages="chat.json", is_raw=True)


def test_the_pipe_is_read_only_once() -> None:
    with pytest.raises(UsageError, match="stdin can be read only once: -f and --messages ask for it"):
        asked("Why?", pipe(b"x"), files=("-",), messages="-")
    with pytest.raises(UsageError, match="there is no stdin to read"):
        asked("Why?", None, files=("-",))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff\xfe\x00", r"stdin is not UTF-8 text \(byte 0\)"),
        (b"caf\xe9", r"stdin is not UTF-8 text \(byte 3\)"),
        (b"a\x00b", r"stdin is binary, not text \(a zero byte at 1\)"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "stdin is a PNG image, not text"),
    ],
)
def test_a_pipe_of_no_text_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        asked("Why?", pipe(raw))


def test_a_pdf_may_come_through_the_pipe() -> None:
    assert asked("Why?", pipe(tiny_pdf(["hello"]))).material == "hello"
    with pytest.raises(Unsupported, match="stdin is encrypted"):
        asked("Why?", pipe(tiny_pdf(["hello"], password="key")))


def test_a_file_that_is_not_there_is_said_before_the_pipe_is_waited_for() -> None:
    class Silent(io.TextIOWrapper):
        def __init__(self) -> None:
            super().__init__(io.BytesIO())

        @property
        def buffer(self) -> Any:
            raise AssertionError("it should not be read")

    for options in ({"files": ("none.txt",)}, {"prompt_file": "none.txt"}, {"messages": "none.txt"}):
        with pytest.raises(NotFound, match=r"no such file: none\.txt"):
            asked("Why?", Silent(), **options)


def test_a_pipe_that_cannot_be_read_is_an_error_of_its_own() -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(OwmError, match="cannot read stdin: Input/output error"):
        asked("Why?", io.TextIOWrapper(io.BufferedReader(Broken())))


def test_a_pipe_that_sends_nothing_is_said_to_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE_SECONDS", 0.01)
    reading, writing = os.pipe()
    is_said = threading.Event()
    notes: list[str] = []

    def note(message: str) -> None:
        notes.append(message)
        is_said.set()

    def answer() -> None:
        assert is_said.wait(20)
        os.write(writing, b"at last")
        os.close(writing)

    thread = threading.Thread(target=answer)
    thread.start()
    with open(reading, encoding="utf-8") as stdin:
        found = gather(AskOptions("MODEL", "Why?"), stdin, note=note)
    thread.join()
    assert found.material == "at last"
    assert notes == ["waiting for text from stdin, `< /dev/null` says that none will come"]


def test_an_argument_is_read_as_utf8_whatever_the_locale() -> None:
    assert text_of("é漢", "the prompt") == "é漢"
    assert text_of(os.fsdecode("é".encode()), "the prompt") == "é"
    with pytest.raises(UsageError, match="--system is not UTF-8 text"):
        asked("Why?", system="bad \udcff")
    with pytest.raises(UsageError, match="the prompt is not UTF-8 text"):
        asked("bad \udcff")
