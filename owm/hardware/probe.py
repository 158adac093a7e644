"""What this process may use of the machine: cores within affinity and quota, memory within the cgroup, GPUs.

Linux tells through /proc, /sys and cgroups; elsewhere, or where a file is missing, psutil's answer is taken.
"""

import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

MAX_THREADS = 512  # ref: ggml/include/ggml.h, GGML_MAX_N_THREADS; more of them end in a crash

_SYS_CPU = Path("/sys/devices/system/cpu")
_INTEL_FAST_CPUS = Path("/sys/devices/cpu_core/cpus")
_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
_AMD_GPU = Path("/dev/kfd")


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores to compute on: `usable` is the number of threads worth starting."""

    usable: int
    allowed: int
    performance: int
    quota: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that this process may use, in bytes."""

    total: int
    available: int


def cores() -> Cores:
    """Count performance cores (one thread each) within the process's affinity and the cgroup's CPU quota."""
    allowed = _allowed_cpus()
    performance = _performance_cores(allowed)
    quota = _cpu_quota()
    usable = len(performance)
    if quota is not None:
        usable = min(usable, max(1, math.ceil(quota)))
    return Cores(max(1, usable), len(allowed), len(performance), quota)


def memory() -> Memory:
    """Return total and available memory, the smaller of the machine's and the cgroup's."""
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for limit, used in _cgroup_memory():
        total = min(total, limit)
        available = min(available, max(0, limit - used))
    return Memory(total, available)


def unused_gpu() -> str | None:
    """Name a GPU that this machine plainly has, for a build that can use none; None if there is none to be seen."""
    if _NVIDIA_GPUS.is_dir() and any(_NVIDIA_GPUS.iterdir()):
        return "an NVIDIA GPU"
    if _AMD_GPU.exists():
        return "an AMD GPU"
    return None


def _allowed_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _performance_cores(allowed: list[int]) -> list[int]:
    """Return one CPU for each performance core among `allowed`."""
    if sys.platform == "darwin":
        fast = _sysctl("hw.perflevel0.physicalcpu") or psutil.cpu_count(logical=False) or len(allowed)
        return allowed[:fast]
    if not _SYS_CPU.is_dir():
        return allowed[: psutil.cpu_count(logical=False) or len(allowed)]
    hybrid = _cpu_list(_INTEL_FAST_CPUS)  # Intel: the performance cores of a hybrid CPU
    fast_cpus = [cpu for cpu in allowed if cpu in hybrid] if hybrid else allowed
    capacities = {cpu: _number(_SYS_CPU / f"cpu{cpu}" / "cpu_capacity") for cpu in fast_cpus}  # Arm big.LITTLE
    known = [capacity for capacity in capacities.values() if capacity is not None]
    if known:
        bar = max(known) * 0.7
        fast_cpus = [cpu for cpu in fast_cpus if (capacities[cpu] or 0) >= bar]
    seen: set[int] = set()
    firsts = []
    for cpu in fast_cpus or allowed:
        if cpu not in seen:
            firsts.append(cpu)
            seen |= _cpu_list(_SYS_CPU / f"cpu{cpu}" / "topology" / "thread_siblings_list") or {cpu}
    return firsts


def _cgroup_paths() -> list[Path]:
    """Return this process's cgroup v2 folder and all above it, innermost first."""
    try:
        text = _OWN_CGROUP.read_text()
    except OSError:
        return []
    match = re.search(r"^0::(.*)$", text, re.MULTILINE)
    if match is None or not _CGROUP.is_dir():
        return []
    inner = _CGROUP / match[1].lstrip("/")
    # In a container the path may name a folder of the host that is not there; the mount's root is ours then.
    if not inner.is_dir():
        return [_CGROUP]
    return [inner, *[p for p in inner.parents if p.is_relative_to(_CGROUP)]]


def _cgroup_v1_paths(controller: str) -> list[Path]:
    """Return this process's folder of a cgroup v1 controller and all above it, innermost first."""
    try:
        mount = next(p for p in sorted(_CGROUP.iterdir()) if controller in p.name.split(",") and p.is_dir())
    except (OSError, StopIteration):
        return []
    for line in _text(_OWN_CGROUP).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        inner = mount / path.lstrip("/")
        if controller in controllers.split(",") and inner.is_dir():
            return [inner, *[p for p in inner.parents if p.is_relative_to(mount)]]
    return [mount]


def _cpu_quota() -> float | None:
    quotas = []
    for folder in _cgroup_paths():
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            quotas.append(int(quota) / int(period))
    for folder in _cgroup_v1_paths("cpu"):
        quota_v1, period_v1 = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota_v1 and period_v1 and quota_v1 > 0:
            quotas.append(quota_v1 / period_v1)
    return min(quotas, default=None)


def _cgroup_memory() -> list[tuple[int, int]]:
    """Return (limit, used without reclaimable file pages) for each cgroup that has a limit."""
    v2 = [(folder / "memory.max", folder / "memory.current", folder / "memory.stat") for folder in _cgroup_paths()]
    v1 = [
        (folder / "memory.limit_in_bytes", folder / "memory.usage_in_bytes", folder / "memory.stat")
        for folder in _cgroup_v1_paths("memory")
    ]
    found = []
    for limit_file, used_file, statistics in (*v2, *v1):
        limit, used = _number(limit_file), _number(used_file)
        if limit is not None and used is not None:
            inactive = re.findall(r"^(?:total_)?inactive_file (\d+)$", _text(statistics), re.MULTILINE)
            found.append((limit, used - int(inactive[-1]) if inactive else used))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def _cpu_list(path: Path) -> set[int]:
    """Read `0-3,8` as {0, 1, 2, 3, 8}."""
    cpus: set[int] = set()
    for span in _text(path).strip().split(","):
        first, _, last = span.partition("-")
        if first.isdigit():
            cpus |= set(range(int(first), int(last or first) + 1))
    return cpus


def _sysctl(name: str) -> int | None:
    try:
        answer = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True)
        return int(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
