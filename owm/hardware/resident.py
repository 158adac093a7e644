"""What a process holds in memory and what the system keeps of files: for measurements of both.

Linux tells and forgets on request; elsewhere peaks are what can be seen now, and nothing can be forgotten.
"""

import ctypes
import mmap
import os
import re
from collections.abc import Iterable
from pathlib import Path

import psutil

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # ref: Linux, Documentation/filesystems/proc.rst
_COLD_SHARE = 0.05  # of a file may still be in memory for it to count as cold


def held_bytes() -> int:
    """Return the memory that this process holds now, mapped files that are in memory included."""
    return int(psutil.Process().memory_info().rss)


def reset_peak() -> None:
    """Let `peak_bytes` begin anew."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return


def peak_bytes() -> int:
    """Return the most that this process held since `reset_peak`; where the system does not tell, what it holds now."""
    try:
        match = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        match = None
    return max(int(match[1]) << 10 if match else 0, held_bytes())


def forget_files(paths: Iterable[Path]) -> bool:
    """Let the system forget what it keeps of files in memory; return whether it did.

    It does not where another process has them mapped, or there is no way to ask.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    is_cold = True
    for path in paths:
        try:
            with path.open("rb") as file:
                os.fdatasync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                is_cold = is_cold and _resident_share(file.fileno()) <= _COLD_SHARE
        except OSError:
            return False
    return is_cold


def _resident_share(descriptor: int) -> float:
    """Return which part of a file is in memory, 1 where nobody tells."""
    n_bytes = os.fstat(descriptor).st_size
    if not n_bytes:
        return 0.0
    n_pages = -(-n_bytes // mmap.PAGESIZE)
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
    except (OSError, AttributeError):
        return 1.0
    mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    pages = (ctypes.c_ubyte * n_pages)()
    # A private mapping that may be written is what ctypes can take the address of.
    with mmap.mmap(descriptor, n_bytes, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as view:
        anchor = ctypes.c_char.from_buffer(view)
        status = mincore(ctypes.addressof(anchor), n_bytes, pages)
        del anchor
    return sum(page & 1 for page in pages) / n_pages if status == 0 else 1.0
