"""What this process may use: cores, quota and memory, read from made-up machines and from the real one."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from owm.hardware import probe
from owm.hardware.probe import Cores, Memory
from support.run import run

GIB = 1 << 30


class Machine:
    """A made-up /sys and /proc; every file that is not written is not there."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._monkeypatch = monkeypatch
        self.cpus = root / "sys/devices/system/cpu"
        self.cgroup = root / "sys/fs/cgroup"
        for name, path in {
            "_SYS_CPU": self.cpus,
            "_INTEL_FAST_CPUS": root / "sys/devices/cpu_core/cpus",
            "_CGROUP": self.cgroup,
            "_OWN_CGROUP": root / "proc/self/cgroup",
            "_NVIDIA_GPUS": root / "proc/driver/nvidia/gpus",
            "_AMD_GPU": root / "dev/kfd",
        }.items():
            monkeypatch.setattr(probe, name, path)
        self.has(16 * GIB, 12 * GIB)

    def write(self, files: Mapping[str, object]) -> None:
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")

    def siblings(self, *groups: str) -> None:
        """Give each CPU the list of threads of its core, and let this process use all of them."""
        count = 0
        for group in groups:
            for cpu in probe_list(group):
                self.write({f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": group})
                count += 1
        self.may_use(range(count))

    def may_use(self, cpus: "range | set[int]") -> None:
        self._monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus), raising=False)
        self._monkeypatch.setattr(sys, "platform", "linux")

    def has(self, total: int, available: int) -> None:
        memory = psutil.virtual_memory()._replace(total=total, available=available)
        self._monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    def in_cgroup(self, path: str) -> None:
        self.cgroup.mkdir(parents=True, exist_ok=True)
        self.write({"proc/self/cgroup": f"0::{path}"})


def probe_list(text: str) -> list[int]:
    bounds = [[int(end) for end in span.split("-")] for span in text.split(",")]
    return [cpu for span in bounds for cpu in range(span[0], span[-1] + 1)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


# -- cores -------------------------------------------------------------------------------------------------------------


def test_threads_of_one_core_count_once(machine: Machine) -> None:
    machine.siblings("0-1", "2-3", "4-5", "6-7")
    assert probe.cores() == Cores(usable=4, allowed=8, performance=4, quota=None)


def test_threads_numbered_apart_count_once_too(machine: Machine) -> None:
    machine.siblings("0,4", "1,5", "2,6", "3,7")
    assert probe.cores() == Cores(usable=4, allowed=8, performance=4, quota=None)
    machine.may_use({0, 1, 4, 5})
    assert probe.cores() == Cores(usable=2, allowed=4, performance=2, quota=None)


def test_the_second_thread_of_a_core_is_taken_where_the_first_is_not_allowed(machine: Machine) -> None:
    machine.siblings("0-1", "2-3")
    machine.may_use({1, 3})
    assert probe.cores() == Cores(usable=2, allowed=2, performance=2, quota=None)


def test_cpus_without_a_topology_are_cores_of_their_own(machine: Machine) -> None:
    machine.cpus.mkdir(parents=True)
    machine.may_use(range(3))
    assert probe.cores() == Cores(usable=3, allowed=3, performance=3, quota=None)


def test_a_hybrid_intel_computes_on_its_performance_cores(machine: Machine) -> None:
    """Core i7-12700: 8 performance cores of two threads, 4 efficient ones."""
    machine.siblings(*(f"{i}-{i + 1}" for i in range(0, 16, 2)), "16", "17", "18", "19")
    machine.write({"sys/devices/cpu_core/cpus": "0-15", "sys/devices/cpu_atom/cpus": "16-19"})
    assert probe.cores() == Cores(usable=8, allowed=20, performance=8, quota=None)
    machine.may_use({16, 17, 18})
    assert probe.cores() == Cores(usable=3, allowed=3, performance=3, quota=None)
    machine.may_use({14, 15, 16, 17})
    assert probe.cores() == Cores(usable=1, allowed=4, performance=1, quota=None)


@pytest.mark.parametrize(
    ("capacities", "usable"),
    [
        ([446] * 4 + [1024] * 4, 4),  # four small, four large
        ([250] * 4 + [855] * 3 + [1024], 4),  # small, large, one larger
        ([1024] * 6, 6),
    ],
)
def test_an_arm_computes_on_its_large_cores(machine: Machine, capacities: list[int], usable: int) -> None:
    machine.siblings(*map(str, range(len(capacities))))
    machine.write({f"sys/devices/system/cpu/cpu{i}/cpu_capacity": c for i, c in enumerate(capacities)})
    assert probe.cores() == Cores(usable=usable, allowed=len(capacities), performance=usable, quota=None)


def test_an_arm_that_may_only_use_small_cores_uses_them(machine: Machine) -> None:
    machine.siblings(*map(str, range(8)))
    machine.write({f"sys/devices/system/cpu/cpu{i}/cpu_capacity": 446 if i < 4 else 1024 for i in range(8)})
    machine.may_use({0, 1, 2})
    assert probe.cores().usable == 3


def test_without_sys_the_physical_cores_are_counted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    machine.may_use(range(8))
    assert probe.cores() == Cores(usable=4, allowed=8, performance=4, quota=None)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    assert probe.cores().usable == 8


def test_a_mac_computes_on_its_performance_cores(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    folder = machine.root / "bin"
    machine.write({"bin/sysctl": '#!/bin/sh\n[ "$*" = "-n hw.perflevel0.physicalcpu" ] && echo 8'})
    (folder / "sysctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert probe.cores() == Cores(usable=8, allowed=10, performance=8, quota=None)
    machine.write({"bin/sysctl": "#!/bin/sh\nexit 1"})
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 6)
    assert probe.cores().usable == 6


# -- quota -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "quota", "usable"),
    [
        ("max 100000", None, 8),
        ("200000 100000", 2.0, 2),
        ("250000 100000", 2.5, 3),
        ("50000 100000", 0.5, 1),
        ("1600000 100000", 16.0, 8),
        ("rubbish", None, 8),
        ("", None, 8),
    ],
)
def test_the_quota_of_cgroup_v2(machine: Machine, written: str, quota: float | None, usable: int) -> None:
    machine.siblings(*map(str, range(8)))
    machine.in_cgroup("/user.slice/app")
    machine.write({"sys/fs/cgroup/user.slice/app/cpu.max": written})
    assert probe.cores() == Cores(usable=usable, allowed=8, performance=8, quota=quota)


def test_the_tightest_quota_of_nested_cgroups_counts(machine: Machine) -> None:
    machine.siblings(*map(str, range(8)))
    machine.in_cgroup("/a/b/c")
    machine.write(
        {
            "sys/fs/cgroup/a/cpu.max": "300000 100000",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000",
            "sys/fs/cgroup/a/b/c/cpu.max": "600000 100000",
            "sys/fs/cgroup/other/cpu.max": "100000 100000",
            "sys/fs/cpu.max": "100000 100000",
        }
    )
    assert (probe.cores().quota, probe.cores().usable) == (3.0, 3)


def test_in_a_container_whose_path_is_the_hosts_the_root_counts(machine: Machine) -> None:
    machine.siblings(*map(str, range(8)))
    machine.in_cgroup("/kubepods/pod1234/abcd")
    machine.write({"sys/fs/cgroup/cpu.max": "150000 100000", "sys/fs/cgroup/memory.max": GIB})
    machine.write({"sys/fs/cgroup/memory.current": GIB // 4})
    assert (probe.cores().quota, probe.cores().usable) == (1.5, 2)
    assert probe.memory() == Memory(GIB, GIB - GIB // 4)


@pytest.mark.parametrize(("quota", "expected"), [(-1, None), (150000, 1.5)])
def test_the_quota_of_cgroup_v1(machine: Machine, quota: int, expected: float | None) -> None:
    machine.siblings(*map(str, range(4)))
    machine.write(
        {
            "proc/self/cgroup": "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota,
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
        }
    )
    assert probe.cores() == Cores(usable=2 if expected else 4, allowed=4, performance=4, quota=expected)


def test_the_limits_of_a_nested_cgroup_v1(machine: Machine) -> None:
    machine.siblings(*map(str, range(4)))
    machine.write(
        {
            "proc/self/cgroup": "5:memory:/jobs/one\n3:cpu,cpuacct:/jobs/one",
            "sys/fs/cgroup/cpu,cpuacct/jobs/one/cpu.cfs_quota_us": 300000,
            "sys/fs/cgroup/cpu,cpuacct/jobs/one/cpu.cfs_period_us": 100000,
            "sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_quota_us": 100000,
            "sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_period_us": 100000,
            "sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes": GIB,
            "sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes": 0,
        }
    )
    assert probe.cores() == Cores(usable=1, allowed=4, performance=4, quota=1.0)
    assert probe.memory() == Memory(GIB, GIB)


def test_without_cgroups_there_is_no_quota(machine: Machine) -> None:
    machine.siblings(*map(str, range(4)))
    assert probe.cores().quota is None
    assert probe.memory() == Memory(16 * GIB, 12 * GIB)


# -- memory ------------------------------------------------------------------------------------------------------------


def test_memory_is_that_of_the_cgroup_without_what_can_be_reclaimed(machine: Machine) -> None:
    machine.in_cgroup("/app")
    machine.write(
        {
            "sys/fs/cgroup/app/memory.max": 4 * GIB,
            "sys/fs/cgroup/app/memory.current": 3 * GIB,
            "sys/fs/cgroup/app/memory.stat": f"anon 1\ninactive_anon 7\ninactive_file {2 * GIB}\nactive_file 9",
        }
    )
    assert probe.memory() == Memory(4 * GIB, 3 * GIB)


def test_the_smallest_of_nested_limits_counts_each_for_itself(machine: Machine) -> None:
    machine.in_cgroup("/a/b")
    machine.write(
        {
            "sys/fs/cgroup/a/memory.max": 8 * GIB,
            "sys/fs/cgroup/a/memory.current": 7 * GIB,
            "sys/fs/cgroup/a/b/memory.max": 4 * GIB,
            "sys/fs/cgroup/a/b/memory.current": GIB,
        }
    )
    assert probe.memory() == Memory(4 * GIB, GIB)


@pytest.mark.parametrize(
    ("limit", "used", "expected"), [("max", 1, (16, 12)), (64 * GIB, 0, (16, 12)), (GIB, 2 * GIB, (1, 0))]
)
def test_limits_that_are_none_or_larger_than_the_machine_or_exceeded(
    machine: Machine, limit: object, used: int, expected: tuple[int, int]
) -> None:
    machine.in_cgroup("/")
    machine.write({"sys/fs/cgroup/memory.max": limit, "sys/fs/cgroup/memory.current": used})
    assert probe.memory() == Memory(expected[0] * GIB, expected[1] * GIB)


def test_the_memory_of_cgroup_v1(machine: Machine) -> None:
    unlimited = 9223372036854771712
    machine.write(
        {"sys/fs/cgroup/memory/memory.limit_in_bytes": unlimited, "sys/fs/cgroup/memory/memory.usage_in_bytes": 1}
    )
    assert probe.memory() == Memory(16 * GIB, 12 * GIB)
    machine.write(
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 2 * GIB,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 2 * GIB,
            "sys/fs/cgroup/memory/memory.stat": f"inactive_file 5\ntotal_inactive_file {GIB}",
        }
    )
    assert probe.memory() == Memory(2 * GIB, GIB)


# -- GPUs --------------------------------------------------------------------------------------------------------------


def test_a_gpu_that_is_plainly_there_is_named(machine: Machine) -> None:
    assert probe.unused_gpu() is None
    (machine.root / "proc/driver/nvidia/gpus").mkdir(parents=True)
    assert probe.unused_gpu() is None
    machine.write({"dev/kfd": ""})
    assert probe.unused_gpu() == "an AMD GPU"
    machine.write({"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: X"})
    assert probe.unused_gpu() == "an NVIDIA GPU"


# -- the real machine --------------------------------------------------------------------------------------------------


def test_this_machine_has_cores_and_memory() -> None:
    cores, memory = probe.cores(), probe.memory()
    assert 1 <= cores.usable <= cores.performance <= cores.allowed <= (os.cpu_count() or 1)
    assert 0 < memory.available <= memory.total <= psutil.virtual_memory().total


def test_the_affinity_of_a_process_is_followed() -> None:
    narrow = "hasattr(os, 'sched_setaffinity') and os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"import os; {narrow}; from owm.hardware import probe; c = probe.cores(); print(c.allowed, c.usable)"
    expected = "1 1\n" if sys.platform == "linux" else f"{os.cpu_count()} {probe.cores().usable}\n"
    assert run(["-c", code]) == expected
