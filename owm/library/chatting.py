"""Conversations: a session on disk and an open model, and all that can be done with the two of them together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from owm.chat.compacting import Compacting
from owm.chat.history import answered, exchanges, messages
from owm.chat.reply import Reply
from owm.chat.session import Session
from owm.chat.terms import Overflow, Room, Terms, Use, read_overflow
from owm.chat.turn import Turn
from owm.chat.voice import Voice
from owm.engine.dialogue import Keeping
from owm.errors import EngineError, NotEnoughDisk, OwmError, PromptTooLong, StoreError, UsageError
from owm.events import Sink, ignore

if TYPE_CHECKING:
    from owm.engine.answer import Answer
    from owm.engine.model import Model, Prompt
    from owm.engine.request import Timings
    from owm.engine.template import Message

N_DRAFTS = 4

__all__ = ["N_DRAFTS", "Chat", "Compacting", "Overflow", "Reply", "Room", "Terms", "Use", "open_chat", "read_overflow"]


class Chat:
    """One conversation with one open model; for one thread, but for `Reply.cancel`, `Compacting.cancel` and `keep`.

    What of it is not on the disk yet, because that is full, is part of it all the same: `Reply.problem` says so.

    Attributes:
        session: the conversation; go back, fork, switch and set its system prompt there, between answers.
        last: of the last answer; None before the first.
    """

    def __init__(self, session: Session, voice: Voice, terms: Terms, *, model_name: str) -> None:
        """Take a session and what answers in it."""
        self.session = session
        self.model_name = model_name
        self.last: Timings | None = None
        self._terms = terms
        self._voice = voice
        self._reply: Reply | None = None

    @property
    def terms(self) -> Terms:
        """What holds for answers."""
        return self._terms

    @property
    def n_ctx(self) -> int:
        """The largest context that there can be; what there is grows up to it by itself."""
        return self._voice.ceiling.n_ctx

    @property
    def n_drafts(self) -> int:
        """The most drafts at a time."""
        return self._voice.n_drafts

    def set(self, terms: Terms) -> None:
        """Let other terms hold from the next answer on.

        With another size of the context, or another number of threads, it is made anew: the conversation is read again
        with the next answer.

        Raises:
            UsageError, NotEnoughMemory: there can be no such context; the terms stay what they were.
        """
        self._finish()
        self._voice.set(terms.wishes)
        self._terms = terms

    def room(self, content: str | None = None) -> Room:
        """Tell whether the next prompt fits.

        Args:
            content: what is said next; None for the conversation as it stands.

        Raises:
            TemplateError: the model's template fails.
        """
        if content is None:
            n_prompt = len(self._standing())
        else:
            n_prompt = len(self._voice.prompt(self._asked(content)).tokens)
        return Room(n_prompt, self._voice.n_kept, self.n_ctx)

    def ask(self, content: str, *, typed: str | None = None, attachments: Sequence[str] = ()) -> Reply:
        """Add a turn of the person, which is on the disk then, and begin its answer.

        A turn that nobody has answered stays in the file, and is not read any more: this one is said in its place.

        Raises:
            PromptTooLong: it does not fit; nothing is added.
            TemplateError, EngineError: it cannot be answered; nothing is added.
        """
        self._finish()
        said = self._asked(content)
        prompt = self._voice.prompt(said)
        self._voice.make_room(len(prompt.tokens))
        problem = self._add_user_turn(content, typed, attachments)
        return self._begin(prompt, said, problem=problem)

    def again(self) -> Reply:
        """Begin an answer to the last turn, a person's that nobody has answered here, or that is answered once more.

        Raises:
            UsageError: the last turn is none of a person's.
            PromptTooLong, TemplateError, EngineError: it cannot be answered.
        """
        self._finish()
        prompt, said = self._unanswered()
        return self._begin(prompt, said)

    def drafts(self, n: int) -> Reply:
        """Begin `n` answers side by side to the last turn, each with another seed; `pick` makes one of them a turn.

        Raises:
            UsageError: the last turn is none of a person's, or there are more than there can be.
            PromptTooLong, TemplateError, EngineError: it cannot be answered.
        """
        self._finish()
        prompt, said = self._unanswered()
        return self._begin(prompt, said, n=n, are_drafts=True)

    def pick(self, reply: Reply, number: int) -> Turn:
        """Let a draft be the answer; the other ones become turns beside it, which `Session.branches` shows.

        Args:
            number: of the draft, from 1 on.

        Raises:
            UsageError: there is no such draft, it is empty, or the conversation has gone on.
            NotEnoughDisk, StoreError: it is not on the disk yet.
        """
        reply.close()
        if not 1 <= number <= len(reply.answers):
            raise UsageError(f"there is no draft {number}", hint=f"there are: 1 to {len(reply.answers)}")
        asked = self._turn_to_answer()
        if _is_empty(reply.answers[number - 1]):
            raise UsageError(f"draft {number} is empty")
        others = [place for place in range(len(reply.answers)) if place != number - 1]
        problem: OwmError | None = None
        for place in [*others, number - 1]:
            if not _is_empty(reply.answers[place]):
                problem = self._add_answer(reply, place, asked)
        reply.turn = self.session.turns[self.session.head or 0]
        if problem is not None:
            raise problem
        return reply.turn

    def compact(self, content: str | None = None, *, n_free: int | None = None) -> Compacting:
        """Begin to summarise the oldest turns with the model itself; in the file they stay what they are.

        Args:
            content: what is said next, for which there is to be room then, with its answer.
            n_free: the tokens that are to be free then; by default half of the context, or what `content` needs.

        Raises:
            UsageError: there is nothing to summarise.
            TemplateError: the model's template fails.
        """
        self._finish()
        if n_free is None and content is not None:
            room = self.room(content)
            n_free = max(0, room.n_prompt - len(self._standing())) + room.n_kept
        return Compacting(self.session, self._voice, n_free)

    def drop(self, content: str | None = None) -> int:
        """Let as few as possible of the oldest exchanges be no longer read, so that the next prompt fits.

        In the file they stay what they are. A summary of what was before them is kept if that is enough.

        Args:
            content: what is said next; None for the conversation as it stands.

        Returns:
            How many turns were dropped, 0 if it fits.

        Raises:
            PromptTooLong: dropping all of them is not enough; nothing is dropped.
            NotEnoughDisk, StoreError: it is done, but not on the disk yet.
        """
        self._finish()
        compaction, turns = self.session.condensed()
        said = exchanges(answered(turns))
        later = [] if content is not None else turns[sum(map(len, said)) :]
        if self.room(content).fits:
            return 0
        kept = compaction.summary if compaction is not None else None
        for summary in dict.fromkeys((kept, None)):
            for n in range(0 if summary is None and kept is not None else 1, len(said) + 1):
                left = [turn for exchange in said[n:] for turn in exchange]
                stands = compaction if summary is not None else None
                found = messages(self.session.system, stands, [*left, *later], content)
                n_prompt = len(self._voice.history(found))
                if n_prompt + self._voice.n_kept <= self.n_ctx:
                    through = said[n - 1][-1].id if n else compaction.through if compaction else 0
                    self.session.compact(through, summary)
                    return sum(map(len, said[:n]))
        room = self.room(content)
        raise PromptTooLong(
            f"this turn alone is too long: with what is kept for its answer it is {room.n_over} tokens over"
            f" {self._voice.limit_name}, which holds {self.n_ctx}",
            n_prompt=room.n_prompt,
            n_ctx=self.n_ctx,
            hint="shorten it; nothing was dropped",
        )

    def use(self) -> Use:
        """Tell what of the context is used, and for what.

        Raises:
            TemplateError: the model's template fails.
        """
        compaction, turns = self.session.condensed()
        tokens = self._standing()
        return Use(
            n_ctx=self.n_ctx,
            n_allocated=self._voice.n_ctx,
            n_used=len(tokens),
            n_system=self._voice.count(self.session.system or ""),
            n_held=self._voice.n_held(tokens),
            limited_by=self._voice.ceiling.limit,
            turns=tuple((turn, self._voice.count(turn.content)) for turn in turns),
            compacted=compaction,
        )

    def keep(self) -> Path | None:
        """Write a snapshot of what was read, if there is something new; from any thread.

        Returns:
            Its path; None where there is nothing to write, while an answer is made, and if nothing is to be kept.
        """
        return self._voice.save(self._messages())

    def close(self) -> None:
        """Stop what is under way, and free the context; the session stays open."""
        with suppress(OwmError):
            self._finish()
        self._voice.close()

    # -- prompts -----------------------------------------------------------------------------------------------------

    def _messages(self) -> "list[Message]":
        compaction, turns = self.session.condensed()
        return messages(self.session.system, compaction, turns)

    def _asked(self, content: str) -> "list[Message]":
        compaction, turns = self.session.condensed()
        return messages(self.session.system, compaction, answered(turns), content)

    def _standing(self) -> Sequence[int]:
        """Return what the model reads before anything more is said."""
        said = self._messages()
        if not said:
            return ()
        is_open = said[-1]["role"] == "user"
        return self._voice.prompt(said, is_open=is_open).tokens

    def _turn_to_answer(self) -> Turn:
        turn = self.session.turns.get(self.session.head or 0)
        if turn is None or turn.role != "user":
            raise UsageError("there is nothing to answer", hint="say something, or `/retry` the last answer")
        return turn

    def _unanswered(self) -> "tuple[Prompt, list[Message]]":
        self._turn_to_answer()
        said = self._messages()
        return self._voice.prompt(said), said

    # -- turns -------------------------------------------------------------------------------------------------------

    def _add_user_turn(self, content: str, typed: str | None, attachments: Sequence[str]) -> OwmError | None:
        path = answered(self.session.path())
        problem: OwmError | None = None
        try:
            self.session.move_to(path[-1].id if path else None)
        except (NotEnoughDisk, StoreError) as error:
            problem = error
        try:
            self.session.add_turn("user", content, typed=typed, attachments=attachments)
        except (NotEnoughDisk, StoreError) as error:
            problem = error
        else:
            problem = None  # with it goes to the disk what was not there yet
        return problem

    def _begin(
        self,
        prompt: "Prompt",
        said: "list[Message]",
        *,
        n: int = 1,
        are_drafts: bool = False,
        problem: OwmError | None = None,
    ) -> Reply:
        asked = self._turn_to_answer()
        generation, ids = self._voice.answers(prompt, said, n)

        def on_end(reply: Reply) -> Turn | None:
            timings = [answer.timings for answer in reply.answers if answer.timings is not None]
            self.last = timings[0] if timings else self.last
            if are_drafts:
                return None
            self._check_fed(prompt.tokens, reply.tokens[0])
            if _is_empty(reply.answers[0]):
                return None
            reply.problem = self._add_answer(reply, 0, asked)
            return self.session.turns[self.session.head or 0]

        self._reply = Reply(generation, ids, on_end, problem=problem)
        return self._reply

    def _add_answer(self, reply: Reply, place: int, asked: Turn) -> OwmError | None:
        answer = reply.answers[place]
        timings = answer.timings
        try:
            self.session.add_turn(
                "assistant",
                answer.text,
                parent=asked.id,
                reasoning=answer.reasoning or None,
                finish_reason=answer.finish_reason,
                usage=answer.usage() if timings is not None else None,
                seconds=timings.prefill_seconds + timings.decode_seconds if timings is not None else None,
                tokens=reply.tokens[place],
                settings=self._terms.settings(),
            )
        except (NotEnoughDisk, StoreError) as error:
            return error
        return None

    def _check_fed(self, prompt: Sequence[int], made: Sequence[int]) -> None:
        """Be sure that the model has read what the conversation says, and nothing else."""
        held = tuple(self._voice.held())
        if held != (*prompt, *made)[: len(held)]:
            self._voice.close()
            raise EngineError("what the model has read is not the conversation", hint="please tell of this")

    def _finish(self) -> None:
        """Stop the answer that is under way, if there is one, and keep what is there."""
        if self._reply is not None:
            self._reply.close()
            self._reply = None


@contextmanager
def open_chat(
    session: Session,
    model: "Model",
    terms: Terms,
    *,
    model_name: str,
    model_sha256: str | None,
    keeps: bool = True,
    adapters: Sequence[tuple[str, float]] = (),
    n_drafts: int = N_DRAFTS,
    sink: Sink = ignore,
) -> Iterator[Chat]:
    """Go on with a conversation; what a snapshot has of it need not be read.

    Args:
        model_sha256: of the model's files; without it there are no snapshots.
        keeps: snapshots are read and written; a private session has none anyway.
        adapters: the sha256 of each that the model computes with and its scale, in order.
        n_drafts: the most answers side by side.
        sink: is told where a snapshot cannot be written or was damaged.

    Raises:
        UsageError, NotEnoughMemory, Unsupported, EngineError: there can be no such context.
    """
    from owm.engine.snapshots import open_snapshots

    keeping = None
    if keeps and model_sha256 is not None and session.file is not None:
        keeping = Keeping(open_snapshots(sink), model_sha256, model_name, tuple(adapters))
    voice = Voice(model, terms.wishes, n_drafts=n_drafts, keeping=keeping)
    chat = Chat(session, voice, terms, model_name=model_name)
    try:
        with suppress(NotEnoughDisk, StoreError):  # it is written with the first turn
            session.set_model(model_name, model_sha256)
        voice.prepare(chat._messages())
        yield chat
    finally:
        chat.close()


def _is_empty(answer: "Answer") -> bool:
    return not answer.text.strip() and not answer.reasoning.strip()
