"""`owm path`: for other programs that want the file."""

from owm.cli import options as o
from owm.cli.output import Output


def command(
    model: o.StoredArg, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """Print where a model's file lies.

    Of a model in several parts, the first is printed, which is what llama.cpp takes; `--json` has them all.
    """
    from owm.library import open_store
    from owm.store import absent

    out = Output(json, quiet, verbose)
    store = open_store()
    stored = store.find_stored(model)
    if stored.is_gone:
        raise absent.gone(stored, store)
    paths = [str(path.absolute()) for path in stored.files]
    out.data({"path": paths[0], "files": paths}, lines=paths[:1])
