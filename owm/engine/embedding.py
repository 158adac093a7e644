"""Embeddings: one vector for each text, pooled from those of its tokens, many texts in one decode.

How a text is pooled is the model's business (`pooling_type` in its file) unless it is asked for otherwise. Nothing is
cut: a text that the model cannot read whole is refused with its count.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter
from typing import Any

import numpy as np

from owm.engine.context import COMPUTE_BYTES, DEFAULT_CONTEXT, MEMORY_SHARE, kv_bytes_per_token
from owm.engine.model import Model
from owm.errors import EngineError, NotEnoughMemory, PromptTooLong, Unsupported, UsageError
from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.hardware import probe
from owm.native import llama
from owm.units import format_bytes

STAGE = "embedding"
# Tokens of one decode, unless one text has more: on a CPU attention over many texts costs more than it saves.
BATCH_TOKENS, GPU_BATCH_TOKENS = 128, 512
N_SEQUENCES = 64  # of one decode; llama.cpp aborts where its tokens are no multiple of them
# llama.cpp keeps a row of its vocabulary's length for every token of a decode, also where none is asked for.
ROWS_BYTES = 256 << 20
WINDOW_TEXTS, WINDOW_CHARS = 1024, 4 << 20  # so many are tokenized before they are embedded
CELLS = 256  # by which llama.cpp rounds its caches up

Vector = np.ndarray[Any, np.dtype[np.float32]]

_decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="owm-embed")


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one: their mean, the first (`[CLS]`), or the last."""

    MEAN = "mean"
    CLS = "cls"
    LAST = "last"


# ref: llama.cpp include/llama.h, enum llama_pooling_type
_NONE, _RANK = 0, 4
_IN_FILE = {1: Pooling.MEAN, 2: Pooling.CLS, 3: Pooling.LAST}


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to embed, and what messages call it: `line 3 of rows.jsonl`."""

    text: str
    name: str


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of a text (n_dims float32), and how many tokens it has."""

    vector: Vector
    n_tokens: int


def choose_pooling(model: Model, asked: Pooling | None = None) -> Pooling:
    """Choose how to pool: as asked, else as the model's file says.

    Raises:
        Unsupported: the model makes no embeddings.
        UsageError: its file names no pooling, and none was asked for.
    """
    name, architecture = model.path.name, model.header.architecture
    if model.native.has_encoder:
        raise Unsupported(f"{name} is of an architecture that owm makes no embeddings with: {architecture}")
    found = model.header.integer("pooling_type") or _NONE
    if found == _RANK:
        raise Unsupported(f"{name} is a reranker: it scores pairs of texts and makes no embeddings")
    if asked is not None:
        return asked
    if found in _IN_FILE:
        return _IN_FILE[found]
    if model.is_causal:
        raise UsageError(
            f"{name} is no embedding model, it writes text",
            hint="`--pooling mean` or `--pooling last` makes vectors with it all the same",
        )
    raise UsageError(
        f"the file of {name} does not say how to pool", hint="most such models want `--pooling mean`, some `cls`"
    )


class Embedder:
    """Makes vectors with an open model. Close it before the model, or use it in a `with` statement."""

    def __init__(
        self,
        model: Model,
        *,
        pooling: Pooling | None = None,
        prefix: str = "",
        is_normalized: bool = True,
        n_threads: int | None = None,
    ) -> None:
        """Choose how to pool.

        Args:
            pooling: instead of what the model's file says.
            prefix: put before every text, as some models want it (`query: `).
            is_normalized: scale vectors to length 1.

        Raises:
            Unsupported, UsageError: as `choose_pooling`, or `n_threads` is not what ggml takes.
        """
        if n_threads is not None and not 0 < n_threads <= probe.MAX_THREADS:
            raise UsageError(f"--threads must be between 1 and {probe.MAX_THREADS}: {n_threads}")
        self.pooling = choose_pooling(model, pooling)
        self.n_dims = model.native.n_embd_out
        self.is_normalized = is_normalized
        self._model = model
        self._prefix = prefix
        self._n_threads = n_threads or model.cores.usable
        self._n_ctx_model = model.header.integer("context_length") or DEFAULT_CONTEXT
        wanted = GPU_BATCH_TOKENS if llama.can_offload() else BATCH_TOKENS
        self._batch_tokens = min(wanted, _rounded(ROWS_BYTES // (4 * model.native.n_vocab), N_SEQUENCES))
        self._n_sequences = 1 if model.native.is_recurrent else N_SEQUENCES
        self._short: llama.Context | None = None  # for many texts at once, in full precision
        self._long: llama.Context | None = None  # for one that does not fit there, where precision costs much time

    def __enter__(self) -> "Embedder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the contexts."""
        for context in (self._short, self._long):
            if context is not None:
                context.close()
        self._short = self._long = None

    def embed(
        self, passages: Iterable[Passage], *, n_passages: int | None = None, sink: Sink = ignore
    ) -> Iterator[Embedding]:
        """Yield the embedding of each text, in their order; some thousand texts are read ahead.

        Args:
            n_passages: how many there are, if that is known.

        Raises:
            UsageError: a text is empty.
            PromptTooLong: a text has more tokens than the model reads.
            NotEnoughMemory: a text would fit into the model, and not into memory.
            EngineError: llama.cpp failed, or made vectors that are no numbers.
        """
        began, n_done = perf_counter(), 0
        sink(Started(STAGE, n_passages, "texts"))
        for window in _windows(passages):
            texts = [self._tokenize(passage) for passage in window]
            self._make_room(max(texts, key=lambda text: len(text.tokens)))
            for batch in self._batches(texts):
                for text, vector in zip(batch, self._vectors(batch), strict=True):
                    yield Embedding(self._finished(vector, text.name), len(text.tokens))
                n_done += len(batch)
                sink(Advanced(STAGE, n_done))
        sink(Finished(STAGE, perf_counter() - began))

    def _tokenize(self, passage: Passage) -> "_Text":
        if not passage.text.strip():
            raise UsageError(f"there is nothing to embed: {passage.name} is empty")
        if any(0xD800 <= ord(character) < 0xE000 for character in passage.text):
            raise UsageError(f"{passage.name} is no text: it has half a character (a lone surrogate)")
        tokens = self._model.tokenize(self._prefix + passage.text)
        if len(tokens) > self._n_ctx_model:
            raise PromptTooLong(
                f"{passage.name} has {len(tokens)} tokens, the model reads {self._n_ctx_model}",
                n_prompt=len(tokens),
                n_ctx=self._n_ctx_model,
                hint="nothing was cut; embed its parts as texts of their own",
            )
        return _Text(passage.name, tokens)

    def _make_room(self, longest: "_Text") -> None:
        """See to it that the longest text fits: into one decode, unless the model reads from left to right."""
        model, n = self._model, len(longest.tokens)
        if n <= self._batch_tokens or (self._long is not None and self._long.n_ctx >= n):
            return
        n_ctx = _rounded(n, CELLS)
        n_batch = self._batch_tokens if model.is_causal else n_ctx
        rows_bytes = 4 * n_batch * model.native.n_vocab * (2 if model.is_causal else 1)  # computed, and handed out
        needed = model.weights_bytes + n_ctx * kv_bytes_per_token(model.header) + rows_bytes + COMPUTE_BYTES
        free = int(probe.memory().total * MEMORY_SHARE)
        if needed > free:
            raise NotEnoughMemory(
                f"{longest.name} has {n} tokens, which need {format_bytes(needed)} of memory with this model,"
                f" {format_bytes(free)} can be used",
                needed=needed,
                free=free,
                hint="nothing was cut; embed its parts as texts of their own",
            )
        if self._long is not None:
            self._long.close()
            self._long = None
        self._long = self._context(n_ctx, n_batch, n_sequences=1, flash_attention=None)

    def _context(self, n_ctx: int, n_batch: int, *, n_sequences: int, flash_attention: bool | None) -> llama.Context:
        return llama.Context(
            self._model.native,
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_ubatch=n_batch,
            n_sequences=n_sequences,
            n_threads=self._n_threads,
            n_threads_batch=self._n_threads,
            kv_unified=True,
            pooling=llama.POOLINGS[self.pooling],
            flash_attention=flash_attention,
        )

    def _batches(self, texts: "Sequence[_Text]") -> "Iterator[list[_Text]]":
        """Put texts together that are read in one decode; a long one is alone."""
        batch: list[_Text] = []
        n_tokens = 0
        for text in texts:
            n = len(text.tokens)
            if batch and (n_tokens + n > self._batch_tokens or len(batch) == self._n_sequences):
                yield batch
                batch, n_tokens = [], 0
            batch.append(text)
            n_tokens += n
        if batch:
            yield batch

    def _vectors(self, texts: "Sequence[_Text]") -> list[Vector]:
        if len(texts[0].tokens) > self._batch_tokens:
            assert self._long is not None
            return [self._vector_by_parts(self._long, texts[0])]
        if self._short is None:
            n_ctx = _rounded(self._batch_tokens, CELLS)
            self._short = self._context(n_ctx, self._batch_tokens, n_sequences=self._n_sequences, flash_attention=False)
        context = self._short
        context.forget_all()
        context.batch.clear()
        for sequence, text in enumerate(texts):
            for position, token in enumerate(text.tokens):
                context.batch.add(token, position, sequence, wants_logits=True)
        _decode(context)
        return [context.embedding(sequence) for sequence in range(len(texts))]

    def _vector_by_parts(self, context: llama.Context, text: "_Text") -> Vector:
        """Return the vector of a text, maybe of several decodes, of which llama.cpp pools each on its own."""
        context.forget_all()
        pooled: list[tuple[int, Vector]] = []
        for begin in range(0, len(text.tokens), context.n_batch):
            part = text.tokens[begin : begin + context.n_batch]
            context.batch.clear()
            for position, token in enumerate(part, begin):
                context.batch.add(token, position, 0, wants_logits=True)
            _decode(context)
            pooled.append((len(part), context.embedding(0)))
        if self.pooling is Pooling.MEAN:
            sizes, vectors = zip(*pooled, strict=True)
            mean: Vector = np.average(np.stack(vectors), axis=0, weights=sizes).astype(np.float32)
            return mean
        return pooled[0 if self.pooling is Pooling.CLS else -1][1]

    def _finished(self, vector: Vector, name: str) -> Vector:
        if not np.isfinite(vector).all():
            raise EngineError(f"the model makes no numbers of {name}")
        if not self.is_normalized:
            return vector
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if length == 0:
            raise EngineError(f"the vector of {name} is zero and has no direction", hint="`--no-normalize` keeps it")
        scaled: Vector = (vector / length).astype(np.float32)
        return scaled


@dataclass(frozen=True, slots=True)
class _Text:
    """A text as tokens."""

    name: str
    tokens: list[int]


def _windows(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    """Take texts from what may be a long stream, as many at a time as memory does not notice."""
    window: list[Passage] = []
    n_chars = 0
    for passage in passages:
        window.append(passage)
        n_chars += len(passage.text)
        if len(window) == WINDOW_TEXTS or n_chars >= WINDOW_CHARS:
            yield window
            window, n_chars = [], 0
    if window:
        yield window


def _rounded(n: int, step: int) -> int:
    """Round up."""
    return max(1, -(-n // step)) * step


def _decode(context: llama.Context) -> None:
    """Decode in a thread, so that an interrupted caller need not wait for its end."""
    decoding = _decoder.submit(context.decode)
    try:
        status = decoding.result()
    except BaseException:
        context.cancel()
        wait([decoding])
        raise
    if status != 0:
        raise EngineError(f"llama.cpp failed to decode ({status})")
