"""Tokens to text as they come: UTF-8 that ends inside a character, and stop strings that end inside a token."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Text of one answer. Holds back what may turn out to be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped_by: str | None = None

    def push(self, piece: bytes) -> str:
        """Take the bytes of a token; return the text that is certain now. After a stop string nothing comes."""
        if self.stopped_by is not None:
            return ""
        text = self._held + self._decoder.decode(piece)
        if not self._stops:
            return text
        found = [(text.find(stop), stop) for stop in self._stops if stop in text]
        if found:
            position, self.stopped_by = min(found)
            self._held = ""
            return text[:position]
        keep = max(
            (n for stop in self._stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])),
            default=0,
        )
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """Return what was held back, at the end of the answer."""
        if self.stopped_by is not None:
            return ""
        text = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        return text
