"""`owm quantize`: a model in smaller types, straight from its published weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from owm.cli import options as o
from owm.cli.output import Output
from owm.errors import UsageError

if TYPE_CHECKING:
    from owm.formats.imatrix import Imatrix
    from owm.library.quantizing import Source
    from owm.native.guard import Child
    from owm.quantize.quantization import Quantization
    from owm.quantize.recipe import Overrides
    from owm.store.local import Store


def command(
    source: o.QuantizeSourceArg,
    types: o.QuantTypesArg = None,
    output: o.OutputOpt = None,
    imatrix: o.ImatrixOpt = None,
    tensor_type: o.TensorTypeOpt = None,
    tensor_type_file: o.TensorTypeFileOpt = None,
    output_type: o.OutputTypeOpt = None,
    embedding_type: o.EmbeddingTypeOpt = None,
    pure: o.PureOpt = False,
    prune_layers: o.PruneLayersOpt = None,
    allow_requantize: o.AllowRequantizeOpt = False,
    keep_split: o.KeepSplitOpt = False,
    split_max_size: o.SplitMaxSizeOpt = None,
    pre: o.PreOpt = None,
    threads: o.ThreadsOpt = None,
    max_memory: o.MaxMemoryOpt = None,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Make a model smaller: a repo's or folder's safetensors, or a model file, in any type.

    Weights are read once and written once, whatever the number of types. The result goes to the store, where `owm run`
    finds it as `NAME:TYPE`, or where `-o` says. Recipes are those of the installed llama.cpp.
    """
    from owm.cli.sources import find_source
    from owm.library import open_store, quantizing
    from owm.native.guard import Child
    from owm.quantize import types as quant_types
    from owm.quantize.quantization import Layout, default_type

    out = Output(json, quiet, verbose)
    wanted = list(dict.fromkeys(quant_types.file_type(text) for text in types or ()))
    overrides = _overrides(tensor_type, tensor_type_file, output_type, embedding_type, prune_layers, is_pure=pure)
    if keep_split and split_max_size is not None:
        raise UsageError("--keep-split does not go with --split-max-size")
    layout = Layout(n_bytes("--split-max-size", split_max_size), keep_split)
    memory_bytes = n_bytes("--max-memory", max_memory)
    store = open_store()
    with Child() as child:
        found = find_source(source, store, out, pre=pre)
        wanted = wanted or [default_type(found.plan)]
        planned = quantizing.plan(
            found,
            wanted,
            child,
            overrides=overrides,
            imatrix=_read_imatrix(imatrix),
            allow_requantize=allow_requantize,
            layout=layout,
        )
        paths = None if output is None else paths_for(found, planned, output)
        if dry_run:
            from owm.cli.recipe_table import say_plan

            return say_plan(found, planned, paths, store, out, n_threads=threads)
        _warn_of_requantizing(found, planned, out)
        write(found, planned, paths, child, store, out, memory_bytes=memory_bytes, n_threads=threads)
    return None


def n_bytes(option: str, text: str | None) -> int | None:
    """Read a size.

    Raises:
        UsageError: it is none, or not positive.
    """
    from owm.units import parse_bytes

    if text is None:
        return None
    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise UsageError(f"{option} is no size: {text}", hint="write it like `4GiB` or `500MB`") from error
    if size <= 0:
        raise UsageError(f"{option} must be positive: {text}")
    return size


def paths_for(source: "Source", planned: Sequence["Quantization"], output: Path) -> list[list[Path]]:
    """Return where the files of each type go.

    Raises:
        UsageError: the place is none for so many.
    """
    from owm.cli.writing import path_for
    from owm.pipeline.parts import file_names

    if len(planned) > 1 and not output.expanduser().is_dir():
        raise UsageError(f"several types need a folder that exists: {output}", hint="`-o FOLDER`")
    made = []
    for each in planned:
        path = path_for(output, f"{source.stem}-{each.label}")
        made.append([path.with_name(name) for name in file_names(path.name, len(each.plan.files))])
        inputs = {file.resolve() for file in source.files}
        if any(path.resolve() in inputs for path in made[-1]):
            raise UsageError(f"{path} is the source itself", hint="write to another file")
    return made


def write(
    source: "Source",
    planned: Sequence["Quantization"],
    paths: "list[list[Path]] | None",
    child: "Child",
    store: "Store",
    out: Output,
    *,
    memory_bytes: int | None,
    n_threads: int | None,
) -> None:
    """Say what will be written, write it into the store or to `paths`, and say what came of it."""
    from time import perf_counter

    from owm.cli import report
    from owm.cli.listing import record
    from owm.cli.progress import progress
    from owm.library import quantizing
    from owm.units import format_bytes

    types = ", ".join(f"{each.label} ({format_bytes(each.plan.n_bytes)})" for each in planned)
    out.note(f"quantizing {source.name} to {types}")
    began = perf_counter()
    try:
        with progress(out) as sink:
            if paths is None:
                stored = quantizing.store(
                    source, planned, child, store, memory_bytes=memory_bytes, n_threads=n_threads, sink=sink
                )
            else:
                written = quantizing.write(
                    source,
                    planned,
                    paths,
                    child,
                    memory_bytes=memory_bytes,
                    n_threads=n_threads,
                    digest=out.as_json,
                    sink=sink,
                )
    except KeyboardInterrupt:
        out.note("interrupted; the same command goes on from the last finished tensor")
        raise
    seconds = perf_counter() - began
    rows = [
        report.Measured(each.label, each.plan.n_bytes, 8 * each.plan.n_bytes / each.plan.n_params, seconds)
        for each in planned
    ]
    measured = report.records(rows)
    if paths is None:
        shown = [store.shown_name(model) for model in stored]
        out.note(f"stored {', '.join(shown)}")
        found = [record(model, store) for model in stored]
        lines = [str(path) for model in stored for path in model.files]
    else:
        found = [
            {"files": [{"path": str(f.path), "size_bytes": f.size_bytes, "sha256": f.sha256} for f in files]}
            for files in written
        ]
        lines = [str(file.path) for files in written for file in files]
    out.data([each | row for each, row in zip(found, measured, strict=True)], lines=lines)
    if not out.quiet and not out.as_json:
        report.say(rows, out)


def _warn_of_requantizing(source: "Source", planned: Sequence["Quantization"], out: Output) -> None:
    again = {
        tensor.name: tensor.rows.dtype for each in planned for tensor in each.plan.tensors if "again" in tensor.reason
    }
    if again:
        kinds = ", ".join(sorted(set(again.values())))
        out.warn(f"{len(again)} tensors of {source.name} are quantized already ({kinds}): what that lost stays lost")


def _overrides(
    tensor_types: list[str] | None,
    file: Path | None,
    output_type: str | None,
    embedding_type: str | None,
    pruned: str | None,
    *,
    is_pure: bool,
) -> "Overrides":
    from owm.quantize.recipe import Overrides, parse_tensor_type
    from owm.quantize.types import tensor_type

    lines = list(tensor_types or ())
    if file is not None:
        try:
            text = file.expanduser().read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--tensor-type-file cannot be read: {file}: {getattr(error, 'strerror', error)}"
            ) from error
        lines += [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return Overrides(
        tuple(parse_tensor_type(line) for line in lines),
        None if output_type is None else tensor_type(output_type),
        None if embedding_type is None else tensor_type(embedding_type),
        is_pure=is_pure,
        pruned=_layers(pruned),
    )


def _layers(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise UsageError(f"--prune-layers is no list of layers: {text}", hint="write it like `3,17`")
    return tuple(sorted({int(word) for word in words}))


def _read_imatrix(text: str | None) -> "Imatrix | None":
    from owm.formats.imatrix import read_imatrix

    return None if text is None else read_imatrix(Path(text).expanduser())
