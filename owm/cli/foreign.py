"""`owm convert --with-converter`: a checkpoint by the converter of a llama.cpp checkout."""

from pathlib import Path
from typing import TYPE_CHECKING

from owm.cli.output import Output
from owm.cli.progress import progress

if TYPE_CHECKING:
    from owm.convert.foreign import Converter


def convert_foreign(
    source: str, checkout: Path, output: Path | None, type_name: str, dry_run: bool, out: Output
) -> None:
    """Convert a folder or a repo; what runs is said first."""
    from owm.cli.convert import plan_checkpoint, say_pull
    from owm.cli.fetching import fetch_planned
    from owm.cli.listing import record
    from owm.convert.foreign import find_converter
    from owm.library import open_store, store_foreign

    converter = find_converter(checkout)
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _write(converter, folder, output, type_name, dry_run, out, name=folder.resolve().name or "model")
    store = open_store()
    plan = plan_checkpoint(source, store, out)
    if dry_run:
        return say_pull(plan, f"run {converter.script} with {converter.python}", out)
    fetched = fetch_planned(plan, out, store, is_known=False)
    if output is not None:
        name = plan.offer.name.rpartition("/")[2]
        return _write(converter, fetched.folder, output, type_name, dry_run, out, name=name)
    _announce(converter, out)
    with progress(out) as sink:
        stored = store_foreign(plan, fetched, converter, type_name, store=store, log=out.detail, sink=sink)
    out.note(f"stored {store.shown_name(stored)}")
    out.data(record(stored, store), lines=[str(path) for path in stored.files])
    return None


def _announce(converter: "Converter", out: Output) -> None:
    out.note(f"running {converter.script} with {converter.python}: code that is not owm's, and not checked by it")


def _write(
    converter: "Converter",
    folder: Path,
    output: Path | None,
    type_name: str,
    dry_run: bool,
    out: Output,
    *,
    name: str,
) -> None:
    from owm.cli.writing import path_for
    from owm.convert.checkpoint import open_checkpoint
    from owm.convert.foreign import choose_type, estimate_bytes, run_converter
    from owm.units import format_bytes

    checkpoint = open_checkpoint(folder)
    label = choose_type(checkpoint, type_name)
    path = path_for(output, f"{name}-{label}")
    made = {"type": label, "by": str(converter.script), "python": converter.python}
    if dry_run:
        size = estimate_bytes(checkpoint, label)
        line = f"would run {converter.script} with {converter.python} to write {path}, about {format_bytes(size)}"
        return out.data(made | {"files": [{"path": str(path)}]}, lines=[line])
    _announce(converter, out)
    with progress(out) as sink:
        file = run_converter(converter, checkpoint, path, label, log=out.detail, sink=sink)
    files = [{"path": str(file.path), "size_bytes": file.size_bytes, "sha256": file.sha256}]
    out.data(made | {"files": files}, lines=[str(file.path)])
    return None
