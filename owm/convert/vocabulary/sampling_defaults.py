"""`generation_config.json`: the sampling that the model's makers advise, into `general.sampling.*`."""

from pathlib import Path

from owm.convert.vocabulary.files import TokenizerFiles, is_text
from owm.units import is_number

# key below `general.sampling.`: (its type, the keys that say it, first wins). ref: llama.cpp gguf-py/gguf/metadata.py
_KEYS: dict[str, tuple[type, tuple[str, ...]]] = {
    "sequence": (str, ("sequence",)),
    "top_k": (int, ("top_k",)),
    "top_p": (float, ("top_p",)),
    "min_p": (float, ("min_p",)),
    "xtc_probability": (float, ("xtc_probability",)),
    "xtc_threshold": (float, ("xtc_threshold",)),
    "temp": (float, ("temperature",)),
    "penalty_last_n": (int, ("penalty_last_n",)),
    "penalty_repeat": (float, ("penalty_repeat", "repetition_penalty")),
    "mirostat": (int, ("mirostat",)),
    "mirostat_tau": (float, ("mirostat_tau",)),
    "mirostat_eta": (float, ("mirostat_eta",)),
}
_INT32 = 1 << 31


def read_sampling_defaults(folder: Path) -> dict[str, str | int | float]:
    """Return the `general.sampling.*` metadata of a checkpoint; a value of the wrong type is left out.

    Raises:
        Damaged: generation_config.json is not a JSON object.
    """
    stated = TokenizerFiles(folder, {}).json("generation_config.json") or {}
    found: dict[str, str | int | float] = {}
    for key, (kind, names) in _KEYS.items():
        value = next((stated[name] for name in names if name in stated), None)
        if kind is str:
            if is_text(value):
                found[f"general.sampling.{key}"] = str(value)
        elif value is not None and is_number(value):
            if kind is float and abs(value) < 3e38:
                found[f"general.sampling.{key}"] = float(value)
            elif kind is int and value == int(value) and -_INT32 <= value < _INT32:
                found[f"general.sampling.{key}"] = int(value)
    return found
