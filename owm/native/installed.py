"""Which build of llama.cpp is installed, told without loading it."""

import hashlib
import importlib.util
import os
from pathlib import Path

_ENDINGS = (".so", ".dylib", ".dll")


def library_stamp() -> str:
    """Name the installed libraries by their sizes and times, which another build of any version does not share."""
    facts = []
    for folder in _folders():
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(_ENDINGS):
                        status = entry.stat()
                        facts.append(f"{entry.name} {status.st_size} {status.st_mtime_ns}")
        except OSError:  # whoever loads it says what is amiss
            continue
    return hashlib.sha256("\n".join(sorted(facts)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _folders() -> list[Path]:
    if own := os.environ.get("LLAMA_CPP_LIB_PATH"):  # which the binding prefers
        return [Path(own)]
    try:
        spec = importlib.util.find_spec("llama_cpp")
    except ValueError:
        spec = None
    return [Path(place) / "lib" for place in (spec.submodule_search_locations or ())] if spec else []
