"""A conversation on a terminal: an editor for prompts, answers drawn while they are made."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Span, Text

from owm.cli.chat.answer import AnswerView, Manner
from owm.cli.chat.canvas import DIM, Canvas, Painter, waiting
from owm.cli.chat.drafts import DraftsView, rendered
from owm.cli.chat.front import UNANSWERED, consume, count, stopping
from owm.cli.secrets import spoken
from owm.cli.terminal import one_line, visible
from owm.cli.wrapping import folded, wrapped
from owm.errors import OwmError

if TYPE_CHECKING:
    from owm.chat.session import Session
    from owm.chat.turn import Turn
    from owm.cli.chat.editor import Editor
    from owm.library.chatting import Reply

_COLORS = {"error": Style(color="red"), "warning": Style(color="yellow"), "hint": Style(color="cyan")}
_MARK = "> "  # before what a person has typed
_MOST_ASKED_ROWS = 6  # of a question that is shown again


class ScreenFront:
    """The front that a person at a terminal sees (`owm.cli.chat.front.Front`); keys must not show by themselves."""

    can_edit = True
    can_ask = True

    def __init__(
        self,
        editor: "Editor",
        canvas: Canvas,
        manner: Manner,
        *,
        is_quiet: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.manner = manner
        self.canvas = canvas
        self._editor = editor
        self._is_quiet = is_quiet
        self._clock = clock

    def read(self, text: str = "") -> str:
        """Return what is typed."""
        return self._editor.read(text=text)

    def say(self, text: str) -> None:
        """Write lines."""
        self.canvas.lines(text.rstrip("\n"))

    def note(self, message: str) -> None:
        """Write a dim line."""
        if not self._is_quiet:
            self.canvas.lines(spoken(message), is_dim=True)

    def warn(self, message: str) -> None:
        """Write a warning."""
        self._say("warning", message)

    def problem(self, error: OwmError) -> None:
        """Write an error and its hint."""
        self._say("error", str(error))
        if error.hint:
            self._say("hint", error.hint)

    def choose(self, question: str, answers: Mapping[str, str]) -> str | None:
        """Let the editor ask."""
        return self._editor.choose(question, answers)

    def show(self, reply: "Reply") -> None:
        """Draw an answer while it comes."""
        view = AnswerView(self.canvas, self.manner, clock=self._clock)
        self._draw(reply, view)

    def show_drafts(self, reply: "Reply") -> None:
        """Draw drafts while they come."""
        self._draw(reply, DraftsView(self.canvas, reply.ids, clock=self._clock))

    def _say(self, word: str, message: str) -> None:
        label = f"{word}:"
        self.canvas.text(Text(f"{label} {spoken(message)}", spans=[Span(0, len(label), _COLORS[word])]))

    def _draw(self, reply: "Reply", view: AnswerView | DraftsView) -> None:
        with stopping(reply.cancel):  # a second Ctrl-C must not tear the last frame
            try:
                with Painter(view.draw, clock=self._clock) as painter:

                    def take(chunk: object) -> None:
                        view.take(chunk)  # type: ignore[arg-type]
                        painter.nudge()

                    consume(reply, take, rest=reply.rest)
            finally:
                view.finish()
        if isinstance(view, AnswerView) and view.has_begun:
            self.canvas.write("\n")

    def show_past(self, session: "Session") -> None:
        """Write the last exchange, folded to the window, and how many turns came before."""
        path = session.path()
        asked = max((at for at, turn in enumerate(path) if turn.role == "user"), default=None)
        if asked is None:
            return
        if asked:
            self.note(f"{count(asked, 'turn')} before")
        height = self.canvas.height()
        self._write_asked(path[asked], min(_MOST_ASKED_ROWS, max(height // 4, 1)))
        for turn in path[asked + 1 :]:
            self._write_answer(turn, max(height - _MOST_ASKED_ROWS - 4, 3))
        if path[-1].role == "user":
            self.note(UNANSWERED)
        self.canvas.write("\n")

    def show_thought(self, text: str) -> None:
        """Write a thought dim."""
        self.canvas.lines(text.strip(), is_dim=True)

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Draw a line with the seconds."""
        return waiting(self.canvas, what)

    def clear(self) -> None:
        """Clear the window."""
        self.canvas.write("\x1b[H\x1b[2J" if not self.canvas.look.is_plain else "\n" * self.canvas.height())

    def set_multi(self, is_multi: bool | None) -> bool | None:
        """Tell the editor."""
        self._editor.is_multi = not self._editor.is_multi if is_multi is None else is_multi
        return self._editor.is_multi

    def _write_asked(self, turn: "Turn", n_most: int) -> None:
        width = max(self.canvas.width() - len(_MARK), 1)
        rows = [
            row
            for line in visible(turn.words.strip("\n")[: 4 * n_most * width]).split("\n")
            for row in wrapped(Text(line), width)
        ]
        if len(rows) > n_most:
            rows = [*rows[: n_most - 1], Text("…", DIM)] if n_most > 1 else rows[:1]
        for number, row in enumerate(rows):
            self.canvas.write((_MARK if not number else " " * len(_MARK)) + self.canvas.look.paint(row) + "\n")
        for name in turn.attachments:
            self.canvas.lines(one_line(f"  with {name}"), is_dim=True)

    def _write_answer(self, turn: "Turn", n_most: int) -> None:
        width, look = self.canvas.width(), self.canvas.look
        if turn.reasoning and turn.usage.get("reasoning_tokens"):
            n_tokens = turn.usage["reasoning_tokens"]
            self.note(f"thought, {count(int(n_tokens), 'token')}" if isinstance(n_tokens, int) else "thought")
        if self.manner.is_raw:
            lines = [Text(line) for line in visible(turn.content.strip("\n")).split("\n")]
        else:
            lines = rendered(turn.content.strip("\n"), width, look)
        n_shown = n_rows = 0
        for line in reversed(lines):
            n_rows += max(len(folded(line, width)), 1)
            if n_rows > n_most and n_shown:
                break
            n_shown += 1
        if (n_left := len(lines) - n_shown) > 0:
            self.note(f"… {count(n_left, 'line')} above")
        for line in lines[-n_shown:] if n_shown else []:
            self.canvas.write(look.paint(line) + "\n")
        if turn.finish_reason == "cancelled":
            self.note("(stopped)")
