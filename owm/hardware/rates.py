"""The measured rates of this machine, kept in `OWM_HOME/cache/machine.json` so that they are measured once.

Rates are what it can do at most, for people to see; speeds are what the parts of a model take, to predict it with.

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
from owm.errors import EngineError, OwmError, UsageError
from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.hardware import bandwidth, matmul, matvec
from owm.hardware.machine import Machine
from owm.publishing import publish_text

VERSION = 1
MAX_BYTES = 1 << 20
MAX_AGE_SECONDS = 30 * 86400.0  # a machine that is virtual may move to other hardware
DISTURBED_SECONDS = 600.0  # until what was measured beside other work is measured again
UNKNOWN_CACHE_BYTES = 32 << 20  # where the system does not tell
MOST = 1e30  # of anything that is measured
STAGE = "measuring this machine"


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
    known = None if is_fresh else _young(_read(entries.get(key)))
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
        "speeds": _speeds_in(entries.get(key)) if known else {},
    }
    _save(path, entries)
    return found


def speeds(
    machine: Machine,
    types: Sequence[str],
    *,
    cache_types: Sequence[str] = ("F16",),
    n_threads: int | None = None,
    path: Path | None = None,
    measures: bool = True,
    deadline_seconds: float = math.inf,
    sink: Sink = ignore,
) -> matvec.Rates | None:
    """Return what the parts of a model take on this machine; what is not known yet is measured, a second for each type.

    What was measured while much else was computed is measured again, when it is asked for some time later.

    Args:
        types: of weights (`Q4_K`), the most important first; those that cannot be measured are left out.
        cache_types: of the KV cache.
        n_threads: that are computed with, by default one for each core.
        measures: False to take only what is known.
        deadline_seconds: no measurement begins after so long.

    Returns:
        None where nothing is known, and nothing is measured or ggml cannot compute.
    """
    path, began = path or default_path(), time.monotonic()
    key, threads = f"{machine.fingerprint} {machine.build}", str(n_threads or machine.n_cores)
    known = _young(_read(_load(path).get(key)))
    if known is None and measures:
        with suppress(OwmError):
            known = rates(machine, path=path)
    if known is None:
        return None
    cache_bytes = bandwidth.last_cache_bytes() or UNKNOWN_CACHE_BYTES
    empty = matvec.Rates(int(threads), cache_bytes, known.bytes_per_second)
    found = matvec.from_record(_speeds_in(_load(path).get(key)).get(threads), empty)
    steps = found.missing(types, cache_types, disturbed_before=time.time() - DISTURBED_SECONDS)
    if measures and steps:
        measuring = matvec.Measuring(n_threads=int(threads), cache_bytes=cache_bytes)
        if len(steps) > 1:
            sink(Started(STAGE, len(steps), "parts"))
        for number, step in enumerate(steps, 1):
            if found.rest is not None and time.monotonic() - began > deadline_seconds:
                break
            try:
                found = measuring.add(found, step)
            except UsageError:
                continue
            except EngineError:
                break
            if len(steps) > 1:
                sink(Advanced(STAGE, number, step[1]))
        if len(steps) > 1:
            sink(Finished(STAGE, time.monotonic() - began))
        entries = _load(path)  # which another process may have written meanwhile
        entry = entries.get(key)
        if isinstance(entry, dict):
            entries[key] = {**entry, "speeds": {**_speeds_in(entry), threads: matvec.record(found)}}
            _save(path, entries)
    return None if found.rest is None else found


def _speeds_in(entry: object) -> dict[str, Any]:
    """Return what an entry has of speeds, by number of threads."""
    found = entry.get("speeds") if isinstance(entry, dict) else None
    return dict(found) if isinstance(found, dict) else {}


def _young(known: Rates | None) -> Rates | None:
    return known if known and 0 <= time.time() - known.measured_at < MAX_AGE_SECONDS else None


def _save(path: Path, entries: dict[str, Any]) -> None:
    with suppress(OSError):  # it is measured again, then
        path.parent.mkdir(parents=True, exist_ok=True)
        publish_text(path, json.dumps({"version": VERSION, "machines": entries}, indent=1) + "\n")


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
    if not all(type(number) in (int, float) and 0 < number < MOST for number in numbers):
        return None
    return Rates(
        float(entry["bytes_per_second"]),
        {name: float(rate) for name, rate in flops.items()},
        float(entry["measured_at"]),
    )
