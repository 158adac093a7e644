"""What is asked on a command line: the argument, a pipe, files, a saved prompt, a conversation; all made one `Asked`.

One rule for what comes from where: a pipe and files are material, the first thing in the user's turn; the saved prompt,
`--prompt-file` and the argument, in this order, are the instruction below it; `--system` and `--messages` go before.
A saved prompt with `{input}` has the material there, or, where there is none, what else is asked.
"""

import os
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from owm.cli.terminal import is_terminal
from owm.engine.asked import STANDING_ROLES, Asked
from owm.errors import OwmError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from owm.engine.material import Piece

PATIENCE_SECONDS = 3.0  # after which a silent pipe is mentioned
_STDIN_PATH = "-"
_PLACE = "\0"  # stands for the place while a prompt is filled; no argument can have it


@dataclass(frozen=True, slots=True)
class AskOptions:
    """What the flags say; paths as they were typed, `-` for stdin. `model` is for hints."""

    model: str
    prompt: str | None = None
    system: str | None = None
    files: tuple[str, ...] = ()
    prompt_file: str | None = None
    messages: str | None = None
    template: str | None = None
    variables: tuple[str, ...] = ()
    is_raw: bool = False


def gather(ask: AskOptions, stdin: TextIO | None, *, note: Callable[[str], None] = lambda message: None) -> Asked:
    """Read all that makes the question; files before the pipe, so that a wrong name is said at once.

    Args:
        stdin: read if it is no terminal, or where a path is `-`.
        note: takes a sentence while a pipe that sends nothing is waited for.

    Raises:
        UsageError: nothing is asked, the parts contradict each other, or one of them is no text.
        NotFound: a file or a saved prompt does not exist.
        Unsupported, MalformedFile, OwmError: as `owm.engine.material.read_file` does.
    """
    from owm.engine import material, mentions, turns

    _check(ask)
    pipe = _Pipe(stdin, note)
    mentioned = mentions.find(text_of(ask.prompt or "", "the prompt"))
    system = text_of(ask.system, "--system") if ask.system else None
    saved = _SavedPrompt(ask)
    paths = dict.fromkeys((*ask.files, *map(mentions.native, mentioned.paths)))
    pieces = {path: material.read_file(path) for path in paths if path != _STDIN_PATH}
    from_file = _read(ask.prompt_file, pipe).text if ask.prompt_file is not None else ""
    history: tuple[dict[str, Any], ...] = ()
    if ask.messages is not None:
        conversation = _read(ask.messages, pipe)
        history = turns.read_turns(conversation.text, conversation.name)
    history = _with_system(system, history, ask)
    if _STDIN_PATH in paths:
        pieces[_STDIN_PATH] = pipe.read()
    texts = [pieces[path] for path in paths]
    if _STDIN_PATH not in (*paths, ask.prompt_file, ask.messages):
        texts = [*pipe.unnamed(), *texts]
    prompt = "\n\n".join(text for text in (from_file, mentioned.text) if text.strip())
    notes = (*mentioned.notes, *(said for piece in texts for said in piece.notes))
    asked = saved.asked(prompt, material.join(texts), history, notes)
    _check_there_is_a_question(asked, ask)
    return asked


def text_of(argument: str, what: str) -> str:
    """Read an argument as UTF-8, whatever the locale took it for; a terminal of another encoding is believed.

    Raises:
        UsageError: it is neither; `what` names it.
    """
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError as error:
        if any(0xD800 <= ord(character) < 0xE000 for character in argument):
            raise UsageError(f"{what} is not UTF-8 text", hint="pipe it through `iconv`") from error
        return argument


class _Pipe:
    """Stdin, read at most once: by itself where it is no terminal, or in the place of a path `-`."""

    def __init__(self, stdin: TextIO | None, note: Callable[[str], None]) -> None:
        self._stdin = stdin
        self._note = note

    def read(self) -> "Piece":
        from owm.engine import material

        if self._stdin is None:
            raise UsageError("there is no stdin to read", hint="`-` stands for text from a pipe")
        with self._patience():
            return material.read_stdin(self._stdin.buffer)

    def unnamed(self) -> "list[Piece]":
        """Return what was piped in without being asked for, if that is anything."""
        if self._stdin is None or is_terminal(self._stdin):
            return []
        piece = self.read()
        return [piece] if piece.text.strip() else []

    @contextmanager
    def _patience(self) -> "Iterator[None]":
        """Say what is waited for, unless something comes soon."""
        timer = threading.Timer(
            PATIENCE_SECONDS, self._note, ("waiting for text from stdin, `< /dev/null` says that none will come",)
        )
        timer.daemon = True
        timer.start()
        try:
            if self._stdin is not None and hasattr(self._stdin.buffer, "peek"):
                self._stdin.buffer.peek(1)
                timer.cancel()
            yield
        except OSError as error:
            raise OwmError(f"cannot read stdin: {error.strerror or error}") from error
        finally:
            timer.cancel()


def _read(path: str, pipe: _Pipe) -> "Piece":
    from owm.engine import material

    return pipe.read() if path == _STDIN_PATH else material.read_file(path)


class _SavedPrompt:
    """The prompt of `--prompt-template`, filled but for the places of its `{input}`; it may be none."""

    def __init__(self, ask: AskOptions) -> None:
        """Fill it, so that what is missing is said before anything is read.

        Raises:
            NotFound, UsageError, StoreError: there is none of the name, or a placeholder has no value.
        """
        self._has_place = False
        self._parts = [""]
        if ask.template is None:
            return
        from owm.settings import prompts

        self._text = prompts.open_prompts().load(ask.template)
        self._variables = _variables(ask.variables)
        self._has_place = prompts.INPUT in prompts.placeholders(self._text) and prompts.INPUT not in self._variables
        place = {prompts.INPUT: _PLACE} if self._has_place else {}
        filled = prompts.fill(self._text, {**self._variables, **place})
        self._parts = filled.split(_PLACE) if self._has_place else [filled]

    def asked(self, prompt: str, material: str, turns: tuple[dict[str, Any], ...], notes: tuple[str, ...]) -> Asked:
        """Put the prompt and the material with it."""
        if not self._has_place:
            instruction = "\n\n".join(text for text in (*self._parts, prompt) if text.strip())
            return Asked(instruction, material, (), turns, notes)
        if material.strip():
            *before, last = self._parts
            below = f"\n\n{prompt}" if prompt.strip() else ""
            return Asked("", material, (*before, last + below), turns, notes)
        if not prompt.strip():
            from owm.settings import prompts

            prompts.fill(self._text, self._variables)  # says what is missing
        return Asked(prompt.join(self._parts), "", (), turns, notes)


def _variables(texts: tuple[str, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text_of(text, "--var").partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--var needs a name and a value: {text}", hint="`--var name=value`")
        if name.strip() in values:
            raise UsageError(f"--var gives {name.strip()} twice")
        values[name.strip()] = value
    return values


def _check(ask: AskOptions) -> None:
    """Refuse what contradicts itself before anything is read."""
    for flag, value in (("--system", ask.system), ("--messages", ask.messages)):
        if ask.is_raw and value is not None:
            raise UsageError(f"--raw sends no template, so {flag} has no place", hint="put the text into the prompt")
    if ask.variables and ask.template is None:
        raise UsageError("--var fills a saved prompt, and none is named", hint="`--prompt-template NAME`")
    named = [
        *("-f" for path in ask.files if path == _STDIN_PATH),
        *(["--prompt-file"] if ask.prompt_file == _STDIN_PATH else []),
        *(["--messages"] if ask.messages == _STDIN_PATH else []),
    ]
    if len(named) > 1:
        raise UsageError(f"stdin can be read only once: {' and '.join(named)} ask for it")


def _with_system(
    system: str | None, history: tuple[dict[str, Any], ...], ask: AskOptions
) -> tuple[dict[str, Any], ...]:
    if system is None:
        return history
    if any(turn["role"] in STANDING_ROLES for turn in history):
        raise UsageError(
            f"--system and a system turn in {ask.messages} are two system prompts", hint="give one of them"
        )
    return ({"role": "system", "content": system}, *history)


def _check_there_is_a_question(asked: Asked, ask: AskOptions) -> None:
    if asked.question:
        return
    if ask.messages is None:
        raise UsageError("the prompt is empty", hint=f'`owm run {ask.model} "your question"`, or pipe a text into it')
    last = asked.turns[-1]
    if last["role"] in STANDING_ROLES or not last["content"].strip():
        raise UsageError(f"the last turn of {ask.messages} asks nothing", hint="add a PROMPT")
    if last["role"] == "assistant":
        raise UsageError(
            f"the last turn of {ask.messages} is the assistant's, so nothing is asked",
            hint="add a PROMPT, or leave that turn out and begin the answer with it: `--answer-prefix`",
        )
