"""Which machine this is, what it can do at most, and what is kept of that: on the real machine and on made-up ones."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from owm.errors import UsageError
from owm.hardware import bandwidth, machine, matmul, probe, rates
from owm.hardware.machine import Machine, cpu_flags, cpu_name, this_machine
from owm.hardware.probe import Memory
from owm.native.compute import TYPES, Operation

HERE = Machine("A CPU", "x86_64", "linux", 4, 8, 16, ("a GPU",), "a build")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Measuring that takes no time; return what was measured."""
    measured: list[str] = []

    def memory(*, n_threads: int) -> float:
        measured.append("memory")
        return 2e10 + n_threads

    def product(type_name: str, *, n_threads: int) -> float:
        measured.append(type_name)
        return 1e11

    monkeypatch.setattr(bandwidth, "measure", memory)
    monkeypatch.setattr(matmul, "measure", product)
    return measured


def test_this_machine_is_the_same_when_it_is_looked_at_again() -> None:
    one = this_machine()
    assert one == this_machine()
    assert len(one.fingerprint) == 12
    assert one.cpu
    assert one.build.startswith("llama-cpp-python ")
    assert one.n_cores == probe.cores().usable
    assert json.loads(json.dumps(one.record()))["fingerprint"] == one.fingerprint


@pytest.mark.parametrize(
    "changes",
    [{"cpu": "B"}, {"architecture": "arm64"}, {"system": "darwin"}, {"n_cores": 3}, {"n_threads": 4}, {"gpus": ()},
     {"memory_gib": 8}],
)  # fmt: skip
def test_other_hardware_is_another_machine(changes: dict[str, object]) -> None:
    assert replace(HERE, **changes).fingerprint != HERE.fingerprint  # type: ignore[arg-type]


def test_another_build_is_the_same_hardware() -> None:
    assert replace(HERE, build="b").fingerprint == HERE.fingerprint


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC 9354\nmodel name\t: other\n", "AMD EPYC 9354"),
        ("processor\t: 0\nModel\t\t: Raspberry Pi 5\n", "Raspberry Pi 5"),
    ],
)
def test_the_processor_is_named_as_the_kernel_names_it(
    text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert cpu_name() == name


def test_flags_of_the_processor_are_read_for_intel_and_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", path)
    assert cpu_flags() == frozenset()
    path.write_text("flags\t\t: fpu avx2 avx512f\nbugs\t\t: x\n")
    assert cpu_flags() == {"fpu", "avx2", "avx512f"}
    path.write_text("Features\t: fp asimd i8mm\n")
    assert cpu_flags() == {"fp", "asimd", "i8mm"}


def test_memory_is_measured_with_vectors_that_no_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "_CPUS", tmp_path)
    for cpu in range(8):
        for index, (level, size, shared) in enumerate(((1, "32K", f"{cpu}"), (3, "32M", "0-3" if cpu < 4 else "4-7"))):
            folder = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, text in (("level", level), ("size", size), ("shared_cpu_list", shared)):
                (folder / name).write_text(f"{text}\n")
    assert bandwidth.last_cache_bytes() == 64 << 20
    monkeypatch.setattr(probe, "memory", lambda: Memory(64 << 30, 64 << 30))
    assert bandwidth.vector_bytes() == 256 << 20
    monkeypatch.setattr(probe, "memory", lambda: Memory(1 << 30, 1 << 30))
    assert 3 * bandwidth.vector_bytes() <= (1 << 30) // 8


def test_bandwidth_is_a_rate_that_a_machine_can_have() -> None:
    measured = bandwidth.measure(n_threads=probe.cores().usable, seconds=0.05)
    assert 5e8 < measured < 5e12


@pytest.mark.parametrize("type_name", TYPES)
def test_products_of_every_type_are_measured(type_name: str) -> None:
    with Operation(n_threads=1) as operation:
        operation.multiply(type_name, n_out=64, n_in=256, n_columns=4)
        operation.run()
        operation.multiply(type_name, n_out=64, n_in=512, n_columns=4)
        operation.run()


def test_the_types_are_those_of_ggml() -> None:
    from owm.native import compute
    from owm.native.quants import type_ids

    ids = type_ids()
    assert {name: ids[name.upper()] for name in TYPES} == compute._TYPES


def test_a_type_that_is_not_measured_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^no rate is measured of weights of type i8$"):
        matmul.measure("i8", n_threads=1)


def test_rates_are_measured_once_and_types_as_they_are_wanted(quick: list[str]) -> None:
    assert rates.rates(HERE, ("f16",)).flops == {"f16": 1e11}
    assert rates.rates(HERE, ("f16", "q8_0", "q8_0")).bytes_per_second == 2e10 + 4
    assert rates.rates(HERE).flops == {"f16": 1e11, "q8_0": 1e11}
    assert quick == ["memory", "f16", "q8_0"]
    rates.rates(HERE, ("f16",), is_fresh=True)
    assert quick[3:] == ["memory", "f16"]


def test_machines_that_share_a_home_have_their_own_rates(quick: list[str]) -> None:
    rates.rates(HERE)
    other = replace(HERE, n_cores=64, n_threads=128)
    assert rates.rates(other).bytes_per_second == 2e10 + 64
    assert rates.rates(HERE).bytes_per_second == 2e10 + 4
    rates.rates(replace(HERE, build="another"))
    assert quick == ["memory"] * 3


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b'{"version": 2, "machines": {}}', b'{"version": 1}',
        b'{"version": 1, "machines": []}', b'{"version": 1, "machines": {"KEY": 3}}',
        b'{"version": 1, "machines": {"KEY": {"bytes_per_second": NaN, "flops": {}, "measured_at": 9e9}}}',
        b'{"version": 1, "machines": {"KEY": {"bytes_per_second": 1e9, "flops": {"f16": "x"}, "measured_at": 1}}}',
        b'{"version": 1, "machines": {"KEY": {"bytes_per_second": true, "flops": {}, "measured_at": 1}}}',
        b'{"version": 1, "machines": {"KEY": {"bytes_per_second": Infinity, "flops": {}, "measured_at": NOW}}}',
        b'{"version": 1, "machines": {"KEY": {"bytes_per_second": 1%s, "flops": {}, "measured_at": 1}}}' % (b"0" * 400),
    ],
)  # fmt: skip
def test_a_damaged_file_is_measured_anew_and_mended(content: bytes, quick: list[str], tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    key = f"{HERE.fingerprint} {HERE.build}".encode()
    path.write_bytes(content.replace(b"KEY", key).replace(b"NOW", str(time.time()).encode()))
    assert rates.rates(HERE, path=path).bytes_per_second == 2e10 + 4
    assert rates.rates(HERE, path=path).bytes_per_second == 2e10 + 4
    assert quick == ["memory"]


def test_old_rates_and_those_of_the_future_are_measured_anew(quick: list[str], tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    rates.rates(HERE, path=path)
    for moved in (-rates.MAX_AGE_SECONDS - 1, 3600.0):
        raw = json.loads(path.read_text())
        for entry in raw["machines"].values():
            entry["measured_at"] = time.time() + moved
        path.write_text(json.dumps(raw))
        rates.rates(HERE, path=path)
    assert quick == ["memory"] * 3


def test_a_home_that_cannot_be_written_costs_only_time(quick: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert rates.rates(HERE, path=tmp_path / "file" / "machine.json").bytes_per_second == 2e10 + 4
