"""One model that could be had, and how it would do on this machine: the row that people choose from."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from owm.engine.context import MEMORY_SHARE
from owm.fit.memory import Need
from owm.fit.speed import Speed
from owm.formats.gguf import Header

Verdict = Literal["fits", "partly", "no"]

DEFAULT_CONTEXT = 8192  # room that a model should have
LEAST_CONTEXT = 512  # with less there is nothing to be done with a model
_STEPS = sorted(n << exponent for exponent in range(16) for n in (LEAST_CONTEXT, LEAST_CONTEXT * 3 // 2))
GPU_RESERVE_BYTES = 1 << 30  # ref: owm/engine/model.py


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that this machine has for models, in bytes: all that a process may have, not what is free just now.

    Attributes:
        memory_bytes: main memory, as far as this process may have it.
        gpu_bytes: of all GPUs that this build can use, 0 without one.
    """

    memory_bytes: int
    gpu_bytes: int = 0
    gpus: tuple[str, ...] = ()

    @property
    def usable_bytes(self) -> int:
        """Main memory that a model may take, as `owm run` reckons."""
        return int(self.memory_bytes * MEMORY_SHARE)

    @property
    def usable_gpu_bytes(self) -> int:
        """Memory of the GPUs that a model may take."""
        return max(0, self.gpu_bytes - GPU_RESERVE_BYTES)


@dataclass(frozen=True, slots=True)
class Fit:
    """A quant of a model on this machine.

    Attributes:
        label: the quant as people type it.
        size_bytes: of its files; None where the source does not tell.
        bpw: bits for each weight of the model.
        need: its memory; None where its header is not at hand.
        verdict: `partly` if only some layers fit on the GPU, or only a smaller context fits; None if it is not known.
        n_ctx: tokens of the context that is asked about, for each answer.
        n_ctx_fitting: the largest context that fits, where that is less.
        quality: how far it is from the original weights by its own certificate: mean divergence, in nats a token.
        speed: None where it is not known.
        is_stored: it is on this machine.
        is_exact: `need` is of its own header, not of another quant's with the types that llama.cpp would give it.
    """

    label: str
    size_bytes: int | None
    bpw: float | None
    need: Need | None
    verdict: Verdict | None
    n_ctx: int
    n_ctx_fitting: int | None = None
    quality: float | None = None
    speed: Speed | None = None
    is_stored: bool = False
    is_exact: bool = True

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "quant": self.label,
            "size_bytes": self.size_bytes,
            "bits_per_weight": None if self.bpw is None else round(self.bpw, 3),
            "verdict": self.verdict,
            "n_ctx": self.n_ctx,
            "n_ctx_fitting": self.n_ctx_fitting,
            "memory": None if self.need is None else self.need.record(),
            "speed": None if self.speed is None else asdict(self.speed),
            "kld_mean": self.quality,
            "is_stored": self.is_stored,
            "is_exact": self.is_exact,
        }


def room() -> Room:
    """Look at this machine; GPUs that the installed build cannot use do not count."""
    from owm.hardware import probe
    from owm.native import ggml

    gpus = [device for device in ggml.devices() if device.is_gpu]
    total = sum(gpu.total_bytes for gpu in gpus)
    return Room(probe.memory().total, total, tuple(gpu.description for gpu in gpus))


def default_context(header: Header) -> int:
    """Return the context that a model should have room for."""
    own = header.integer("context_length") or DEFAULT_CONTEXT
    return max(1, min(DEFAULT_CONTEXT, own))


def has_room(need: Need, room: Room) -> bool:
    """Tell whether all that is allocated has room, each part where it lies."""
    in_memory = need.process_bytes + need.cpu.allocated_bytes
    return in_memory <= room.usable_bytes and need.gpu.allocated_bytes <= room.usable_gpu_bytes


def judge(need: Need, room: Room, *, smaller: Callable[[int], Need | None]) -> tuple[Verdict, int | None]:
    """Say whether a need has room, and the largest context that has if that is less than what is asked about.

    Args:
        smaller: returns the need with a context of so many tokens.
    """
    if has_room(need, room):
        # Layers that stay in main memory beside a GPU are computed there, at its speed.
        is_whole = not room.usable_gpu_bytes or (need.n_gpu_layers > 0 and not need.cpu.kv_bytes)
        return ("fits" if is_whole else "partly"), None
    n_ctx = largest_context(need, room, smaller=smaller)
    return ("partly", n_ctx) if n_ctx is not None else ("no", None)


def largest_context(need: Need, room: Room, *, smaller: Callable[[int], Need | None]) -> int | None:
    """Return the largest context below that of `need` that has room, None if there is none worth having.

    Contexts go up in steps of a half or a third, so that few are looked at for all quants of a model together: caches
    of sliding windows do not grow in a straight line.
    """
    steps = [n_ctx for n_ctx in _STEPS if n_ctx < need.n_ctx]
    low, high = 0, len(steps)  # so many are known to have room, and from here on none has
    while low < high:
        middle = (low + high) // 2
        found = smaller(steps[middle])
        if found is not None and has_room(found, room):
            low = middle + 1
        else:
            high = middle
    return steps[low - 1] if low else None


def bits_per_weight(headers: Sequence[Header], size_bytes: int | None) -> float | None:
    """Return the bits that a file has for each weight."""
    n_params = sum(header.n_params for header in headers)
    return 8 * size_bytes / n_params if size_bytes and n_params else None
