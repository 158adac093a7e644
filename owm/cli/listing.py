"""`owm list`: what is stored, or with `--catalog` what has a short name."""

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output
from owm.store.selecting import OWN, SORTS

if TYPE_CHECKING:
    from owm.store.local import Store
    from owm.store.model import StoredModel
    from owm.store.selecting import Condition


def command(
    sort: Annotated[
        str, typer.Option("--sort", metavar="|".join(SORTS), help="The largest, last used or newest first.")
    ] = "name",
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="CONDITION",
            help="Only those that fulfil it, as `size>1GB`, `quant=Q4_K_M`, `name~qwen`, `used>30d`; may be repeated.",
            show_default=False,
        ),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", "-a", help="Also models of other tools, and who owns the bytes.")
    ] = False,
    catalog: Annotated[bool, typer.Option("--catalog", help="List the short names instead.")] = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """List the stored models.

    A condition is a field (`size`, `params`, `used`, `created`, `name`, `quant`, `arch`, `source`, `owner`,
    `licence`), one of `>` `<` `>=` `<=` `=` `!=` `~` (contains), and a value. Times are ages: `used>30d` are models
    that have not been used for 30 days.
    """
    from owm.errors import OwmError, UsageError
    from owm.library import open_store
    from owm.store.selecting import Condition, Listed, select
    from owm.store.shelf import Shelf

    out = Output(json, quiet, verbose)
    if catalog:
        if all_ or conditions or sort != "name":
            raise UsageError("`--catalog` lists all short names", hint="leave out the other options, or `--catalog`")
        _list_catalog(out)
        return
    wanted = [Condition.parse(text) for text in conditions or ()]
    store = open_store()
    problems: list[OwmError] = []
    stored = store.models(problems)
    shelf = Shelf(stored)
    listed = select([Listed(model, store.shown_name(model, shelf)) for model in stored], wanted, sort=sort)
    records = [record(one.model, store, one.name) for one in listed]
    if all_:
        records = [{**each, "is_imported": True} for each in records]
    for problem in problems:
        out.warn(str(problem))
    elsewhere = _elsewhere(out, store, wanted) if all_ else []
    if json:
        out.data([*records, *elsewhere])
        return
    rows = [_row(each, is_elsewhere=False) for each in records] + [_row(each, is_elsewhere=True) for each in elsewhere]
    if not rows:
        out.note(
            "no stored model is like that"
            if stored and wanted
            else "nothing is stored yet; `owm run smollm2` fetches a small model, "
            "`owm list --catalog` shows short names"
        )
        return
    headings = {
        "name": "NAME", "size": "SIZE", "parameters": "PARAMETERS", "kld": "KLD", "licence": "LICENCE", "used": "USED",
        "owner": "OWNER",
    }  # fmt: skip
    if not any(row["kld"] for row in rows):
        del headings["kld"]
    if not all_ and all(row["owner"] == OWN for row in rows):
        del headings["owner"]
    out.table(rows, headings, right=("size", "parameters", "kld"))


def _elsewhere(out: Output, store: "Store", conditions: "list[Condition]") -> list[dict[str, Any]]:
    """Return what other tools have on this machine that is not among owm's models, in the form of `record`."""
    from owm.errors import ModelNotFound, OwmError
    from owm.store.adopting import tools
    from owm.store.adopting.found import Found
    from owm.store.manifest import FileRecord, Manifest, ModelFacts
    from owm.store.model import StoredModel
    from owm.store.selecting import Listed

    known = {os.path.realpath(path) for model in store.models() for path in model.files}
    found = []
    for tool in tools.TOOLS:
        try:
            findings = tools.search(tool.names[0])
        except ModelNotFound:
            continue
        except OwmError as problem:
            out.warn(str(problem))
            continue
        for one in findings:
            if not isinstance(one, Found) or os.path.realpath(one.path) in known:
                continue
            known.add(os.path.realpath(one.path))
            name = str(one.ref) if one.ref else one.path.name
            files = tuple(FileRecord(str(f.path), "outside", f.size_bytes, f.sha256 or "") for f in one.files)
            ref, source = (str(one.ref), one.ref.kind) if one.ref else (str(one.path), "path")
            made = Manifest(
                ref, source, name, one.label or "", one.revision, one.commit, files, None, ModelFacts(""), "",
                owner=one.owner or tool.title,
            )  # fmt: skip
            model = StoredModel(name, one.label, tuple(f.path for f in one.files), made)
            listed = Listed(model, f"{name}:{one.label}" if one.ref and one.label else name)
            if all(each.holds(listed) for each in conditions):
                blank: dict[str, Any] = {"architecture": None, "created_at": None, "files": [], "is_imported": False}
                found.append({**record(model, store, listed.name), **blank})
    return found


def _row(r: dict[str, Any], *, is_elsewhere: bool) -> dict[str, str]:
    from owm.units import format_bytes, format_count

    return {
        "name": r["name"],
        "size": "gone" if r["is_gone"] else format_bytes(r["size_bytes"]),
        "parameters": format_count(r["n_params"]) if r["n_params"] else "",
        "kld": _kld(r["quality"]),
        "licence": r["licence"] or ("" if is_elsewhere else "not stated"),
        "used": "not imported" if is_elsewhere else _ago(r["last_used"]),
        "owner": r["owner"],
    }


def record(model: "StoredModel", store: "Store", name: str | None = None) -> dict[str, Any]:
    """Return what `--json` says of a stored model; `name` is what it is shown as if the caller knows."""
    m, is_gone, last_used = model.manifest, model.is_gone, model.last_used
    quality = None
    if m and m.quality:
        from owm.quality import certificate

        quality = certificate.of_manifest(m.quality)
    return {
        "name": name or store.shown_name(model),
        "quant": model.label,
        "source": m.ref if m else None,
        "revision": m.revision if m else None,
        "commit": m.commit if m else None,
        "licence": m.licence if m else None,
        "architecture": m.facts.architecture if m else None,
        "n_params": m.facts.n_params if m else None,
        "n_ctx_train": m.facts.n_ctx_train if m else None,
        "size_bytes": None if is_gone and m is None else model.size_bytes,
        "path": str(model.path),
        "files": [
            {"path": str(path), "size_bytes": f.size_bytes, "sha256": f.sha256, "role": f.role}
            for path, f in zip(model.files, m.files if m else (), strict=False)
        ],
        "quality": quality.record() if quality else None,
        "is_gone": is_gone,
        "owner": (m.owner or OWN) if m else None,
        "created_at": m.created_at if m else None,
        "last_used": last_used.isoformat(timespec="seconds") if last_used else None,
    }


def _kld(quality: dict[str, Any] | None) -> str:
    from owm.cli.figures import three_digits

    return three_digits(quality["kld_mean"]["value"]) if quality else ""


def _list_catalog(out: Output) -> None:
    from owm.store import catalog

    entries = catalog.load().entries.values()
    if out.as_json:
        out.data(
            [
                {
                    "name": entry.name,
                    "about": entry.about,
                    "licence": entry.licence,
                    "default_size": entry.default_size,
                    "sizes": {
                        size: {"origin": choice.origin, "sources": [str(source) for source in choice.sources]}
                        for size, choice in entry.sizes.items()
                    },
                }
                for entry in entries
            ]
        )
        return
    rows = [
        {
            "name": entry.name,
            "sizes": " ".join(f"{size}*" if size == entry.default_size else size for size in entry.sizes),
            "licence": entry.licence,
            "about": entry.about,
        }
        for entry in entries
    ]
    out.table(rows, {"name": "NAME", "sizes": "SIZES (* if none is named)", "licence": "LICENCE", "about": "ABOUT"})


def _ago(moment: str | None) -> str:
    if moment is None:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            n = int(seconds // size)
            return f"{n} {word}{'s' if n > 1 else ''} ago"
    return "just now"
