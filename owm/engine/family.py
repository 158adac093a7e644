"""What is known of a family of models and stands neither in their files nor in their templates."""

import re
from typing import Any

from owm.formats.gguf import Header

_R1 = re.compile(r"deepseek[-_ ]?r1\b", re.IGNORECASE)
_R1_TEMPLATE = "<｜Assistant｜><think>"
_R1_SAMPLING = {"temp": 0.6, "top_p": 0.95}  # ref: the usage recommendations of deepseek-ai/DeepSeek-R1


def sampling_defaults(header: Header) -> dict[str, Any]:
    """Return how the makers of a model want it sampled, by the names of our settings; {} where nothing is known."""
    return dict(_R1_SAMPLING) if _is_r1(header) else {}


def takes_system(header: Header) -> bool:
    """Tell whether a model was trained with system prompts, as far as is known."""
    return not _is_r1(header) or "0528" in _names(header)


def _is_r1(header: Header) -> bool:
    template = header.text("tokenizer.chat_template") or ""
    return _R1.search(_names(header)) is not None or _R1_TEMPLATE in template


def _names(header: Header) -> str:
    keys = ("general.name", "general.basename", "general.finetune", "general.version")
    return " ".join(header.text(key) or "" for key in keys) + f" {header.path.name}"
