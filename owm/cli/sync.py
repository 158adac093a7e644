"""`owm sync`: the store made to match a project's lock file."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.lock import DEFAULT, LockOpt
from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.errors import OwmError
    from owm.library.syncing import Item
    from owm.store.local import Store

_INTERRUPTED = "interrupted; what arrived is kept, the same command goes on from there"


def command(
    lock: LockOpt = DEFAULT,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what of it is here; the network is not asked.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Read and hash every byte of what is here.")] = False,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Make the store match `owm.lock`: fetch what is missing, at its commit, and mend what is damaged.

    What is here and right stays as it is; no other model is touched. Content that is not the locked one is refused with
    exit code 7, and nothing is changed for it. With all models here no network is needed. `--check` ends with exit code
    1 if something is missing.
    """
    from owm.cli.failures import ExitCode, exit_code, report
    from owm.cli.progress import progress
    from owm.errors import OwmError
    from owm.library import locking, open_store, syncing
    from owm.units import format_bytes

    out = Output(json, quiet, verbose)
    path = lock.expanduser()
    store, locked = open_store(), locking.read_lock(path)
    with progress(out) as sink:
        items = syncing.plan_sync(locked, store, path.parent, full=full, sink=sink)
    todo = [item for item in items if item.state in ("missing", "incomplete", "damaged")]
    rows = {item.locked.name: _row(item, item.state, item.problem) for item in items}
    if check or dry_run:
        _say(list(rows.values()), out)
        codes = [exit_code(item.problem) for item in items if item.problem is not None and (check or item not in todo)]
        if check and len(codes) < sum(item.state != "here" for item in items):
            codes.append(ExitCode.FAILURE)
        n_bytes = sum(item.bytes_to_fetch for item in todo)
        if todo and not check:
            out.note(f"would fetch {format_bytes(n_bytes)} for {len(todo)} of {len(items)} models")
        return max(codes, default=ExitCode.OK)
    code = ExitCode.OK
    if todo:
        n_bytes = sum(item.bytes_to_fetch for item in todo)
        out.note(f"{len(todo)} of {len(items)} models are missing or damaged: {format_bytes(n_bytes)} to fetch")
    for item in items:
        problem, state = item.problem if item not in todo else None, item.state
        if item in todo:
            try:
                state = _do(item, store, out, full=full)
            except OwmError as error:
                problem, state = error, "refused"
            except KeyboardInterrupt:
                out.note(_INTERRUPTED)
                raise
        if problem is not None:
            code = max(code, report(problem))
        rows[item.locked.name] = _row(item, state, problem)
    _say(list(rows.values()), out)
    if code == ExitCode.OK:
        out.note(f"the store is as {path} says")
    return code


def _do(item: "Item", store: "Store", out: Output, *, full: bool) -> Any:
    """Bring what is missing of a model; return the state that says so."""
    from owm.cli.fetching import say_pulling
    from owm.cli.progress import progress
    from owm.library import syncing

    if item.state == "missing":
        with progress(out) as sink:
            plan = syncing.plan_fetch(item, store, sink=sink)
        say_pulling(plan, out, store)
    with progress(out) as sink:
        if item.state == "missing":
            syncing.fetch(item, plan, store, sink=sink)
            return "fetched"
        if item.state == "damaged":
            out.note(f"mending {item.locked.name}: {item.problem}")
            syncing.mend(item, store, full=full, sink=sink)
            return "mended"
        syncing.complete(item, store, sink=sink)
        return "fetched"


def _row(item: "Item", state: str, problem: "OwmError | None") -> dict[str, Any]:
    locked = item.locked
    return {
        "name": locked.name,
        "state": state,
        "source": str(locked.ref),
        "quant": locked.quant,
        "commit": locked.commit,
        "size_bytes": locked.size_bytes,
        "bytes_to_fetch": item.bytes_to_fetch,
        "problem": str(problem) if problem is not None else None,
        "hint": problem.hint if problem is not None else None,
    }


def _say(rows: list[dict[str, Any]], out: Output) -> None:
    from owm.units import format_bytes

    if out.as_json:
        out.data(rows)
        return
    shown = [row | {"size": format_bytes(row["size_bytes"]), "commit": (row["commit"] or "")[:12]} for row in rows]
    columns = {"name": "NAME", "state": "STATE", "commit": "COMMIT", "size": "SIZE", "problem": "PROBLEM"}
    if any(row["source"] not in row["name"] for row in rows):  # a short name, by which anything could be meant
        columns = {"name": "NAME", "source": "SOURCE"} | columns
    if not any(row["problem"] for row in rows):
        del columns["problem"]
    out.table(shown, columns, right=("size",))
