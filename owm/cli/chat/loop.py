"""The loop of a conversation: read, act, answer. Nothing that goes wrong in a turn ends it."""

import errno
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

from owm.cli.chat.answer import Thoughts
from owm.cli.chat.attaching import Attached, attach
from owm.cli.chat.commands import Call, parse, prompt_of
from owm.cli.chat.front import Front, consume, count
from owm.errors import NotEnoughDisk, NotFound, OwmError, PromptTooLong, StoreError, TemplateError, UsageError

if TYPE_CHECKING:
    from owm.chat.sessions import Sessions
    from owm.cli.chat.desk import Desk
    from owm.engine.material import Piece
    from owm.library.chatting import Chat, Reply

_TERMINAL_GONE = (errno.EIO, errno.EPIPE, errno.ENXIO, errno.EBADF)
_AT_ONCE = frozenset({"help", "quit", "clear", "raw", "multi", "file", "paste"})  # they need no model


class Leave(Exception):
    """The person wants to go."""


class ChatLoop:
    """One conversation after the other at one desk, until the person leaves.

    Attributes:
        waiting: files that go with the next prompt.
        text: what the next prompt begins with.
        edited: the number of the person's turn whose place the next prompt takes.
    """

    def __init__(
        self,
        desk: "Desk",
        front: Front,
        sessions: "Sessions | None",
        *,
        waiting: "Sequence[Piece]" = (),
        is_verbose: bool = False,
    ) -> None:
        self.desk = desk
        self.front = front
        self.sessions = sessions
        self.waiting: list[Piece] = list(waiting)
        self.text = ""
        self.edited: int | None = None
        self._is_verbose = is_verbose
        self._is_asked_again = False

    def run(self) -> None:
        """Talk until there is nothing more to come.

        Raises:
            KeyboardInterrupt: Ctrl-C where nobody is there to be asked what is meant by it.
            OSError: the terminal, or whoever reads the answers, has gone.
        """
        while True:
            try:
                self.take(self._read())
            except (EOFError, Leave):
                if self._may_leave():
                    return
            except KeyboardInterrupt:
                if not self.front.can_ask:
                    raise
                self._forget_edit()
                self.front.note("Ctrl-D or `/quit` leaves")
            except OwmError as error:
                self.front.problem(error)

    def _may_leave(self) -> bool:
        """Tell whether to leave; where that loses what is not on the disk, the person is asked."""
        try:
            self.desk.session.flush()
        except (NotEnoughDisk, StoreError) as error:
            if not (self.front.can_ask and self.front.can_edit):
                return True  # closing the session tells of it
            self.front.problem(error)
            ways = {"n": "stay: `/export FILE` writes it elsewhere", "y": "leave, and lose it"}
            # Ctrl-D, and a terminal that has gone, leave.
            return self.front.choose("what was said last is not on the disk; leave all the same?", ways) != "n"
        return True

    def _read(self) -> str:
        stop_keeping = self.desk.keep_when_idle()
        text, self.text = self.text, ""
        try:
            return self.front.read(text)
        finally:
            stop_keeping()

    def take(self, typed: str) -> None:
        """Do what a line asks for; what goes wrong is said.

        Raises:
            Leave: the person wants to go.
            OSError: as `run`.
        """
        try:
            call = parse(typed)
            if call is None:
                self._prompt(typed)
            else:
                self._command(call)
        except OwmError as error:
            self._tell(error)
        except KeyboardInterrupt:
            if not self.front.can_ask:
                raise
            self.front.note("stopped")
        except OSError as error:
            if error.errno in _TERMINAL_GONE:
                raise
            self.front.problem(OwmError(f"that did not work: {error.strerror or error}"))
        except Leave:
            raise
        except Exception as error:
            self._bug(error)

    def _command(self, call: Call) -> None:
        from owm.cli.chat.actions import ACTIONS

        if call.name not in _AT_ONCE:
            self._forget_edit()
            with suppress(OwmError):  # a model that cannot be opened is told of where it is needed
                self.chat()
        ACTIONS[call.name](self, call.rest)

    def _prompt(self, typed: str) -> None:
        prompt = prompt_of(typed)
        try:
            chat = self.chat()
            asked = attach(prompt, self.waiting)
        except BaseException:
            self._give_back(typed)
            raise
        for note in asked.notes:
            self.front.note(note)
        reply = self._ask(chat, asked)
        if reply is None:
            self._give_back(typed)
            return
        self.waiting.clear()
        if self.edited is not None:
            self.front.note(f"in place of turn {self.edited} of yours; `/branches` has what was there")
            self.edited = None
        self.answer(reply)

    def _ask(self, chat: "Chat", asked: Attached) -> "Reply | None":
        """Send a prompt; None if it was not sent, which has been said then."""
        session, tried = self.desk.session, set[str]()
        head = session.head
        if self.edited is not None:
            with self.changing():
                session.edit(self.edited)
        reply = None
        try:
            while reply is None:
                try:
                    reply = chat.ask(asked.content, typed=asked.typed, attachments=asked.names)
                except PromptTooLong as error:
                    if not self._make_room(chat, asked.content, error, tried):
                        break
        except OwmError as error:
            self._tell(error)
        finally:
            if reply is None and self.edited is not None:
                with self.changing():
                    session.move_to(head)
        return reply

    def _give_back(self, typed: str) -> None:
        """Put what could not be sent into the next prompt."""
        if self.front.can_edit:
            self.text = typed

    def _forget_edit(self) -> None:
        if self.edited is not None:
            self.edited = None
            self.front.note("the turn stays as it was")

    def chat(self) -> "Chat":
        """Return the open chat; while it is waited for, say so.

        Raises:
            OwmError: the model cannot be opened.
        """
        if not self.desk.is_loading:
            return self.desk.chat
        with self.front.waiting(f"loading {self.desk.name}"):
            return self.desk.chat

    def answer(self, reply: "Reply") -> None:
        """Show an answer, and say how it ended where that matters.

        Raises:
            OwmError: it failed; what there is of it is kept.
        """
        self.front.manner.thoughts = cast("Thoughts", self.desk.thoughts)
        try:
            self.front.show(reply)
        except OwmError as error:
            error.hint = error.hint or "`/retry` asks again, `/model NAME` asks another model"
            raise
        finally:
            self._warn_of(reply.problem)
        answer = reply.answers[0]
        if answer.finish_reason == "cancelled":
            is_there = reply.turn is not None
            self.front.note("stopped; what is there is kept" if is_there else "stopped; `/retry` asks again")
        elif answer.finish_reason == "failed":
            raise OwmError("the answer failed", hint="`/retry` asks again")
        elif answer.hit_context_end:
            self.front.warn(f"the answer ended with the context, at {count(self.desk.chat.n_ctx, 'token')}")
        elif answer.never_answered:
            self.front.warn("the thought did not end within `max_tokens`; `/set max_tokens default` gives it room")
        elif answer.finish_reason == "length":
            self.front.note("the answer was cut at `max_tokens`; `/set max_tokens default` takes that away")
        elif not answer.text.strip():
            after = "after a thought, " if answer.reasoning else ""
            self.front.warn(f"the model ended its turn {after}without an answer; `/retry` asks again")

    def again(self) -> "Reply":
        """Begin the answer to the turn at the head; make room for it if that is needed.

        Raises:
            OwmError: there is no answer.
        """
        chat, tried = self.chat(), set[str]()
        while True:
            try:
                return chat.again()
            except PromptTooLong as error:
                if not self._make_room(chat, None, error, tried):
                    raise UsageError("the conversation is too long to be answered", hint="`/new`, or `/undo`") from None

    def _make_room(self, chat: "Chat", content: str | None, error: PromptTooLong, tried: set[str]) -> bool:
        """Do what is to be done about a prompt that does not fit; return whether to try again."""
        from owm.chat.history import answered

        way: str | None = self.desk.terms().overflow
        if way == "ask" and not self.front.can_ask:
            way = "error"
        if way == "error" or "drop" in tried:
            self.front.problem(error)
            return False
        if not answered(self.desk.session.path()):
            way = "drop"  # there is nothing to be asked about: it says by how much the turn alone is too long
        if way == "ask":
            ways = {"c": "let a summary stand for the oldest turns", "d": "leave out the oldest turns", "s": "stop"}
            if "compact" in tried:
                del ways["c"]
            n_over = count(max(chat.room(content).n_over, 1), "token")
            key = self.front.choose(f"the context is full, by {n_over}: what is to be done?", ways)
            way = {"c": "compact", "d": "drop"}.get(key or "")
            if way is None:
                self.front.note("nothing was sent")
                return False
        elif "compact" in tried:
            way = "drop"
        assert way is not None
        tried.add(way)
        if way == "compact":
            try:
                return self.compact(content)
            except OwmError as problem:
                self.front.problem(problem)
                return True
        n_before = len(self.desk.session.condensed()[1])
        with self.changing():
            chat.drop(content)
        n = n_before - len(self.desk.session.condensed()[1])
        left_out = f"{count(n, 'turn')} at the beginning" if n else "the summary of the oldest turns"
        self.front.note(f"{left_out} will not be read any more; {'they stay' if n else 'all turns are'} in the file")
        return True

    def compact(self, content: str | None = None) -> bool:
        """Let a summary stand for the oldest turns; return whether it does.

        Args:
            content: of a turn that has to fit afterwards.

        Raises:
            OwmError: it cannot be made.
        """
        chat = self.chat()
        compacting = chat.compact(content)
        with self.front.waiting("summarising the oldest turns"):
            consume(compacting, lambda chunk: None)
        if compacting.summary is None:
            self.front.note("stopped; nothing has changed")
            return False
        self._warn_of(compacting.problem)
        now = compacting.n_tokens_after or 0
        self.front.note(
            f"a summary stands for {count(compacting.n_turns, 'turn')}: {compacting.n_tokens_before:,} tokens are"
            f" {now:,} now; everything stays in the file"
        )
        return True

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Let a change of the session count that cannot be written yet, as on a full disk, and say so."""
        try:
            yield
        except (NotEnoughDisk, StoreError) as error:
            self.front.problem(error)

    def _warn_of(self, problem: OwmError | None) -> None:
        """Say what is not on the disk, but part of the conversation."""
        if problem is not None:
            self.front.problem(problem)

    def _tell(self, error: OwmError) -> None:
        if isinstance(error, TemplateError):  # its own hint is about flags of other commands
            error.hint = "`/model NAME` goes on with another model"
        self.front.problem(error)

    def _bug(self, error: Exception) -> None:
        """Say what should not have happened, and go on."""
        where = traceback.extract_tb(error.__traceback__)
        at = f", at line {where[-1].lineno} of {where[-1].name}" if where else ""
        self.front.problem(
            OwmError(
                f"owm made a mistake: {type(error).__name__}: {error}{at}",
                hint="the conversation is kept; with `--verbose` the whole trace is shown",
            )
        )
        if self._is_verbose:
            self.front.say("".join(traceback.format_exception(error)))


def last_answer(loop: ChatLoop) -> str:
    """Return the last answer on this branch.

    Raises:
        NotFound: there is none.
    """
    for turn in reversed(loop.desk.session.path()):
        if turn.role == "assistant":
            return turn.content
    raise NotFound("there is no answer yet")
