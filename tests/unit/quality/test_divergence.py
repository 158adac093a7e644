"""Models compared chunk by chunk, against figures from the same logits in double precision."""

from pathlib import Path

import numpy as np
import pytest

from owm.engine.model import Model
from owm.errors import NotEnoughMemory, UsageError
from owm.events import Advanced, Event, Started, Warned
from owm.native import llama, logits
from owm.quality import texts
from owm.quality.divergence import Reference, compare, compare_many
from owm.quality.texts import Chunks, Text
from support.tiny_gguf import write_tiny_gguf

N_CTX = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    for seed in range(3):
        write_tiny_gguf(made / f"{seed}.gguf", n_blocks=1, seed=seed)
    words = np.random.default_rng(5).choice(["the", "inner", "ton", "at", "on", "thread", "\n"], 2000)
    (made / "text.txt").write_text(" ".join(words), encoding="utf-8")
    return made


@pytest.fixture
def text(folder: Path) -> Text:
    return texts.read(folder / "text.txt")


@pytest.fixture
def models(folder: Path) -> list[list[Path]]:
    return [[folder / f"{seed}.gguf"] for seed in range(3)]


def _exact(path: Path, text: Text) -> tuple[Chunks, np.ndarray]:
    """Return log-probabilities of every counted position (chunks × positions × vocabulary), one decode a chunk."""
    with Model([path]) as model:
        chunks = texts.cut(text, model.native, N_CTX)
        context = llama.Context(
            model.native, n_ctx=N_CTX, n_batch=N_CTX, n_ubatch=N_CTX, n_sequences=1, n_threads=1, n_threads_batch=1
        )
        found = []
        for index in range(len(chunks.tokens)):
            context.forget(0)
            context.batch.clear()
            for position, token in enumerate(chunks.inputs(index)):
                context.batch.add(token, position, 0, wants_logits=True)
            assert context.decode() == 0
            rows = np.array([context.logits(i) for i in range(chunks.first, chunks.end)], np.float64)
            found.append(rows - np.log(np.exp(rows).sum(axis=1, keepdims=True)))
        context.close()
    return chunks, np.array(found)


def test_figures_are_those_of_the_logits(models: list[list[Path]], text: Text) -> None:
    chunks, p = _exact(models[0][0], text)
    _, q = _exact(models[1][0], text)
    targets = np.array([chunks.targets(index) for index in range(len(chunks.tokens))])[..., None]
    kld = (np.exp(p) * (p - q)).sum(axis=2)
    events: list[Event] = []
    found = compare(models[0], models[1], text, n_ctx=N_CTX, is_full=True, n_threads=1, sink=events.append)
    assert found.is_whole
    assert (found.n_chunks, found.n_tokens) == (len(chunks.tokens), kld.size)
    assert found.kld_mean.value == pytest.approx(kld.mean(), rel=1e-5)
    assert found.kld_median.value == pytest.approx(np.median(kld), rel=1e-5)
    assert found.kld_p99.value == pytest.approx(np.quantile(kld, 0.99), rel=1e-5)
    assert found.perplexity_reference.value == pytest.approx(
        np.exp(-np.take_along_axis(p, targets, 2).mean()), rel=1e-6
    )
    assert found.perplexity.value == pytest.approx(np.exp(-np.take_along_axis(q, targets, 2).mean()), rel=1e-6)
    assert found.top1_agreement.value == pytest.approx((p.argmax(axis=2) == q.argmax(axis=2)).mean())
    assert found.kld_mean.low == found.kld_mean.high
    assert found.text_sha256 == text.sha256
    n_tokens = len(chunks.tokens) * N_CTX
    assert Started("quality", n_tokens, "tokens") in events
    assert Advanced("quality", n_tokens) in events


def test_it_stops_when_the_figure_is_known_and_its_interval_holds(models: list[list[Path]], text: Text) -> None:
    whole = compare(models[0], models[1], text, n_ctx=N_CTX, is_full=True, n_threads=1)
    part = compare(models[0], models[1], text, n_ctx=N_CTX, n_threads=1)
    assert part.n_chunks < whole.n_chunks == part.n_chunks_total
    for name in ("kld_mean", "kld_median", "perplexity", "perplexity_reference", "top1_agreement"):
        estimate, exact = getattr(part, name), getattr(whole, name).value
        assert estimate.low <= exact <= estimate.high
        assert estimate.low < estimate.value < estimate.high


def test_several_candidates_are_measured_as_one_is(models: list[list[Path]], text: Text) -> None:
    both = compare_many(models[0], models[1:], text, n_ctx=N_CTX, n_chunks=20, n_threads=1)
    alone = compare(models[0], models[2], text, n_ctx=N_CTX, n_chunks=20, n_threads=1)
    assert both[1].n_chunks == alone.n_chunks == 20
    assert both[1].kld_mean == alone.kld_mean
    assert both[0].kld_mean != alone.kld_mean


def test_a_stored_reference_gives_the_same_figures(models: list[list[Path]], text: Text) -> None:
    exact = compare_many(models[0], models[1:], text, n_ctx=N_CTX, n_chunks=24, n_threads=1)
    with Reference(models[0], text, n_chunks=24, n_ctx=N_CTX, n_threads=1) as reference:
        for candidate, wanted in zip(models[1:], exact, strict=True):
            found = reference.compare(candidate)
            assert found.kld_mean.value == pytest.approx(wanted.kld_mean.value, rel=1e-3)
            assert found.perplexity_reference == wanted.perplexity_reference
            assert found.perplexity == wanted.perplexity
        fewer = reference.measure(models[1], n_chunks=3)
        assert fewer.indices == reference.order[:3]
        assert fewer.kld.shape == (3, reference.chunks.n_scored)


def test_long_chunks_are_read_in_pieces(models: list[list[Path]], text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare(models[0], models[1], text, n_ctx=64, n_chunks=4, n_threads=1)
    monkeypatch.setattr(logits, "N_BATCH", 24)
    pieces = compare(models[0], models[1], text, n_ctx=64, n_chunks=4, n_threads=1)
    with Reference(models[0], text, n_chunks=4, n_ctx=64, n_threads=1) as reference:
        stored = reference.compare(models[1])
    assert pieces.kld_mean.value == pytest.approx(whole.kld_mean.value, rel=1e-3)
    assert stored.kld_mean.value == pytest.approx(whole.kld_mean.value, rel=1e-3)


def test_a_model_with_another_vocabulary_is_refused(models: list[list[Path]], text: Text, tmp_path: Path) -> None:
    other = write_tiny_gguf(tmp_path / "other.gguf", n_blocks=1, metadata={"tokenizer.ggml.add_bos_token": True})
    with pytest.raises(UsageError, match=r"other\.gguf reads the text as other tokens"):
        compare(models[0], [other], text, n_ctx=N_CTX, n_threads=1)
    with (
        Reference(models[0], text, n_chunks=2, n_ctx=N_CTX, n_threads=1) as reference,
        pytest.raises(UsageError, match="other tokens"),
    ):
        reference.measure([other])


def test_chunks_longer_than_a_model_knows_are_warned_of(text: Text, tmp_path: Path) -> None:
    short = [write_tiny_gguf(tmp_path / f"{seed}.gguf", n_blocks=1, n_ctx_train=16, seed=seed) for seed in (0, 1)]
    events: list[Event] = []
    compare([short[0]], [short[1]], text, n_ctx=N_CTX, n_chunks=4, n_threads=1, sink=events.append)
    assert Warned("quality", "0.gguf was trained on 16 tokens, chunks have 32") in events


def test_what_cannot_be_done_is_refused(models: list[list[Path]], text: Text) -> None:
    with pytest.raises(UsageError, match="--chunks must be at least 4: 1"):
        compare(models[0], models[1], text, n_chunks=1)
    with pytest.raises(NotEnoughMemory, match="the reference's logits on 9 chunks take"):
        Reference(models[0], text, n_chunks=9, n_ctx=N_CTX, max_bytes=1000)
