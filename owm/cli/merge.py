"""`owm merge`: the parts of a model file as one."""

import re

from owm.cli import options as o
from owm.cli import weight_options as w
from owm.cli.output import Output
from owm.errors import UsageError


def command(
    model: w.PartArg,
    output: w.OutputOpt = None,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Make one model file (GGUF) of its parts.

    All parts are found by the name of one, which ends in `-00001-of-00003.gguf`. The file is read back and compared
    with the parts before it gets its name; the parts are left as they are.
    """
    from owm.cli.copying import copy_planned, find_files
    from owm.cli.writing import path_for
    from owm.pipeline.model_file import open_model_file

    out = Output(json, quiet, verbose)
    store, stored = find_files(model)
    with store.reading(stored):
        plan = open_model_file(stored.files)
        if len(stored.files) == 1:
            raise UsageError(f"{stored.path.name} is a whole model already, there is nothing to merge")
        path = path_for(output, re.sub(r"-\d{5}-of-\d{5}\.gguf$", "", stored.path.name, flags=re.IGNORECASE))
        said = f"{len(stored.files)} parts as one file to {path}"
        copy_planned(plan, path, out, source=stored, store=store, stage="merge", said=said, dry_run=dry_run)
