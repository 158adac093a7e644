"""How a model is computed with on this machine: what changes its speed and memory, and nothing of what it says.

None is owm's default throughout, so that two tunings are laid over each other by what they say.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

from owm.errors import UsageError
from owm.hardware import probe

N_BATCH = 2048
N_UBATCH = 512
# Types of the KV cache. ref: llama.cpp common/arg.cpp, kv_cache_types
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_UNQUANTIZED = ("f32", "f16", "bf16")


@dataclass(frozen=True, slots=True)
class Tuning:
    """Settings of the hardware, each None where the default holds.

    Attributes:
        n_threads: CPU threads; by default the performance cores that this process may use.
        n_batch: the most tokens in one call of llama.cpp; by default 2048.
        n_ubatch: the most tokens that are computed at once; by default 512.
        flash_attention: by default llama.cpp decides.
        type_k, type_v: types of the KV cache, one of `CACHE_TYPES`; by default f16.
        n_parallel: answers that `batch` makes side by side; by default measured on the rows at hand.
        n_gpu_layers: layers on the GPU, -1 for all; by default as many as fit. It holds when a model is opened.
    """

    n_threads: int | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    flash_attention: bool | None = None
    type_k: str | None = None
    type_v: str | None = None
    n_parallel: int | None = None
    n_gpu_layers: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: a value is out of range, or two contradict each other.
        """
        if self.n_threads is not None and not 0 < self.n_threads <= probe.MAX_THREADS:
            raise UsageError(f"--threads must be between 1 and {probe.MAX_THREADS}: {self.n_threads}")
        for value, flag in (
            (self.n_batch, "--batch-size"),
            (self.n_ubatch, "--ubatch-size"),
            (self.n_parallel, "--parallel"),
        ):
            if value is not None and value < 1:
                raise UsageError(f"{flag} must be 1 or more: {value}")
        if self.n_gpu_layers is not None and self.n_gpu_layers < -1:
            raise UsageError(f"--gpu-layers must be -1 or more: {self.n_gpu_layers}")
        for kind, flag in ((self.type_k, "--cache-type-k"), (self.type_v, "--cache-type-v")):
            if kind is not None and kind not in CACHE_TYPES:
                raise UsageError(f"{flag} must be one of {', '.join(CACHE_TYPES)}: {kind}")
        if self.flash_attention is False and (self.type_v or "f16") not in _UNQUANTIZED:
            raise UsageError(
                f"a KV cache with values of type {self.type_v} needs flash attention",
                hint="leave out `--flash-attn off`, or take `--cache-type-v f16`",
            )

    def over(self, other: "Tuning") -> "Tuning":
        """Return `other` with what is said here in its place."""
        return replace(other, **self.said())

    def said(self) -> dict[str, Any]:
        """Return what is not left to the default, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


DEFAULT = Tuning()
