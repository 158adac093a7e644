"""What the parts of a model take on this machine: measured for real, kept, and read back from damaged files."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.errors import EngineError, UsageError
from owm.events import Advanced, Event, Finished, Started
from owm.hardware import bandwidth, matvec, rates
from owm.hardware.machine import Machine
from owm.hardware.matvec import Attention, Line, Measuring, Product, Rates, Rest
from owm.native.compute import TYPES, Operation, row_bytes

HERE = Machine("A CPU", "x86_64", "linux", 4, 8, 16, (), "a build")
SOME = Product(Line(1e-9, 2e-11), Line(0.0, 1e-11), Line(0.0, 1e-12), 5e-6, 1e-6, is_packed=True)


class Pretended:
    """Measuring that takes no time, and what was measured."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.disturbed: Sequence[str] = ()
        self.failing: Sequence[str] = ()

    def note(self, measuring: Measuring, step: str) -> None:
        self.steps.append(step)
        measuring.is_settled = step not in self.disturbed
        if step in self.failing:
            raise EngineError("there is not enough memory to measure with")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    made = Pretended()

    def rest(self: Measuring) -> Rest:
        made.note(self, "rest")
        return Rest(1e-6, 1e-7, 1e-10, 1e-9, 1e-10)

    def product(self: Measuring, name: str) -> Product:
        if name == "I8":
            raise UsageError("no such type")
        made.note(self, name)
        return SOME

    def attention(self: Measuring, name: str) -> Attention:
        made.note(self, f"cache {name}")
        return Attention(Line(1e-9, 1e-11), Line(1e-9, 1e-11))

    monkeypatch.setattr(Measuring, "rest", rest)
    monkeypatch.setattr(Measuring, "product", product)
    monkeypatch.setattr(Measuring, "attention", attention)
    monkeypatch.setattr(bandwidth, "measure", lambda n_threads: 2e10)
    return made


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Measuring:
    """Measuring for real, in a moment: what comes out is no good rate."""
    monkeypatch.setattr(matvec, "SECONDS", 0.001)
    monkeypatch.setattr(matvec, "MIN_STREAMED_BYTES", 1 << 20)
    monkeypatch.setattr(matvec, "MATRIX_BYTES", 1 << 18)
    monkeypatch.setattr(matvec, "PROMPT_ROWS", 64)
    return Measuring(n_threads=1, cache_bytes=1 << 18, max_seconds=0.002)


@pytest.mark.parametrize("name", ["Q4_K", "q4_0", "F16", "IQ2_XXS", "MXFP4"])
def test_products_of_a_type_take_time(name: str, short: Measuring) -> None:
    found = short.product(name)
    for line in (found.streamed, found.cached, found.column):
        assert 0 < line.seconds(1, 2048) < 0.01
    assert 0 <= found.cached_once <= found.streamed_once < 0.01
    assert found.expert_column in (found.column, found.cached)
    # From caches, and with many columns at once, nothing is slower.
    assert found.cached.seconds(1, 4096) <= 1.001 * found.streamed.seconds(1, 4096)
    assert found.column.seconds(1, 2048) <= 1.001 * found.streamed.seconds(1, 4096)


def test_attention_and_the_rest_take_time(short: Measuring) -> None:
    found = short.attention("F16")
    assert 0 < found.token.seconds(1, 64) < 1e-3
    assert 0 < found.prompt.seconds(1, 64) < 1e-3
    assert short.attention("Q8_0").token.seconds(1, 64) > 0
    rest = short.rest()
    assert rest.graph > 0
    assert rest.node >= 0
    assert rest.value > 0
    assert rest.decaying > 0


@pytest.mark.parametrize("measure", [Measuring.product, Measuring.attention])
def test_a_type_that_there_is_not_is_refused(measure: Any, short: Measuring) -> None:
    with pytest.raises(UsageError, match=r"of type I8$"):
        measure(short, "I8")


def test_what_others_disturb_throughout_is_known_as_such(short: Measuring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matvec, "WITHIN", 0.5)  # no samples agree so well
    empty = Rates(1, 1 << 20, 2e10)
    added = short.add(empty, ("attention", "F16"))
    assert list(added.disturbed) == [("attention", "F16")]
    monkeypatch.setattr(matvec, "WITHIN", 1e9)
    monkeypatch.setattr(matvec, "CPU_SHARE", 0.0)
    assert short.add(added, ("attention", "F16")).disturbed == {}
    monkeypatch.setattr(matvec, "CPU_SHARE", 2.0)  # more than there is
    assert list(short.add(empty, ("attention", "F16")).disturbed) == [("attention", "F16")]


@pytest.mark.parametrize("type_name", TYPES)
def test_weights_of_every_type_are_multiplied_as_llama_cpp_keeps_them(type_name: str) -> None:
    with Operation(n_threads=2) as operation:
        operation.multiply(type_name, n_out=64, n_in=512, n_columns=3, n_weights=2, as_loaded=True)
        for _ in range(3):
            operation.run()
        operation.multiply_experts(type_name, n_out=64, n_in=256, n_experts=4, n_used=2, n_columns=2)
        operation.run()
    assert row_bytes(type_name, 512) > 0


def test_only_rows_that_divide_are_kept_in_another_order() -> None:
    with Operation(n_threads=1) as operation:
        assert not operation.multiply("f32", n_out=64, n_in=256, n_columns=1, as_loaded=True)
        assert not operation.multiply("q4_0", n_out=64, n_in=256, n_columns=1)
        assert not operation.multiply("q4_0", n_out=63, n_in=256, n_columns=1, as_loaded=True)
        operation.run()


def test_types_are_measured_as_they_are_wanted_and_once(pretended: Pretended) -> None:
    found = rates.speeds(HERE, ("Q4_K",))
    assert found is not None
    assert (found.n_threads, found.bytes_per_second, found.products) == (4, 2e10, {"Q4_K": SOME})
    assert pretended.steps == ["rest", "cache F16", "Q4_K"]
    again = rates.speeds(HERE, ("q4_k", "Q6_K", "I8"), cache_types=("F16", "Q8_0"))
    assert again is not None
    assert sorted(again.products) == ["Q4_K", "Q6_K"]
    assert pretended.steps[3:] == ["cache Q8_0", "Q6_K"]
    assert rates.speeds(HERE, ("Q4_K", "Q6_K"), cache_types=("Q8_0",)) == again
    assert len(pretended.steps) == 5


def test_each_number_of_threads_and_each_machine_has_its_own(pretended: Pretended) -> None:
    rates.speeds(HERE, ("F16",))
    two = rates.speeds(HERE, ("F16",), n_threads=2)
    rates.speeds(replace(HERE, build="another"), ("F16",))
    assert two is not None
    assert two.n_threads == 2
    assert pretended.steps == ["rest", "cache F16", "F16"] * 3
    assert rates.speeds(HERE, ("F16",)) is not None
    assert len(pretended.steps) == 9


def test_nothing_is_measured_where_only_what_is_known_is_wanted(pretended: Pretended) -> None:
    assert rates.speeds(HERE, ("F16",), measures=False) is None
    rates.speeds(HERE, ("F16",))
    known = rates.speeds(HERE, ("F16", "Q8_0"), measures=False)
    assert known is not None
    assert list(known.products) == ["F16"]


def test_no_measurement_begins_after_the_deadline(pretended: Pretended) -> None:
    found = rates.speeds(HERE, ("F16", "Q8_0"), deadline_seconds=-1)
    assert found is not None
    assert found.products == {}
    assert pretended.steps == ["rest"]
    assert rates.speeds(HERE, ("F16",)) is not None
    assert pretended.steps == ["rest", "cache F16", "F16"]


def test_the_rates_that_people_see_and_the_speeds_do_not_lose_each_other(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates.matmul, "measure", lambda name, n_threads: 1e11)
    rates.speeds(HERE, ("F16",))
    assert rates.rates(HERE, ("f16",)).flops == {"f16": 1e11}
    rates.speeds(HERE, ("Q8_0",))
    assert rates.rates(HERE).flops == {"f16": 1e11}
    assert pretended.steps == ["rest", "cache F16", "F16", "Q8_0"]
    rates.rates(HERE, is_fresh=True)  # what belongs to other conditions goes with them
    rates.speeds(HERE, ("F16",))
    assert pretended.steps[4:] == ["rest", "cache F16", "F16"]


def test_what_was_disturbed_is_used_and_measured_again_some_time_later(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended.disturbed = ["F16"]
    assert rates.speeds(HERE, ("F16",)) is not None
    assert rates.speeds(HERE, ("F16",)) is not None
    assert pretended.steps == ["rest", "cache F16", "F16"]
    monkeypatch.setattr(rates, "DISTURBED_SECONDS", -1.0)
    pretended.disturbed = []
    assert rates.speeds(HERE, ("F16",)) is not None
    assert rates.speeds(HERE, ("F16",)) is not None
    assert pretended.steps == ["rest", "cache F16", "F16", "F16"]


def test_what_ggml_cannot_compute_is_left_out(pretended: Pretended) -> None:
    pretended.failing = ["F32"]
    found = rates.speeds(HERE, ("F16", "F32", "Q8_0"))
    assert found is not None
    assert list(found.products) == ["F16"]
    pretended.failing = ["rest"]
    assert rates.speeds(replace(HERE, cpu="another"), ("F16",)) is None


def test_measuring_is_told_where_it_takes_a_while(pretended: Pretended) -> None:
    events: list[Event] = []
    rates.speeds(HERE, ("F16", "Q8_0"), sink=events.append)
    assert isinstance(events[0], Started)
    assert events[0].total == 4
    assert [event.done for event in events if isinstance(event, Advanced)] == [1, 2, 3, 4]
    assert isinstance(events[-1], Finished)
    events.clear()
    rates.speeds(HERE, ("Q6_K",), sink=events.append)
    assert events == []


@pytest.mark.parametrize(
    "damage",
    [
        None, [], "x", {"4": 3}, {"4": {}}, {"4": {"rest": [1], "products": {}, "attention": {}, "disturbed": []}},
        {"4": {"rest": [1e-6] * 5, "products": {"F16": [0] * 9}, "attention": {}, "disturbed": []}},
        {"4": {"rest": [1e-6] * 5, "products": {"F16": [-1.0] * 8 + [0]}, "attention": {}, "disturbed": []}},
        {"4": {"rest": [1e-6] * 5, "products": {"F16": [1e-9] * 8 + [2]}, "attention": {}, "disturbed": []}},
        {"4": {"rest": [1e-6] * 5, "products": {"F16": [1e-9] * 6 + [0]}, "attention": {}, "disturbed": []}},
        {"4": {"rest": [1e-6] * 5, "products": {}, "attention": {"F16": [1e-9]}, "disturbed": []}},
        {"4": {"rest": [1e-6] * 5, "products": {}, "attention": {}, "disturbed": [["a", "b"]]}},
        {"4": {"rest": [1e-6] * 5, "products": [], "attention": {}, "disturbed": []}},
    ],
)  # fmt: skip
def test_damaged_speeds_are_measured_anew_and_mended(damage: Any, pretended: Pretended, tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    rates.speeds(HERE, ("F16",), path=path)
    raw = json.loads(path.read_text())
    for entry in raw["machines"].values():
        entry["speeds"] = damage
    path.write_text(json.dumps(raw))
    assert rates.speeds(HERE, ("F16",), path=path) is not None
    assert rates.speeds(HERE, ("F16",), path=path) is not None
    assert pretended.steps == ["rest", "cache F16", "F16"] * 2


def test_a_home_that_cannot_be_written_costs_only_time(pretended: Pretended, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert rates.speeds(HERE, ("F16",), path=tmp_path / "file" / "machine.json") is not None


def test_old_speeds_go_with_old_rates(pretended: Pretended, tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    rates.speeds(HERE, ("F16",), path=path)
    raw = json.loads(path.read_text())
    for entry in raw["machines"].values():
        entry["measured_at"] = time.time() - rates.MAX_AGE_SECONDS - 1
    path.write_text(json.dumps(raw))
    assert rates.speeds(HERE, ("F16",), path=path, measures=False) is None
    rates.speeds(HERE, ("F16",), path=path)
    assert pretended.steps == ["rest", "cache F16", "F16"] * 2
