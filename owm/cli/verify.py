"""`owm verify`: hash what is stored and compare."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.errors import OwmError


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]…",
            help="Stored models (default: all).",
            show_default=False,
            autocompletion=o.complete_models,
        ),
    ] = None,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Check that stored files are what was published.

    Every file is hashed and compared with the sha256 of its manifest, and its header is read. Ends with exit code 7 if
    anything is damaged.
    """
    from owm.cli.failures import ExitCode, exit_code
    from owm.cli.progress import progress
    from owm.errors import OwmError
    from owm.library import open_store
    from owm.library.keeping import inspect_file

    out = Output(json, quiet, verbose)
    store = open_store()
    problems: list[OwmError] = []
    stored = [store.find_stored(name) for name in models] if models else store.models(problems)
    among = store.models()
    names = {model.folder or model.path: store.shown_name(model, among) for model in stored}
    results: list[dict[str, Any]] = []
    code = ExitCode.OK
    for problem in problems:
        results.append({"name": None, "status": _status(problem), "problem": str(problem), "hint": problem.hint})
        code = max(code, exit_code(problem))
    for model in stored:
        status, problem_, hint = "whole", None, None
        try:
            with progress(out) as sink:
                store.verify(model, sink=sink)
                with store.reading(model):
                    for path in model.files:
                        inspect_file(path)
        except OwmError as error:
            status, problem_, hint = _status(error), str(error), error.hint
            code = max(code, exit_code(error))
        results.append({"name": names[model.folder or model.path], "status": status, "problem": problem_, "hint": hint})
    if json:
        out.data(results)
    elif not results:
        out.note("nothing is stored yet")
    else:
        out.table(results, {"name": "NAME", "status": "STATUS", "problem": "PROBLEM"})
        for hint in dict.fromkeys(result["hint"] for result in results if result["hint"]):
            out.note(f"hint: {hint}")
    return code


def _status(error: "OwmError") -> str:
    from owm.errors import ModelNotFound, StoreError

    return "gone" if isinstance(error, ModelNotFound) else "unreadable" if isinstance(error, StoreError) else "damaged"
