"""`owm logs`: the log of answers on this machine."""

import sys
from typing import Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output
from owm.cli.subcommands import output, with_subcommands

DEFAULT_LAST = 5
MAX_PROMPT_LINES = 4
MAX_ANSWER_LINES = 20
MAX_LINE_CHARS = 400


def command(
    context: typer.Context,
    search: Annotated[
        str | None,
        typer.Option(
            "--search", metavar="TEXT", help="Only with these words, in any order and case.", show_default=False
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option("--last", metavar="N", help=f"Show so many (default: {DEFAULT_LAST}).", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Only of models whose name begins so.",
            show_default=False,
            autocompletion=o.complete_models,
        ),
    ] = None,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Log answers on this machine; without a subcommand, show the last ones.

    Nothing is logged before `owm logs on`, save what `owm run --log` answers. Prompts and answers are kept as they are,
    in a file that only you may read; long ones are shown in part, whole with `--json`.
    """
    from owm.errors import UsageError

    out = output(context, json, quiet, verbose)
    given = [flag for flag, value in (("--search", search), ("--last", last), ("--model", model)) if value is not None]
    if context.invoked_subcommand is not None:
        if given:
            raise UsageError(f"{given[0]} is for showing: `owm logs {context.invoked_subcommand}` takes none")
        return
    if last is not None and last <= 0:
        raise UsageError(f"--last must be positive: {last}")
    _show(out, search or "", last or DEFAULT_LAST, model or "")


subcommands = with_subcommands(command)


@subcommands.command("on")
def turn_on(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """Log every answer from now on."""
    from owm.logs import open_log

    log = open_log()
    log.turn_on()
    _say_state(output(context, json, quiet, verbose), f"every answer is logged from now on: {log.path}")


@subcommands.command("off")
def turn_off(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """Log no answers any more; what is logged stays."""
    from owm.logs import open_log

    log = open_log()
    log.turn_off()
    kept = f"; what is logged stays in {log.path}, `owm logs clear` removes it" if log.path.exists() else ""
    _say_state(output(context, json, quiet, verbose), f"nothing is logged any more{kept}")


@subcommands.command("path")
def show_path(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """Print where the log lies, whether it is there or not."""
    from owm.logs import open_log

    out = output(context, json, quiet, verbose)
    out.data(_state(), lines=[str(open_log().path)])


@subcommands.command("clear")
def clear_log(
    context: typer.Context,
    yes: o.YesOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Remove all that is logged."""
    from owm.cli.output import confirm
    from owm.cli.terminal import is_terminal
    from owm.errors import UsageError
    from owm.logs import open_log

    out = output(context, json, quiet, verbose)
    log = open_log()
    if not yes and log.path.exists():
        if not is_terminal(sys.stdin):
            raise UsageError("this removes all that is logged", hint="`owm logs clear --yes` does")
        if not confirm(f"remove all answers in {log.path}?"):
            return
    from owm.logs import database

    n_answers = database.clear(log.path)
    if n_answers is None:
        out.note("the log was damaged and has been removed")
    else:
        out.note(f"removed {n_answers} answer{'' if n_answers == 1 else 's'}")
    if out.as_json:
        out.data({"n_removed": n_answers})


def _show(out: Output, text: str, last: int, model: str) -> None:
    from owm.library import open_store
    from owm.logs import database, open_log

    log = open_log()
    model = open_store().aliases.load().get(model.lower(), model)
    found = database.search(log.path, text, model=model, last=last)
    if out.as_json:
        out.data(found)
        return
    if found:
        sys.stdout.write("\n".join(map(_readable, found)))
    elif text or model:
        out.note("nothing that is logged fits")
    else:
        out.note("nothing is logged" + ("" if log.is_on else "; `owm logs on` logs every answer from now on"))


def _readable(entry: dict[str, Any]) -> str:
    """Return an answer as people read it: what steers a terminal is made visible, in a pipe too (`| less -R`)."""
    from datetime import datetime

    from owm.cli.terminal import one_line, visible

    when = datetime.fromisoformat(entry["time"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    counts = f"{entry['n_prompt']} + {entry['n_generated']} tokens, {entry['finish_reason']}"
    lines = [one_line(f"[{entry['id']}] {when}  {entry['command']} {entry['model']}  {counts}")]
    lines += [visible(f"> {line}") for line in _shortened(_last_turn(entry["prompt"]), MAX_PROMPT_LINES)]
    lines += [visible(line) for line in _shortened(entry["answer"] or "", MAX_ANSWER_LINES)]
    return "\n".join(lines) + "\n"


def _last_turn(prompt: Any) -> str:
    from owm.logs.entry import texts_of

    turns = prompt if isinstance(prompt, list) else [prompt]
    return "\n".join(texts_of(turns[-1:]))


def _shortened(text: str, n_lines: int) -> list[str]:
    lines = [
        line
        if len(line) <= MAX_LINE_CHARS
        else f"{line[:MAX_LINE_CHARS]}… ({len(line) - MAX_LINE_CHARS} characters more)"
        for line in text.strip().split("\n")
    ]
    if len(lines) <= n_lines + 1:
        return lines
    return [*lines[:n_lines], f"… ({len(lines) - n_lines} lines more)"]


def _state() -> dict[str, Any]:
    from owm.logs import open_log

    log = open_log()
    return {
        "path": str(log.path),
        "is_on": log.is_on,
        "size_bytes": log.path.stat().st_size if log.path.exists() else 0,
    }


def _say_state(out: Output, message: str) -> None:
    out.note(message)
    if out.as_json:
        out.data(_state())
