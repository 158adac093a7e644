"""Which machine this is, and which build of llama.cpp computes on it: what measurements and tuned values belong to."""

import hashlib
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from owm.hardware import probe

_CPUINFO = Path("/proc/cpuinfo")
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """What speed depends on, as far as this process may use it.

    Attributes:
        n_cores: performance cores, within affinity and quota.
        n_threads: hardware threads that this process may run on.
        memory_gib: rounded, since kernels keep more or less of it for themselves.
        build: of llama.cpp, with what it was compiled for.
    """

    cpu: str
    architecture: str
    system: str
    n_cores: int
    n_threads: int
    memory_gib: int
    gpus: tuple[str, ...]
    build: str

    @property
    def fingerprint(self) -> str:
        """A short name of the hardware, whatever the build: results of two builds on one machine are compared."""
        facts = {name: value for name, value in asdict(self).items() if name != "build"}
        return hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:12]

    def record(self) -> dict[str, Any]:
        """Return it as JSON says it."""
        return {"fingerprint": self.fingerprint, **asdict(self), "gpus": list(self.gpus)}


def this_machine() -> Machine:
    """Look at the machine that this process runs on; it loads llama.cpp."""
    from owm.native import ggml, llama

    cores = probe.cores()
    gpus = tuple(sorted(device.description for device in ggml.devices() if device.is_gpu))
    return Machine(
        cpu=cpu_name(),
        architecture=platform.machine().lower(),
        system=sys.platform,
        n_cores=cores.usable,
        n_threads=cores.allowed,
        memory_gib=round(probe.memory().total / _GIB),
        gpus=gpus,
        build=f"{llama.library_build()} ({_digest(llama.system_info())})",
    )


def cpu_name() -> str:
    """Name the processor as it names itself."""
    try:
        text = _CPUINFO.read_text(errors="replace")
    except OSError:
        text = ""
    for key in ("model name", "Model", "cpu model", "Hardware", "CPU part"):
        if match := re.search(rf"^{key}\s*:\s*(\S.*?)\s*$", text, re.MULTILINE):
            return match[1] if key != "CPU part" else f"{platform.machine()} {match[1]}"
    if sys.platform == "darwin" and (name := _said("sysctl", "-n", "machdep.cpu.brand_string")):
        return name
    return platform.processor() or platform.machine() or "unknown"


def cpu_flags() -> frozenset[str]:
    """Return what the processor says that it can do, in its kernel's names; nothing where no one tells."""
    try:
        text = _CPUINFO.read_text(errors="replace")
    except OSError:
        return frozenset()
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return frozenset(match[1].split()) if match else frozenset()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
