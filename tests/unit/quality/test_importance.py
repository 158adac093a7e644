"""Computing importance matrices on tiny models: against sums made by hand, of experts, and what goes wrong."""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from owm.engine.model import Model
from owm.errors import EngineError, UsageError
from owm.events import Advanced, Event, Finished, Started, Warned
from owm.native.observer import Observer
from owm.quality.calibration import Calibration, Part, tokenize
from owm.quality.imatrix import compute, of_tokens
from support.tiny_gguf import write_tiny_gguf
from support.tiny_moe import write_tiny_moe

TEXT = "the rain in Spain, and then another one: there is no end to it. " * 40


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_gguf(tmp_path_factory.mktemp("dense") / "tiny.gguf")]) as model:
        yield model


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_moe(tmp_path_factory.mktemp("moe") / "tiny.gguf", n_experts=32)]) as model:
        yield model


def text(content: str = TEXT) -> Calibration:
    return Calibration("text", (Part(content),), "")


def inputs_of_block_0(path: Path, tokens: list[int]) -> np.ndarray:
    """What the first attention sees: embeddings, normalized (the tests' norms have gains of 1)."""
    reader = gguf.GGUFReader(path)
    table = next(tensor.data for tensor in reader.tensors if tensor.name == "token_embd.weight")
    rows = np.asarray(table, np.float64)[tokens]
    return np.asarray(rows / np.sqrt((rows * rows).mean(axis=1, keepdims=True) + 1e-5))


@pytest.mark.parametrize("n_ctx", [64, 100, 544])
def test_the_sums_are_those_of_the_squares(dense: Model, n_ctx: int) -> None:
    tokens = tokenize(text(), dense)
    found = of_tokens(dense, tokens, "text", n_ctx=n_ctx)
    n_chunks = len(tokens) // n_ctx
    assert (found.n_chunks, found.chunk_size, found.datasets) == (n_chunks, n_ctx, ("text",))
    names = [f"blk.{i}.{name}.weight" for i in (0, 1) for name in
             ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")]  # fmt: skip
    assert sorted(found.entries) == sorted(names)
    assert {int(entry.counts[0]) for entry in found.entries.values()} == {n_chunks * n_ctx}
    expected = (inputs_of_block_0(dense.path, tokens[: n_chunks * n_ctx]) ** 2).sum(axis=0)
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found.entries[f"blk.0.{name}.weight"].sums[0], expected, rtol=1e-5)
    up, gate = (found.entries[f"blk.1.ffn_{name}.weight"].sums for name in ("up", "gate"))
    assert up.tobytes() == gate.tobytes()
    assert found.entries["blk.1.ffn_down.weight"].sums.shape == (1, 128)


def test_leaving_graphs_early_changes_nothing(dense: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokenize(text(), dense)
    early = of_tokens(dense, tokens, "text", n_ctx=64)
    monkeypatch.setattr(Observer, "stops_early", property(lambda _: False, lambda *_: None), raising=False)
    whole = of_tokens(dense, tokens, "text", n_ctx=64)
    assert early.entries.keys() == whole.entries.keys()
    for name, entry in whole.entries.items():
        np.testing.assert_allclose(early.entries[name].sums, entry.sums, rtol=1e-6)


def test_experts_are_counted_one_by_one_and_unused_ones_reported(moe: Model) -> None:
    events: list[Event] = []
    found = compute(moe, text(), n_ctx=16, n_chunks=1, sink=events.append)
    gate_entry, router = found.entries["blk.0.ffn_gate_exps.weight"], found.entries["blk.0.ffn_gate_inp.weight"]
    assert gate_entry.sums.shape == (32, 64)
    assert int(gate_entry.counts.sum()) == 2 * 16
    np.testing.assert_allclose(gate_entry.sums.sum(axis=0), 2 * router.sums[0], rtol=1e-5)
    up, down = found.entries["blk.0.ffn_up_exps.weight"], found.entries["blk.0.ffn_down_exps.weight"]
    assert up.sums.tobytes() == gate_entry.sums.tobytes()
    assert down.counts.tolist() == gate_entry.counts.tolist()
    assert gate_entry.n_unhit > 0
    assert (down.sums[down.counts == 0] == 0).all()
    warning = next(event.message for event in events if isinstance(event, Warned))
    assert "experts' matrices in 6 tensors were never used" in warning
    filled = found.filled()
    assert filled.unhit() == {}
    weights = filled.weights("blk.0.ffn_gate_exps.weight")
    assert weights is not None
    unhit = int(np.flatnonzero(gate_entry.counts == 0)[0])
    np.testing.assert_allclose(weights[unhit], router.sums[0] / 16, rtol=1e-5)


def test_progress_is_told_in_tokens(dense: Model) -> None:
    events: list[Event] = []
    compute(dense, text(), n_ctx=64, n_chunks=2, sink=events.append)
    stage = "importance matrix"
    assert events[:2] == [Started(stage, 128, "tokens"), Advanced(stage, 128)]
    assert isinstance(events[2], Finished)


def test_progress_of_long_chunks_is_told_step_by_step(dense: Model) -> None:
    events: list[Event] = []
    compute(dense, text(), n_ctx=200, n_chunks=1, sink=events.append)
    assert [event.done for event in events if isinstance(event, Advanced)] == [66, 133, 200]


def test_more_chunks_than_there_are(dense: Model) -> None:
    events: list[Event] = []
    found = compute(dense, text(TEXT[:200]), n_ctx=64, n_chunks=900, sink=events.append)
    assert f"fills {found.n_chunks} chunks of 64 tokens, not 900" in str(events[0])


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"n_ctx": 15}, "--ctx-size must be at least 16: 15"),
        ({"n_chunks": 0}, "--chunks must be positive: 0"),
        ({"n_threads": 0}, "--threads must be between 1 and"),
        ({"n_ctx": 1 << 20}, "tokens, a chunk has 1048576"),
    ],
)
def test_numbers_that_cannot_be(dense: Model, options: dict[str, int], cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        compute(dense, text(), **options)  # type: ignore[arg-type]


def test_chunks_longer_than_the_models_context_are_warned_of(dense: Model) -> None:
    events: list[Event] = []
    compute(dense, text(), n_ctx=600, n_chunks=1, sink=events.append)
    assert "longer than the model's context, 512" in str(events[0])


def test_weights_that_make_no_numbers_end_it(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    reader = gguf.GGUFReader(path, "r+")
    next(tensor.data for tensor in reader.tensors if tensor.name == "blk.0.attn_v.weight")[:] = np.nan
    del reader
    with Model([path]) as model, pytest.raises(EngineError, match=r"blk\.0\.attn_output\.weight is infinite or no num"):
        compute(model, text(), n_ctx=64)


def test_ctrl_c_is_not_lost_in_a_callback(dense: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Observer, "_add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compute(dense, text(), n_ctx=64)
