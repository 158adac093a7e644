"""Sampling settings: what they are, what they may be, and where their values come from."""

import secrets
from dataclasses import asdict, dataclass, fields
from typing import Any

from owm.errors import UsageError
from owm.formats.gguf import Header
from owm.settings import layers
from owm.settings.layers import Setting

MAX_SEED = 0xFFFFFFFF

_RANGES: dict[str, tuple[float, float]] = {
    "temp": (0, 100),
    "top_k": (0, 1 << 30),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repeat_penalty": (0.01, 100),
    "repeat_last_n": (-1, 1 << 30),
    "presence_penalty": (-100, 100),
    "frequency_penalty": (-100, 100),
    "seed": (0, MAX_SEED),
}

# GGUF key below `general.sampling.` -> our name
_FILE_KEYS = {
    "temp": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repeat_penalty",
    "penalty_last_n": "repeat_last_n",
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. Defaults are llama.cpp's; `temp` 0 takes the likeliest token.

    `seed` None draws a new one for each answer.
    """

    temp: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            UsageError: the value is out of range; the message names it.
        """
        for name in _RANGES:
            _check_range(name, getattr(self, name), "--" + name.replace("_", "-"))

    def with_seed(self) -> "Sampling":
        """Return the same settings with a seed drawn if there is none."""
        if self.seed is not None:
            return self
        return Sampling(**{**asdict(self), "seed": secrets.randbelow(MAX_SEED + 1)})


def _check_range(name: str, value: float | None, origin: str) -> None:
    low, high = _RANGES[name]
    is_whole = KINDS[name] is int
    if value is not None and (isinstance(value, bool) or not isinstance(value, int if is_whole else int | float)):
        raise UsageError(f"{origin} must be a {'whole ' if is_whole else ''}number: {value!r}")
    if value is not None and not low <= value <= high:  # NaN is in no range
        raise UsageError(f"{origin} must be between {low} and {high}: {value}")


KINDS: dict[str, type] = {
    field.name: int if field.name in ("top_k", "repeat_last_n", "seed") else float
    for field in fields(Sampling)
    if field.name != "ignore_eos"
}


def resolve(header: Header, flags: dict[str, Any]) -> tuple[Sampling, dict[str, Setting]]:
    """Merge defaults, the model file's own settings, `OWM_*` variables and flags (None = not given).

    Raises:
        UsageError: a value is out of range.
    """
    merged = layers.resolve(
        (
            layers.layer(asdict(Sampling()), "default"),
            layers.layer(_of_file(header), "model file"),
            layers.environment(KINDS),
            layers.layer(flags, "--{}"),
        )
    )
    for name, setting in merged.items():
        if name in _RANGES:
            _check_range(name, setting.value, setting.origin)
    return Sampling(**{name: setting.value for name, setting in merged.items()}), merged


def _of_file(header: Header) -> dict[str, Any]:
    """Read `general.sampling.*`; a value of the wrong kind or out of range is left out, it is a stranger's."""
    found: dict[str, Any] = {}
    for key, name in _FILE_KEYS.items():
        value = header.metadata.get(f"general.sampling.{key}")
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        try:
            Sampling(**{name: KINDS[name](value)})
        except (UsageError, ValueError, OverflowError):
            continue
        found[name] = KINDS[name](value)
    return found
