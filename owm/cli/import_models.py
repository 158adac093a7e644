"""`owm import`: models that other tools, or you, keep on this machine."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.library.importing import ImportPlan, Outcome


def complete_sources(incomplete: str) -> list[str]:
    """Offer the tools that owm knows to the shell."""
    from owm.store.adopting.tools import TOOLS

    return [tool.names[0] for tool in TOOLS if tool.names[0].startswith(incomplete)]


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]…",
            help="Only these, by the names that the tool gives them; `*` stands for anything (default: all).",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ollama|lmstudio|llama.cpp|huggingface|DIR|FILE",
            help="Where the models are: a tool, a folder with model files anywhere in it, or one file.",
            show_default=False,
            autocompletion=complete_sources,
        ),
    ] = None,
    link: Annotated[
        Literal["hard", "sym", "reflink", "copy"] | None,
        typer.Option(
            "--link",
            help="Have the bytes in owm's own folder too: as a link, as a copy that shares its blocks, or copied"
            " (default: they stay where they are).",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What to call it, for one model.", show_default=False),
    ] = None,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Use models that other tools, or you, have on this machine already; nothing is copied unless `--link` says so.

    Every header is read first, and every file hashed unless its tool names it by its sha256. What is damaged is told
    and left alone. Without `--from`, the tools that were found are listed.
    """
    from owm.cli.progress import progress
    from owm.errors import UsageError
    from owm.library import open_store
    from owm.library.importing import execute_import, plan_import
    from owm.units import format_bytes

    out = Output(json, quiet, verbose)
    store = open_store()
    if source is None:
        if models or name or link:
            raise UsageError("say where the models are", hint="`--from ollama`, a folder or a file")
        return _list_tools(out)
    plan = plan_import(source, store, only=models or (), name=name, link=link)
    if dry_run:
        outcomes = list(plan.outcomes())
    else:
        if plan.hash_bytes:
            out.note(f"reading {format_bytes(plan.hash_bytes)} to know the models by their sha256")
        outcomes = []
        try:
            with progress(out) as sink:
                outcomes += execute_import(plan, store, link=link, sink=sink)
        except KeyboardInterrupt:
            out.note("interrupted; the same command goes on with those that are not there yet")
            raise
    return _tell(outcomes, plan, out, dry_run=dry_run)


def _tell(outcomes: "list[Outcome]", plan: "ImportPlan", out: Output, *, dry_run: bool) -> int:
    from owm.cli.failures import ExitCode, exit_code, say
    from owm.library import open_store
    from owm.units import format_bytes

    store = open_store()
    among = store.models([])
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        same_as = store.shown_name(outcome.stored, among) if outcome.status == "known" and outcome.stored else None
        status = "unchanged" if same_as == outcome.name else outcome.status
        same_as = None if same_as == outcome.name else same_as
        rows.append(
            {
                "name": outcome.name,
                "status": status,
                "owner": outcome.owner,
                "quant": outcome.label,
                "size_bytes": outcome.size_bytes,
                "path": str(outcome.path),
                "same_as": same_as,
                "is_imported": outcome.status in ("new", "changed") and not dry_run,
                "problem": str(outcome.problem) if outcome.problem else None,
                "hint": outcome.problem.hint if outcome.problem else None,
            }
        )
    if out.as_json:
        out.data(rows)
    else:
        would = {"new": "would be new", "changed": "would change"} if dry_run else {}
        shown = [
            {
                "name": row["name"],
                "size": format_bytes(row["size_bytes"]) if row["size_bytes"] is not None else "",
                "owner": row["owner"] or "you",
                "status": f"known as {row['same_as']}" if row["same_as"] else would.get(row["status"], row["status"]),
            }
            for row in rows
        ]
        out.table(shown, {"name": "NAME", "size": "SIZE", "owner": "OWNER", "status": "STATUS"}, right=("size",))
    refused = [outcome for outcome in outcomes if outcome.problem is not None]
    for outcome in refused:
        said = str(outcome.problem)
        said = said if outcome.name in said else f"{outcome.name}: {said}"
        (out.warn if outcome.status == "refused" else out.note)(said)
    for hint in dict.fromkeys(each.problem.hint for each in refused if each.problem and each.problem.hint):
        if not out.quiet:
            say("hint", hint)
    faults = [outcome for outcome in refused if outcome.status == "refused"]
    if not faults and len(refused) == len(outcomes):
        return ExitCode.UNSUPPORTED
    return max((exit_code(each.problem) for each in faults if each.problem), default=ExitCode.OK)


def _list_tools(out: Output) -> int:
    import os

    from owm.store.adopting.found import Found
    from owm.store.adopting.tools import TOOLS, tool_folders
    from owm.units import format_bytes

    rows = []
    for tool in TOOLS:
        for folder in tool_folders(tool, os.environ):
            found = [each for each in tool.search(folder) if isinstance(each, Found)]
            rows.append(
                {
                    "source": tool.names[0],
                    "tool": tool.title,
                    "n_models": len(found),
                    "size_bytes": sum(each.size_bytes for each in found),
                    "path": str(folder),
                }
            )
    if out.as_json:
        out.data(rows)
    elif rows:
        shown = [row | {"size": format_bytes(int(str(row["size_bytes"])))} for row in rows]
        headings = {"source": "--from", "n_models": "MODELS", "size": "SIZE", "path": "FOLDER"}
        out.table(shown, headings, right=("n_models", "size"))
    else:
        out.note("no tool's models were found here; `owm import --from DIR` takes a folder or a file")
    return 0
