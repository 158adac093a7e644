"""Tokens to text as they come: UTF-8 that ends inside a character, thoughts, stop strings that end inside a token."""

import codecs
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from owm.engine.reasoning import Parts, ReasoningStream


class TextStream:
    """Text of one answer. Holds back what may turn out to be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str] = (), thoughts: "ReasoningStream | None" = None) -> None:
        """Begin an answer; `thoughts` takes out what is none, where stop strings mean nothing."""
        self.thoughts = thoughts
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self._thought = ""
        self.stopped_by: str | None = None

    def push(self, piece: bytes) -> str:
        """Take the bytes of a token; return the text that is certain now. After a stop string nothing comes."""
        text = self._decoder.decode(piece)
        return self._advance(text if self.thoughts is None else self._answer(self.thoughts.push(text)))

    def push_mark(self, text: str) -> str:
        """Take a token that marks thoughts; return the text that is certain now."""
        assert self.thoughts is not None
        return self._advance(self._answer(self.thoughts.push(text, is_token=True)))

    def begin_answer(self) -> None:
        """Take whatever comes from here on for the answer, and nothing before."""
        assert self.thoughts is not None
        self._answer(self.thoughts.begin_answer())

    def take_thought(self) -> str:
        """Return what has become certain of the thought since this was asked last."""
        thought, self._thought = self._thought, ""
        return thought

    def finish(self) -> str:
        """Return what was held back, at the end of the answer."""
        text = self._decoder.decode(b"", final=True)
        if self.thoughts is not None:
            text = self._answer(self.thoughts.push(text)) + self._answer(self.thoughts.finish())
        return self._advance(text, is_end=True)

    def _answer(self, parts: "Parts") -> str:
        self._thought += parts.reasoning
        return parts.answer

    def _advance(self, more: str, *, is_end: bool = False) -> str:
        if self.stopped_by is not None:
            return ""
        if not self._stops:
            return more
        text = self._held + more
        # Where a stop string may have begun that has not come to its end yet.
        open_from = len(text) if is_end else len(text) - max(map(_overlap(text), self._stops), default=0)
        position, stop = min(((text.find(s), s) for s in self._stops if s in text), default=(len(text), None))
        if stop is not None and position <= open_from:
            self.stopped_by = stop
            return text[:position]
        self._held = text[open_from:]
        return text[:open_from]


def _overlap(text: str) -> Callable[[str], int]:
    """Return a function from a stop string to the length of its longest beginning with which the text ends."""
    return lambda stop: next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
