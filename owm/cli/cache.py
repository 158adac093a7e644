"""`owm cache`: the snapshots of conversations, which save reading them again."""

import typer

from owm.cli import options as o
from owm.cli.output import Output
from owm.cli.subcommands import output, with_subcommands


def command(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """Show or remove what is kept to go on with conversations at once.

    A snapshot holds what a model has read of a conversation. Without it, the conversation is read again when it goes
    on: nothing else is lost. Snapshots take 4 GiB at most, and 5 % of the free space; the one that was used least
    lately gives way. Only you may read them.
    """
    out = output(context, json, quiet, verbose)
    if context.invoked_subcommand is None:
        _list(out)


subcommands = with_subcommands(command)


@subcommands.command("list")
def list_snapshots(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """List the snapshots, the one used last first."""
    _list(output(context, json, quiet, verbose))


@subcommands.command("clear")
def clear_cache(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """Remove all snapshots; conversations stay."""
    from owm.engine.snapshots import open_snapshots
    from owm.units import format_bytes

    out = output(context, json, quiet, verbose)
    n_removed, n_bytes = open_snapshots().clear()
    out.note(f"removed {n_removed} snapshot{'' if n_removed == 1 else 's'}, {format_bytes(n_bytes)}")
    if out.as_json:
        out.data({"n_removed": n_removed, "bytes_freed": n_bytes})


def _list(out: Output) -> None:
    from datetime import UTC, datetime

    from owm.engine.snapshots import open_snapshots
    from owm.units import format_bytes

    snapshots = open_snapshots()
    found = snapshots.all()
    if out.as_json:
        rows = [
            {
                "path": str(one.path),
                "model": one.label,
                "n_tokens": len(one.tokens),
                "size_bytes": one.size_bytes,
                "used_at": datetime.fromtimestamp(one.used_at, UTC).isoformat(timespec="seconds"),
            }
            for one in found
        ]
        out.data(rows)
        return
    if not found:
        out.note("no snapshots are kept")
        return
    lines = [
        {
            "model": one.label or "?",
            "tokens": f"{len(one.tokens):,}",
            "size": format_bytes(one.size_bytes),
            "used": datetime.fromtimestamp(one.used_at).astimezone().strftime("%Y-%m-%d %H:%M"),
        }
        for one in found
    ]
    columns = {"model": "MODEL", "tokens": "TOKENS", "size": "SIZE", "used": "USED"}
    out.table(lines, columns, right=("tokens", "size"))
    n_bytes = sum(one.size_bytes for one in found)
    out.note(f"{format_bytes(n_bytes)} of {format_bytes(snapshots.room_bytes())} in {snapshots.folder}")
