"""The logits of many positions of a text out of llama.cpp, a piece at a time, without keeping them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from owm.errors import EngineError, Unsupported
from owm.native import llama

N_BATCH = 512  # tokens of one decode, and so the most rows of logits in memory

Rows = np.ndarray[Any, np.dtype[np.float32]]


class LogitReader:
    """A context over a model that reads one chunk of text after the other, each from an empty memory."""

    def __init__(self, model: llama.Model, *, n_ctx: int, n_threads: int) -> None:
        """Make a context for chunks of `n_ctx` tokens.

        Raises:
            Unsupported: the model makes no text.
            EngineError: llama.cpp refuses, most often for want of memory.
        """
        n_batch = min(N_BATCH, n_ctx)
        self._context = llama.Context(
            model,
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_ubatch=n_batch,
            n_sequences=1,
            n_threads=n_threads,
            n_threads_batch=n_threads,
        )
        if model.has_encoder or not self._context.memory:
            self._context.close()
            raise Unsupported("the model makes no text, so it gives no probabilities of one")

    def __enter__(self) -> "LogitReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, tokens: Sequence[int], first: int, end: int) -> Iterator[tuple[int, Rows]]:
        """Yield the logits at the positions from `first` to before `end`, in pieces: where one begins, and its rows.

        A piece (n × n_vocab f32) is valid until the next one is asked for.

        Raises:
            EngineError: llama.cpp failed, or has no room for a chunk of this length.
        """
        context, batch = self._context, self._context.batch
        context.forget(0)
        for begin in range(0, len(tokens), context.n_batch):
            piece = tokens[begin : begin + context.n_batch]
            batch.clear()
            for position, token in enumerate(piece, begin):
                batch.add(token, position, 0, wants_logits=first <= position < end)
            if context.decode() != 0:
                raise EngineError(f"llama.cpp could not read a chunk of {len(tokens)} tokens")
            start, stop = max(first, begin), min(end, begin + len(piece))
            if start < stop:
                yield start, context.logit_rows(start - begin, stop - start)

    def close(self) -> None:
        """Free the context."""
        self._context.close()
