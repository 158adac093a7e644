"""Why llama.cpp does not take a model, from the lines of its log, as one of owm's errors."""

import re
from collections.abc import Iterable

from owm.errors import EngineError, NotEnoughMemory, OwmError, Unsupported


def reason_of(lines: Iterable[str]) -> str:
    """Return the first complaint among lines of its log: later ones repeat it."""
    said = next((line for line in lines if line.strip()), None)
    return "no reason given" if said is None else re.sub(r"^\w+: (?:error loading model: )?", "", said)


def load_error(name: str, reason: str) -> OwmError:
    """Return the error for a file that is not loaded for such a reason."""
    if "unknown model architecture" in reason:
        return Unsupported(f"{name}: {reason}", hint="a newer llama-cpp-python may know it")
    if "failed to allocate" in reason or "out of memory" in reason.lower():
        return NotEnoughMemory(f"not enough memory to load {name}: {reason}", needed=0, free=0)
    return EngineError(f"llama.cpp cannot load {name}: {reason}", hint="`--verbose` shows its whole log")
