"""Importance matrices: both formats, llama-quantize's weights, experts without data, another model's file."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from owm.errors import StoreError, UsageError
from owm.formats.imatrix import Entry, Imatrix, check, read_imatrix, write_imatrix

RANDOM = np.random.default_rng(4)
SUMS = (RANDOM.random((4, 8)) * 100).astype(np.float32)
COUNTS = np.array([7, 0, 3, 1], np.int64)


def sample() -> Imatrix:
    dense = Entry((RANDOM.random((1, 16)) * 9).astype(np.float32), np.array([1536], np.int64))
    return Imatrix(
        {"blk.0.ffn_up_exps.weight": Entry(SUMS, COUNTS), "blk.0.attn_q.weight": dense}, ("prose.txt",), 3, 512
    )


def legacy(entries: list[tuple[str, int, np.ndarray]], tail: bytes = b"") -> bytes:
    parts = [struct.pack("<i", len(entries))]
    for name, n_calls, values in entries:
        raw = name.encode()
        parts += [struct.pack("<i", len(raw)), raw, struct.pack("<ii", n_calls, values.size), values.tobytes()]
    return b"".join(parts) + tail


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write_imatrix(sample(), path)
    found = read_imatrix(path)
    assert (found.datasets, found.n_chunks, found.chunk_size, found.is_legacy) == (("prose.txt",), 3, 512, False)
    assert sorted(found.entries) == ["blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight"]
    for name, entry in sample().entries.items():
        assert found.entries[name].counts.tolist() == entry.counts.tolist()
    assert found.entries["blk.0.ffn_up_exps.weight"].sums.tobytes() == SUMS.tobytes()
    assert [file.name for file in tmp_path.iterdir()] == ["imatrix.gguf"]


def test_another_reader_understands_the_file(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write_imatrix(sample(), path)
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["prose.txt"]
    assert [reader.fields[f"imatrix.chunk_{key}"].contents() for key in ("count", "size")] == [3, 512]
    assert [(tensor.name, tensor.shape.tolist()) for tensor in reader.tensors] == [
        ("blk.0.attn_q.weight.in_sum2", [16]),
        ("blk.0.attn_q.weight.counts", [1]),
        ("blk.0.ffn_up_exps.weight.in_sum2", [8, 4]),
        ("blk.0.ffn_up_exps.weight.counts", [1, 4]),
    ]
    assert reader.tensors[3].data.ravel().tolist() == [7.0, 0.0, 3.0, 1.0]


def test_weights_are_sums_by_counts_in_single_precision_and_ones_without_data() -> None:
    found = sample().weights("blk.0.ffn_up_exps.weight")
    assert found is not None
    assert found.dtype == np.float32
    expected = np.ones_like(SUMS)
    for expert, count in enumerate(COUNTS.tolist()):
        for column in range(8 if count else 0):
            expected[expert, column] = SUMS[expert, column] / np.float32(count)
    assert found.tobytes() == expected.tobytes()
    assert sample().weights("blk.1.attn_q.weight") is None


def test_weights_of_stacked_matrices_with_one_count() -> None:
    found = sample().weights("blk.0.attn_q.weight", width=4)
    assert found is not None
    assert found.shape == (4, 4)


def test_the_old_format(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    values = SUMS[0]
    name = b"calibration.txt"
    tail = struct.pack("<ii", 24, len(name)) + name
    path.write_bytes(legacy([("blk.0.attn_q.weight", 24, values), ("odd", 0, values)], tail))
    found = read_imatrix(path)
    assert (found.is_legacy, found.n_chunks, found.datasets) == (True, 24, ("calibration.txt",))
    weights = found.weights("blk.0.attn_q.weight")
    assert weights is not None
    assert weights.tobytes() == (values / np.float32(24)).tobytes()
    without_calls = found.weights("odd")
    assert without_calls is not None
    assert without_calls.tobytes() == values.tobytes()
    assert found.unhit() == {}
    with pytest.raises(UsageError, match="old format"):
        write_imatrix(found, tmp_path / "again.gguf")


@pytest.mark.parametrize("tail", [b"", struct.pack("<i", 5), struct.pack("<ii", 5, 0)])
def test_the_end_of_the_old_format_may_be_missing(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(legacy([("a", 1, SUMS[0])], tail))
    found = read_imatrix(path)
    assert found.datasets == ()
    assert found.n_chunks == (5 if tail else 0)


def test_experts_without_data_get_the_mean_of_the_others() -> None:
    before = sample()
    assert before.unhit() == {"blk.0.ffn_up_exps.weight": (1,)}
    after = before.filled()
    assert after.unhit() == {}
    weights = after.weights("blk.0.ffn_up_exps.weight")
    assert weights is not None
    np.testing.assert_allclose(weights[1], SUMS[[0, 2, 3]].sum(axis=0) / 11, rtol=1e-6)
    others = [0, 2, 3]
    original = before.weights("blk.0.ffn_up_exps.weight")
    assert original is not None
    assert weights[others].tobytes() == original[others].tobytes()
    assert before.entries["blk.0.ffn_up_exps.weight"].counts[1] == 0


def test_a_tensor_that_was_never_hit_stays_one() -> None:
    none = Imatrix({"t": Entry(np.zeros((2, 4), np.float32), np.zeros(2, np.int64))}).filled()
    weights = none.weights("t")
    assert weights is not None
    assert (weights == 1).all()


def model(n_blocks: int, width: int) -> dict[str, tuple[int, int]]:
    return {f"blk.{i}.attn_q.weight": (width, 1) for i in range(n_blocks)} | {"token_embd.weight": (width, 1)}


def of(n_blocks: int, width: int) -> Imatrix:
    entry = Entry(np.ones((1, width), np.float32), np.ones(1, np.int64))
    return Imatrix({f"blk.{i}.attn_q.weight": entry for i in range(n_blocks)})


@pytest.mark.parametrize(
    ("imatrix", "tensors", "cause"),
    [
        (of(4, 8), model(4, 8), None),
        (of(4, 8), model(5, 8), None),  # one block for prediction, which no text reaches
        (of(4, 8), model(4, 16), "it has 8 values for blk.0.attn_q.weight, not 16"),
        (of(4, 8), model(3, 8), "it has 'blk.3.attn_q.weight', which this one has not"),
        (of(4, 8), model(9, 8), "it has 4 of 9 blocks"),
        (of(4, 8), {f"blk.{i}.attn_qkv.weight": (8, 1) for i in range(4)}, "it has 'blk.0.attn_q.weight'"),
    ],
)
def test_another_models_file_is_refused_with_what_does_not_fit(
    imatrix: Imatrix, tensors: dict[str, tuple[int, int]], cause: str | None
) -> None:
    if cause is None:
        return check(imatrix, tensors)
    with pytest.raises(UsageError, match="is of another model") as caught:
        check(imatrix, tensors)
    assert cause in str(caught.value)
    assert caught.value.hint
    return None


def test_a_folder_that_takes_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        write_imatrix(sample(), tmp_path / "missing" / "imatrix.gguf")
    with pytest.raises(StoreError, match="cannot read"):
        read_imatrix(tmp_path / "missing.gguf")
