"""The plan and the writer: what is laid out is what is written, all of it or nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from owm.errors import Damaged, MalformedFile, NotEnoughDisk, StoreError, UsageError
from owm.events import Advanced, Event, Finished, Started
from owm.formats.gguf import read_header
from owm.formats.gguf_writer import F64, I32, U64
from owm.pipeline import writer
from owm.pipeline.plan import Plan, PlannedTensor, make_plan
from owm.pipeline.rows import FileRows, MappedRows, MemoryRows, Rows
from owm.pipeline.writer import write

METADATA = {
    "general.architecture": "llama", "llama.block_count": 1, "a.flag": True, "a.number": 0.5, "a.text": "ü",
    "a.signed": I32(-3), "a.large": U64(1 << 40), "a.double": F64(0.1), "a.texts": ["x", b"\xff"], "a.ints": [1, -2],
    "a.floats": [0.5, 1.5], "a.flags": [True, False], "a.bytes": b"\x01\x02", "a.nothing": [],
}  # fmt: skip


def tensor(name: str, shape: tuple[int, ...], type_name: str = "F32", seed: int = 0) -> PlannedTensor:
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return PlannedTensor(name, MemoryRows(array), type_name, "test")


def plan(**options: object) -> Plan:
    tensors = [tensor("a.weight", (30, 32)), tensor("b.weight", (7,)), tensor("c.weight", (2, 3, 64), "BF16")]
    return make_plan(METADATA, tensors, **options)  # type: ignore[arg-type]


def test_a_written_file_reads_back(tmp_path: Path) -> None:
    (written,) = write(plan(), [tmp_path / "m.gguf"])
    header = read_header(written.path)
    assert header.file_bytes == written.size_bytes == plan().n_bytes
    found = {key: value for key, value in header.metadata.items() if key not in ("a.texts", "a.nothing")}
    assert found["a.large"] == 1 << 40
    assert found["a.double"] == 0.1
    assert found["a.signed"] == -3
    assert found["a.ints"] == (1, -2)
    assert found["a.flags"] == (True, False)
    assert found["a.bytes"] == (1, 2)
    assert [(t.name, t.shape, t.type_name) for t in header.tensors] == [
        ("a.weight", (32, 30), "F32"),
        ("b.weight", (7,), "F32"),
        ("c.weight", (64, 3, 2), "BF16"),
    ]
    raw = written.path.read_bytes()
    first = header.tensors[0]
    begin = header.data_offset + first.offset
    wanted = np.random.default_rng(0).standard_normal((30, 32)).astype(np.float32)
    assert raw[begin : begin + first.n_bytes] == wanted.tobytes()
    import hashlib

    assert written.sha256 == hashlib.sha256(raw).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf"]


@pytest.mark.parametrize("block", [1, 200, 1 << 20])
def test_the_bytes_do_not_depend_on_how_the_work_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    (whole,) = write(plan(), [tmp_path / "whole.gguf"], n_threads=1)
    monkeypatch.setattr(writer, "BLOCK_BYTES", block)
    (cut,) = write(plan(), [tmp_path / "cut.gguf"], n_threads=4)
    assert cut.sha256 == whole.sha256


def test_parts_hold_all_tensors_and_say_which_they_are(tmp_path: Path) -> None:
    made = plan(split_max_bytes=5000)
    paths = [tmp_path / f"m-{i + 1:05}-of-{len(made.files):05}.gguf" for i in range(len(made.files))]
    write(made, paths)
    headers = [read_header(path) for path in paths]
    assert [name for header in headers for name in (t.name for t in header.tensors)] == [
        "a.weight",
        "b.weight",
        "c.weight",
    ]
    assert [header.metadata["split.no"] for header in headers] == list(range(len(paths)))
    assert {header.metadata["split.count"] for header in headers} == {len(paths)}
    assert {header.metadata["split.tensors.count"] for header in headers} == {3}
    assert all(path.stat().st_size <= 5000 for path in paths)
    with pytest.raises(UsageError, match=r"a\.weight"):
        plan(split_max_bytes=3000)


def test_progress_is_told_in_bytes_of_the_file(tmp_path: Path) -> None:
    events: list[Event] = []
    write(plan(), [tmp_path / "m.gguf"], sink=events.append)
    assert isinstance(events[0], Started)
    assert events[0].total == plan().n_bytes
    done = [event.done for event in events if isinstance(event, Advanced)]
    assert done == sorted(done)
    assert done[-1] <= plan().n_bytes
    assert isinstance(events[-1], Finished)


def test_what_the_check_refuses_is_not_written(tmp_path: Path) -> None:
    def verify(*, wait: bool) -> None:
        if wait:
            raise Damaged("no")

    with pytest.raises(Damaged):
        write(plan(), [tmp_path / "m.gguf"], verify=verify)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"short")
    broken = PlannedTensor("a.weight", FileRows(tmp_path / "weights", 0, (4, 4), "F32"), "F32", "test")
    with pytest.raises(MalformedFile):
        write(make_plan(METADATA, [broken]), [tmp_path / "m.gguf"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights"]


class _Stop(KeyboardInterrupt):
    pass


def test_an_interrupted_write_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SYNC_SECONDS", 0.0)
    read: list[str] = []

    def made(stop_at: str | None) -> Plan:
        def counted(name: str, source: Rows) -> Rows:
            def note(block: np.ndarray, begin: int, end: int) -> np.ndarray:
                if name == stop_at:
                    raise _Stop
                read.append(name)
                return block

            return MappedRows(source, note)

        planned = [tensor(f"{name}.weight", (20, 32), seed=i) for i, name in enumerate("abcdef")]
        return make_plan(
            METADATA, [PlannedTensor(t.name, counted(t.name, t.rows), t.type_name, t.reason) for t in planned]
        )

    (whole,) = write(made(None), [tmp_path / "whole.gguf"], n_threads=1)
    read.clear()
    with pytest.raises(_Stop):
        write(made("f.weight"), [tmp_path / "m.gguf"], n_threads=1)
    assert (tmp_path / "m.gguf.incomplete").exists()
    before = list(read)
    read.clear()
    (again,) = write(made(None), [tmp_path / "m.gguf"], n_threads=1)
    assert again.sha256 == whole.sha256
    assert len(before) == 5
    assert "f.weight" in read
    assert "a.weight" not in read
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "whole.gguf"]


@pytest.mark.parametrize("journal", ["", "nonsense", '{"plan": "other"}\n0\n1\n2\n', '{"plan"'])
def test_a_journal_of_something_else_is_not_believed(tmp_path: Path, journal: str) -> None:
    (whole,) = write(plan(), [tmp_path / "whole.gguf"])
    (tmp_path / "m.gguf.incomplete").write_bytes(bytes(plan().n_bytes))
    (tmp_path / "m.gguf.incomplete.journal").write_text(journal)
    (made,) = write(plan(), [tmp_path / "m.gguf"])
    assert made.sha256 == whole.sha256


def test_a_line_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    (whole,) = write(plan(), [tmp_path / "whole.gguf"])
    (tmp_path / "m.gguf.incomplete").write_bytes(bytes(plan().n_bytes))
    (tmp_path / "m.gguf.incomplete.journal").write_text(json.dumps({"plan": plan().digest()}) + "\n0")
    (made,) = write(plan(), [tmp_path / "m.gguf"])
    assert made.sha256 == whole.sha256


def test_a_full_disk_is_said_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(NotEnoughDisk):
        write(plan(), [tmp_path / "m.gguf"])
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_are_kept_apart(tmp_path: Path) -> None:
    refusals: list[str] = []

    def verify(*, wait: bool) -> None:
        if wait and not refusals:
            with pytest.raises(StoreError, match=r"another owm is writing .*m\.gguf") as caught:
                write(plan(), [tmp_path / "m.gguf"])
            refusals.append(str(caught.value))

    (written,) = write(plan(), [tmp_path / "m.gguf"], verify=verify)
    assert refusals
    (again,) = write(plan(), [tmp_path / "m.gguf"])
    assert written.sha256 == again.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf"]
