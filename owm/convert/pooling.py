"""How an embedding model makes one vector of its tokens' vectors: what sentence-transformers' files say of it.

ref: llama.cpp conversion/base.py, _try_set_pooling_type; sentence-transformers models/Pooling.py
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from owm.convert.checkpoint import MAX_JSON_BYTES, read_json
from owm.errors import MalformedFile, Unsupported

MODULES = "modules.json"
POOLING = {"mean": 1, "cls": 2, "lasttoken": 3}  # ref: llama.h, llama_pooling_type
_OLDER = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "lasttoken"}


def read_pooling(folder: Path) -> dict[str, int]:
    """Return `pooling_type`; nothing for a model whose files do not name one.

    Raises:
        MalformedFile: a file is not what it should be.
        Unsupported: llama.cpp has no such pooling.
    """
    path = folder / MODULES
    if not path.is_file():
        return {}
    for module in _modules(path):
        kind, place = module.get("type"), module.get("path")
        if not isinstance(kind, str) or not kind.endswith("Pooling"):
            continue
        if not isinstance(place, str) or Path(place).name != place or place in ("", ".."):
            raise MalformedFile(path, "the pooling's folder is none of the checkpoint's", kind="JSON")
        settings = folder / place / "config.json"
        if not settings.is_file():
            raise MalformedFile(path, f"{place}/config.json is not there", kind="JSON")
        return {"pooling_type": _pooling_type(read_json(settings))}
    return {}


def _pooling_type(settings: Mapping[str, Any]) -> int:
    modes = [_OLDER.get(key, key) for key in settings if key.startswith("pooling_mode_") and settings[key] is True]
    mode = modes[0] if len(modes) == 1 else None if modes else settings.get("pooling_mode")
    if not isinstance(mode, str) or mode not in POOLING:
        raise Unsupported(
            "the model's way of pooling is not supported", hint=f"llama.cpp has: {', '.join(POOLING)}, one at a time"
        )
    return POOLING[mode]


def _modules(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise MalformedFile(path, "it is larger than such a file can be", kind="JSON")
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedFile(path, str(error) or "it is nested too deeply", kind="JSON") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise MalformedFile(path, "it is no list of modules", kind="JSON")
    return found
