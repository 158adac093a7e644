"""`owm update`: what is stale, what has changed, and the new one in its place."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.errors import OwmError
    from owm.library.updating import Checked
    from owm.store.local import Store


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]…",
            help="Stored models, by their full names; the name of a repo means all of its quants.",
            show_default=False,
            autocompletion=o.complete_models,
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Update all stored models.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is stale and what has changed; without MODEL, of all.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove the old ones without asking.")] = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Bring stored models up to date with where they came from.

    The source is asked for what it has now; nothing is fetched whose content is the same. A new one is stored beside
    the old one, which is removed when you say so, or with `--yes`. A model that was asked for at a commit, or that was
    made here, stays as it is.
    """
    from owm.cli.failures import ExitCode, exit_code, report
    from owm.cli.progress import progress
    from owm.errors import OwmError, UsageError
    from owm.library import open_store, updating

    out = Output(json, quiet, verbose)
    if models and all_:
        raise UsageError("`--all` and names exclude each other", hint="leave one of them out")
    if not models and not all_ and not check:
        raise UsageError("no model is named", hint="`owm update --all`, or `owm update --check` to look first")
    store = open_store()
    with progress(out) as sink:
        found = updating.check(updating.chosen(models or (), store), store, sink=sink)
    problems: list[OwmError] = [each.problem for each in found if each.problem is not None]
    if check:
        _say(found, out)
        return exit_code(problems[0]) if problems else ExitCode.OK
    results = []
    for each in found:
        try:
            results.append(_update(each, store, out, yes=yes))
        except OwmError as problem:
            if len(found) == 1:
                raise
            report(problem)
            problems.append(problem)
            results.append(_record(each, problem=problem))
    if json:
        out.data(results)
    else:
        _say_rest(found, out, is_one=len(found) == 1)
    return exit_code(problems[0]) if problems else ExitCode.OK


def _update(each: "Checked", store: "Store", out: Output, *, yes: bool) -> dict[str, Any]:
    from owm.cli.fetching import pull_planned
    from owm.errors import UsageError
    from owm.library import updating
    from owm.units import format_bytes

    if each.problem is not None:
        out.warn(f"{each.name}: {each.problem}")
        return _record(each, problem=each.problem)
    if each.state == "old":
        is_removed = _is_to_go(each, yes) and _remove(each, store, out)
        if not is_removed:
            out.note(f"{each.name} is an old one; `owm update --yes` removes it")
        return _record(each, is_old_removed=is_removed)
    if each.plan is None:
        return _record(each)
    out.note(f"{each.name} is stale: {', '.join(map(str, each.changes))}")
    if updating.share_one_name(each) and not _is_to_go(each, yes):
        raise UsageError(
            f"{each.name} has one name for old and new, so the old one has to go",
            hint=f"`owm update --yes {each.name}` removes it when the new one is there",
        )
    new = pull_planned(each.plan, out, store)
    out.note(f"stored {store.shown_name(new)} ({format_bytes(new.size_bytes)})")
    is_removed = (yes or updating.share_one_name(each) or _is_to_go(each, yes)) and _remove(each, store, out)
    if not is_removed:
        out.note("the old one is kept; `owm update --yes` removes it")
    return _record(each, is_updated=True, is_old_removed=is_removed)


def _is_to_go(each: "Checked", yes: bool) -> bool:
    from owm.cli.output import confirm
    from owm.cli.terminal import is_terminal
    from owm.units import format_bytes

    if yes:
        return True
    if not is_terminal(sys.stdin):
        return False
    of = each.model.manifest
    shared = " from the Hugging Face cache, shared with other programs" if of and of.files[0].root == "hub" else ""
    when = f" of {of.created_at[:10]}" if of else ""
    return confirm(f"remove the old {each.name}{when} ({format_bytes(each.model.size_bytes)}){shared}?")


def _remove(each: "Checked", store: "Store", out: Output) -> bool:
    from owm.library import updating
    from owm.units import format_bytes

    freed = updating.remove_old(each.model, store)
    out.note(f"removed the old {each.name} ({format_bytes(freed)})")
    return True


def _record(
    each: "Checked",
    *,
    is_updated: bool = False,
    is_old_removed: bool = False,
    problem: "OwmError | None" = None,
) -> dict[str, Any]:
    from owm.library import updating

    of = each.model.manifest
    return {
        "name": each.name,
        "state": each.state,
        "reason": each.reason,
        "changes": [{"what": one.what, "before": one.before, "after": one.after} for one in each.changes],
        "commit": of.commit if of else None,
        "new_commit": each.plan.offer.commit if each.plan else None,
        "bytes_to_fetch": None if is_updated else updating.to_fetch(each),
        "is_updated": is_updated,
        "is_old_removed": is_old_removed,
        "error": str(problem) if problem else None,
    }


def _say(found: "list[Checked]", out: Output) -> None:
    from owm.library import updating
    from owm.units import format_bytes

    if out.as_json:
        out.data([_record(each, problem=each.problem) for each in found])
        return
    if not found:
        out.note("nothing is stored")
        return
    rows = []
    for each in found:
        n_bytes = updating.to_fetch(each)
        rows.append(
            {
                "name": each.name,
                "state": each.state,
                "fetch": "" if n_bytes is None else format_bytes(n_bytes),
                "what": ", ".join(map(str, each.changes)) or each.reason or "",
            }
        )
    columns = {"name": "NAME", "state": "STATE", "fetch": "TO FETCH", "what": "WHAT"}
    out.table(rows, columns, right=("fetch",))


def _say_rest(found: "list[Checked]", out: Output, *, is_one: bool) -> None:
    """Say what there was nothing to do for: of one model why, of many how many."""
    rest = [each for each in found if each.plan is None and each.problem is None and each.state != "old"]
    if is_one:
        for each in rest:
            out.note(f"{each.name} is {'up to date' if each.state == 'current' else each.state}"
                     + (f": {each.reason}" if each.reason else ""))  # fmt: skip
        return
    current = sum(each.state == "current" for each in rest)
    if rest:
        others = len(rest) - current
        out.note(
            f"{current} up to date" + (f", {others} left as they are; `owm update --check` says why" * bool(others))
        )
