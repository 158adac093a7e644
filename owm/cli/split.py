"""`owm split`: a model file in parts."""

from owm.cli import options as o
from owm.cli import weight_options as w
from owm.cli.output import Output
from owm.errors import UsageError


def command(
    model: w.ModelFileArg,
    output: w.OutputOpt = None,
    max_size: w.PartMaxSizeOpt = None,
    max_tensors: w.PartMaxTensorsOpt = None,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Split a model file (GGUF) into parts, for disks and hosts that take no large files.

    The parts are written beside each other, named `-00001-of-00003.gguf` and so on; `owm run` and llama.cpp take the
    first for the whole model. They are read back and compared with the source before they get their names.
    """
    from owm.cli.copying import copy_planned, find_files
    from owm.cli.writing import path_for
    from owm.pipeline.model_file import open_model_file
    from owm.pipeline.parts import plan_parts

    out = Output(json, quiet, verbose)
    if (max_size is None) == (max_tensors is None):
        said = "how large should the parts be" if max_size is None else "--max-size does not go with --max-tensors"
        raise UsageError(said, hint="`--max-size 2GiB`, or `--max-tensors 128`")
    max_bytes = None if max_size is None else _bytes(max_size)
    store, stored = find_files(model)
    if len(stored.files) > 1:
        raise UsageError(
            f"{stored.path.name} is one of {len(stored.files)} parts already", hint="`owm merge` makes them one file"
        )
    path = path_for(output, stored.path.name.removesuffix(".gguf"))
    with store.reading(stored):
        plan = plan_parts(open_model_file(stored.files), max_bytes=max_bytes, max_tensors=max_tensors)
        said = f"{stored.path.name} in {len(plan.files)} parts to {path.parent}"
        copy_planned(plan, path, out, source=stored, store=store, stage="split", said=said, dry_run=dry_run)


def _bytes(text: str) -> int:
    from owm.units import parse_bytes

    try:
        n_bytes = parse_bytes(text)
    except ValueError as error:
        raise UsageError(f"--max-size is no size: {text}", hint="write it like `2GiB` or `500MB`") from error
    if n_bytes <= 0:
        raise UsageError(f"--max-size must be positive: {text}")
    return n_bytes
