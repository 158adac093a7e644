"""Settings of a conversation: those of any answer, and what becomes of thoughts and of a full context."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from owm.errors import UsageError
from owm.settings import keys

OVERFLOWS = keys.KEYS["overflow"].choices
THINKS = ("on", "off", "show", "hide")
MACHINE = keys.HARDWARE_KEYS  # the machine's, and not kept with the conversation


def read_value(name: str, text: str) -> Any:
    """Return the value of a setting of a conversation as someone has typed it.

    Raises:
        UsageError: there is no such setting, or it is no value of it.
    """
    if name == "think":
        return _one_of(text, THINKS, "think")
    return keys.KEYS[name].read(text, name)


def _one_of(text: str, choices: Sequence[str], origin: str) -> str:
    return str(keys.Key(str, "", choices=tuple(choices)).check(text, origin))


def usable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a session's file says was set, without what cannot be."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        with suppress(UsageError):
            if name == "think":
                found[name] = _one_of(value, THINKS, name)
            elif name in keys.KEYS:
                found[name] = keys.KEYS[name].check(value, name)
    return found
