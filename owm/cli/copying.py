"""Copying a model file from parts or into parts, for a command: where to, what is said before, what comes out."""

from pathlib import Path
from typing import TYPE_CHECKING

from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.pipeline.plan import Plan
    from owm.store.local import Store
    from owm.store.model import StoredModel


def find_files(text: str) -> "tuple[Store, StoredModel]":
    """Return the stored model, or that at a path, that `text` names.

    Raises:
        ModelNotFound: there is none, or its files are gone.
    """
    from owm.library import open_store
    from owm.store import absent

    store = open_store()
    stored = store.find_stored(text)
    if stored.is_gone:
        raise absent.gone(stored, store)
    return store, stored


def copy_planned(
    plan: "Plan",
    path: Path,
    out: Output,
    *,
    source: "StoredModel",
    store: "Store",
    stage: str,
    said: str,
    dry_run: bool,
) -> None:
    """Say what will be written and write it, or only say it.

    Args:
        path: the file, or what its parts are named after.
        source: what is copied; the store notes that it was.
        said: of what, in a sentence that ends with where it goes.
    """
    from owm.cli.progress import progress
    from owm.library import made, recipes
    from owm.library.keeping import Origin
    from owm.library.parents import Parents
    from owm.pipeline.parts import copy, file_names
    from owm.units import format_bytes

    paths = [path.with_name(name) for name in file_names(path.name, len(plan.files))]
    record = {"n_tensors": len(plan.tensors), "size_bytes": plan.n_bytes}
    rows = [
        {"path": str(path), "size_bytes": planned.n_bytes, "n_tensors": len(planned.tensors)}
        for path, planned in zip(paths, plan.files, strict=True)
    ]
    if dry_run:
        if out.as_json:
            out.data(record | {"files": rows})
            return
        shown = [row | {"size": format_bytes(planned.n_bytes)} for row, planned in zip(rows, plan.files, strict=True)]
        columns = {"path": "FILE", "n_tensors": "TENSORS", "size": "SIZE"}
        out.table(shown, columns, right=("n_tensors", "size"))
        out.note(f"would write {said}: {format_bytes(plan.n_bytes)}")
        return
    out.note(f"writing {said}: {format_bytes(plan.n_bytes)}")
    origin = Origin.of_path(source.path) if source.manifest is None else Origin.of_stored(source)
    label = source.label or "model"
    try:
        with progress(out) as sink, Parents(origin, source.files) as parents:
            parents.begin()
            written = copy(plan, paths, stage=stage, sink=sink)
            how = recipes.about(stage) | {"type": label} | parents.record(store)
            made.note(origin, label, written, how, store)
    except KeyboardInterrupt:
        out.note("interrupted; the same command goes on from the last finished tensor")
        raise
    files = [row | {"sha256": file.sha256} for row, file in zip(rows, written, strict=True)]
    out.data(record | {"files": files}, lines=[str(file.path) for file in written])
