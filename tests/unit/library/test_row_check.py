"""Rows of a model file, looked at as its bytes go by in pieces of any size."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from owm.formats.gguf import TENSOR_TYPES, read_header
from owm.library.row_check import RowCheck, check_of
from owm.native.ggml import unheard
from support.packed_gguf import STRING, U32, key, pack, tensor

IDS = {name: (number, values, n_bytes) for number, (name, values, n_bytes) in TENSOR_TYPES.items()}
N_ROWS = 3


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    with unheard():
        yield


def model(path: Path, type_name: str, *, bad: tuple[int, bytes] | None = None, width: int = 512) -> Path:
    """Write a file of three tensors of a type, the second with bytes put in at a place."""
    number, values, n_bytes = IDS[type_name]
    size = width // values * n_bytes * N_ROWS
    step = -(-size // 32) * 32
    content = bytearray(step * 2 + size)
    if bad is not None:
        content[step + bad[0] : step + bad[0] + len(bad[1])] = bad[1]
    path.write_bytes(
        pack(
            [key("general.architecture", STRING, "llama"), key("llama.block_count", U32, 1)],
            [tensor(name, (width, N_ROWS), number, index * step) for index, name in enumerate(("a", "b", "c"))],
            bytes(content),
        )
    )
    return path


def found(path: Path, piece: int) -> str | None:
    check = RowCheck(read_header(path))
    raw = memoryview(path.read_bytes())
    for begin in range(0, len(raw), piece):
        check.take(raw[begin : begin + piece])
    return None if check.problem is None else str(check.problem)


NAN16, INF16 = np.float16("nan").tobytes(), np.float16("inf").tobytes()
NAN32 = np.float32("nan").tobytes()


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS", "I32"])
def test_numbers_are_no_problem(type_name: str, tmp_path: Path) -> None:
    assert found(model(tmp_path / "m.gguf", type_name), 97) is None


@pytest.mark.parametrize("piece", [1, 7, 33, 34, 35, 1000, 1 << 20])
@pytest.mark.parametrize("row", range(N_ROWS))
def test_it_does_not_matter_how_the_bytes_come(piece: int, row: int, tmp_path: Path) -> None:
    path = model(tmp_path / "m.gguf", "Q8_0", bad=(row * 512 // 32 * 34, NAN16), width=512)
    assert found(path, piece) == (
        "m.gguf is not a usable GGUF file: the tensor 'b' (Q8_0) has values that are infinite or no numbers (NaN), "
        f"in row {row}"
    )


@pytest.mark.parametrize(
    ("type_name", "place", "raw"),
    [
        ("F32", 4 * 511, NAN32),
        ("F16", 2 * 511, INF16),
        ("Q4_0", 0, INF16),
        ("Q4_K", 0, NAN16),
        ("Q6_K", 208, NAN16),
        ("IQ4_XS", 0, NAN16),
    ],
)
def test_each_type_has_its_own_place_for_it(type_name: str, place: int, raw: bytes, tmp_path: Path) -> None:
    said = found(model(tmp_path / "m.gguf", type_name, bad=(place, raw)), 50)
    assert said is not None
    assert f"'b' ({type_name})" in said
    assert said.endswith("in row 0")


def test_a_file_with_no_header_to_read_has_no_check(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"no GGUF")
    assert check_of(tmp_path / "m.gguf") is None


def test_python_is_heard_where_c_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    with unheard():
        sys.stderr.write("said\n")
    assert capfd.readouterr().err == "said\n"
