"""What there is to choose from when a tuning is searched: values that belong together, on axes of their own."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """Values that belong together: each is laid over the best tuning so far.

    Attributes:
        work: which part of the work tells them apart, `prompt` or `both`.
    """

    name: str
    values: tuple[Mapping[str, object], ...]
    work: str = "both"


def axes(*, n_cores: int, n_threads: int, n_layers: int | None = None) -> tuple[Axis, ...]:
    """Return what there is to choose from.

    Args:
        n_cores: performance cores, the default number of threads.
        n_threads: hardware threads that this process may use.
        n_layers: of the model, where some of them can be on a GPU.
    """
    counts = {1, n_cores // 2, n_cores * 3 // 4, n_cores - 1, n_cores, n_threads} - {0}
    threads = tuple({"n_threads": None if n == n_cores else n} for n in sorted(counts, reverse=True))
    sizes: tuple[Mapping[str, object], ...] = (
        {"n_batch": None, "n_ubatch": None},
        *({"n_batch": None, "n_ubatch": n} for n in (64, 128, 256, 1024, 2048)),
    )
    attention: tuple[Mapping[str, object], ...] = (
        {"flash_attention": None, "type_k": None, "type_v": None},
        {"flash_attention": True, "type_k": None, "type_v": None},
        {"flash_attention": False, "type_k": None, "type_v": None},
        {"flash_attention": True, "type_k": "q8_0", "type_v": "q8_0"},
    )
    found = (Axis("threads", threads), Axis("batch", sizes, "prompt"), Axis("attention", attention))
    if n_layers is None:
        return found
    layers = (None, -1, n_layers * 3 // 4, n_layers // 2, 0)
    return (Axis("layers", tuple({"n_gpu_layers": n} for n in layers)), *found)
