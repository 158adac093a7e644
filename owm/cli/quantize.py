"""`owm quantize`: a model in smaller types, straight from its published weights."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from owm.cli import options as o
from owm.cli import weight_options as w
from owm.cli.output import Output
from owm.errors import UsageError

if TYPE_CHECKING:
    from owm.cli.quantize_job import Wanted
    from owm.formats.imatrix import Imatrix
    from owm.library.quantizing import Source
    from owm.quality.calibration import Calibration
    from owm.quality.texts import Text
    from owm.quantize.quantization import Quantization
    from owm.quantize.recipe import Overrides


def command(
    source: w.QuantizeSourceArg,
    types: w.QuantTypesArg = None,
    output: w.OutputOpt = None,
    imatrix: w.ImatrixOpt = None,
    calibration: w.CalibrationOpt = None,
    tensor_type: w.TensorTypeOpt = None,
    tensor_type_file: w.TensorTypeFileOpt = None,
    output_type: w.OutputTypeOpt = None,
    embedding_type: w.EmbeddingTypeOpt = None,
    pure: w.PureOpt = False,
    prune_layers: w.PruneLayersOpt = None,
    allow_requantize: w.AllowRequantizeOpt = False,
    target_size: w.TargetSizeOpt = None,
    bpw: w.BpwOpt = None,
    fit: w.FitOpt = False,
    ctx_size: w.FitCtxSizeOpt = None,
    recipe: w.RecipeOpt = None,
    quality: w.MeasureQualityOpt = False,
    text: w.QualityTextOpt = None,
    plot: w.PlotOpt = None,
    keep_split: w.KeepSplitOpt = False,
    split_max_size: w.SplitMaxSizeOpt = None,
    pre: w.PreOpt = None,
    threads: o.ThreadsOpt = None,
    max_memory: w.MaxMemoryOpt = None,
    reproduce: w.ReproduceOpt = False,
    trust: o.TrustOpt = False,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int | None:
    """Make a model smaller: a repo's or folder's safetensors, or a model file, in any type.

    Weights are read once and written once, whatever the number of types. The result goes to the store, where `owm run`
    finds it as `NAME:TYPE`, or where `-o` says. Recipes are those of the installed llama.cpp, or, for a target size,
    chosen by what the model really loses.
    """
    from owm.native.guard import Child

    with ExitStack() as stack:
        child = stack.enter_context(Child())  # gets ready while the rest is imported
        from owm.cli.quantize_job import Job, Resources, Wanted
        from owm.cli.report import check_plot
        from owm.cli.sources import find_source
        from owm.library import open_store
        from owm.quantize import types as quant_types
        from owm.quantize.quantization import Layout

        out = Output(json, quiet, verbose)
        if plot is not None:
            check_plot(plot)
        _check_threads(threads)
        if keep_split and split_max_size is not None:
            raise UsageError("--keep-split does not go with --split-max-size")
        overrides = _overrides(tensor_type, tensor_type_file, output_type, embedding_type, prune_layers, is_pure=pure)
        wanted = Wanted(
            tuple(dict.fromkeys(quant_types.file_type(name) for name in types or ())),
            tuple(n_bytes("--target-size", size) or 0 for size in target_size or ()),
            tuple(bpw or ()),
            _fit_context(fit, ctx_size),
            recipe,
            overrides,
            allow_requantize,
            Layout(n_bytes("--split-max-size", split_max_size), keep_split),
            _read_imatrix(imatrix, calibration),
            quality or plot is not None or text is not None,
            _read_text(text),
        )
        wanted.check()
        resources = Resources(threads, n_bytes("--max-memory", max_memory))
        store = open_store()
        if reproduce:
            from owm.cli.reproduce import reproduce as make_again

            _refuse_beside_reproduce(wanted, output, pre)
            return make_again(source, resources, child, store, out, is_dry=dry_run)
        found = find_source(source, store, out, pre=pre)
        job = Job(found, wanted, resources, child, store, out, stack, is_dry=dry_run)
        job.plan()
        paths = None if output is None else paths_for(found, job.planned, output)
        _check_imatrix_stays(imatrix, paths or ())
        if dry_run:
            from owm.cli.recipe_table import say_plan

            say_plan(found, job.planned, paths, store, out, n_threads=threads)
            return None
        job.write(paths)
        job.measure()
        job.report(plot)
    return None


def _refuse_beside_reproduce(wanted: "Wanted", output: Path | None, pre: str | None) -> None:
    from owm.cli.quantize_job import Wanted
    from owm.quantize.quantization import Layout
    from owm.quantize.recipe import Overrides

    nothing = Wanted((), (), (), None, None, Overrides(), False, Layout(), None, False, None)
    if wanted != nothing or output is not None or pre is not None:
        raise UsageError(
            "--reproduce goes by the manifest alone", hint="give the model, and of the options only those of resources"
        )


def _read_text(path: Path | None) -> "Text | None":
    if path is None:
        return None
    from owm.quality.texts import read

    return read(path)


def _check_threads(threads: int | None) -> None:
    from owm.hardware.probe import MAX_THREADS

    if threads is not None and not 0 < threads <= MAX_THREADS:
        raise UsageError(f"--threads must be between 1 and {MAX_THREADS}: {threads}")


def _fit_context(fit: bool, ctx_size: str | None) -> int | None:
    if ctx_size is None:
        if not fit:
            return None
        from owm.engine.context import DEFAULT_CONTEXT

        return DEFAULT_CONTEXT
    if not fit:
        raise UsageError("--ctx-size goes with --fit only")
    digits, unit = (ctx_size[:-1], 1024) if ctx_size[-1:] in "kK" else (ctx_size, 1)
    if not digits.isdecimal() or not 0 < int(digits) < 1 << 31:
        raise UsageError(f"--ctx-size is no number of tokens: {ctx_size}", hint="write it like `16k` or `16384`")
    return int(digits) * unit


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


def _check_imatrix_stays(imatrix: str | None, paths: Sequence[Sequence[Path]]) -> None:
    known = None if imatrix is None else Path(imatrix).expanduser().resolve()
    if any(path.resolve() == known for files in paths for path in files):
        raise UsageError(f"{imatrix} is the importance matrix itself", hint="write to another file")


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


def _read_imatrix(text: str | None, calibration: Path | None) -> "Imatrix | Calibration | None":
    """Return the importance matrix to use, or the text to compute one from."""
    if text is None and calibration is None:
        return None
    from owm.formats.imatrix import read_imatrix
    from owm.quality.calibration import bundled, read_calibration

    if calibration is not None:
        if text not in (None, "auto"):
            raise UsageError(
                "--calibration does not go with an importance matrix that is there", hint="`--imatrix auto`"
            )
        return read_calibration(calibration.expanduser())
    if text == "auto":
        return bundled()
    return None if text is None else read_imatrix(Path(text).expanduser())
