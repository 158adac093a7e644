"""`owm convert`: a published checkpoint to a model file."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.cli import options as o
from owm.cli import weight_options as w
from owm.cli.output import Output
from owm.cli.writing import write_planned
from owm.errors import ModelNotFound, UsageError

if TYPE_CHECKING:
    from owm.pipeline.writer import Written
    from owm.store.checkpoint import CheckpointPlan
    from owm.store.local import Store


def command(
    source: w.CheckpointArg = None,
    output: w.OutputOpt = None,
    type_name: w.ConvertTypeOpt = "auto",
    split_max_size: w.SplitMaxSizeOpt = None,
    pre: w.PreOpt = None,
    lora: w.LoraOpt = None,
    base: w.BaseOpt = None,
    with_converter: w.WithConverterOpt = None,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Make a model file (GGUF) from a checkpoint: a folder, or a repo with safetensors.

    A repo's result goes to the store, where `owm run` finds it; a folder's to the current folder, or where `-o` says.
    llama.cpp checks the file, and reads a sample text as the checkpoint's own tokenizer does, before it gets its name.
    """
    out = Output(json, quiet, verbose)
    if base is not None and lora is None:
        raise UsageError("--base goes with --lora only")
    if lora is not None or with_converter is not None:
        _refuse_beside(
            "--lora" if lora is not None else "--with-converter",
            {
                "--split-max-size": split_max_size,
                "--pre": pre,
                "--with-converter": with_converter if lora is not None else None,
                "SOURCE, which `--base` names": source if lora is not None else None,
            },
        )
    if lora is not None:
        from owm.cli.adapters import convert_adapter

        return convert_adapter(lora.expanduser(), base, output, type_name, dry_run, out)
    if source is None:
        raise UsageError(
            "nothing to convert", hint="name a checkpoint's folder or `owner/repo`, or an adapter: `--lora`"
        )
    if with_converter is not None:
        from owm.cli.foreign import convert_foreign

        return convert_foreign(source, with_converter.expanduser(), output, type_name, dry_run, out)
    return _convert(source, output, type_name, _bytes(split_max_size), pre, dry_run, out)


def _refuse_beside(option: str, others: dict[str, Any]) -> None:
    for name, value in others.items():
        if value is not None:
            raise UsageError(f"{option} does not go with {name}")


def _convert(
    source: str,
    output: Path | None,
    type_name: str,
    split_max_bytes: int | None,
    pre: str | None,
    dry_run: bool,
    out: Output,
) -> None:
    from owm.convert.conversion import execute, plan_folder
    from owm.library import made, open_store, plan_conversion, recipes
    from owm.library.keeping import Origin
    from owm.library.parents import Parents
    from owm.native.guard import Child
    from owm.quantize.quantization import Layout

    options: dict[str, Any] = {"type_name": type_name, "pre": pre, "split_max_bytes": split_max_bytes}
    folder = Path(source).expanduser()
    store = open_store()
    if folder.is_dir():
        origin = Origin.of_path(folder)
        make_plan = partial(plan_folder, folder, **options)
        name, own_name = str(folder), folder.resolve().name or "model"
    else:
        plan = plan_checkpoint(source, store, out)
        if dry_run:
            return say_pull(plan, "convert them", out)
        if output is None:
            return _store(plan, store, options, out)
        from owm.cli.fetching import fetch_planned

        fetched = fetch_planned(plan, out, store)
        origin = Origin.of_checkpoint(plan, fetched)
        make_plan = partial(plan_conversion, plan, fetched, **options)
        name, own_name = plan.name, plan.offer.name.rpartition("/")[2]
    with nullcontext() if dry_run else Child() as child:
        planned = make_plan()
        write = partial(execute, planned, child=child)
        own_name = f"{own_name}-{planned.label}"
        parents = Parents(origin, planned.checkpoint.files, planned.checkpoint.folder)

        def note(written: "list[Written]") -> None:
            asked = recipes.Options(layout=Layout(split_max_bytes), pre=pre)
            how = recipes.of_conversion(planned, asked) | parents.record(store)
            made.note(origin, planned.label, written, how, store)

        write_planned(
            planned, write, output, out, name=name, own_name=own_name, dry_run=dry_run, parents=parents, note=note
        )
    return None


def _bytes(text: str | None) -> int | None:
    from owm.units import parse_bytes

    if text is None:
        return None
    try:
        n_bytes = parse_bytes(text)
    except ValueError as error:
        raise UsageError(f"--split-max-size is no size: {text}", hint="write it like `4GiB` or `500MB`") from error
    if n_bytes <= 0:
        raise UsageError(f"--split-max-size must be positive: {text}")
    return n_bytes


def plan_checkpoint(source: str, store: "Store", out: Output) -> "CheckpointPlan":
    """Find a checkpoint by its name on the Hub.

    Raises:
        UsageError, ModelNotFound: it is a path, and no folder's.
    """
    from owm.cli.progress import progress
    from owm.library import plan_pull
    from owm.store import refs
    from owm.store.checkpoint import CheckpointPlan

    ref = store.aliases.expand(refs.parse(source))
    if ref.kind == "path":
        if Path(ref.name).expanduser().exists():
            raise UsageError(f"{source} is no folder", hint="`owm convert` takes a checkpoint's folder or a Hub repo")
        raise ModelNotFound(f"no such folder: {source}", ref=source)
    with progress(out) as sink:
        plan = plan_pull(ref, wants_checkpoint=True, store=store, sink=sink)
    assert isinstance(plan, CheckpointPlan)
    return plan


def say_pull(plan: "CheckpointPlan", then: str, out: Output) -> None:
    """Say what would be fetched, and what would be done `then`."""
    from owm.cli.fetching import describe

    files = [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in plan.files]
    found = {"name": plan.name, "commit": plan.offer.commit, "licence": plan.licence, "size_bytes": plan.size_bytes}
    out.data(found | {"files": files}, lines=[f"would pull {describe(plan)}, and {then}"])


def _store(plan: "CheckpointPlan", store: "Store", options: dict[str, Any], out: Output) -> None:
    from owm.cli.fetching import convert_planned
    from owm.cli.listing import record

    stored = convert_planned(plan, out, store, **options)
    out.note(f"stored {store.shown_name(stored)}")
    out.data(record(stored, store), lines=[str(path) for path in stored.files])
