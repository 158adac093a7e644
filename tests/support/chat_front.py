"""Someone to hold a conversation with, for tests: says what was written beforehand, and notes what is shown."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from owm.chat.session import Session
from owm.chat.sessions import open_sessions
from owm.cli.chat.answer import Manner
from owm.cli.chat.desk import Desk, Wanted
from owm.cli.chat.front import consume
from owm.cli.chat.loop import ChatLoop
from owm.cli.output import Output
from owm.errors import OwmError
from owm.library import open_store
from owm.library.chatting import Reply
from owm.store import refs


class ScriptedFront:
    """A front whose person types given lines, and picks given answers; a class among the lines is raised."""

    can_edit = True
    can_ask = True

    def __init__(self, lines: Iterable[str | type[BaseException]], *, choices: Iterable[str | None] = ()) -> None:
        self.manner = Manner()
        self.offered: list[str] = []
        self.heard: list[str] = []
        self.questions: list[str] = []
        self._lines = iter(lines)
        self._choices = iter(choices)

    def read(self, text: str = "") -> str:
        self.offered.append(text)
        line = next(self._lines, EOFError)
        if not isinstance(line, str):
            raise line
        return line

    def say(self, text: str) -> None:
        self.heard.append(text)

    def note(self, message: str) -> None:
        self.heard.append(message)

    def warn(self, message: str) -> None:
        self.heard.append(f"warning: {message}")

    def problem(self, error: OwmError) -> None:
        self.heard.append(f"error: {error}" + (f" ({error.hint})" if error.hint else ""))

    def choose(self, question: str, answers: Mapping[str, str]) -> str | None:
        self.questions.append(f"{question} {'/'.join(answers)}")
        return next(self._choices)

    def show(self, reply: Reply) -> None:
        try:
            consume(reply, lambda chunk: None, rest=reply.rest)
        finally:
            self.heard.append(f"< {reply.answers[0].text}")

    def show_drafts(self, reply: Reply) -> None:
        consume(reply, lambda chunk: None, rest=reply.rest)
        self.heard += [f"< {answer.text}" for answer in reply.answers]

    def show_past(self, session: Session) -> None:
        self.heard.append(f"past: {len(session.path())} turns")

    def show_thought(self, text: str) -> None:
        self.heard.append(f"thought: {text}")

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        yield

    def clear(self) -> None:
        self.heard.append("cleared")

    def set_multi(self, is_multi: bool | None) -> bool | None:
        return bool(is_multi)


def talk(
    model: Path,
    *lines: str | type[BaseException] | Iterator[str],
    session: Session | None = None,
    choices: Iterable[str | None] = (),
    **settings: object,
) -> tuple[ScriptedFront, Session]:
    """Hold a whole conversation with a model file; return what was shown, and the session, which is open still."""
    store = open_store()
    stored = store.find(refs.parse(str(model)))
    assert stored is not None
    sessions = open_sessions()
    session = session or sessions.create()
    desk = Desk(Wanted(settings={"temp": 0.0, **settings}), store, session, stored, Output())
    script = (line for each in lines for line in (each if isinstance(each, Iterator) else (each,)))
    front = ScriptedFront(script, choices=choices)
    try:
        ChatLoop(desk, front, sessions).run()
    finally:
        desk.close_model()
    return front, desk.session
