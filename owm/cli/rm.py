"""`owm rm`: remove stored models."""

import sys
from typing import TYPE_CHECKING, Any

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path


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
    allowed with `--yes`. Files that belong to another tool, or to you, are never removed: owm only forgets them.
    """
    from owm.cli.output import confirm
    from owm.cli.terminal import is_terminal
    from owm.errors import UsageError
    from owm.library import open_store
    from owm.store import removing
    from owm.store.shelf import Shelf
    from owm.store.sources import hub
    from owm.units import format_bytes

    out = Output(json, quiet, verbose)
    store = open_store()
    results: list[dict[str, Any]] = []
    chosen = list({model.folder or model.path: model for model in map(store.find_exactly, models)}.values())
    for stored in chosen:
        removing.refuse_the_users_own(stored)
    shelf = Shelf(store.models())
    for stored in chosen:
        name = store.shown_name(stored, shelf)
        theirs = removing.staying(stored, store)
        n_bytes = removing.freed_bytes(stored, store)
        if dry_run:
            results.append({"name": name, "freed_bytes": n_bytes, "is_removed": False})
            if not json:
                stays = f"; {_said(theirs)}" if theirs else ""
                out.data(None, lines=[f"would remove {name} ({format_bytes(n_bytes)}){stays}"])
            continue
        if removing.is_shared(stored) and not yes and not stored.is_gone:
            if not is_terminal(sys.stdin):
                raise UsageError(
                    f"{name} lies in the Hugging Face cache, where other programs may use it",
                    hint=f"`owm rm --yes {name}` removes it",
                )
            size = format_bytes(n_bytes)
            if not confirm(f"{name} ({size}) lies in the Hugging Face cache, shared with other programs; remove it?"):
                results.append({"name": name, "freed_bytes": 0, "is_removed": False})
                continue
        freed = removing.remove(
            stored,
            store,
            remove_hub_files=lambda paths: hub.remove_files(store.hub, paths),
            on_wait=lambda name=name: out.note(f"another owm is at work on {name}, waiting for it"),  # type: ignore[misc]
        )
        results.append({"name": name, "freed_bytes": freed, "is_removed": True})
        out.note(f"removed {name} ({format_bytes(freed)}){'; ' + _said(theirs) if theirs else ''}")
    if json:
        out.data(results)


def _said(staying: "list[Path]") -> str:
    """Say which files stay where they are."""
    more = f" and {len(staying) - 1} more" if len(staying) > 1 else ""
    return f"{staying[0]}{more} stays where it is" if not more else f"{staying[0]}{more} stay where they are"
