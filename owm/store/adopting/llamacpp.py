"""llama.cpp's cache: flat files `owner_repo_file.gguf` of earlier versions, and the Hub's layout of newer ones.

Which repo a flat file is of stands in a note beside it: `manifest=owner=repo=tag.json`, or `<file>.json` with an
address. Without a note nobody can tell where the owner ends, and the file goes by its own name.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from owm.errors import OwmError
from owm.store import refs
from owm.store.adopting import folder
from owm.store.adopting.found import Finding, entries, read_table
from owm.store.refs import ModelRef

OWNER = "llama.cpp"


def places(home: Path, environ: Mapping[str, str]) -> list[Path]:
    """Return where it keeps models: the folder of `LLAMA_CACHE`, else the user's cache."""
    if chosen := environ.get("LLAMA_CACHE"):
        return [Path(chosen).expanduser()]
    caches = [Path(environ.get("XDG_CACHE_HOME") or home / ".cache")]
    if sys.platform == "darwin":
        caches.insert(0, home / "Library" / "Caches")
    return [cache / "llama.cpp" for cache in caches]


def search(top: Path) -> list[Finding]:
    """Find its models."""
    prefixes = _prefixes(top)

    def name(path: Path) -> ModelRef | None:
        flat = path.name
        fits = [prefix for prefix in prefixes if flat.startswith(prefix)]
        return prefixes[max(fits, key=len)] if fits else _address(top / path)

    return folder.search(top, owner=OWNER, name=name)


def _prefixes(top: Path) -> dict[str, ModelRef]:
    """Return what the names of files of known repos begin with."""
    found = {}
    with suppress(OwmError):
        for note in entries(top):
            parts = note.name.removesuffix(".json").split("=")
            if not note.name.endswith(".json") or len(parts) != 4 or parts[0] != "manifest":
                continue
            with suppress(OwmError):
                ref = refs.parse(f"{parts[1]}/{parts[2]}")
                if ref.kind == "hub" and ref.quant is None:
                    found[f"{parts[1]}_{parts[2]}_"] = ref
    return found


def _address(path: Path) -> ModelRef | None:
    """Return the repo that a file was fetched from, as the note beside it says."""
    with suppress(OwmError):
        url = read_table(path.with_name(path.name + ".json")).get("url")
        ref = refs.parse(url) if isinstance(url, str) else None
        if ref is not None and ref.kind == "hub":
            return ref.with_quant(None)
    return None
