"""The quantization types that llama.cpp makes, by the names people type."""

import difflib
from collections.abc import Sequence
from functools import cache

from owm.errors import UsageError
from owm.formats.gguf import FILE_TYPES
from owm.native import quants

DEFAULT = "Q4_K_M"
UNQUANTIZED = ("F32", "F16", "BF16")
# ref: llama.cpp src/llama-quant.cpp, llama_ftype_get_default_type: what its quantizer does not make
_NOT_MADE = ("NVFP4",)
FILE_TYPE_IDS = {name: number for number, name in FILE_TYPES.items() if name not in _NOT_MADE}
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE", "FP16": "F16", "FP32": "F32"}


def file_type(text: str) -> str:
    """Return the quantization type that a text names: `q4_k_m` and `Q4_K` are `Q4_K_M`.

    Raises:
        UsageError: there is none; the nearest is suggested.
    """
    name = text.upper().replace("-", "_")
    name = _ALIASES.get(name, name)
    if name not in FILE_TYPE_IDS:
        raise _unknown("quantization type", text, list(FILE_TYPE_IDS))
    return name


@cache
def tensor_types() -> tuple[str, ...]:
    """Return the types a tensor can be given, smallest number first."""
    return tuple(name for name in quants.type_ids() if name in UNQUANTIZED or quants.can_quantize(name))


def tensor_type(text: str) -> str:
    """Return the tensor type that a text names: `q6_k` is `Q6_K`.

    Raises:
        UsageError: there is none; the nearest is suggested.
    """
    name = text.upper().replace("-", "_")
    if name not in tensor_types():
        raise _unknown("tensor type", text, list(tensor_types()))
    return name


def _unknown(what: str, text: str, known: Sequence[str]) -> UsageError:
    near = difflib.get_close_matches(text.upper(), known, n=1, cutoff=0.5)
    suggestion = f"did you mean `{near[0]}`? " if near else ""
    return UsageError(f"unknown {what}: {text}", hint=f"{suggestion}there are {', '.join(known)}")
