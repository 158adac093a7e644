"""`owm du`: what takes how much of the disk."""

from owm.cli import options as o
from owm.cli.output import Output


def command(json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False) -> None:
    """Show what models, caches and begun downloads take of the disk.

    Bytes that several models share, or that have several names, are counted once. Models of other tools are counted for
    those tools.
    """
    import shutil

    from owm.errors import OwmError
    from owm.library import open_store
    from owm.store.selecting import OWN
    from owm.store.shelf import Shelf
    from owm.store.usage import measure
    from owm.units import format_bytes

    out = Output(json, quiet, verbose)
    store = open_store()
    problems: list[OwmError] = []
    models = store.models(problems)
    for problem in problems:
        out.warn(str(problem))
    usage = measure(store, models)
    shelf = Shelf(models)
    at = store.home
    while not at.exists():
        at = at.parent
    disk = shutil.disk_usage(at)
    named = [(store.shown_name(use.model, shelf), use) for use in usage.models]
    if json:
        out.data(
            {
                "models": [
                    {
                        "name": name,
                        "owner": use.owner,
                        "size_bytes": use.size_bytes,
                        "shared_bytes": use.shared_bytes,
                    }
                    for name, use in named
                ],
                "owners": [{"owner": owner, "size_bytes": size} for owner, size in usage.owners.items()],
                "other": [
                    {"what": p.what, "size_bytes": p.size_bytes, "n_files": p.n_files, "is_own": p.is_own}
                    for p in usage.parts
                ],
                "total_bytes": usage.total_bytes,
                "disk": {"path": str(at), "free_bytes": disk.free, "total_bytes": disk.total},
            }
        )
        return
    rows = [
        {
            "what": name,
            "size": format_bytes(use.size_bytes),
            "shared": format_bytes(use.shared_bytes) if use.shared_bytes else "",
            "owner": use.owner,
        }
        for name, use in sorted(named, key=lambda pair: -pair[1].size_bytes)
    ]
    rows += [
        {
            "what": f"({part.what})",
            "size": format_bytes(part.size_bytes),
            "shared": "",
            "owner": OWN if part.is_own else "other programs",
        }
        for part in usage.parts
        if part.size_bytes
    ]
    headings = {"what": "WHAT", "size": "SIZE", "shared": "SHARED", "owner": "OWNER"}
    if not any(row["shared"] for row in rows):
        del headings["shared"]
    if rows:
        out.table(rows, headings, right=("size", "shared"))
    others = {owner: size for owner, size in usage.owners.items() if owner != OWN}
    theirs = "".join(f", {format_bytes(size)} of {owner}'s" for owner, size in others.items())
    out.note(
        f"{format_bytes(usage.total_bytes)} in all{theirs}; {format_bytes(disk.free)} are free on the disk of {at}"
    )
