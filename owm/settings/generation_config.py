"""`generation_config.json`: how the makers of a model advise to sample, as it lies in a repo of the Hub."""

import json
from pathlib import Path
from typing import Any

from owm.errors import UsageError
from owm.settings.keys import KEYS

MAX_BYTES = 1 << 16

# their name -> our name
_NAMES = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}


def read(path: Path) -> dict[str, Any]:
    """Return the settings in a file; what cannot be read or used is left out, it is a stranger's."""
    try:
        with path.open("rb") as file:
            stated = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return {} if not isinstance(stated, dict) else usable({ours: stated.get(name) for name, ours in _NAMES.items()})


def usable(stated: dict[str, Any]) -> dict[str, Any]:
    """Return those of the values that our settings can take; a whole number may be written as a float."""
    found = {}
    for name, value in stated.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        try:
            found[name] = KEYS[name].check(KEYS[name].kind(value), name)
        except (UsageError, ValueError, OverflowError):
            continue
    return found
