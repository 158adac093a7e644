"""Embeddings: against the same arithmetic in numpy, many at once against one by one, and what cannot be embedded."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from owm.engine import embedding as embedding_module
from owm.engine.embedding import Embedder, Passage, Pooling, choose_pooling
from owm.engine.model import Model
from owm.errors import EngineError, NotEnoughMemory, OwmError, PromptTooLong, Unsupported, UsageError
from owm.events import Advanced, Event, Finished, Started
from owm.hardware import probe
from owm.native.logits import LogitReader
from support import tiny_bert
from support.tiny_bert import CLS, SEP, write_tiny_bert
from support.tiny_gguf import write_tiny_gguf

TEXTS = ["the cat sat on a mat", "fish swims", "dogs", "zebra", "the dog sat on the cat : a mat"]
REPEATED = [" ".join(TEXTS[: n % 5 + 1] * (n % 3 + 1)) for n in range(40)]
LONG = "the tin on a tin " * 30


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_bert(tmp_path_factory.mktemp("bert") / "bert.gguf")]) as model:
        yield model


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model that reads from left to right, and whose file says to take the last token."""
    path = tmp_path_factory.mktemp("decoder") / "decoder.gguf"
    with Model([write_tiny_gguf(path, metadata={"llama.pooling_type": 3})]) as model:
        yield model


def vectors(model: Model, texts: Sequence[str], **how: Any) -> np.ndarray:
    with Embedder(model, n_threads=1, **how) as embedder:
        found = [each.vector for each in embedder.embed([Passage(text, f"text {i}") for i, text in enumerate(texts)])]
    return np.stack(found)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.astype(float) @ b / np.linalg.norm(a.astype(float)) / np.linalg.norm(b))


@pytest.mark.parametrize("pooling", Pooling)
def test_vectors_are_those_of_the_arithmetic(bert: Model, pooling: Pooling) -> None:
    for text, vector in zip(TEXTS, vectors(bert, TEXTS, pooling=pooling), strict=True):
        tokens = bert.tokenize(text)
        assert (tokens[0], tokens[-1]) == (CLS, SEP)
        rows = tiny_bert.hidden(tokens)
        expected = {Pooling.MEAN: rows.mean(0), Pooling.CLS: rows[0], Pooling.LAST: rows[-1]}[pooling]
        assert cosine(vector, expected) >= 0.99999


@pytest.mark.parametrize("pooling", Pooling)
def test_the_file_says_how_to_pool(tmp_path: Path, bert: Model, pooling: Pooling) -> None:
    kind = gguf.PoolingType[pooling.name]
    with Model([write_tiny_bert(tmp_path / "other.gguf", pooling=kind)]) as model:
        assert choose_pooling(model) is pooling
        np.testing.assert_array_equal(vectors(model, TEXTS), vectors(bert, TEXTS, pooling=pooling))


@pytest.mark.parametrize("name", ["bert", "decoder"])
def test_many_at_once_are_what_each_is_alone(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    alone = np.concatenate([vectors(model, [text]) for text in REPEATED])
    together = vectors(model, REPEATED)
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together - together[0]).max() > 0.1


def test_vectors_have_length_one_unless_asked_otherwise(bert: Model) -> None:
    np.testing.assert_allclose(np.linalg.norm(vectors(bert, TEXTS), axis=1), 1, atol=1e-6)
    raw = vectors(bert, TEXTS, is_normalized=False)
    lengths = np.linalg.norm(raw, axis=1)
    assert np.abs(lengths - 1).min() > 0.1
    np.testing.assert_allclose(raw / lengths[:, None], vectors(bert, TEXTS), atol=1e-6)


def test_a_prefix_is_part_of_every_text(bert: Model) -> None:
    found = vectors(bert, ["cat", "dog"], prefix="query : ")
    np.testing.assert_array_equal(found, vectors(bert, ["query : cat", "query : dog"]))


@pytest.mark.parametrize("pooling", Pooling)
def test_a_decoder_reads_a_long_text_in_parts(
    decoder: Model, pooling: Pooling, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the tin", LONG, "on a tin"]
    whole = vectors(decoder, texts, pooling=pooling)
    assert len(decoder.tokenize(LONG)) > 2 * 64
    monkeypatch.setattr(embedding_module, "BATCH_TOKENS", 64)
    assert np.abs(vectors(decoder, texts, pooling=pooling) - whole).max() < 2e-3  # the cache is rounded to 16 bits


def test_an_encoder_reads_a_long_text_in_one_decode(bert: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["cat", "the cat sat on the mat " * 20, "dog"]
    whole = vectors(bert, texts)
    monkeypatch.setattr(embedding_module, "BATCH_TOKENS", 64)
    assert len(bert.tokenize(texts[1])) > 64
    found = vectors(bert, texts)
    np.testing.assert_allclose(found[::2], whole[::2], atol=1e-5)
    assert cosine(found[1], whole[1]) > 0.99999


def test_a_stream_is_read_window_by_window(bert: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_module, "WINDOW_TEXTS", 4)
    n_read = 0

    def stream() -> Iterator[Passage]:
        nonlocal n_read
        for n_read, text in enumerate(REPEATED, 1):  # noqa: B007
            yield Passage(text, "a text")

    with Embedder(bert, n_threads=1) as embedder:
        found = embedder.embed(stream())
        first = next(found)
        assert n_read == 4
        np.testing.assert_allclose([first.vector, *(each.vector for each in found)], vectors(bert, REPEATED), atol=1e-5)


def test_progress_counts_texts(bert: Model) -> None:
    events: list[Event] = []
    with Embedder(bert, n_threads=1) as embedder:
        list(embedder.embed([Passage(text, text) for text in TEXTS], n_passages=5, sink=events.append))
    assert events[0] == Started("embedding", 5, "texts")
    assert events[-2] == Advanced("embedding", 5)
    assert isinstance(events[-1], Finished)


def test_tokens_are_counted(bert: Model) -> None:
    with Embedder(bert, n_threads=1) as embedder:
        (found,) = embedder.embed([Passage("the cat", "it")])
    assert found.n_tokens == 4


@pytest.mark.parametrize("name", ["bert", "decoder"])
def test_a_text_longer_than_the_context_is_refused_with_its_count(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    text = "the " * 600
    with pytest.raises(PromptTooLong) as caught:
        vectors(model, ["on", text])
    n, limit = caught.value.n_prompt, caught.value.n_ctx
    assert n == len(model.tokenize(text))
    assert str(caught.value) == f"text 1 has {n} tokens, the model reads {limit}"


def test_a_text_of_exactly_the_context_is_read(bert: Model) -> None:
    text = "the " * 126
    assert len(bert.tokenize(text)) == 128
    assert vectors(bert, [text]).shape == (1, 32)


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_text_is_refused_by_name(bert: Model, text: str) -> None:
    with pytest.raises(UsageError, match="text 1 is empty"):
        vectors(bert, ["cat", text])


def test_what_is_no_unicode_is_refused_by_name(bert: Model) -> None:
    with pytest.raises(UsageError, match="text 0 is no text"):
        vectors(bert, ["a \ud800 cat"])


def test_memory_is_asked_before_a_long_text_is_read(bert: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_module, "BATCH_TOKENS", 64)
    monkeypatch.setattr(probe, "memory", lambda: probe.Memory(64 << 20, 64 << 20))
    vectors(bert, ["the " * 30])
    with pytest.raises(NotEnoughMemory, match="text 0 has 102 tokens"):
        vectors(bert, ["the " * 100])


def test_a_generator_is_embedded_only_when_asked(tmp_path: Path, decoder: Model) -> None:
    with Model([write_tiny_gguf(tmp_path / "plain.gguf")]) as model:
        with pytest.raises(UsageError) as caught:
            Embedder(model)
        assert "--pooling mean" in (caught.value.hint or "")
        np.testing.assert_array_equal(vectors(model, ["the tin"], pooling=Pooling.LAST), vectors(decoder, ["the tin"]))


def test_an_encoder_whose_file_is_silent_needs_a_pooling(tmp_path: Path, bert: Model) -> None:
    with Model([write_tiny_bert(tmp_path / "silent.gguf", pooling=None)]) as model:
        with pytest.raises(UsageError, match="does not say how to pool"):
            Embedder(model)
        np.testing.assert_array_equal(vectors(model, TEXTS, pooling=Pooling.MEAN), vectors(bert, TEXTS))


def test_a_reranker_makes_no_embeddings(tmp_path: Path) -> None:
    with (
        Model([write_tiny_bert(tmp_path / "rank.gguf", pooling=gguf.PoolingType.RANK)]) as model,
        pytest.raises(Unsupported, match="reranker"),
    ):
        Embedder(model, pooling=Pooling.MEAN)


def test_a_pooling_that_nobody_knows_never_reaches_llama_cpp(tmp_path: Path) -> None:
    with (
        Model([write_tiny_gguf(tmp_path / "odd.gguf", metadata={"llama.pooling_type": 77})]) as model,
        pytest.raises(UsageError),
    ):
        Embedder(model)


@pytest.mark.parametrize("causal", [True, False])
def test_an_encoder_is_one_whatever_its_file_says(tmp_path: Path, causal: bool) -> None:
    path = write_tiny_bert(tmp_path / "bert.gguf")
    renamed = path.read_bytes().replace(b"bert.attention.causal", b"bert.attention.casual")
    (tmp_path / "silent.gguf").write_bytes(renamed)
    with Model([tmp_path / "silent.gguf" if causal else path]) as model:
        assert not model.is_causal
        with pytest.raises(Unsupported) as caught, model.scheduler(64):
            pass
    assert "embedding model" in str(caught.value)
    assert "owm embed" in (caught.value.hint or "")


def test_a_text_model_that_claims_to_read_from_both_sides_writes_none(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "odd.gguf", metadata={"llama.attention.causal": False})
    with Model([path]) as model:
        with pytest.raises(Unsupported), model.scheduler(64):
            pass
        assert vectors(model, ["the tin " * 80], pooling=Pooling.MEAN).shape == (1, 64)


def test_weights_that_are_no_numbers_are_said(tmp_path: Path) -> None:
    path = write_tiny_bert(tmp_path / "bert.gguf")
    norm = tiny_bert.weights(128)["blk.1.layer_output_norm.bias"].tobytes()
    content = path.read_bytes()
    assert content.count(norm) == 1
    path.write_bytes(content.replace(norm, np.full(32, np.nan, np.float32).tobytes()))
    with Model([path]) as model, pytest.raises(EngineError, match="text 0"):
        vectors(model, ["the cat"])


@pytest.mark.parametrize("n_threads", [0, -1, 100_000])
def test_a_number_of_threads_that_cannot_be_is_refused(bert: Model, n_threads: int) -> None:
    with pytest.raises(OwmError, match="--threads"):
        Embedder(bert, n_threads=n_threads)


def test_an_encoder_has_no_probabilities(bert: Model) -> None:
    with pytest.raises(Unsupported, match="makes no text"):
        LogitReader(bert.native, n_ctx=64, n_threads=1)
