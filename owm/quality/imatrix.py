"""Computing an importance matrix: a model reads chunks of text while its matrix multiplications are watched.

The numbers are those of llama-imatrix on the same tokens. It is cheaper because nobody reads the logits, which are not
even computed after the first chunk, and because what several tensors are multiplied with is summed once.
"""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from owm.engine.model import Model
from owm.errors import EngineError, UsageError
from owm.events import Advanced, Finished, Sink, Started, Warned, ignore
from owm.formats.imatrix import Entry, Imatrix
from owm.hardware import probe
from owm.native import llama
from owm.native.observer import MIN_ROWS, Observer
from owm.quality.calibration import STAGE, Calibration, tokenize

DEFAULT_CHUNK = 512
N_UBATCH, N_SEQUENCES = 512, 8


def compute(
    model: Model,
    calibration: Calibration,
    *,
    n_chunks: int | None = None,
    n_ctx: int = DEFAULT_CHUNK,
    n_threads: int | None = None,
    sink: Sink = ignore,
) -> Imatrix:
    """Let a model read a calibration text; see `of_tokens`. Experts that it never uses are said in a warning."""
    check_request(n_chunks=n_chunks, n_ctx=n_ctx, n_threads=n_threads)
    tokens = tokenize(calibration, model, sink)
    found = of_tokens(model, tokens, calibration.name, n_chunks=n_chunks, n_ctx=n_ctx, n_threads=n_threads, sink=sink)
    if missing := found.unhit():
        n_experts = sum(map(len, missing.values()))
        n_of = sum(len(found.entries[name].counts) for name in missing)
        sink(
            Warned(
                STAGE,
                f"{n_experts} of {n_of} experts' matrices in {len(missing)} tensors were never used by this text; "
                "they get the mean of the others",
            )
        )
    return found


def of_tokens(
    model: Model,
    tokens: Sequence[int],
    name: str,
    *,
    n_chunks: int | None = None,
    n_ctx: int = DEFAULT_CHUNK,
    n_threads: int | None = None,
    sink: Sink = ignore,
) -> Imatrix:
    """Let a model read tokens in chunks of `n_ctx`, each on its own; what does not fill a chunk is left out.

    The result has experts without data where the text uses none: `filled` before it is written or used.

    Args:
        name: of the text, which is written into the file.
        n_chunks: read at most so many.

    Raises:
        UsageError: the text does not fill a chunk, or a number cannot be.
        EngineError: llama.cpp fails, or a multiplication meets what is no number.
    """
    check_request(n_chunks=n_chunks, n_ctx=n_ctx, n_threads=n_threads)
    available = len(tokens) // n_ctx
    if available == 0:
        raise UsageError(
            f"the calibration text has {len(tokens)} tokens, a chunk has {n_ctx}",
            hint="name a longer text, or a smaller `--ctx-size`",
        )
    if n_ctx > model.native.n_ctx_train > 0:
        sink(Warned(STAGE, f"chunks of {n_ctx} tokens are longer than the model's context, {model.native.n_ctx_train}"))
    chosen = available if n_chunks is None else min(n_chunks, available)
    if n_chunks is not None and chosen < n_chunks:
        sink(Warned(STAGE, f"the calibration text fills {chosen} chunks of {n_ctx} tokens, not {n_chunks}"))
    observer = Observer()
    threads = n_threads or probe.cores().usable
    n_sequences = min(N_SEQUENCES, chosen)
    n_rows = -(-n_ctx // max(1, n_ctx // (N_UBATCH // N_SEQUENCES))) * n_sequences
    context = llama.Context(
        model.native,
        n_ctx=n_ctx * n_sequences,
        n_batch=n_rows,
        n_ubatch=n_rows,
        n_sequences=n_sequences,
        n_threads=threads,
        n_threads_batch=threads,
        observer=observer,
    )
    began = time.perf_counter()
    sink(Started(STAGE, chosen * n_ctx, "tokens"))
    try:
        for first in range(0, chosen, n_sequences):
            chunks = range(first, min(first + n_sequences, chosen))
            side_by_side = [tokens[chunk * n_ctx : (chunk + 1) * n_ctx] for chunk in chunks]
            for n_read in _read(context, observer, side_by_side):
                sink(Advanced(STAGE, first * n_ctx + n_read))
    finally:
        context.close()
    sink(Finished(STAGE, time.perf_counter() - began))
    entries = {
        name: Entry(seen.sums.reshape(len(seen.counts), -1).astype(np.float32), seen.counts)
        for name, seen in observer.sums.items()
    }
    if not entries:
        raise EngineError("llama.cpp showed no multiplication with a weight tensor")
    return Imatrix(entries, (name,), chosen, n_ctx)


def check_request(*, n_chunks: int | None, n_ctx: int, n_threads: int | None) -> None:
    """Refuse numbers that cannot be, before any work.

    Raises:
        UsageError: one is such.
    """
    if n_ctx < MIN_ROWS:
        raise UsageError(f"--ctx-size must be at least {MIN_ROWS}: {n_ctx}")
    if n_chunks is not None and n_chunks <= 0:
        raise UsageError(f"--chunks must be positive: {n_chunks}")
    if n_threads is not None and not 0 < n_threads <= probe.MAX_THREADS:
        raise UsageError(f"--threads must be between 1 and {probe.MAX_THREADS}: {n_threads}")


def _read(context: llama.Context, observer: Observer, chunks: Sequence[Sequence[int]]) -> Iterator[int]:
    """Decode chunks side by side, each on its own; its first token gives way to BOS where the model wants one.

    They advance in steps, a graph each: a little quicker than one after another. Yields the tokens read so far.
    """
    model, batch = context.model, context.batch
    n_ctx = len(chunks[0])
    n_steps = max(1, n_ctx // (N_UBATCH // N_SEQUENCES))
    for sequence in range(len(chunks)):
        context.forget(sequence)
    for step in range(n_steps):
        batch.clear()
        for sequence, tokens in enumerate(chunks):
            for position in range(step * n_ctx // n_steps, (step + 1) * n_ctx // n_steps):
                token = model.bos if position == 0 and model.adds_bos else tokens[position]
                # All want logits: llama.cpp leaves the others out of its last block.
                batch.add(token, position, sequence, wants_logits=True)
        observer.begin()
        status = context.decode()
        if isinstance(observer.error, ValueError):
            raise EngineError(f"the importance matrix cannot be computed: {observer.error}")
        if observer.error is not None:
            raise observer.error
        if status != 0:
            raise EngineError(f"llama.cpp failed to decode ({status})")
        yield (step + 1) * n_ctx // n_steps * len(chunks)
