"""Settings in layers: each later layer overrides the earlier ones, and every value knows where it came from."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from owm.errors import UsageError
from owm.settings.keys import KEYS


@dataclass(frozen=True, slots=True)
class Setting:
    """An effective value and its origin: `default`, `model file`, `config.toml`, `OWM_TEMP`, `--temp`."""

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


def unset() -> dict[str, Setting]:
    """Make the weakest layer: every setting there is, without a value."""
    return {name: Setting(None, "default") for name in KEYS}


def environment(environ: Mapping[str, str] | None = None) -> dict[str, Setting]:
    """Make the layer of `OWM_*` variables.

    Raises:
        UsageError: a variable's text is no value of its setting.
    """
    environ = os.environ if environ is None else environ
    found = {}
    for name, key in KEYS.items():
        variable = f"OWM_{name.upper()}"
        if text := environ.get(variable):
            try:
                found[name] = Setting(key.read(text, variable), variable)
            except UsageError as error:
                error.hint = f"unset {variable} or give it another value"
                raise
    return found


def rows(settings: Mapping[str, Setting]) -> list[dict[str, Any]]:
    """Return what `--show-settings` tells of each effective value: `name`, `value`, `origin`."""
    return [{"name": name, "value": setting.value, "origin": setting.origin} for name, setting in settings.items()]
