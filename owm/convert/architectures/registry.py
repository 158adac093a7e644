"""The table of architectures: every entry of every family, found by the class name in config.json."""

import difflib
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from owm.convert import architectures as families
from owm.convert.architectures.base import Architecture
from owm.errors import Damaged, Unsupported

_NOT_FAMILIES = ("base", "registry")


@cache
def architectures() -> Mapping[str, Architecture]:
    """Return all entries by class name."""
    table: dict[str, Architecture] = {}
    for family in sorted(found.name for found in iter_modules(families.__path__)):
        if family in _NOT_FAMILIES:
            continue
        module = import_module(f"{families.__name__}.{family}")
        for entry in vars(module).values():
            if isinstance(entry, Architecture):
                for name in entry.hf:
                    assert table.setdefault(name, entry) is entry, f"{name} is in two entries"
    return table


def class_name(config: Mapping[str, Any]) -> str:
    """Return the class name that a config gives.

    Raises:
        Damaged: it gives none.
    """
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise Damaged("config.json names no architecture", hint="this is no checkpoint of a language model")
    return names[0]


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """Return the entry for a config.

    Raises:
        Unsupported: no entry takes its class.
    """
    name = class_name(config)
    table = architectures()
    if found := table.get(name):
        return found
    near = difflib.get_close_matches(name, table, n=3, cutoff=0.6)
    instead = f"near: {', '.join(near)}; " if near else ""
    raise Unsupported(
        f"owm cannot convert {ascii(name)[1:-1][:80]}",
        hint=f"{instead}`--with-converter DIR` runs the converter of a llama.cpp checkout",
    )
