"""Tokens to text as they come: UTF-8 that ends inside a character, and stop strings that end inside a token."""

import codecs
from collections.abc import Callable, Sequence


class TextStream:
    """Text of one answer. Holds back what may turn out to be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped_by: str | None = None

    def push(self, piece: bytes) -> str:
        """Take the bytes of a token; return the text that is certain now. After a stop string nothing comes."""
        return self._advance(self._decoder.decode(piece))

    def finish(self) -> str:
        """Return what was held back, at the end of the answer."""
        return self._advance(self._decoder.decode(b"", final=True), is_end=True)

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
