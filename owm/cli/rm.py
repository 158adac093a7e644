"""`owm rm`: remove stored models."""

import sys
from typing import Any

from owm.cli import options as o
from owm.cli.output import Output


def command(
    models: o.StoredModelsArg,
    yes: o.YesOpt = False,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Remove stored models.

    Names must be whole. Files in the Hugging Face cache may be in use by other programs: that is asked about first, or
    allowed with `--yes`. Files of yours that owm only refers to are never removed.
    """
    from owm.cli.output import confirm
    from owm.cli.terminal import is_terminal
    from owm.errors import UsageError
    from owm.library import open_store
    from owm.store.sources import hub
    from owm.units import format_bytes

    out = Output(json, quiet, verbose)
    store = open_store()
    results: list[dict[str, Any]] = []
    for stored in [store.find_exactly(name) for name in models]:
        name = store.shown_name(stored)
        is_shared = stored.manifest is not None and any(file.root == "hub" for file in stored.manifest.files)
        if dry_run:
            results.append({"name": name, "freed_bytes": stored.size_bytes, "is_removed": False})
            if not json:
                out.data(None, lines=[f"would remove {name} ({format_bytes(stored.size_bytes)})"])
            continue
        if is_shared and not yes and not stored.is_gone:
            if not is_terminal(sys.stdin):
                raise UsageError(
                    f"{name} lies in the Hugging Face cache, where other programs may use it",
                    hint=f"`owm rm --yes {name}` removes it",
                )
            size = format_bytes(stored.size_bytes)
            if not confirm(f"{name} ({size}) lies in the Hugging Face cache, shared with other programs; remove it?"):
                results.append({"name": name, "freed_bytes": 0, "is_removed": False})
                continue
        freed = store.remove(stored, remove_hub_files=lambda paths: hub.remove_files(store.hub, paths))
        results.append({"name": name, "freed_bytes": freed, "is_removed": True})
        out.note(f"removed {name} ({format_bytes(freed)})")
    if json:
        out.data(results)
