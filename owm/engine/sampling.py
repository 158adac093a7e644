"""Sampling settings: what they are, what they may be, and where their values come from."""

import math
import secrets
from dataclasses import asdict, dataclass, fields
from typing import Any

from owm.errors import UsageError
from owm.formats.gguf import Header
from owm.settings import layers
from owm.settings.layers import Setting

MAX_SEED = 0xFFFFFFFF

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
        for name, low, high in (
            ("temp", 0.0, 100.0),
            ("top_k", 0, 1 << 30),
            ("top_p", 0.0, 1.0),
            ("min_p", 0.0, 1.0),
            ("repeat_penalty", 0.01, 100.0),
            ("repeat_last_n", -1, 1 << 30),
            ("presence_penalty", -100.0, 100.0),
            ("frequency_penalty", -100.0, 100.0),
        ):
            value = getattr(self, name)
            if not math.isfinite(value) or not low <= value <= high:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} must be between {low:g} and {high:g}: {value}")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"--seed must be between 0 and {MAX_SEED}: {self.seed}")

    def with_seed(self) -> "Sampling":
        """Return the same settings with a seed drawn if there is none."""
        if self.seed is not None:
            return self
        return Sampling(**{**asdict(self), "seed": secrets.randbelow(MAX_SEED + 1)})


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
