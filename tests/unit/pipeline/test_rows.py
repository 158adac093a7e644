"""Lazy tensors: any range of rows is what the same rows of the whole array are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.convert import transforms
from owm.errors import Damaged, MalformedFile
from owm.pipeline import rows as rows_module
from owm.pipeline.rows import FileRows, MemoryRows, Rows, n_rows, read_all

ARRAY = np.arange(24 * 10, dtype=np.float32).reshape(24, 10)
STACK = np.arange(4 * 6 * 10, dtype=np.float32).reshape(4, 6, 10)


def memory(array: np.ndarray) -> Rows:
    return MemoryRows(array)


def permuted(array: np.ndarray, n_heads: int) -> np.ndarray:
    n = len(array)
    return array.reshape(n_heads, 2, n // n_heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


CASES: dict[str, tuple[Callable[[], Rows], np.ndarray]] = {
    "as it is": (lambda: memory(ARRAY), ARRAY),
    "a stack": (lambda: memory(STACK), STACK),
    "permuted": (lambda: transforms.permute(memory(ARRAY), 3), permuted(ARRAY, 3)),
    "permuted bias": (lambda: transforms.permute(memory(ARRAY[:, 0]), 3), permuted(ARRAY[:, 0], 3)),
    "part": (lambda: transforms.part(memory(ARRAY), 5, 17), ARRAY[5:17]),
    "part of a stack": (lambda: transforms.part(memory(STACK), 1, 3), STACK[1:3]),
    "last split": (lambda: transforms.split(memory(ARRAY), [4, 8, 12])[2], ARRAY[12:]),
    "picked": (lambda: transforms.pick(memory(ARRAY), np.arange(0, 24, 2)), ARRAY[::2]),
    "joined": (lambda: transforms.join([memory(ARRAY), memory(ARRAY[:3])]), np.concatenate([ARRAY, ARRAY[:3]])),
    "joined vectors": (lambda: transforms.join([memory(ARRAY[0]), memory(ARRAY[1])]), ARRAY[:2].reshape(-1)),
    "stacked": (lambda: transforms.stack([memory(ARRAY), memory(ARRAY + 1)]), np.stack([ARRAY, ARRAY + 1])),
    "wider": (lambda: transforms.reshape(memory(ARRAY), (4, 60)), ARRAY.reshape(4, 60)),
    "narrower": (lambda: transforms.reshape(memory(ARRAY), (80, 3)), ARRAY.reshape(80, 3)),
    "squeezed": (lambda: transforms.squeeze(memory(ARRAY.reshape(24, 1, 10))), ARRAY),
    "transposed": (lambda: transforms.transpose(memory(ARRAY)), ARRAY.T),
    "transposed stack": (lambda: transforms.transpose(memory(STACK)), STACK.swapaxes(1, 2)),
    "one more": (lambda: transforms.add(memory(ARRAY), 1), ARRAY + 1),
    "scaled": (lambda: transforms.scale(memory(ARRAY), 0.5), ARRAY / 2),
    "decay": (
        lambda: transforms.negative_exp(memory(ARRAY / 100)),
        -np.exp((ARRAY / 100).astype(np.float64)).astype(np.float32),
    ),
    "chain": (
        lambda: transforms.part(transforms.permute(transforms.add(memory(ARRAY), 1), 2), 3, 20),
        permuted(ARRAY + 1, 2)[3:20],
    ),
}


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_a_range_of_rows_is_what_numpy_says(name: str, data: st.DataObject) -> None:
    make, expected = CASES[name]
    rows = make()
    assert rows.shape == expected.shape
    matrix = expected.reshape(n_rows(expected.shape), -1)
    begin = data.draw(st.integers(0, len(matrix) - 1))
    end = data.draw(st.integers(begin + 1, len(matrix)))
    np.testing.assert_array_equal(rows.read(begin, end).reshape(end - begin, -1), matrix[begin:end])
    np.testing.assert_array_equal(read_all(make()), expected)


def test_a_transpose_in_narrow_strips_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "STRIP_BYTES", 3 * 24 * 4)
    made = transforms.transpose(memory(ARRAY))
    for begin in range(0, 10, 2):
        np.testing.assert_array_equal(made.read(begin, begin + 2), ARRAY.T[begin : begin + 2])


def test_a_transpose_is_kept_only_until_its_last_row_is_read() -> None:
    rows = transforms.transpose(memory(ARRAY))
    for begin in range(0, 10, 3):
        rows.read(begin, min(begin + 3, 10))
    assert not len(vars(rows)["_strip"])


def test_a_file_that_became_shorter_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(ARRAY.tobytes()[:-4])
    rows = FileRows(path, 0, ARRAY.shape, "F32")
    np.testing.assert_array_equal(rows.read(2, 5), ARRAY[2:5])
    with pytest.raises(MalformedFile, match="shorter"):
        rows.read(20, 24)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: transforms.permute(memory(ARRAY), 5),
        lambda: transforms.permute(memory(ARRAY), 0),
        lambda: transforms.part(memory(ARRAY), 20, 30),
        lambda: transforms.split(memory(ARRAY), [10, 10]),
        lambda: transforms.stack([memory(ARRAY), memory(ARRAY[:3])]),
        lambda: transforms.join([memory(ARRAY), memory(ARRAY[:, :3])]),
    ],
)
def test_shapes_that_do_not_fit_are_the_checkpoints_fault(wrong: Callable[[], Rows]) -> None:
    with pytest.raises(Damaged):
        wrong()
