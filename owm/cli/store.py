"""`owm store`: the places where everything lies, and moving the models to another disk."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output
from owm.cli.subcommands import output, with_subcommands

if TYPE_CHECKING:
    from owm.store.moving import MovePlan


def command(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """Show where models and everything else lie; `owm store move` puts the models on another disk."""
    out = output(context, json, quiet, verbose)
    if context.invoked_subcommand is None:
        _show(out)


subcommands = with_subcommands(command)


@subcommands.command("move")
def move(
    context: typer.Context,
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="A folder on the other disk; the models go to DIR/models.", show_default=False
        ),
    ],
    with_hub: Annotated[
        bool,
        typer.Option("--hub", help="Move the Hugging Face cache, which other programs share, to DIR/hub as well."),
    ] = False,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Move the models to another disk; killed at any moment, the same command goes on.

    The well-known folder becomes a link to the new one, so every path stays as it was. All is copied, flushed and read
    back before that one step, and nothing is taken away before it. Moving to owm's own folder (`owm store` shows it)
    brings the models back.
    """
    from owm.cli.progress import progress
    from owm.errors import UsageError
    from owm.library import moving, open_store
    from owm.units import format_bytes

    if not folder.strip():  # as of a variable that is not set: it would mean the folder of the shell
        raise UsageError("the folder has no name", hint="name a folder on the other disk")
    out = output(context, json, quiet, verbose)
    store = open_store()
    plans = moving.plan(store, Path(folder), with_hub=with_hub)
    if dry_run:
        out.data([_record(plan, is_moved=False) for plan in plans], lines=[_sentence(plan) for plan in plans])
        return
    for plan in plans:
        if not plan.is_there:
            out.note(f"moving {_what(plan)} to {plan.target}: {_amount(plan)}")
    try:
        with progress(out) as sink:
            moving.execute(plans, sink=sink)
    except KeyboardInterrupt:
        out.note("interrupted; all models are where they were, the same command goes on with what is copied")
        raise
    for plan in plans:
        if plan.is_there:
            out.note(f"{_what(plan)} is at {plan.target} already" if plan.tree.name == "hub" else
                     f"the models are at {plan.target} already")  # fmt: skip
        else:
            out.note(f"moved {_what(plan)} to {plan.target}")
    in_hub = moving.size_of(store.hub)
    if not with_hub and in_hub:
        out.note(
            f"{format_bytes(in_hub)} stay in the Hugging Face cache, {store.hub}; `--hub` moves them as well, "
            "or set HF_HUB_CACHE"
        )
    if out.as_json:
        out.data([_record(plan, is_moved=True) for plan in plans])


def _show(out: Output) -> None:
    from owm.library import moving, open_store
    from owm.units import format_bytes

    found = moving.places(open_store())
    if out.as_json:
        out.data(
            [
                {
                    "name": each.name,
                    "path": str(each.path),
                    "place": str(each.place),
                    "set_by": each.set_by,
                    "is_there": each.is_there,
                    "size_bytes": each.size_bytes,
                    "free_bytes": each.free_bytes,
                    "unfinished_move": str(each.unfinished) if each.unfinished else None,
                }
                for each in found
            ]
        )
        return
    rows = [
        {
            "name": each.name,
            "size": format_bytes(each.size_bytes),
            "free": "" if each.free_bytes is None else format_bytes(each.free_bytes),
            "path": str(each.path) if not each.path.is_symlink() else f"{each.path} -> {each.place}",
        }
        for each in found
    ]
    out.table(rows, {"name": "WHAT", "size": "SIZE", "free": "FREE", "path": "WHERE"}, right=("size", "free"))
    for each in found:
        if each.path.is_symlink() and not each.is_there:
            out.warn(f"{each.place} is not there; attach or mount its disk")
        if each.unfinished:
            out.warn(f"a move was cut off: `owm store move {each.unfinished}` goes on with it")


def _what(plan: "MovePlan") -> str:
    return "the Hugging Face cache" if plan.tree.name == "hub" else "the models"


def _amount(plan: "MovePlan") -> str:
    from owm.units import format_bytes

    files = f"{plan.n_files} file{'' if plan.n_files == 1 else 's'}, {format_bytes(plan.n_bytes)}"
    if plan.is_same_disk:
        return f"{files}, on the same disk"
    return f"{files}, {format_bytes(plan.n_bytes_there)} of them there already" if plan.n_bytes_there else files


def _sentence(plan: "MovePlan") -> str:
    if plan.is_there:
        return (
            f"nothing to move: {_what(plan)} lie at {plan.target} already"
            if plan.tree.name == "models"
            else (f"nothing to move: {_what(plan)} lies at {plan.target} already")
        )
    return f"would move {_what(plan)} to {plan.target}: {_amount(plan)}"


def _record(plan: "MovePlan", *, is_moved: bool) -> dict[str, Any]:
    return {
        "name": plan.tree.name,
        "path": str(plan.tree.path),
        "from": str(plan.source),
        "to": str(plan.target),
        "n_files": plan.n_files,
        "size_bytes": plan.n_bytes,
        "bytes_there": plan.n_bytes_there,
        "is_moved": is_moved,
    }
