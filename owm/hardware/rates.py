"""The measured rates of this machine, kept in `OWM_HOME/cache/machine.json` so that they are measured once.

The file may be lost at any time, or be shared by several machines: each has an entry of its own.
"""

import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from owm import paths
from owm.hardware import bandwidth, matmul
from owm.hardware.machine import Machine
from owm.publishing import publish_text

VERSION = 1
MAX_BYTES = 1 << 20
MAX_AGE_SECONDS = 30 * 86400.0  # a machine that is virtual may move to other hardware


@dataclass(frozen=True, slots=True)
class Rates:
    """What this machine can do at most, with all cores.

    Attributes:
        bytes_per_second: of memory, as STREAM's triad counts them.
        flops: floating-point operations per second of products of matrices, by the type of the weights.
        measured_at: seconds since the epoch.
    """

    bytes_per_second: float
    flops: dict[str, float] = field(default_factory=dict)
    measured_at: float = 0.0


def default_path() -> Path:
    """Return where the rates are kept."""
    return paths.owm_home() / "cache" / "machine.json"


def rates(machine: Machine, types: Sequence[str] = (), *, path: Path | None = None, is_fresh: bool = False) -> Rates:
    """Return the machine's rates; what is not known of it yet is measured, which takes a second.

    Args:
        types: of weights whose rate is wanted, as `owm.native.compute.TYPES` has them.
        is_fresh: measure all of it anew.

    Raises:
        EngineError: ggml cannot compute, most often for want of memory.
        UsageError: there is no such type.
    """
    path = path or default_path()
    entries = _load(path)
    key = f"{machine.fingerprint} {machine.build}"
    known = None if is_fresh else _read(entries.get(key))
    if known is not None and not 0 <= time.time() - known.measured_at < MAX_AGE_SECONDS:
        known = None
    missing = [name for name in dict.fromkeys(types) if known is None or name not in known.flops]
    if known is not None and not missing:
        return known
    found = Rates(
        known.bytes_per_second if known else bandwidth.measure(n_threads=machine.n_cores),
        dict(known.flops) if known else {},
        known.measured_at if known else time.time(),
    )
    for name in missing:
        found.flops[name] = matmul.measure(name, n_threads=machine.n_cores)
    entries[key] = {
        "bytes_per_second": found.bytes_per_second,
        "flops": found.flops,
        "measured_at": found.measured_at,
    }
    with suppress(OSError):  # it is measured again, then
        path.parent.mkdir(parents=True, exist_ok=True)
        publish_text(path, json.dumps({"version": VERSION, "machines": entries}, indent=1) + "\n")
    return found


def _load(path: Path) -> dict[str, Any]:
    """Return the entries of all machines; what cannot be read counts for nothing."""
    try:
        with path.open("rb") as file:
            raw = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(raw, dict) or raw.get("version") != VERSION or not isinstance(raw.get("machines"), dict):
        return {}
    return dict(raw["machines"])


def _read(entry: object) -> Rates | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("flops"), dict):
        return None
    flops = entry["flops"]
    numbers = [entry.get("bytes_per_second"), entry.get("measured_at"), *flops.values()]
    if not all(type(number) in (int, float) and 0 < number < math.inf for number in numbers):
        return None
    return Rates(
        float(entry["bytes_per_second"]),
        {name: float(rate) for name, rate in flops.items()},
        float(entry["measured_at"]),
    )
