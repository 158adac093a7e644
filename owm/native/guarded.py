"""The child's side of `owm.native.guard`: it serves requests, and imports no more than they need."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace


def main() -> None:
    """Serve requests from stdin, a line each, until it ends; a trial is the last of them."""
    if sys.argv[1:] == ["trial"]:
        import owm.native.trial
    else:
        import owm.native.recipe
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what C code prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(_answer(request)) + "\n")
        answers.flush()
        if request["what"] == "trial":
            os._exit(0)  # all that was loaded goes with the process
        import owm.native.llama  # noqa: F401 (nobody waits now, and a header is what is loaded next)


def _answer(request: dict[str, object]) -> dict[str, object]:
    found = SimpleNamespace(**request)
    path = Path(found.path)
    if found.what == "trial":
        from owm.native import trial

        trial.leave_with_parent()
        return trial.run(found.path, found.adapters, n_threads=found.n_threads)
    if found.what == "load":
        return _load(path, found.texts)
    if found.what == "sizes":
        from owm.native import sizes

        return sizes.measure(path, SimpleNamespace(**found.context), n_gpu_layers=found.n_gpu_layers)
    if found.what == "copies":
        from owm.native.layouts import copies

        return {"copies": copies([(kind, shape, n_used) for kind, shape, n_used in found.weights])}
    from owm.native.recipe import dry_run

    return dry_run(path, SimpleNamespace(**found.mixture))


def _load(path: Path, texts: list[str]) -> dict[str, object]:
    from owm.errors import OwmError
    from owm.native.llama import Model

    try:
        model = Model(path, n_gpu_layers=0, has_weights=False)
        tokens = [model.tokenize(text, add_special=False, parse_special=True) for text in texts]
        model.close()
    except OwmError as error:
        return {"error": str(error).partition(": ")[2] or str(error), "tokens": []}
    return {"error": None, "tokens": tokens}


if __name__ == "__main__":
    main()
