"""Sampling settings: what they are, what they may be, and where their values come from."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from owm.formats.gguf import Header
from owm.settings import generation_config, layers
from owm.settings.keys import KEYS, MAX_SEED
from owm.settings.layers import Setting

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
        for name in SAMPLING_KEYS:
            if (value := getattr(self, name)) is not None:
                KEYS[name].check(value, "--" + name.replace("_", "-"))

    def with_seed(self) -> "Sampling":
        """Return the same settings with a seed drawn if there is none."""
        return self if self.seed is not None else replace(self, seed=secrets.randbelow(MAX_SEED + 1))

    def of_draft(self, number: int) -> "Sampling":
        """Return the settings of one of several answers to one prompt, counted from 0: its seed is that much higher."""
        return self if self.seed is None else replace(self, seed=(self.seed + number) % (MAX_SEED + 1))


SAMPLING_KEYS = tuple(field.name for field in fields(Sampling) if field.name in KEYS)


def resolve(
    header: Header | None,
    flags: Mapping[str, Any],
    *,
    family: Mapping[str, Any] | None = None,
    advised: Mapping[str, Any] | None = None,
    config: Sequence[Mapping[str, Setting]] = (),
) -> tuple[Sampling, dict[str, Setting]]:
    """Merge all layers: the settings for sampling, and every setting with its origin.

    A setting that nobody has set is there with the value None.

    Args:
        header: the model file's, None if it is not open yet.
        flags: by the names of the settings; None is a flag that was not given.
        family: defaults of the model's family.
        advised: what the repo's generation_config.json says.
        config: the layers of the config file.

    Raises:
        UsageError: a value of the environment or of a flag is out of range.
    """
    merged = layers.resolve(
        (
            layers.unset(),
            layers.layer(asdict(Sampling()), "default"),
            layers.layer(family or {}, "model family"),
            layers.layer(of_file(header) if header else {}, "model file"),
            layers.layer(advised or {}, "generation_config.json"),
            *config,
            layers.environment(),
            layers.layer(flags, "--{}"),
        )
    )
    for name, setting in merged.items():
        if name in KEYS and setting.value is not None:
            KEYS[name].check(setting.value, setting.origin)
    names = {field.name for field in fields(Sampling)}
    return Sampling(**{name: setting.value for name, setting in merged.items() if name in names}), merged


def of_file(header: Header) -> dict[str, Any]:
    """Read `general.sampling.*`; a value of the wrong kind or out of range is left out, it is a stranger's."""
    return generation_config.usable(
        {name: _short(header.metadata.get(f"general.sampling.{key}")) for key, name in _FILE_KEYS.items()}
    )


def _short(value: Any) -> Any:
    """Return a float32 as the decimal that was meant."""
    return float(f"{value:.7g}") if isinstance(value, float) else value
