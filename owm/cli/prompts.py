"""`owm prompts`: prompts that are kept under names."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output
from owm.cli.subcommands import output, with_subcommands

if TYPE_CHECKING:
    from owm.settings.prompts import Prompts


def command(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """Keep prompts under names; without a subcommand, list them.

    `owm run MODEL --prompt-template NAME --var KEY=VALUE` takes one. In its text, `{key}` is a placeholder, `{input}`
    the place of what is piped in or given as the prompt; `{{` and `}}` are braces.
    """
    out = output(context, json, quiet, verbose)
    if context.invoked_subcommand is None:
        _list(out)


subcommands = with_subcommands(command)


def complete_prompts(incomplete: str) -> list[str]:
    """Offer the names of kept prompts to the shell."""
    from owm.settings.prompts import open_prompts

    return [name for name in open_prompts().names() if name.startswith(incomplete)]


NameArg = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The prompt's name.", show_default=False, autocompletion=complete_prompts),
]


@subcommands.command("list")
def list_prompts(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """List the prompts."""
    _list(output(context, json, quiet, verbose))


@subcommands.command("show")
def show_prompt(
    context: typer.Context,
    name: NameArg,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Print a prompt as it is."""
    from owm.settings.prompts import open_prompts

    out = output(context, json, quiet, verbose)
    prompts = open_prompts()
    text = prompts.load(name)
    out.data(_row(prompts, name, out), lines=text.split("\n"))


@subcommands.command("save")
def save_prompt(
    context: typer.Context,
    name: NameArg,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE|-", help="Its text: a file, or `-` for a pipe.", show_default=False),
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Its text.", show_default=False)] = None,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Keep a prompt: `owm prompts save review --text "Review this: {input}"`, or from a file or a pipe."""
    from owm.settings.prompts import open_prompts, placeholders

    out = output(context, json, quiet, verbose)
    prompts = open_prompts()
    is_replaced = prompts.save(name, _given(name, file, text))
    needs = placeholders(prompts.load(name))
    out.note(
        f"{'replaced' if is_replaced else 'saved'} the prompt {name}"
        + (f"; it needs {', '.join(needs)}" if needs else "")
    )
    if out.as_json:
        out.data({"name": name, "path": str(prompts.path(name)), "placeholders": needs, "is_replaced": is_replaced})


@subcommands.command("rm")
def remove_prompt(
    context: typer.Context,
    name: NameArg,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Forget a prompt."""
    from owm.settings.prompts import open_prompts

    out = output(context, json, quiet, verbose)
    open_prompts().remove(name)
    out.note(f"removed the prompt {name}")
    if out.as_json:
        out.data({"name": name})


@subcommands.command("path")
def show_path(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """Print the folder where the prompts are kept, a text file each."""
    from owm.settings.prompts import open_prompts

    folder = open_prompts().folder
    output(context, json, quiet, verbose).data({"path": str(folder)}, lines=[str(folder)])


def _list(out: Output) -> None:
    from owm.settings.prompts import open_prompts

    prompts = open_prompts()
    rows = [_row(prompts, name, out) for name in prompts.names()]
    if not rows and not out.as_json:
        out.note('no prompts are kept; `owm prompts save NAME --text "… {input}"` keeps one')
        return
    if out.as_json:
        out.data(rows)
        return
    lines = [
        {
            "name": row["name"],
            "needs": ", ".join(row["placeholders"] or ()),
            "begins": (row["text"] or "").strip().partition("\n")[0][:60],
        }
        for row in rows
    ]
    out.table(lines, {"name": "NAME", "needs": "NEEDS", "begins": "BEGINS"})


def _row(prompts: "Prompts", name: str, out: Output) -> dict[str, Any]:
    """Return what is told of a prompt; what is wrong with one is said, and it is told of all the same."""
    from owm.errors import OwmError
    from owm.settings.prompts import placeholders

    row: dict[str, Any] = {"name": name, "path": str(prompts.path(name)), "placeholders": None, "text": None}
    try:
        row["text"] = prompts.load(name)
        row["placeholders"] = placeholders(row["text"])
    except OwmError as problem:
        out.warn(f"{name}: {problem}")
    return row


def _given(name: str, file: str | None, text: str | None) -> str:
    """Return the text to keep, from the one place that was given.

    Raises:
        UsageError: none was, or several, or it is no UTF-8 text.
        ModelNotFound: there is no such file.
    """
    from owm.cli.terminal import is_terminal
    from owm.errors import NotFound, StoreError, UsageError

    hint = f"`owm prompts save {name} FILE`, `… --text TEXT`, or pipe it in"
    if text is not None and file is not None:
        raise UsageError("the text is given twice: --text and a file", hint=hint)
    if text is not None:
        return os.fsencode(text).decode("utf-8", "surrogateescape")
    if file in (None, "-"):
        if sys.stdin is None or is_terminal(sys.stdin):
            raise UsageError("no text is given", hint=hint)
        content, where = sys.stdin.buffer.read(), "stdin"
    else:
        assert file is not None
        where = file
        try:
            with open(file, "rb") as opened:
                content = opened.read()
        except FileNotFoundError as error:
            raise NotFound(f"no such file: {file}", hint=hint) from error
        except OSError as error:
            raise StoreError(f"cannot read {file}: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 text (byte {error.start})", hint="pipe it through `iconv`") from error
