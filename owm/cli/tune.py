"""`owm tune`: what `owm bench --tune` found best and keeps, for models on this machine."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output
from owm.cli.subcommands import output, with_subcommands

if TYPE_CHECKING:
    from collections.abc import Callable

    from owm.settings.tuned import Tuned


def command(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """List or forget what models were tuned to; without a subcommand, list it.

    `owm bench --tune MODEL` finds the values. They hold for that model on that machine with that build of llama.cpp,
    and are weaker than what you set yourself.
    """
    out = output(context, json, quiet, verbose)
    if context.invoked_subcommand is None:
        _list(out)


subcommands = with_subcommands(command)


@subcommands.command("list")
def list_tuned(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """List what models were tuned to."""
    _list(output(context, json, quiet, verbose))


@subcommands.command("rm")
def remove_tuned(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]…",
            help="Models, as the list names them, or stored ones.",
            show_default=False,
            autocompletion=o.complete_models,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Forget all, also where the file is damaged.")] = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Forget what models were tuned to: `owm tune rm smollm2`. The defaults hold again."""
    from owm.errors import NotFound, UsageError
    from owm.settings import tuned

    out = output(context, json, quiet, verbose)
    path = tuned.default_path()
    if everything == bool(models):
        raise UsageError("name models, or `--all`", hint="`owm tune list` lists what is kept")
    if everything:
        is_there = tuned.clear(path)
        out.note("all is forgotten" if is_there else "nothing is tuned")
        if out.as_json:
            out.data([])
        return
    removed: list[Tuned] = []
    for model in models or ():
        found = tuned.remove(path, _meant(model))
        if not found:
            raise NotFound(f"nothing is tuned for {model}", hint="`owm tune list` lists what is")
        removed += found
        for one in found:
            out.note(f"forgotten for {one.name} on {one.machine_name}: {one.said()}")
    if out.as_json:
        out.data([_row(one, None) for one in removed])


def _meant(model: str) -> "Callable[[Tuned], bool]":
    """Return what tells whether a name means the model of an entry: by the entry's name, or by what is stored."""
    identity = _identity(model)
    return lambda one: model == one.name or identity == one.model


def _identity(model: str) -> str | None:
    """Return which bytes a name stands for, None if it stands for nothing that is here."""
    from owm.errors import OwmError
    from owm.library import open_store
    from owm.library.configuring import identity_of

    try:
        return identity_of(open_store().find_stored(model))
    except (OwmError, OSError):
        return None


def _list(out: Output) -> None:
    from owm.settings import tuned

    entries = tuned.load(tuned.default_path())
    if not entries:
        if out.as_json:
            out.data([])
        out.note("nothing is tuned; `owm bench --tune MODEL` finds what is fastest here")
        return
    from owm.hardware.machine import this_machine

    machine = this_machine()
    here = (machine.fingerprint, machine.build)
    rows = [_row(one, (one.machine, one.build) == here) for one in entries]
    if out.as_json:
        out.data(rows)
        return
    lines = [
        {
            "model": one.name,
            "values": one.said(),
            "gain": ", ".join(f"{name} × {times:.2f}" for name, times in one.gain.items()),
            "machine": one.machine_name if row["is_here"] else f"{one.machine_name} (another machine or build)",
            "when": one.tuned_at[:10],
        }
        for one, row in zip(entries, rows, strict=True)
    ]
    out.table(lines, {"model": "MODEL", "values": "TUNED", "gain": "GAIN", "machine": "MACHINE", "when": "WHEN"})


def _row(one: "Tuned", is_here: bool | None) -> dict[str, Any]:
    return {
        "model": one.name,
        "identity": one.model,
        "machine": one.machine,
        "machine_name": one.machine_name,
        "build": one.build,
        "is_here": is_here,
        "values": dict(one.values),
        "gain": dict(one.gain),
        "tuned_at": one.tuned_at,
    }
