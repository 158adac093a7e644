"""`owm config`: settings that are kept, for all models or for one."""

import re
from typing import Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output
from owm.cli.subcommands import output, with_subcommands

_ASSIGNMENT = re.compile(r"[A-Za-z][A-Za-z0-9_-]*=.*", re.DOTALL)


def command(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """Keep settings, for all models or for one; without a subcommand, list them.

    They are named like the flags of `owm run`, and weaker than flags and `OWM_*` variables: `owm config set smollm2
    temp=0.3` holds for that model, `owm config set threads=4` for all.
    """
    out = output(context, json, quiet, verbose)
    if context.invoked_subcommand is None:
        _list(out)


subcommands = with_subcommands(command)


def _complete(incomplete: str) -> list[str]:
    from owm.settings.keys import KEYS

    return [*o.complete_models(incomplete), *(name for name in KEYS if name.startswith(incomplete))]


WordsArg = Annotated[
    list[str],
    typer.Argument(
        metavar="[MODEL] KEY…",
        help="Settings, after the model if it is for one only.",
        show_default=False,
        autocompletion=_complete,
    ),
]


@subcommands.command("set")
def set_values(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] KEY=VALUE…",
            help="Settings, after the model if it is for one only.",
            show_default=False,
            autocompletion=_complete,
        ),
    ],
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Set what holds where no flag says otherwise: `owm config set smollm2 temp=0.3 top_k=20`."""
    from owm.errors import UsageError
    from owm.settings import config, keys

    out = output(context, json, quiet, verbose)
    is_for_one = len(words) > 1 and not _ASSIGNMENT.fullmatch(words[0])
    model = _model(words[0] if is_for_one else None)[0]
    values: dict[str, keys.Value] = {}
    for word in words[is_for_one:]:
        if not _ASSIGNMENT.fullmatch(word):
            raise UsageError(f"not a setting with a value: {word}", hint="`KEY=VALUE`, for example `temp=0.3`")
        spelled, _, text = word.partition("=")
        name = keys.find(spelled)
        values[name] = keys.KEYS[name].read(text, name)
    config.change(config.default_path(), model, values)
    if out.as_json:
        out.data(_rows(model, values))
    for name, value in values.items():
        out.note(f"{_for(model)}: {name} = {value}")
    if model is not None and not _is_stored(model):
        out.note(f"{model} is not stored yet")


@subcommands.command("get")
def get_value(
    context: typer.Context,
    words: WordsArg,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Print what is set: `owm config get smollm2 temp`. What is set for all models holds for one, too."""
    from owm.errors import NotFound, UsageError
    from owm.settings import config, keys
    from owm.settings.layers import resolve

    out = output(context, json, quiet, verbose)
    if len(words) > 2:
        raise UsageError("name one setting", hint="`owm config get [MODEL] KEY`; `owm config` lists all")
    name = keys.find(words[-1])
    model, names = _model(words[0] if len(words) > 1 else None)
    found = resolve(config.load(config.default_path()).layers(names)).get(name)
    if found is None:
        raise NotFound(f"{name} is not set {_for(model)}", hint="`owm run MODEL --show-settings` shows what holds")
    row = {"model": model, "name": name, "value": found.value, "origin": found.origin}
    out.data(row, lines=str(found.value).split("\n"))


@subcommands.command("unset")
def unset_values(
    context: typer.Context,
    words: WordsArg,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Forget what is set: `owm config unset smollm2 temp`."""
    from owm.errors import NotFound
    from owm.settings import config

    out = output(context, json, quiet, verbose)
    is_for_one = len(words) > 1 and _setting(words[0]) is None
    model = _model(words[0] if is_for_one else None)[0]
    names = [_setting(word) or word for word in words[is_for_one:]]
    removed = config.change(config.default_path(), model, {}, remove=names)
    for name in removed:
        out.note(f"{name} is not set any more {_for(model)}")
    if out.as_json:
        out.data([{"model": model, "name": name} for name in removed])
    if missing := [name for name in names if name not in removed]:
        raise NotFound(f"not set {_for(model)}: {', '.join(missing)}", hint="`owm config` lists what is")


@subcommands.command("list")
def list_values(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """List what is set."""
    _list(output(context, json, quiet, verbose))


@subcommands.command("path")
def show_path(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """Print where the settings are kept, whether the file is there or not."""
    from owm.settings import config

    path = config.default_path()
    output(context, json, quiet, verbose).data({"path": str(path), "exists": path.exists()}, lines=[str(path)])


def _list(out: Output) -> None:
    from owm.settings import config

    found = config.load(config.default_path())
    rows = _rows(None, found.everywhere)
    for model, values in found.models.items():
        rows += _rows(model, values)
    if not rows and not out.as_json:
        out.note("nothing is set; `owm config set temp=0.3` is for all models, `owm config set MODEL temp=0.3` for one")
        return
    shown = rows if out.as_json else [{**row, "model": row["model"] or "(all models)"} for row in rows]
    out.table(shown, {"model": "MODEL", "name": "SETTING", "value": "VALUE"})


def _rows(model: str | None, values: Any) -> list[dict[str, Any]]:
    return [{"model": model, "name": name, "value": value} for name, value in values.items()]


def _model(text: str | None) -> tuple[str | None, list[str]]:
    """Return the name under which to set things for a model, and all names under which something may be set for it."""
    from owm.errors import ModelNotFound, UsageError
    from owm.library import open_store
    from owm.library.configuring import names_for
    from owm.settings import config

    if text is None:
        return None, []
    try:
        written = config.same_name(text, config.load(config.default_path()).models)
    except UsageError:  # a broken file is for the commands below to mend or to complain about
        written = None
    try:
        names = names_for(text, open_store())
    except ModelNotFound:
        if written is None:  # the model that was meant may have gone since
            raise
        names = [written]
    if written is not None and config.same_name(written, names):
        return written, names
    return names[-1], names


def _is_stored(model: str) -> bool:
    from owm.errors import ModelNotFound
    from owm.library import open_store
    from owm.store import refs

    try:
        return open_store().find(refs.parse(model)) is not None
    except ModelNotFound:
        return False


def _setting(text: str) -> str | None:
    from owm.errors import UsageError
    from owm.settings import keys

    try:
        return keys.find(text)
    except UsageError:
        return None


def _for(model: str | None) -> str:
    return "for all models" if model is None else f"for {model}"
