"""The child's side of `owm.native.guard`: it serves requests, and imports no more than they need."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace


def main() -> None:
    """Serve requests from stdin, a line each, until it ends."""
    from owm.native.recipe import dry_run

    for line in sys.stdin:
        request = json.loads(line)
        path = Path(request["path"])
        if request["what"] == "load":
            answer = _load(path, request["texts"])
        elif request["what"] == "sizes":
            from owm.native import sizes

            wish = SimpleNamespace(**request["context"])
            answer = sizes.measure(path, wish, n_gpu_layers=request["n_gpu_layers"])
        elif request["what"] == "copies":
            from owm.native.layouts import copies

            answer = {"copies": copies([(kind, shape, n_used) for kind, shape, n_used in request["weights"]])}
        else:
            answer = dry_run(path, SimpleNamespace(**request["mixture"]))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        import owm.native.llama  # noqa: F401 (nobody waits now, and a header is what is loaded next)


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
