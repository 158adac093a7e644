"""`owm lock`: pinning a project's models in its lock file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.errors import OwmError
    from owm.library.locking import Lock, LockedModel
    from owm.store.local import Store

LockOpt = Annotated[
    Path,
    typer.Option(
        "--lock", metavar="FILE", help="The lock file (default: `owm.lock` in this folder).", show_default=False
    ),
]
DEFAULT = Path("owm.lock")


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]…",
            help="Stored models, or model files in this folder (default: those that are locked, as they are now).",
            show_default=False,
            autocompletion=o.complete_models,
        ),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="MODEL", help="Take a model out; may be repeated.", show_default=False),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is not as it is locked any more.")] = False,
    lock: LockOpt = DEFAULT,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Pin a project's models in `owm.lock`: commit, size and sha256 of every file, as they are stored now.

    `owm sync` makes another store match it. Without MODEL, all that is locked is pinned anew, after `owm update` for
    one. `--check` changes nothing, and ends with exit code 1 if anything is stale.
    """
    from owm.cli.failures import ExitCode
    from owm.errors import UsageError
    from owm.library import locking, open_store

    out = Output(json, quiet, verbose)
    if check and (models or remove):
        raise UsageError("--check looks at all that is locked", hint="leave out the models")
    store, path = open_store(), lock.expanduser()
    is_new = not path.exists() and bool(models) and not remove
    known = locking.Lock() if is_new else locking.read_lock(path)
    for name in remove or ():
        if known.find(name) is None:
            raise UsageError(f"{path} has no {name}", hint=f"it has: {', '.join(one.name for one in known.models[:8])}")
    if check:
        rows = [_check(one, store, path.parent) for one in known.models]
        _say(rows, out)
        return ExitCode.OK if all(row["state"] == "current" for row in rows) else ExitCode.FAILURE
    names = models or ([] if remove else [one.name for one in known.models])
    found = [locking.lock_model(name, store, path.parent) for name in dict.fromkeys(names)]
    made = known.put(found, remove or ())
    _say(_changes(known, made), out)
    if made == known and path.exists():
        out.note(f"{path} is up to date")
    elif dry_run:
        out.note(f"would write {path}")
    else:
        locking.write_lock(made, path)
        out.note(f"wrote {path}")
    return ExitCode.OK


def _check(locked: "LockedModel", store: "Store", folder: Path) -> dict[str, Any]:
    from owm.errors import OwmError
    from owm.library import locking

    problem: OwmError | None = None
    now: LockedModel | None = None
    try:
        now = locking.lock_model(locked.name, store, folder)
    except OwmError as error:
        problem = error
    state = "not stored" if now is None else "current" if locking.is_same(locked, now) else "stale"
    return _row(locked, state, now, problem)


def _changes(before: "Lock", after: "Lock") -> list[dict[str, Any]]:
    from owm.library import locking

    rows = []
    for now in after.models:
        known = before.find(now.name)
        state = "added" if known is None else "current" if locking.is_same(known, now) else "changed"
        rows.append(_row(known or now, state, now, None))
    rows += [_row(known, "removed", None, None) for known in before.models if after.find(known.name) is None]
    return rows


def _row(locked: "LockedModel", state: str, now: "LockedModel | None", problem: "OwmError | None") -> dict[str, Any]:
    return {
        "name": locked.name,
        "state": state,
        "source": str(locked.ref),
        "quant": locked.quant,
        "locked_commit": None if state == "added" else locked.commit,
        "commit": now.commit if now is not None else None,
        "size_bytes": (now or locked).size_bytes,
        "files": [
            {"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256, "role": file.role}
            for file in (now or locked).files
        ],
        "problem": str(problem) if problem else None,
    }


def _say(rows: list[dict[str, Any]], out: Output) -> None:
    from owm.units import format_bytes

    if out.as_json:
        out.data(rows)
        return
    if rows:
        shown = [
            row
            | {"size": format_bytes(row["size_bytes"]), "commit": (row["commit"] or row["locked_commit"] or "")[:12]}
            for row in rows
        ]
        columns = {"name": "NAME", "state": "STATE", "commit": "COMMIT", "size": "SIZE"}
        out.table(shown, columns, right=("size",))
