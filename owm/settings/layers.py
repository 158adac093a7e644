"""Settings in layers: each later layer overrides the earlier ones, and every value knows where it came from."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from owm.errors import UsageError


@dataclass(frozen=True, slots=True)
class Setting:
    """An effective value and its origin: `default`, `model file`, `OWM_TEMP`, `--temp`."""

    value: Any
    origin: str


def resolve(layers: Iterable[Mapping[str, Setting]]) -> dict[str, Setting]:
    """Merge layers, weakest first."""
    merged: dict[str, Setting] = {}
    for layer in layers:
        merged.update(layer)
    return merged


def layer(values: Mapping[str, Any], origin: str) -> dict[str, Setting]:
    """Make a layer of the values that are not None; `{}` in `origin` becomes the setting's name in flag style."""
    return {
        name: Setting(value, origin.format(name.replace("_", "-")))
        for name, value in values.items()
        if value is not None
    }


def environment(kinds: Mapping[str, type], environ: Mapping[str, str] | None = None) -> dict[str, Setting]:
    """Make the layer of `OWM_*` variables for settings of the given kinds.

    Raises:
        UsageError: a variable's text is no value of its kind.
    """
    environ = os.environ if environ is None else environ
    found = {}
    for name, kind in kinds.items():
        variable = f"OWM_{name.upper()}"
        text = environ.get(variable)
        if not text:
            continue
        try:
            found[name] = Setting(kind(text), variable)
        except ValueError:
            raise UsageError(
                f"{variable} is not a number: {text}", hint=f"unset {variable} or give it a number"
            ) from None
    return found
