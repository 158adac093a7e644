"""`owm alias`: names of the user's own."""

from typing import TYPE_CHECKING, Annotated

import typer

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.store.local import Store


def command(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The new name.", show_default=False)] = None,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="What it stands for.", show_default=False, autocompletion=o.complete_models
        ),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the name.")] = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Give a model another name, or list such names."""
    from owm.errors import ModelNotFound, UsageError
    from owm.library import open_store
    from owm.store import refs

    out = Output(json, quiet, verbose)
    store = open_store()
    if name is None:
        if remove:
            raise UsageError("no name is given", hint="`owm alias --remove NAME`; `owm alias` lists them")
        rows = [
            {"name": alias, "model": target, "is_stored": _is_stored(target, store)}
            for alias, target in sorted(store.aliases.load().items())
        ]
        if not rows and not json:
            out.note("there are no aliases; `owm alias NAME MODEL` makes one")
            return
        if json:
            out.data(rows)
            return
        lines = [{**row, "stored": "yes" if row["is_stored"] else "no"} for row in rows]
        out.table(lines, {"name": "NAME", "model": "MODEL", "stored": "STORED"})
        return
    if remove:
        if model is not None:
            raise UsageError("--remove takes a name only", hint=f"`owm alias --remove {name}`")
        store.aliases.remove(name)
        out.note(f"{name} is no alias any more")
        return
    if model is None:
        target = store.aliases.load().get(name.lower())
        if target is None:
            raise ModelNotFound(f"no alias named {name}", ref=name, hint=f"`owm alias {name} MODEL` makes it")
        out.data({"name": name.lower(), "model": target}, lines=[target])
        return
    ref = refs.parse(model)
    store.candidates(ref)  # a short name that nobody knows is refused here
    store.aliases.set(name, ref)
    out.note(f"{name.lower()} stands for {store.aliases.load()[name.lower()]}")
    if json:
        out.data({"name": name.lower(), "model": store.aliases.load()[name.lower()]})


def _is_stored(target: str, store: "Store") -> bool:
    from owm.errors import OwmError
    from owm.store import refs

    try:
        found = store.find(refs.parse(target))
    except OwmError:
        return False
    return found is not None and not found.is_gone
