'''A conversation in lines, for scripts and screen readers: a line of stdin is a turn, answers go to stdout as they are.

All else goes to stderr, and there are no escapes at all. What begins with `"""` goes on to a closing `"""`.
'''

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from owm.cli import failures
from owm.cli.chat.answer import Manner
from owm.cli.chat.commands import is_open, unquoted
from owm.cli.chat.front import UNANSWERED, consume, count
from owm.cli.failures import ExitCode
from owm.cli.output import talk
from owm.cli.secrets import hidden, spoken
from owm.cli.terminal import is_terminal, visible
from owm.engine.request import Chunk
from owm.errors import OwmError, UsageError

if TYPE_CHECKING:
    from owm.chat.session import Session
    from owm.library.chatting import Reply

_PROMPT, _GOES_ON = "> ", ". "


class PlainFront:
    """The front that lines make; see `owm.cli.chat.front.Front`.

    Attributes:
        exit_code: of the last turn that failed, for scripts.
    """

    can_edit = False

    def __init__(
        self,
        manner: Manner,
        *,
        as_json: bool = False,
        is_quiet: bool = False,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
    ) -> None:
        self.manner = manner
        self._as_json = as_json
        self._is_quiet = is_quiet
        self._stdin = stdin or sys.stdin
        self._stdout = stdout or sys.stdout
        self.can_ask = is_terminal(self._stdin)
        self.exit_code = ExitCode.OK

    def read(self, text: str = "") -> str:
        """Return the next lines that make a turn."""
        while True:
            typed = self._line(_PROMPT)
            while is_open(typed):
                try:
                    typed = f"{typed}\n{self._line(_GOES_ON)}"
                except EOFError:
                    break
            if typed.strip():
                return unquoted(typed)

    def say(self, text: str) -> None:
        """Write to stderr."""
        talk(visible(text).rstrip("\n") + "\n")

    def note(self, message: str) -> None:
        """Write to stderr, unless that was not wanted."""
        if not self._is_quiet:
            talk(spoken(message) + "\n")

    def warn(self, message: str) -> None:
        """Write a warning to stderr."""
        talk(f"warning: {spoken(message)}\n")

    def problem(self, error: OwmError) -> None:
        """Write an error and its hint to stderr, in JSON too where that was asked for."""
        talk(f"error: {spoken(str(error))}\n")
        if error.hint:
            talk(f"hint: {spoken(error.hint)}\n")
        self.exit_code = failures.exit_code(error)
        if self._as_json:
            self._object({"error": hidden(str(error)), "hint": error.hint and hidden(error.hint)})

    def choose(self, question: str, answers: Mapping[str, str]) -> str | None:
        """Ask on stderr, and take the next line."""
        self.say("\n".join([question, *(f"  {key}  {meaning}" for key, meaning in answers.items())]))
        try:
            given = self._line("? ").strip().lower()
        except EOFError:
            return None
        return given if given in answers else None

    def show(self, reply: "Reply") -> None:
        """Write an answer as it comes."""
        last = ""

        def take(chunk: Chunk) -> None:
            nonlocal last
            if chunk.reasoning and self.manner.thoughts == "show":
                talk(visible(chunk.reasoning))
            text = chunk.text if last else chunk.text.lstrip("\n")
            if text and not self._as_json:
                if not last and self.manner.thoughts == "show":
                    talk("\n")
                self._write(text)
                last = text[-1]

        try:
            consume(reply, take, rest=reply.rest)
        finally:
            if last not in ("", "\n"):
                self._write("\n")
        if self._as_json:
            answer = reply.answers[0]
            self._object(
                {
                    "turn": reply.turn.id if reply.turn is not None else None,
                    "text": answer.text,
                    "reasoning": answer.reasoning or None,
                    "finish_reason": answer.finish_reason,
                    "usage": answer.usage(),
                }
            )

    def show_drafts(self, reply: "Reply") -> None:
        """Write drafts when they are whole, each under its number."""
        consume(reply, lambda chunk: None, rest=reply.rest)
        for number, answer in enumerate(reply.answers, start=1):
            self.say(f"{number}:\n{answer.text.strip()}")

    def show_past(self, session: "Session") -> None:
        """Say where the conversation stands; to a person, what was said last."""
        path = session.path()
        if not path:
            return
        self.note(f"{count(len(path), 'turn')} before")
        if path[-1].role == "user":
            self.note(UNANSWERED)
        if self.can_ask and not self._is_quiet:
            asked = max((at for at, turn in enumerate(path) if turn.role == "user"), default=len(path))
            for turn in path[asked:]:
                self.say((_PROMPT if turn.role == "user" else "") + turn.words.strip("\n"))

    def show_thought(self, text: str) -> None:
        """Write a thought to stderr."""
        self.say(text.strip())

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Say nothing."""
        return _silently()

    def clear(self) -> None:
        """Do nothing: what was written stays."""

    def set_multi(self, is_multi: bool | None) -> bool | None:
        """There is no such choice: lines are lines."""
        return None

    def _line(self, prompt: str) -> str:
        if self.can_ask and not self._as_json:
            talk(prompt)
        buffer = getattr(self._stdin, "buffer", None)
        try:
            if buffer is None or is_terminal(self._stdin):
                line = self._stdin.readline()
            else:  # one line that is no text must not end the conversation
                line = buffer.readline().decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise UsageError("the line is not UTF-8 text", hint="pipe it through `iconv`") from error
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def _write(self, text: str) -> None:
        self._stdout.write(visible(text) if is_terminal(self._stdout) else text)
        self._stdout.flush()

    def _object(self, members: Mapping[str, Any]) -> None:
        text = json.dumps(members, ensure_ascii=is_terminal(self._stdout))
        self._stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
        self._stdout.flush()


@contextmanager
def _silently() -> Iterator[None]:
    yield
