"""LM Studio: `models/<publisher>/<repo>/<file>.gguf`, which keeps the names of the Hub's repos."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from owm.errors import OwmError, UsageError
from owm.store import refs
from owm.store.adopting import folder
from owm.store.adopting.found import Finding, read_small, read_table
from owm.store.refs import ModelRef

OWNER = "LM Studio"


def places(home: Path, environ: Mapping[str, str]) -> list[Path]:
    """Return where it keeps models: the folder of its settings, its own home's, and the one of early versions."""
    homes = [home / ".lmstudio", home / ".cache" / "lm-studio"]
    with suppress(OwmError, ValueError):
        if named := read_small(home / ".lmstudio-home-pointer").decode().strip():
            homes.insert(0, Path(named).expanduser())
    found = []
    for each in homes:
        with suppress(OwmError, RuntimeError, TypeError):
            if isinstance(chosen := read_table(each / "settings.json").get("downloadsFolder"), str) and chosen:
                found.append(Path(chosen).expanduser())
        found.append(each / "models")
    return found


def search(top: Path) -> list[Finding]:
    """Find its models."""
    return folder.search(top, owner=OWNER, name=name_of)


def name_of(path: Path) -> ModelRef | None:
    """Return the repo of the Hub by whose name a file is kept, if it is."""
    if len(path.parts) < 3:
        return None
    try:
        ref = refs.parse("/".join(path.parts[:2]))
    except UsageError:
        return None
    return ref if ref.kind == "hub" and ref.quant is None and ref.revision is None else None
