"""How fast this machine's memory is: bytes per second that all cores together can stream.

The sum of two vectors moves what STREAM's triad does, two words read and one written for each value, far beyond all
caches. ref: McCalpin, "Memory Bandwidth and Machine Balance in Current High Performance Computers" (1995)
"""

import mmap
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from owm.errors import NotEnoughMemory
from owm.hardware import probe

if TYPE_CHECKING:
    import numpy as np

SECONDS = 0.6  # of measuring
MIN_RUNS = 5
MIN_BYTES = 64 << 20  # of one vector
CACHE_TIMES = 4  # as many times as all last caches together, as STREAM wants it
MEMORY_SHARE = 8  # at most one part in so many of the free memory for all three

_CPUS = Path("/sys/devices/system/cpu")


def measure(*, n_threads: int, seconds: float = SECONDS) -> float:
    """Return the bytes per second of the best run, as STREAM counts them: without what caches read to be written.

    Raises:
        NotEnoughMemory: there is no room for vectors.
    """
    import numpy as np

    n_values = vector_bytes() // 4 // n_threads

    def make(_: int) -> "list[np.ndarray[tuple[int], np.dtype[np.float32]]]":
        # Pages as any program gets them: numpy's own are large ones where the system allows it, which is much faster.
        arrays = [np.frombuffer(mmap.mmap(-1, 4 * n_values), np.float32) for _ in range(3)]
        for array in arrays:
            array.fill(1)  # by the thread that is to use them
        return arrays

    def add(part: "Sequence[np.ndarray[tuple[int], np.dtype[np.float32]]]") -> None:
        np.add(part[0], part[1], out=part[2])  # lets go of the interpreter's lock

    with ThreadPoolExecutor(n_threads, thread_name_prefix="owm-bandwidth") as pool:
        try:
            parts = list(pool.map(make, range(n_threads)))
        except (MemoryError, OSError) as error:
            raise NotEnoughMemory(
                "there is not enough memory to measure how fast it is", needed=3 * vector_bytes(), free=0
            ) from error
        best, until, n_runs = float("inf"), time.perf_counter() + seconds, 0
        while n_runs < MIN_RUNS or time.perf_counter() < until:
            began = time.perf_counter()
            list(pool.map(add, parts))
            best = min(best, time.perf_counter() - began)
            n_runs += 1
    return 3 * 4 * n_values * n_threads / best


def vector_bytes() -> int:
    """Return how large one of the three vectors has to be so that no cache holds it, as far as memory allows."""
    wanted = max(MIN_BYTES, CACHE_TIMES * last_cache_bytes())
    n_bytes = min(wanted, probe.memory().available // MEMORY_SHARE // 3)
    return max(n_bytes, 1 << 20) & ~0xFFFF


def last_cache_bytes() -> int:
    """Return what the last caches of all CPUs hold together, 0 where that is not told."""
    found: dict[tuple[int, str], int] = {}
    for folder in _CPUS.glob("cpu[0-9]*/cache/index[0-9]*"):
        level, size = (_text(folder / name) for name in ("level", "size"))
        match = re.fullmatch(r"(\d+)([KMG])", size)
        if level.isdigit() and match is not None:
            shared = _text(folder / "shared_cpu_list") or folder.parent.parent.name
            found[int(level), shared] = int(match[1]) << {"K": 10, "M": 20, "G": 30}[match[2]]
    deepest = max((level for level, _ in found), default=0)
    return sum(size for (level, _), size in found.items() if level == deepest)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
