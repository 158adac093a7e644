"""How far candidates are from a reference on a text: KL divergence, perplexities and top-1 agreement, with intervals.

All models are in one process and read the same chunk one after the other; no logits are written to disk. The figures
are those of llama-perplexity's `--kl-divergence` (ref: llama.cpp tools/perplexity/perplexity.cpp), except that the
reference's logits are not rounded to 16 bits on the way.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from owm.engine.model import Model
from owm.errors import NotEnoughMemory, UsageError
from owm.events import Advanced, Finished, Sink, Started, Warned, ignore
from owm.native.logits import LogitReader
from owm.quality import texts
from owm.quality.figures import Divergence
from owm.quality.interval import FEWEST_CHUNKS, Strata
from owm.quality.sample import Sample
from owm.quality.softmax import Scores, Softmax, StoredRows
from owm.quality.texts import N_CTX, Chunks, Text
from owm.units import format_bytes

PRECISION = 0.05  # of the mean divergence, at which measuring stops
STAGE = "quality"


def compare(
    reference: Sequence[Path],
    candidate: Sequence[Path],
    text: Text | None = None,
    *,
    n_ctx: int = N_CTX,
    n_chunks: int | None = None,
    is_full: bool = False,
    precision: float = PRECISION,
    n_threads: int | None = None,
    n_gpu_layers: int | None = None,
    sink: Sink = ignore,
) -> Divergence:
    """Measure one candidate; see `compare_many`."""
    return compare_many(
        reference,
        [candidate],
        text,
        n_ctx=n_ctx,
        n_chunks=n_chunks,
        is_full=is_full,
        precision=precision,
        n_threads=n_threads,
        n_gpu_layers=n_gpu_layers,
        sink=sink,
    )[0]


def compare_many(
    reference: Sequence[Path],
    candidates: Sequence[Sequence[Path]],
    text: Text | None = None,
    *,
    n_ctx: int = N_CTX,
    n_chunks: int | None = None,
    is_full: bool = False,
    precision: float = PRECISION,
    n_threads: int | None = None,
    n_gpu_layers: int | None = None,
    sink: Sink = ignore,
) -> list[Divergence]:
    """Measure candidates against a reference, every chunk of the text by all models before the next one.

    Chunks are taken in a fixed random order, until the mean divergence of every candidate is known to `precision`.

    Args:
        reference: a model file, or its shards in order; so each candidate.
        text: None for the bundled evaluation text.
        n_chunks: read at most so many chunks, spread over the text.
        is_full: read the whole text, however precise the figures are before.

    Raises:
        UsageError: the models' vocabularies differ, or the text is too short.
        MalformedFile, EngineError, Unsupported: a model cannot be loaded or gives no numbers.
    """
    began = time.monotonic()
    chunks, samples = measure_many(
        reference,
        candidates,
        text,
        n_ctx=n_ctx,
        n_chunks=n_chunks,
        precision=0.0 if is_full else precision,
        n_threads=n_threads,
        n_gpu_layers=n_gpu_layers,
        sink=sink,
    )
    return [summarize(chunks, sample, time.monotonic() - began) for sample in samples]


def measure_many(
    reference: Sequence[Path],
    candidates: Sequence[Sequence[Path]],
    text: Text | None = None,
    *,
    n_ctx: int = N_CTX,
    n_chunks: int | None = None,
    precision: float = PRECISION,
    n_threads: int | None = None,
    n_gpu_layers: int | None = None,
    sink: Sink = ignore,
) -> tuple[Chunks, list[Sample]]:
    """Measure as `compare_many` does, and return what every token gave; a precision of 0 reads the whole text."""
    if n_chunks is not None and n_chunks < FEWEST_CHUNKS:
        raise UsageError(f"--chunks must be at least {FEWEST_CHUNKS}: {n_chunks}")
    began = time.monotonic()
    with ExitStack() as stack:
        opened = [stack.enter_context(Model(files, n_gpu_layers=n_gpu_layers)) for files in (reference, *candidates)]
        first = opened[0]
        chunks = texts.cut(text or texts.bundled(), first.native, n_ctx)
        for model in opened[1:]:
            _check_vocabulary(chunks, model, first.native.n_vocab)
        if n_ctx > first.native.n_ctx_train:
            trained = first.native.n_ctx_train
            sink(Warned(STAGE, f"{first.path.name} was trained on {trained} tokens, chunks have {n_ctx}"))
        threads = n_threads or first.cores.usable
        readers = [stack.enter_context(LogitReader(m.native, n_ctx=n_ctx, n_threads=threads)) for m in opened]
        softmax = stack.enter_context(Softmax(first.native.n_vocab, threads))
        strata = Strata(len(chunks.tokens))
        samples = [Sample(strata) for _ in candidates]
        n_done, n_most = 0, min(n_chunks or len(chunks.tokens), len(chunks.tokens))
        sink(Started(STAGE, n_most * n_ctx, "tokens"))
        for turn in strata.rounds:
            for index in turn[: n_most - n_done]:
                for sample, scores in zip(samples, _read(readers, softmax, chunks, index), strict=True):
                    sample.add(index, scores)
                n_done += 1
                sink(Advanced(STAGE, n_done * n_ctx))
            if n_done == n_most or (precision > 0 and all(sample.is_known(precision) for sample in samples)):
                break
        sink(Finished(STAGE, time.monotonic() - began))
        return chunks, samples


def summarize(chunks: Chunks, sample: Sample, seconds: float) -> Divergence:
    """Turn what was measured into figures."""
    return Divergence(
        text_name=chunks.text.name,
        text_sha256=chunks.text.sha256,
        n_ctx=chunks.n_ctx,
        n_chunks=sample.n_chunks,
        n_chunks_total=len(chunks.tokens),
        n_tokens=sample.n_chunks * chunks.n_scored,
        kld_mean=sample.kld_mean(),
        kld_median=sample.kld_quantile(0.5),
        kld_p99=sample.kld_quantile(0.99),
        perplexity_reference=sample.perplexity_reference(),
        perplexity=sample.perplexity(),
        top1_agreement=sample.top1_agreement(),
        seconds=seconds,
    )


class Reference:
    """A reference's logits on some chunks of a text, kept in memory, so that many candidates are compared fast.

    Each logit takes two bytes: 40 chunks of 512 tokens of a 49,152-token vocabulary take 1 GB.
    """

    def __init__(
        self,
        files: Sequence[Path],
        text: Text | None = None,
        *,
        n_chunks: int,
        n_ctx: int = N_CTX,
        max_bytes: int = 4 << 30,
        n_threads: int | None = None,
        n_gpu_layers: int | None = None,
        sink: Sink = ignore,
    ) -> None:
        """Read `n_chunks` chunks, spread over the text, with the reference, and close its file.

        Raises:
            NotEnoughMemory: the logits would take more than `max_bytes`.
            UsageError, MalformedFile, EngineError, Unsupported: as `compare_many`.
        """
        self._n_gpu_layers = n_gpu_layers
        with Model(files, n_gpu_layers=n_gpu_layers) as model:
            self.n_vocab = model.native.n_vocab
            self.n_threads = n_threads or model.cores.usable
            self.chunks = texts.cut(text or texts.bundled(), model.native, n_ctx)
            self._strata = Strata(len(self.chunks.tokens))
            self.order = [index for turn in self._strata.rounds for index in turn][:n_chunks]
            needed = 2 * len(self.order) * self.chunks.n_scored * self.n_vocab
            if needed > max_bytes:
                raise NotEnoughMemory(
                    f"the reference's logits on {len(self.order)} chunks take {format_bytes(needed)}",
                    needed=needed,
                    free=max_bytes,
                    hint="fewer chunks take less",
                )
            self._softmax = Softmax(self.n_vocab, self.n_threads)
            self._stored: dict[int, list[tuple[int, StoredRows]]] = {}
            with LogitReader(model.native, n_ctx=n_ctx, n_threads=self.n_threads) as reader:
                sink(Started(STAGE, len(self.order) * n_ctx, "tokens"))
                for n_done, index in enumerate(self.order, 1):
                    self._stored[index] = [
                        (begin, self._softmax.store(rows, _part(self.chunks, index, begin, len(rows))))
                        for begin, rows in _pieces(reader, self.chunks, index)
                    ]
                    sink(Advanced(STAGE, n_done * n_ctx))

    def __enter__(self) -> "Reference":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the logits."""
        self._stored.clear()
        self._softmax.close()

    def measure(
        self, files: Sequence[Path], n_chunks: int | None = None, *, is_own: bool = False, sink: Sink = ignore
    ) -> Sample:
        """Read the same chunks (the first `n_chunks` of `order`) with a candidate.

        Args:
            is_own: whether the candidate is known to have the reference's vocabulary, and need not be asked.

        Returns:
            What was measured: `.kld` (chunks × tokens), `.chunk_means()`, and the figures with intervals.

        Raises:
            UsageError: its vocabulary is another.
            MalformedFile, EngineError, Unsupported: it cannot be loaded or gives no numbers.
        """
        with Model(files, n_gpu_layers=self._n_gpu_layers) as model:
            if not is_own:
                _check_vocabulary(self.chunks, model, self.n_vocab)
            return self.measure_model(model, n_chunks, sink=sink)

    def measure_model(self, model: Model, n_chunks: int | None = None, *, sink: Sink = ignore) -> Sample:
        """Read the same chunks with a candidate that is open."""
        sample = Sample(self._strata)
        n_ctx = self.chunks.n_ctx
        order = self.order[:n_chunks]
        with LogitReader(model.native, n_ctx=n_ctx, n_threads=self.n_threads) as reader:
            sink(Started(STAGE, len(order) * n_ctx, "tokens"))
            for n_done, index in enumerate(order, 1):
                pieces = zip(self._stored[index], _pieces(reader, self.chunks, index), strict=True)
                sample.add(
                    index,
                    _joined(
                        self._softmax.divergence_from_stored(stored, rows, _part(self.chunks, index, begin, len(rows)))
                        for (_, stored), (begin, rows) in pieces
                    ),
                )
                sink(Advanced(STAGE, n_done * n_ctx))
        return sample

    def compare(self, files: Sequence[Path], n_chunks: int | None = None, *, sink: Sink = ignore) -> Divergence:
        """Measure a candidate and return its figures."""
        began = time.monotonic()
        sample = self.measure(files, n_chunks, sink=sink)
        return summarize(self.chunks, sample, time.monotonic() - began)


def _read(readers: Sequence[LogitReader], softmax: Softmax, chunks: Chunks, index: int) -> list[Scores]:
    """Read one chunk with all models, piece by piece; return the scores of each candidate."""
    parts: list[list[Scores]] = [[] for _ in readers[1:]]
    for pieces in zip(*(_pieces(reader, chunks, index) for reader in readers), strict=True):
        (begin, reference), *others = pieces
        targets = _part(chunks, index, begin, len(reference))
        for part, (_, rows) in zip(parts, others, strict=True):
            part.append(softmax.divergence(reference, rows, targets))
    return [_joined(part) for part in parts]


def _pieces(reader: LogitReader, chunks: Chunks, index: int) -> Iterator[tuple[int, np.ndarray]]:
    return reader.read(chunks.inputs(index), chunks.first, chunks.end)


def _part(chunks: Chunks, index: int, begin: int, n_rows: int) -> np.ndarray:
    return chunks.targets(index)[begin - chunks.first :][:n_rows]


def _joined(parts: Iterable[Scores]) -> Scores:
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    names = ("kld", "nll_reference", "nll", "is_same_top")
    return Scores(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _check_vocabulary(chunks: Chunks, candidate: Model, n_vocab: int) -> None:
    """Refuse a candidate that reads the text as other tokens.

    Raises:
        UsageError: it does.
    """
    found = candidate.native.n_vocab
    if found != n_vocab:
        raise UsageError(
            f"{candidate.path.name} has another vocabulary than the reference: {found} tokens, not {n_vocab}"
        )
    if texts.cut(chunks.text, candidate.native, chunks.n_ctx).tokens != chunks.tokens:
        raise UsageError(f"{candidate.path.name} reads the text as other tokens than the reference")
