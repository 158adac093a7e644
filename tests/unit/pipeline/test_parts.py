"""Parts of a model: how they are filled, that they are what llama.cpp makes, and that copies are compared."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.errors import Damaged, UsageError
from owm.formats.gguf import read_header
from owm.pipeline import parts
from owm.pipeline.model_file import open_model_file
from owm.pipeline.parts import copy, file_names, plan_parts
from owm.pipeline.plan import Plan, PlannedTensor, make_plan
from owm.pipeline.rows import Array, MappedRows, MemoryRows
from support.packed_gguf import F32, I32, STRING, U16, U32, array, key, pack, tensor

ARCHITECTURE = key("general.architecture", STRING, "llama")


def whole(folder: Path, n_bytes: list[int], *keys: bytes, alignment: int = 32) -> Path:
    """Write a model with a tensor for each number of bytes."""
    entries, data = [], b""
    for index, size in enumerate(n_bytes):
        entries.append(tensor(f"t{index}", [size], 24, len(data)))
        data += bytes([index % 256]) * size + bytes(-size % alignment)
    path = folder / "m.gguf"
    path.write_bytes(pack([ARCHITECTURE, *keys], entries, data, alignment=alignment))
    return path


def in_parts(plan: Plan, folder: Path) -> list[Path]:
    paths = [folder / name for name in file_names("m.gguf", len(plan.files))]
    copy(plan, paths, stage="split")
    return paths


def test_parts_are_laid_out_as_llama_cpp_does(tmp_path: Path) -> None:
    # ref: tools/gguf-split: all metadata first, then three keys in this order; the others have these keys only.
    extra = array("a.numbers", F32, [0.5, 1.5])
    plan = plan_parts(open_model_file([whole(tmp_path, [40, 64, 33], extra)]), max_tensors=2)
    first, second = in_parts(plan, tmp_path)

    def numbered(number: int) -> list[bytes]:
        return [key("split.no", U16, number), key("split.tensors.count", I32, 3), key("split.count", U16, 2)]

    assert first.name == "m-00001-of-00002.gguf"
    assert first.read_bytes() == pack(
        [ARCHITECTURE, extra, *numbered(0)],
        [tensor("t0", [40], 24, 0), tensor("t1", [64], 24, 64)],
        bytes(40 + 24) + b"\1" * 64,
    )
    assert second.read_bytes() == pack(numbered(1), [tensor("t2", [33], 24, 0)], b"\2" * 33 + bytes(31))


def test_a_larger_alignment_holds_in_every_part_and_after(tmp_path: Path) -> None:
    path = whole(tmp_path, [40, 300, 7], key("general.alignment", U32, 128), alignment=128)
    paths = in_parts(plan_parts(open_model_file([path]), max_tensors=1), tmp_path)
    headers = [read_header(part) for part in paths]
    assert [header.alignment for header in headers] == [128] * 3
    assert all(header.data_offset % 128 == 0 for header in headers)
    copy(open_model_file(paths), [tmp_path / "again.gguf"], stage="merge")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


@given(
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=12),
    limit=st.one_of(st.integers(200, 8000), st.none()),
    count=st.integers(1, 5),
)
def test_parts_are_full_but_keep_their_bound(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int | None, count: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    path = whole(folder, sizes)
    source = open_model_file([path])
    try:
        plan = plan_parts(source, max_bytes=limit, max_tensors=count if limit is None else None)
    except UsageError:
        if limit is None:
            assert len(sizes) <= count
        else:  # all fits in one, or a tensor in none; a header takes some 200 bytes
            assert source.n_bytes <= limit or max(sizes) + 300 > limit
        return
    assert [t.name for file in plan.files for t in file.tensors] == [t.name for t in source.tensors]
    if limit is None:
        assert all(len(file.tensors) == count for file in plan.files[:-1])
    else:
        assert max(file.n_bytes for file in plan.files) <= limit
        for file, following in zip(plan.files, plan.files[1:], strict=False):  # no part could have held more
            added = following.tensors[0]
            assert file.n_bytes + added.n_bytes + len(added.name) + 24 + 8 + 64 > limit
    assert 1 < len(plan.files) <= len(sizes)


def test_the_bound_counts_to_the_byte(tmp_path: Path) -> None:
    source = open_model_file([whole(tmp_path, [1000] * 6)])
    plan = plan_parts(source, max_tensors=3)
    largest = max(file.n_bytes for file in plan.files)
    assert [len(file.tensors) for file in plan_parts(source, max_bytes=largest).files] == [3, 3]
    assert [len(file.tensors) for file in plan_parts(source, max_bytes=largest - 1).files] != [3, 3]


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"max_tensors": 3}, "nothing to split"),
        ({"max_bytes": 1 << 30}, "nothing to split"),
        ({"max_bytes": 1000}, "the part with t1 needs"),
        ({"max_bytes": 100}, "the part with t0 needs"),
    ],
)
def test_what_cannot_be_split(tmp_path: Path, options: dict[str, int], cause: str) -> None:
    source = open_model_file([whole(tmp_path, [10, 2000, 10])])
    with pytest.raises(UsageError, match=cause):
        plan_parts(source, **options)


def test_more_parts_than_can_be_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MAX_PARTS", 4)
    source = open_model_file([whole(tmp_path, [32] * 4)])
    with pytest.raises(UsageError, match="4 parts, at most 3"):
        plan_parts(source, max_tensors=1)


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    plan = plan_parts(open_model_file([whole(tmp_path, [100, 100])]), max_tensors=1)
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"m-00002-of-00002\.gguf is there already"):
        in_parts(plan, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m-00002-of-00002.gguf", "m.gguf"]
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    (tmp_path / "m-00002-of-00002.gguf").mkdir()
    with pytest.raises(UsageError, match="there already"):
        in_parts(plan, tmp_path)


def test_a_try_that_died_between_two_names_is_finished(tmp_path: Path) -> None:
    plan = plan_parts(open_model_file([whole(tmp_path, [100, 200, 300])]), max_tensors=1)
    paths = in_parts(plan, tmp_path)
    before = [path.read_bytes() for path in paths]
    kept = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    written = copy(plan, paths, stage="split")
    assert [file.path for file in written] == paths
    assert [path.read_bytes() for path in paths] == before
    assert paths[0].stat().st_mtime_ns == kept
    assert copy(plan, paths, stage="split") == written


def test_a_part_that_looks_right_but_is_not_is_no_finished_one(tmp_path: Path) -> None:
    plan = plan_parts(open_model_file([whole(tmp_path, [100, 200, 300])]), max_tensors=1)
    paths = in_parts(plan, tmp_path)
    raw = bytearray(paths[0].read_bytes())
    raw[-50] ^= 1
    paths[0].write_bytes(raw)
    paths[2].unlink()
    with pytest.raises(Damaged, match="t0"):
        copy(plan, paths, stage="split")
    assert not paths[2].exists()
    assert paths[0].read_bytes() == raw


def _changing(array: np.ndarray) -> Callable[[Array, int, int], Array]:
    """Return rows that are something else at the second reading, as of a file that is changed meanwhile."""
    seen: list[int] = []

    def read(block: Array, begin: int, end: int) -> Array:
        seen.append(begin)
        return block + np.float32(len(seen) > len(array))

    return read


def test_a_copy_that_differs_gets_no_name(tmp_path: Path) -> None:
    array = np.zeros((1, 64), np.float32)
    rows = MappedRows(MemoryRows(array), _changing(array))
    planned = make_plan({"general.architecture": "llama"}, [PlannedTensor("a.weight", rows, "F32", "test")])
    with pytest.raises(Damaged, match=r"a\.weight in m\.gguf is not what was read"):
        copy(planned, [tmp_path / "m.gguf"], stage="merge")
    assert list(tmp_path.iterdir()) == []
