"""`owm quality`: how much of a model a smaller one has kept."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from owm.cli import options as o
from owm.cli import weight_options as w
from owm.cli.output import Output
from owm.errors import StoreError, UsageError

if TYPE_CHECKING:
    from owm.quality.certificate import Certificate
    from owm.quality.figures import Divergence
    from owm.store.local import Store
    from owm.store.model import StoredModel


def command(
    reference: w.QualityReferenceArg,
    model: w.QualityModelArg,
    text: w.QualityTextOpt = None,
    chunks: w.ChunksOpt = None,
    ctx_size: w.ChunkSizeOpt = 512,
    full: w.QualityFullOpt = False,
    threads: o.ThreadsOpt = None,
    gpu_layers: o.GpuLayersOpt = None,
    trust: o.TrustOpt = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Measure how far a model is from a reference, most often from its own original weights.

    Both read the same text: KL divergence in nats a token, perplexities, and how often they agree on the likeliest
    token, with 95 % intervals for the whole text. It stops when the mean divergence is known to 5 %. What was measured
    against original weights (F32, F16, BF16) is kept in the manifest, and in the file if owm made it.
    """
    from owm.cli.sources import find_running
    from owm.library import open_store
    from owm.quality import texts

    out = Output(json, quiet, verbose)
    _check(chunks, ctx_size, threads)
    read = None if text is None else texts.read(text)
    store = open_store()
    with ExitStack() as stack:
        original, candidate = (find_running(name, store, out, stack, n_threads=threads) for name in (reference, model))
        if original.path.resolve() == candidate.path.resolve():
            raise UsageError(f"{model} is the reference itself")
        _measure(
            original,
            candidate,
            store,
            out,
            text=read,
            n_ctx=ctx_size,
            n_chunks=chunks,
            is_full=full,
            n_threads=threads,
            n_gpu_layers=gpu_layers,
        )


def _measure(original: "StoredModel", candidate: "StoredModel", store: "Store", out: Output, **options: Any) -> None:
    from dataclasses import asdict

    from owm.cli.figures import lines
    from owm.cli.progress import progress
    from owm.library import certifying
    from owm.quality import divergence

    is_original = certifying.is_original(original.files)
    if not is_original:
        name = store.shown_name(original)
        out.warn(f"{name} is quantized itself: what is measured is not the distance from the original weights")
    try:
        with progress(out) as sink:
            found = divergence.compare(original.files, candidate.files, sink=sink, **options)
    except KeyboardInterrupt:
        out.note("interrupted; nothing was recorded")
        raise
    certificate = None
    try:
        certificate = _record(original, candidate, found, store, out) if is_original else None
    except StoreError as error:  # what took so long to measure is said all the same
        out.warn(f"not recorded: {error}")
    name = store.shown_name(candidate)
    out.data(
        asdict(found)
        | {"reference": store.shown_name(original), "model": name, "is_recorded": certificate is not None},
        lines=lines(found),
    )
    if certificate is not None:
        out.note(f"recorded; `owm show {name}` says it again")


def _check(n_chunks: int | None, n_ctx: int, threads: int | None) -> None:
    """Refuse numbers that cannot be, before a model is fetched or converted."""
    from owm.hardware.probe import MAX_THREADS
    from owm.quality.interval import FEWEST_CHUNKS
    from owm.quality.texts import MIN_CTX

    if n_chunks is not None and n_chunks < FEWEST_CHUNKS:
        raise UsageError(f"--chunks must be at least {FEWEST_CHUNKS}: {n_chunks}")
    if n_ctx < MIN_CTX:
        raise UsageError(f"--ctx-size must be at least {MIN_CTX} to measure quality: {n_ctx}")
    if threads is not None and not 0 < threads <= MAX_THREADS:
        raise UsageError(f"--threads must be between 1 and {MAX_THREADS}: {threads}")


def _record(
    original: "StoredModel", candidate: "StoredModel", found: "Divergence", store: "Store", out: Output
) -> "Certificate | None":
    from owm.cli.progress import progress
    from owm.library import certifying

    with progress(out) as sink:
        sha256 = certifying.sha256_of_model(original, sink=sink)
    return certifying.certify(
        candidate, found, reference=store.shown_name(original), reference_sha256=sha256, store=store
    )
