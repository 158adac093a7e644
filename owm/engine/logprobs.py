"""Probabilities of tokens, from logits as they are: before penalties, truncation, temperature and constraints."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from owm.native.llama import Model

Logits = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability; its bytes may be a part of a character."""

    token: int
    piece: bytes
    logprob: float

    def as_json(self) -> dict[str, Any]:
        """Say it under the names that other programs know."""
        text = self.piece.decode("utf-8", "replace")
        return {"token": text, "logprob": round(self.logprob, 6) + 0.0, "bytes": list(self.piece)}


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A token that was taken, and the likeliest that could have been, falling."""

    taken: TokenLogprob
    likeliest: tuple[TokenLogprob, ...]

    def as_json(self) -> dict[str, Any]:
        """Say it under the names that other programs know."""
        return self.taken.as_json() | {"top_logprobs": [each.as_json() for each in self.likeliest]}


def log_normalizer(logits: Logits) -> float:
    """Return the logarithm of the sum of the exponentials, safe for logits of any size."""
    highest = logits.max()
    return float(highest) + math.log(float(np.exp(logits - highest).sum(dtype=np.float64)))


class Likeliest:
    """The `n` likeliest tokens at one position, and until the next decode the probability of any other."""

    def __init__(self, model: Model, logits: Logits, n: int) -> None:
        self._model = model
        self._normalizer = log_normalizer(logits)
        n = min(n, len(logits))
        top = np.argpartition(logits, -n)[-n:]
        ordered = top[np.lexsort((top, -logits[top]))]
        self._logits = logits
        self._likeliest = tuple(self._of(int(token)) for token in ordered if math.isfinite(logits[token]))

    def taken(self, token: int) -> TokenLogprobs:
        """Return the probabilities once a token was taken."""
        return TokenLogprobs(self._of(token), self._likeliest)

    def _of(self, token: int) -> TokenLogprob:
        logprob = float(self._logits[token]) - self._normalizer
        return TokenLogprob(token, self._model.piece(token, special=True), logprob)
