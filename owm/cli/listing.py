"""`owm list`: what is stored, or with `--catalog` what has a short name."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from owm.store.local import Store
    from owm.store.model import StoredModel


def command(
    catalog: Annotated[bool, typer.Option("--catalog", help="List the short names instead.")] = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """List the stored models."""
    from owm.errors import OwmError
    from owm.library import open_store
    from owm.units import format_bytes, format_count

    out = Output(json, quiet, verbose)
    if catalog:
        _list_catalog(out)
        return
    store = open_store()
    problems: list[OwmError] = []
    stored = store.models(problems)
    records = [record(model, store, stored) for model in stored]
    for problem in problems:
        out.warn(str(problem))
    if json:
        out.data(records)
        return
    if not records:
        out.note(
            "nothing is stored yet; `owm run smollm2` fetches a small model, `owm list --catalog` shows short names"
        )
        return
    rows = [
        {
            "name": r["name"],
            "size": "gone" if r["is_gone"] else format_bytes(r["size_bytes"]),
            "parameters": format_count(r["n_params"]) if r["n_params"] else "",
            "kld": _kld(r["quality"]),
            "licence": r["licence"] or "not stated",
            "used": _ago(r["last_used"]),
        }
        for r in records
    ]
    headings = {
        "name": "NAME", "size": "SIZE", "parameters": "PARAMETERS", "kld": "KLD", "licence": "LICENCE", "used": "USED",
    }  # fmt: skip
    if not any(row["kld"] for row in rows):
        del headings["kld"]
    out.table(rows, headings, right=("size", "parameters", "kld"))


def record(model: "StoredModel", store: "Store", among: "Sequence[StoredModel] | None" = None) -> dict[str, Any]:
    """Return what `--json` says of a stored model; `among` are all of them if the caller has them already."""
    from owm.quality import certificate

    m = model.manifest
    quality = certificate.of_manifest(m.quality) if m else None
    return {
        "name": store.shown_name(model, among),
        "quant": model.label,
        "source": m.ref if m else None,
        "revision": m.revision if m else None,
        "commit": m.commit if m else None,
        "licence": m.licence if m else None,
        "architecture": m.facts.architecture if m else None,
        "n_params": m.facts.n_params if m else None,
        "n_ctx_train": m.facts.n_ctx_train if m else None,
        "size_bytes": None if model.is_gone and m is None else model.size_bytes,
        "path": str(model.path),
        "files": [
            {"path": str(path), "size_bytes": f.size_bytes, "sha256": f.sha256, "role": f.role}
            for path, f in zip(model.files, m.files if m else (), strict=False)
        ],
        "quality": quality.record() if quality else None,
        "is_gone": model.is_gone,
        "created_at": m.created_at if m else None,
        "last_used": model.last_used.isoformat(timespec="seconds") if model.last_used else None,
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
