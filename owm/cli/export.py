"""`owm export`: a model's files for other programs and other machines."""

from typing import Annotated, Literal

import typer

from owm.cli import options as o
from owm.cli.output import Output


def command(
    model: o.StoredArg,
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DEST",
            help="A folder (one that ends with `/` is made), or the name of a file that ends in `.gguf`.",
            show_default=False,
        ),
    ],
    link: Annotated[
        Literal["copy", "hard", "reflink"],
        typer.Option(
            help="`copy`; `hard`: another name of the same file; `reflink`: a copy that shares its blocks.",
        ),
    ] = "copy",
    with_manifest: Annotated[
        bool,
        typer.Option("--with-manifest", help="Write what is known of the model beside it, as `NAME.manifest.json`."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Copy a stored model's files to a place of yours, under readable names.

    The sha256 is checked while the bytes are copied, and a file gets its name when it is whole. A copy that was cut off
    goes on when the same command is run again. A model in several parts keeps the names by which llama.cpp finds them.
    """
    from owm.cli.progress import progress
    from owm.library import open_store
    from owm.library.exporting import execute_export, plan_export
    from owm.units import format_bytes

    out = Output(json, quiet, verbose)
    store = open_store()
    stored = store.find_stored(model)
    plan = plan_export(stored, destination, store, link=link, with_manifest=with_manifest, replaces=force)
    paths = [str(file.target) for file in plan.files]
    result = {
        "name": plan.name,
        "files": [
            {"path": str(file.target), "size_bytes": file.size_bytes, "sha256": file.sha256} for file in plan.files
        ],
        "manifest": str(plan.record) if plan.record else None,
        "link": plan.link,
        "size_bytes": plan.size_bytes,
        "is_written": not dry_run,
    }
    if dry_run:
        out.data(result, lines=[f"would write {path}" for path in (*paths, *([plan.record] if plan.record else []))])
        return
    try:
        with progress(out) as sink:
            execute_export(plan, sink=sink)
    except KeyboardInterrupt:
        if plan.link == "copy":
            out.note("interrupted; what was copied is kept, the same command goes on from there")
        raise
    store.touch(stored)
    out.note(f"exported {plan.name} ({format_bytes(plan.size_bytes)})")
    out.data(result, lines=[*paths, *([str(plan.record)] if plan.record else [])])
