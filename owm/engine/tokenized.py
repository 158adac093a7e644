"""A text and where its tokens lie in it, so that it can be cut between two of them without losing a character."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from owm.errors import Unsupported

if TYPE_CHECKING:
    from owm.native import llama


class TokenizedText:
    """A text of `n_tokens` tokens. Boundary k lies before token k; 0 and `n_tokens` are its two ends."""

    def __init__(self, text: str, tokens: Sequence[int], piece: Callable[[int], bytes]) -> None:
        """Find the tokens in the text. A boundary inside a UTF-8 character is none to cut at.

        Raises:
            Unsupported: the tokens are not the text's own (a vocabulary that changes it, say to lower case).
        """
        self.text = text
        self.n_tokens = len(tokens)
        self._raw = text.encode("utf-8")
        self._offsets = array("q", _offsets(self._raw, [piece(token) for token in tokens]))

    def between(self, begin: int, end: int) -> str:
        """Return the text of the tokens from boundary `begin` to boundary `end`, both ones to cut at."""
        return self._raw[self._offsets[begin] : self._offsets[end]].decode("utf-8")

    def at_or_before(self, boundary: int) -> int:
        """Return the last boundary to cut at that is not after this one."""
        return next(k for k in range(boundary, -1, -1) if self._is_clean(k))

    def at_or_after(self, boundary: int) -> int:
        """Return the first boundary to cut at that is not before this one."""
        return next(k for k in range(boundary, self.n_tokens + 1) if self._is_clean(k))

    def natural(self, first: int, last: int, wanted: int) -> int | None:
        """Return the most natural boundary from `first` to `last`: after a paragraph, a line, a sentence, a word.

        Among equals it is the one nearest to `wanted`; None if there is none to cut at.
        """
        clean = (k for k in range(first, last + 1) if self._is_clean(k))
        return max(clean, key=lambda k: (self._naturalness(k), -abs(k - wanted)), default=None)

    def _is_clean(self, boundary: int) -> bool:
        offset = self._offsets[boundary]
        return offset == len(self._raw) or self._raw[offset] & 0xC0 != 0x80

    def _naturalness(self, boundary: int) -> int:
        offset = self._offsets[boundary]
        before, after = self._raw[max(0, offset - 4) : offset], self._raw[offset : offset + 1]
        if before.endswith(b"\n"):
            return 3 if after == b"\n" else 4 if before.endswith((b"\n\n", b"\n\r\n")) else 3
        if after.isspace() or before[-1:].isspace():
            return 2 if before.rstrip().endswith((b".", b"!", b"?")) else 1
        return 0


def tokenize(native: "llama.Model", text: str) -> TokenizedText:
    """Tokenize a text as a part of a prompt: no BOS, but control tokens where it has their texts.

    Raises:
        Unsupported: the model's vocabulary does not keep texts as they are.
    """
    tokens = native.tokenize(text, add_special=False, parse_special=True)
    return TokenizedText(text, tokens, lambda token: native.piece(token, special=True))


def _offsets(raw: bytes, pieces: Sequence[bytes]) -> Iterable[int]:
    if b"".join(pieces) == raw:
        return accumulate(map(len, pieces), initial=0)
    # SentencePiece puts a space before a text, and some control tokens take the spaces beside them.
    offsets = [0]
    for piece in pieces:
        offsets.append(_end(raw, piece, offsets[-1]))
    if raw[offsets[-1] :].strip():
        raise Unsupported("this model's vocabulary changes texts, so they cannot be cut at its tokens")
    offsets[-1] = len(raw)
    return offsets


def _end(raw: bytes, piece: bytes, begin: int) -> int:
    if raw.startswith(piece, begin):
        return begin + len(piece)
    word = piece.strip()
    while raw[begin : begin + 1].isspace():
        begin += 1
    return begin + len(word) if raw.startswith(word, begin) else begin
