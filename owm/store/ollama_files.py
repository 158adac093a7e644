"""What Ollama's layers are: which media type is what, and its parameters as the advice on sampling that owm reads."""

import json
from typing import Any

from owm.store.manifest import Role

_PREFIX = "application/vnd.ollama.image."
MODEL = f"{_PREFIX}model"
PROJECTOR = f"{_PREFIX}projector"
ADAPTER = f"{_PREFIX}adapter"
TENSOR = f"{_PREFIX}tensor"
LICENCE = f"{_PREFIX}license"
PARAMS = f"{_PREFIX}params"

# media type -> role, and the name of the file that it becomes
EXTRAS: dict[str, tuple[Role, str]] = {
    f"{_PREFIX}template": ("template", "template.gotmpl"),
    PARAMS: ("params", "params.json"),
    f"{_PREFIX}system": ("system", "system.txt"),
    LICENCE: ("licence", "LICENSE.txt"),
}

# their name -> the one of generation_config.json
_PARAMS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
}


def generation_config(params: bytes) -> str | None:
    """Return Ollama's parameters in the form of a generation_config.json, None if they say nothing of sampling."""
    try:
        stated: Any = json.loads(params)
    except (ValueError, RecursionError):
        return None
    if not isinstance(stated, dict):
        return None
    found = {
        ours: stated[theirs]
        for theirs, ours in _PARAMS.items()
        if isinstance(stated.get(theirs), int | float) and not isinstance(stated[theirs], bool)
    }
    return json.dumps(found, indent=1) + "\n" if found else None
