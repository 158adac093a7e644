"""`owm verify`: whether what is stored is what was published, and its repair."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.errors import OwmError
    from owm.events import Sink
    from owm.library.provenance import Lineages
    from owm.store.local import Store
    from owm.store.model import StoredModel


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]…",
            help="Stored models, or paths (default: all that is stored).",
            show_default=False,
            autocompletion=o.complete_models,
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Read and hash every byte, several files at once.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Fetch again what is damaged or gone, and nothing else.")
    ] = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Check that stored files are what was published.

    `--json` says where each is from, too: commit, sha256 of every file, how it was made and of what, up to the weights
    as they were published. A path may be named as well. A file whose size and modification time are those of when it
    was last found whole is taken for whole; any other is hashed and compared with the sha256 of its manifest, and its
    header is read. `--full` does so with all, and looks for weights that are infinite or no numbers. Ends with exit
    code 7 if anything is damaged.
    """
    from owm.cli.failures import ExitCode, exit_code
    from owm.cli.progress import progress
    from owm.errors import OwmError
    from owm.library import open_store, provenance
    from owm.library.keeping import inspect_file
    from owm.library.row_check import check_of
    from owm.native.ggml import unheard
    from owm.store.repairing import remove_aside
    from owm.store.shelf import Shelf
    from owm.store.verifying import status_of, verify

    out = Output(json, quiet, verbose)
    store = open_store()
    problems: list[OwmError] = []
    among = store.models(problems)
    lineages = provenance.Lineages(store, among)
    chosen = [provenance.find(name, store, lineages) for name in models] if models else among
    stored = list({model.folder or model.path: model for model in chosen}.values())  # each once
    results: list[dict[str, Any]] = []
    code = ExitCode.OK
    for problem in problems if not models else ():
        row = {"name": None, "status": status_of(problem), "problem": str(problem), "hint": problem.hint}
        results.append(_unknown() | row if json else row)
        code = max(code, exit_code(problem))
    shelf = Shelf(among)
    with progress(out) as sink, unheard():
        rows = check_of if full else None
        for verdict in verify(stored, store, full=full, inspect=inspect_file, rows=rows, sink=sink):
            status: str = verdict.status
            found = verdict.problem
            if found is None and repair:
                remove_aside(verdict.model, store)
            if found is not None and repair and verdict.can_be_mended:
                status, found = _repair(verdict.model, store, full=full, problem=found, sink=sink)
            if found is not None:
                code = max(code, exit_code(found), exit_code(verdict.problem or found))
            row = {
                "name": store.shown_name(verdict.model, shelf),
                "status": status,
                "problem": None if found is None else str(found),
                "hint": None if found is None else found.hint,
            }
            results.append(_origin(verdict.model, lineages, found, sink) | row if json else row)
    if json:
        out.data(results)
    elif not results:
        out.note("nothing is stored yet")
    else:
        out.table(results, {"name": "NAME", "status": "STATUS", "problem": "PROBLEM"})
        hints = [result["hint"] for result in results if result["hint"]]
        if code == ExitCode.DAMAGED and not repair and any("owm pull" in hint for hint in hints):
            hints.insert(0, "`owm verify --repair` fetches again what is damaged, and nothing else")
        for hint in dict.fromkeys(hints):
            out.note(f"hint: {hint}")
    return code


def _origin(model: "StoredModel", lineages: "Lineages", problem: "OwmError | None", sink: "Sink") -> dict[str, Any]:
    """Return what `--json` says of where a model is from; nothing of a damaged file that nobody has recorded."""
    if model.manifest is None and problem is not None:
        return _unknown()
    return lineages.of(model, sink=sink).record()


def _unknown() -> dict[str, Any]:
    from owm.library.provenance import Provenance

    return dict.fromkeys(Provenance("file", "").record())


def _repair(
    model: "StoredModel", store: "Store", *, full: bool, problem: "OwmError", sink: "Sink"
) -> "tuple[str, OwmError | None]":
    """Fetch what is damaged of a model; return its status then, and what still is wrong with it."""
    from owm.errors import OwmError
    from owm.library.keeping import inspect_file
    from owm.store.repairing import repair
    from owm.store.verifying import status_of, verify

    try:
        mended = repair(model, store, inspect=inspect_file, full=full, sink=sink)
    except OwmError as error:
        return status_of(problem), error
    left = verify([store.at(model.folder) or model] if model.folder else [model], store, inspect=inspect_file)[0]
    return ("repaired" if mended else "whole") if left.problem is None else left.status, left.problem
