"""The table of tokens: texts, types and scores by id, with every slot filled once."""

from dataclasses import dataclass
from enum import IntEnum

from owm.convert.vocabulary.files import MAX_TOKENS
from owm.errors import Damaged

ADDED_SCORE = -1000.0
PADDING_SCORE = -10000.0
SPACE = "▁"  # SentencePiece's visible space


class TokenType(IntEnum):
    """What llama.cpp does with a token. ref: llama.cpp include/llama.h"""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(slots=True)
class TokenTable:
    """Tokens by id; `scores` is empty for the models that have none."""

    tokens: list[str | bytes]
    types: list[int]
    scores: list[float]

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def padding(cls, n_tokens: int, *, has_scores: bool) -> "TokenTable":
        """Make a table of unused slots, to be filled."""
        check_size(n_tokens)
        return cls(
            tokens=[f"[PAD{i}]" for i in range(n_tokens)],
            types=[int(TokenType.UNUSED)] * n_tokens,
            scores=[PADDING_SCORE] * n_tokens if has_scores else [],
        )

    def put(self, token_id: int, text: str, kind: TokenType, score: float | None = None) -> None:
        """Fill one slot; the id must lie within the table."""
        self.tokens[token_id] = text
        self.types[token_id] = int(kind)
        if score is not None:
            self.scores[token_id] = score

    def check_unique(self) -> None:
        """Refuse a table in which a text stands twice: llama.cpp would abort on it.

        Raises:
            Damaged: the message names the text and both ids.
        """
        texts = [_as_read(text) for text in self.tokens]
        if len(set(texts)) == len(texts):
            return
        seen: dict[str | bytes, int] = {}
        for token_id, text in enumerate(texts):
            # An empty text is no clash: llama.cpp gives it a name of its own.
            if text and (first := seen.setdefault(text, token_id)) != token_id:
                raise Damaged(f"the tokenizer has one token under two ids, {first} and {token_id}: {text!r}")


def _as_read(text: str | bytes) -> str | bytes:
    """Return a token's text as llama.cpp reads it, up to a NUL."""
    return text.partition("\0")[0] if isinstance(text, str) and "\0" in text else text


def check_size(n_tokens: int) -> None:
    """Refuse a vocabulary of an impossible size.

    Raises:
        Damaged: none, or more tokens than any vocabulary has.
    """
    if not 0 < n_tokens <= MAX_TOKENS:
        raise Damaged(f"the vocabulary has an impossible size: {n_tokens}")


_SPECIAL_TEXTS = frozenset(("<pad>", "<mask>", "<2mass>", "[@BOS@]"))
_SPECIAL_ENDS = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))


def looks_special(text: str) -> bool:
    """Say whether an added token is a control token that its file forgot to mark. ref: llama.cpp conversion/base.py"""
    return text in _SPECIAL_TEXTS or any(text.startswith(start) and text.endswith(end) for start, end in _SPECIAL_ENDS)
