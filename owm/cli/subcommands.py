"""Commands that have commands of their own (`owm config set`), and do something sensible without one."""

from collections.abc import Callable
from typing import Any

import typer

from owm.cli.output import Output


def with_subcommands(command: Callable[..., Any]) -> typer.Typer:
    """Make the app of a command; its function runs first, also when a subcommand follows."""
    return typer.Typer(
        callback=command,
        invoke_without_command=True,
        subcommand_metavar="[COMMAND] [ARGS]…",
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        add_completion=False,
    )


def output(context: typer.Context, json: bool, quiet: bool, verbose: bool) -> Output:
    """Return how to speak; flags before a subcommand count like those after it."""
    outer = context.obj if isinstance(context.obj, Output) else Output()
    context.obj = out = Output(json or outer.as_json, quiet or outer.quiet, verbose or outer.verbose)
    return out
