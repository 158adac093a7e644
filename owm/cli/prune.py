"""`owm prune`: remove what can be had again."""

import sys
from typing import Annotated

import typer

from owm.cli import options as o
from owm.cli.output import Output

KINDS = ("incomplete", "unreferenced", "headers", "work", "snapshots")


def command(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND]…",
            help=f"Of {', '.join(KINDS)}; default: all.",
            show_default=False,
            autocompletion=lambda incomplete: [kind for kind in KINDS if kind.startswith(incomplete)],
        ),
    ] = None,
    older: Annotated[
        str | None,
        typer.Option(
            "--older", metavar="AGE", help="Only what was not written for so long: `7d`, `12h`.", show_default=False
        ),
    ] = None,
    yes: o.YesOpt = False,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Remove begun downloads, files of no model, cached headers, working files and snapshots of conversations.

    Models and conversations stay, and so does what a running process holds. What will go is listed, and asked about,
    first.
    """
    from owm.cli.output import confirm
    from owm.cli.terminal import is_terminal
    from owm.errors import UsageError
    from owm.library import open_store
    from owm.store import pruning
    from owm.store.selecting import parse_age
    from owm.units import format_bytes

    out = Output(json, quiet, verbose)
    for kind in kinds or ():
        if kind not in pruning.KINDS:
            raise UsageError(f"nothing to prune is called {kind}", hint=f"there are: {', '.join(pruning.KINDS)}")
    wanted = [kind for kind in pruning.KINDS if not kinds or kind in kinds]
    store = open_store()
    planned = pruning.plan(store, kinds=wanted, older_seconds=parse_age(older) if older is not None else 0.0)
    n_bytes = sum(each.size_bytes for each in planned)
    if not planned:
        out.note("nothing to prune")
    if not json:
        for kind in wanted:
            of_kind = [each for each in planned if each.kind == kind]
            if not of_kind:
                continue
            size = format_bytes(sum(each.size_bytes for each in of_kind))
            out.note(f"{kind}: {size}, {pruning.ABOUT[kind]}")
            for each in of_kind if kind in ("incomplete", "unreferenced") or verbose else ():
                line = f"{format_bytes(each.size_bytes):>10}  {each.path}"
                out.data(None, lines=[line]) if dry_run else out.note(line)
    is_removed = bool(planned) and not dry_run
    if is_removed and not yes:
        if not is_terminal(sys.stdin):
            raise UsageError(f"{format_bytes(n_bytes)} would be removed", hint="`owm prune --yes` removes it")
        is_removed = confirm(f"remove {format_bytes(n_bytes)}?")
    results = list(pruning.execute(planned, store)) if is_removed else []
    held = {result.of.path for result in results if result.is_held}
    freed = sum(result.freed_bytes for result in results)
    for path in sorted(held):
        out.note(f"{path} is in use and stays")
    if is_removed:
        out.note(f"removed {format_bytes(freed)}")
    elif dry_run and planned:
        out.note(f"would remove {format_bytes(n_bytes)}")
    if json:
        out.data(
            {
                "items": [
                    {
                        "kind": each.kind,
                        "path": str(each.path),
                        "size_bytes": each.size_bytes,
                        "is_removed": is_removed and each.path not in held,
                        "is_in_use": each.path in held,
                    }
                    for each in planned
                ],
                "freed_bytes": freed,
                "would_free_bytes": n_bytes,
            }
        )
