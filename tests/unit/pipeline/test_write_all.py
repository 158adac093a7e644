"""Several plans written from one reading: the same bytes as one at a time, all of them or none."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from owm.errors import Damaged, StoreError
from owm.events import Advanced, Event, Started, Warned
from owm.native import quants
from owm.pipeline import writer
from owm.pipeline.plan import Plan, PlannedTensor, make_plan
from owm.pipeline.rows import MappedRows, MemoryRows, Rows
from owm.pipeline.writer import Buffers, write, write_all

Note = Callable[[str], None]


class Stop(KeyboardInterrupt):
    """Ctrl-C at a chosen place."""


def plans(type_names: Sequence[str], note: Note = lambda _: None) -> list[Plan]:
    """The same six tensors in each type; `note` hears of every reading."""

    def source(name: str, seed: int) -> Rows:
        array = np.random.default_rng(seed).standard_normal((24, 256)).astype(np.float32)

        def heard(block: np.ndarray, begin: int, end: int) -> np.ndarray:
            note(name)
            return block

        return MappedRows(MemoryRows(array), heard)

    rows = {f"{name}.weight": source(name, seed) for seed, name in enumerate("abcdef")}
    return [
        make_plan(
            {"general.architecture": "llama"},
            [PlannedTensor(name, source, kind, "test") for name, source in rows.items()],
        )
        for kind in type_names
    ]


def paths(folder: Path, type_names: Sequence[str]) -> list[list[Path]]:
    return [[folder / f"{name}.gguf"] for name in type_names]


TYPES = ("Q4_K", "F16", "Q8_0", "F32")


def test_all_types_come_from_one_reading(tmp_path: Path) -> None:
    read: Counter[str] = Counter()
    outputs = zip(plans(TYPES, lambda name: read.update([name])), paths(tmp_path, TYPES), strict=True)
    written = write_all(list(outputs))
    assert read == dict.fromkeys("abcdef", 1)
    for kind, plan, (one,) in zip(TYPES, plans(TYPES), written, strict=True):
        (alone,) = write(plan, [tmp_path / "alone.gguf"])
        assert one.sha256 == alone.sha256
        assert one.path == tmp_path / f"{kind}.gguf"
    assert len(list(tmp_path.iterdir())) == len(TYPES) + 1


def test_the_bytes_are_ggmls_however_the_rows_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (plan,) = plans(["Q4_K"])
    (whole,) = write(plan, [tmp_path / "whole.gguf"])
    first = plan.tensors[0]
    wanted = quants.quantize(first.rows.read(0, 24), "Q4_K").tobytes()
    raw = whole.path.read_bytes()
    assert raw[plan.files[0].offsets[0] :][: first.n_bytes] == wanted
    monkeypatch.setattr(writer, "BLOCK_VALUES", 512)
    (cut,) = write(plan, [tmp_path / "cut.gguf"], n_threads=3, memory_bytes=1)
    assert cut.sha256 == whole.sha256


def test_matrices_with_weights_of_their_own_are_cut_apart(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    array = random.standard_normal((3, 8, 256)).astype(np.float32)
    weights = random.random((3, 256)).astype(np.float32)
    tensor = PlannedTensor("x.weight", MemoryRows(array), "Q4_K", "test", weights)
    plan = make_plan({}, [tensor])
    (written,) = write(plan, [tmp_path / "m.gguf"], n_threads=2)
    wanted = b"".join(quants.quantize(a, "Q4_K", w).tobytes() for a, w in zip(array, weights, strict=True))
    assert written.path.read_bytes()[plan.files[0].offsets[0] :][: len(wanted)] == wanted
    swapped = make_plan({}, [replace(tensor, weights=weights[::-1])])
    (other,) = write(swapped, [tmp_path / "o.gguf"])
    assert other.sha256 != written.sha256


def test_one_weight_for_all_matrices_is_used_for_each(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((2, 4, 256)).astype(np.float32)
    weights = np.linspace(0, 1, 256, dtype=np.float32)[None]
    plan = make_plan({}, [PlannedTensor("x.weight", MemoryRows(array), "Q4_K", "test", weights)])
    (written,) = write(plan, [tmp_path / "m.gguf"])
    wanted = quants.quantize(array.reshape(8, 256), "Q4_K", weights[0]).tobytes()
    assert written.path.read_bytes()[plan.files[0].offsets[0] :][: len(wanted)] == wanted


@pytest.mark.parametrize("stop_at", ["b", "f"])
def test_an_interrupted_write_of_several_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: str) -> None:
    monkeypatch.setattr(writer, "SYNC_SECONDS", 0.0)
    whole = write_all(list(zip(plans(TYPES), paths(tmp_path, [f"whole-{kind}" for kind in TYPES]), strict=True)))

    def stop(name: str) -> None:
        if name == stop_at:
            raise Stop

    with pytest.raises(Stop):
        write_all(list(zip(plans(TYPES, stop), paths(tmp_path, TYPES), strict=True)), n_threads=1)
    assert not any((tmp_path / f"{kind}.gguf").exists() for kind in TYPES)
    read: list[str] = []
    again = write_all(list(zip(plans(TYPES, read.append), paths(tmp_path, TYPES), strict=True)), n_threads=1)
    assert [one.sha256 for (one,) in again] == [one.sha256 for (one,) in whole]
    assert stop_at in read
    assert ("a" in read) == (stop_at == "b" and "a" in read)
    if stop_at == "f":
        assert "a" not in read
    assert not list(tmp_path.glob("*.incomplete*"))


def test_outputs_that_came_to_different_places_go_on_from_there(tmp_path: Path) -> None:
    """One file has all, one nothing, one half: each tensor is encoded for those only that lack it."""
    kinds = ("Q4_K", "Q8_0", "F16")
    whole = write_all(list(zip(plans(kinds), paths(tmp_path, kinds), strict=True)))
    made = plans(kinds)
    for kind, plan, share in zip(kinds, made, (1.0, 0.0, 0.5), strict=True):
        path = tmp_path / f"{kind}.gguf"
        raw = bytearray(path.read_bytes())
        watermark = int(share * len(raw))
        raw[watermark:] = bytes(len(raw) - watermark)
        path.unlink()
        path.with_name(path.name + ".incomplete").write_bytes(raw)
        journal = f'{{"plan": "{plan.digest()}"}}\n' + (f"{watermark}\n" if watermark else "")
        path.with_name(path.name + ".incomplete.journal").write_text(journal)
    again = write_all(list(zip(made, paths(tmp_path, kinds), strict=True)))
    assert [one.sha256 for (one,) in again] == [one.sha256 for (one,) in whole]


def test_an_error_in_a_worker_leaves_nothing_of_any_output(tmp_path: Path) -> None:
    def fail(name: str) -> None:
        if name == "d":
            raise StoreError("the source is gone")

    with pytest.raises(StoreError, match="the source is gone"):
        write_all(list(zip(plans(TYPES, fail), paths(tmp_path, TYPES), strict=True)))
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "Q8_0.gguf").write_bytes(b"an older one")

    def fail(name: str) -> None:
        if name == "f":
            raise StoreError("the source is gone")

    with pytest.raises(StoreError):
        write_all(list(zip(plans(["Q8_0"], fail), paths(tmp_path, ["Q8_0"]), strict=True)))
    assert (tmp_path / "Q8_0.gguf").read_bytes() == b"an older one"
    write_all(list(zip(plans(["Q8_0"]), paths(tmp_path, ["Q8_0"]), strict=True)))
    assert (tmp_path / "Q8_0.gguf").read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused_for_quant_blocks_only(tmp_path: Path, bad: float) -> None:
    array = np.ones((4, 256), np.float32)
    array[2, 7] = bad

    def plan(kind: str) -> Plan:
        return make_plan({}, [PlannedTensor("x.weight", MemoryRows(array), kind, "test")])

    with pytest.raises(Damaged, match=r"x\.weight has values that are infinite or no numbers"):
        write_all([(plan("F32"), [tmp_path / "a.gguf"]), (plan("Q4_K"), [tmp_path / "b.gguf"])])
    assert list(tmp_path.iterdir()) == []
    events: list[Event] = []
    write_all([(plan("F32"), [tmp_path / "a.gguf"]), (plan("BF16"), [tmp_path / "b.gguf"])], sink=events.append)
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "x.weight has 1 values that are infinite or not a number (NaN), as published"
    ]


def test_values_too_large_for_a_scale_are_refused(tmp_path: Path) -> None:
    """Finite as they are, but the block's scale is a 16-bit float."""
    array = np.full((1, 256), 9e5, np.float32)
    plan = make_plan({}, [PlannedTensor("x.weight", MemoryRows(array), "Q4_0", "test")])
    with pytest.raises(Damaged, match=r"x\.weight as Q4_0 comes to values that are no numbers"):
        write(plan, [tmp_path / "m.gguf"])
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_the_bytes_of_all_outputs(tmp_path: Path) -> None:
    events: list[Event] = []
    made = plans(TYPES)
    write_all(list(zip(made, paths(tmp_path, TYPES), strict=True)), stage="quantize", sink=events.append)
    assert isinstance(events[0], Started)
    assert events[0].stage == "quantize"
    assert events[0].total == sum(plan.n_bytes for plan in made)
    done = [event.done for event in events if isinstance(event, Advanced)]
    assert done == sorted(done)
    assert done[-1] <= events[0].total


def test_two_outputs_with_one_path_are_refused(tmp_path: Path) -> None:
    first, second = plans(["Q8_0", "F16"])
    with pytest.raises(StoreError, match="another owm is writing"):
        write_all([(first, [tmp_path / "m.gguf"]), (second, [tmp_path / "m.gguf"])])
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("n_outputs", [1, 4])
def test_buffers_stay_within_the_memory_that_is_allowed(n_outputs: int) -> None:
    usual = Buffers.within(None, n_outputs, 1 << 40)
    assert Buffers.within(usual.total(n_outputs), n_outputs, 1 << 40) == usual
    small = Buffers.within(48 << 20, n_outputs, 1 << 40)
    assert small.total(n_outputs) <= 48 << 20
    assert Buffers.within(1, n_outputs, 1 << 40).block_bytes == writer.MIN_BLOCK_BYTES
