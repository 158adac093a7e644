"""The text that models are measured on: cut into chunks of a model's tokens.

The convention is llama.cpp's: chunks of `n_ctx` tokens, a BOS in place of each one's first token if the model wants
one, and only the second half of a chunk counts, so that every counted token has half a context before it.
ref: llama.cpp tools/perplexity/perplexity.cpp
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from owm.errors import ModelNotFound, StoreError, UsageError
from owm.native import llama

N_CTX = 512
MIN_CTX = 8
BUNDLED = "owm's evaluation text"


@dataclass(frozen=True, slots=True)
class Text:
    """A text with its name, for people, and its sha256."""

    name: str
    content: str
    sha256: str


def bundled() -> Text:
    """Return the evaluation text that comes with owm; what it is made of is in `evaluation/SOURCES.md`."""
    folder = resources.files("owm.quality") / "evaluation"
    parts = sorted((part for part in folder.iterdir() if part.name.endswith(".txt")), key=lambda part: part.name)
    return _text(BUNDLED, "\n".join(part.read_text(encoding="utf-8") for part in parts).encode())


def read(path: Path) -> Text:
    """Read a text file (UTF-8; what is not is replaced).

    Raises:
        ModelNotFound, StoreError: it cannot be read.
    """
    try:
        raw = path.expanduser().read_bytes()
    except FileNotFoundError as error:
        raise ModelNotFound(f"no such file: {path}", ref=str(path)) from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    return _text(str(path), raw)


def _text(name: str, raw: bytes) -> Text:
    return Text(name, raw.decode("utf-8", "replace"), hashlib.sha256(raw).hexdigest())


@dataclass(frozen=True, slots=True)
class Chunks:
    """A text as one model's tokens, in chunks of `n_ctx`; `first` is the first position that counts."""

    text: Text
    tokens: tuple[tuple[int, ...], ...]
    n_ctx: int
    bos: int | None

    @property
    def first(self) -> int:
        """The first position whose prediction counts."""
        return self.n_ctx // 2

    @property
    def end(self) -> int:
        """The position after the last whose prediction counts: the last token has nothing to predict."""
        return self.n_ctx - 1

    @property
    def n_scored(self) -> int:
        """Tokens of one chunk that count."""
        return self.end - self.first

    def inputs(self, index: int) -> Sequence[int]:
        """Return what a model reads of a chunk."""
        tokens = self.tokens[index]
        return tokens if self.bos is None else (self.bos, *tokens[1:])

    def targets(self, index: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the tokens to be predicted at the positions that count."""
        return np.asarray(self.tokens[index][self.first + 1 : self.end + 1], np.int64)


def cut(text: Text, model: llama.Model, n_ctx: int = N_CTX) -> Chunks:
    """Cut a text into whole chunks of a model's tokens; what is left at the end is not used.

    Raises:
        UsageError: the text is too short, or the chunks are.
    """
    if n_ctx < MIN_CTX:
        raise UsageError(f"--ctx-size must be at least {MIN_CTX} to measure quality: {n_ctx}")
    # One newline at the end is llama.cpp's tools' habit to leave out.
    content = text.content[:-1] if text.content.endswith("\n") else text.content
    tokens = model.tokenize(content, add_special=True, parse_special=False)
    n_chunks = len(tokens) // n_ctx
    if n_chunks < 2:
        raise UsageError(
            f"{text.name} is too short: {len(tokens)} tokens, at least {2 * n_ctx} are needed",
            hint="a longer text, or a smaller `--ctx-size`",
        )
    cut = tuple(tuple(tokens[i * n_ctx : (i + 1) * n_ctx]) for i in range(n_chunks))
    return Chunks(text, cut, n_ctx, model.bos if model.adds_bos else None)
