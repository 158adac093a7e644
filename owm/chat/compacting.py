"""The oldest turns of a conversation made a summary, by the model itself; in the file they stay what they are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from owm.chat.conversation import Compaction
from owm.chat.history import answered, exchanges, messages
from owm.chat.session import Session
from owm.chat.turn import Turn
from owm.chat.voice import Voice
from owm.engine.template import Message, Thinking
from owm.errors import EngineError, NotEnoughDisk, OwmError, PromptTooLong, StoreError, UsageError

if TYPE_CHECKING:
    from owm.engine.generate import Generation
    from owm.engine.request import Chunk

SUMMARY_TOKENS = 1024
SUMMARY_SHARE = 8  # of the context, where that is small
_LEAST_SUMMARY = 32
_INSTRUCTION = (
    "Summarise our conversation so far in at most {n_words} words, so that it can go on without the rest of it: what I"
    " asked for, what was found and decided, names, numbers, code that is still needed, and what is left to do. Write"
    " it in the language of the conversation, and answer with the summary alone."
)


class Compacting:
    """A summary that is being written: an iterable of chunks. Only when it has come to its end anything is changed.

    Attributes:
        n_turns: that it stands for.
        n_tokens_before, n_tokens_after: of what the model reads of the conversation.
        summary: None until it is done, and if it was stopped.
        problem: why it is not on the disk yet.
    """

    def __init__(self, session: Session, voice: Voice, n_free: int | None = None) -> None:
        """Choose the turns.

        Args:
            n_free: tokens that are to be free then; by default half of the context, and all but the last exchange is
                summarised where that much is free already.

        Raises:
            UsageError: there is nothing to summarise.
        """
        self._session = session
        self._voice = voice
        self._before, turns = session.condensed()
        self._said = exchanges(answered(turns))
        self._later = turns[sum(map(len, self._said)) :]
        if not self._said:
            raise UsageError("there is nothing to summarise", hint="the conversation has not begun")
        self._n_summary = max(_LEAST_SUMMARY, min(SUMMARY_TOKENS, voice.ceiling.n_ctx // SUMMARY_SHARE))
        self._n = self._choose(n_free)
        self._generation: Generation | None = None
        self._is_cancelled = False
        self.n_turns = sum(map(len, self._said[: self._n]))
        self.n_tokens_before = self._n_tokens(self._before, 0)
        self.n_tokens_after: int | None = None
        self.summary: str | None = None
        self.problem: OwmError | None = None

    def __iter__(self) -> "Iterator[Chunk]":
        """Yield the chunks of the summary; where the turns do not fit at once, of several, the last of which counts.

        Raises:
            PromptTooLong: a turn is too long to be summarised.
            EngineError: llama.cpp failed, or the model wrote nothing.
        """
        compaction, begin = self._before, 0
        while begin < self._n:
            end = self._end_of_part(compaction, begin)
            said = self._messages(compaction, begin, end, self._instruction())
            wishes = replace(
                self._voice.wishes.without_shape(), max_tokens=self._n_summary, thinking=Thinking("off"), think_budget=0
            )
            self._generation, _ = self._voice.answers(self._voice.prompt(said, wishes), said, wishes=wishes)
            text, reason = "", None
            for chunk in self._generation:
                text += chunk.text
                reason = chunk.finish_reason or reason
                if chunk.error is not None:
                    raise chunk.error
                yield chunk
                if self._is_cancelled:
                    return
            if self._is_cancelled or reason == "cancelled":
                return
            if not text.strip():
                raise EngineError("the model wrote no summary", hint="try again, or drop the oldest turns")
            compaction = Compaction(self._said[end - 1][-1].id, text.strip(), datetime.now(UTC))
            begin = end
        assert compaction is not None
        self.summary = compaction.summary
        try:
            self._session.compact(compaction.through, compaction.summary)
        except (NotEnoughDisk, StoreError) as error:
            self.problem = error
        self.n_tokens_after = self._n_tokens(compaction, self._n)

    def cancel(self) -> None:
        """Stop: then nothing is changed. From any thread, and from a signal's handler."""
        self._is_cancelled = True
        if self._generation is not None:
            self._generation.cancel()

    def _choose(self, n_free: int | None) -> int:
        """Return how many exchanges have to go."""
        n_all, n_ctx = len(self._said), self._voice.ceiling.n_ctx
        n_most = n_ctx - (n_ctx // 2 if n_free is None else n_free)

        def is_enough(n: int) -> bool:
            blank = Compaction(0, "", datetime.now(UTC))
            return self._n_tokens(blank, n) + self._n_summary <= n_most

        if self._n_tokens(self._before, 0) <= n_most:
            return max(1, n_all - 1)
        return _first(is_enough, 1, n_all)

    def _end_of_part(self, compaction: Compaction | None, begin: int) -> int:
        """Return up to where exchanges fit, with what is said of them."""

        def is_too_long(end: int) -> bool:
            said = self._messages(compaction, begin, end, self._instruction())
            return len(self._voice.prompt(said).tokens) + self._n_summary > self._voice.ceiling.n_ctx

        if not is_too_long(self._n):
            return self._n
        end = _first(is_too_long, begin + 1, self._n) - 1
        if end == begin:
            raise PromptTooLong(
                "the oldest turns are too long to be summarised",
                n_prompt=len(self._voice.prompt(self._messages(compaction, begin, begin + 1, "")).tokens),
                n_ctx=self._voice.ceiling.n_ctx,
                hint="drop them instead",
            )
        return end

    def _instruction(self) -> str:
        return _INSTRUCTION.format(n_words=max(20, self._n_summary // 2))

    def _messages(self, compaction: Compaction | None, begin: int, end: int, content: str) -> list[Message]:
        turns = [turn for exchange in self._said[begin:end] for turn in exchange]
        return messages(self._session.system, compaction, turns, content)

    def _n_tokens(self, compaction: Compaction | None, begin: int) -> int:
        """Count what the model reads if it begins at an exchange."""
        turns: Sequence[Turn] = [turn for exchange in self._said[begin:] for turn in exchange] + self._later
        return len(self._voice.history(messages(self._session.system, compaction, turns)))


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the first number for which something holds, `high` if it holds for none before that."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
