"""A child process for calls into llama.cpp that may abort the process: a header is loaded there, without weights."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a header: `error` in llama.cpp's words, or the token ids of each text."""

    error: str | None
    tokens: list[list[int]]


def load_header(path: Path, texts: Sequence[str]) -> Loaded:
    """Load a model file of which only the header is there (the rest may be a hole), and tokenize texts with it.

    Tensor names, shapes and metadata are checked as for a real load; special tokens in the texts are recognized and
    none is added.
    """
    command = [sys.executable, "-P", "-m", "owm.native.guard"]
    request = json.dumps({"path": str(path), "texts": list(texts)})
    try:
        done = subprocess.run(
            command,
            input=request,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            encoding="utf-8",
        )
    except subprocess.TimeoutExpired:
        return Loaded(f"it did not come to an end in {TIMEOUT_SECONDS:.0f} s", [])
    if done.returncode == 0:
        answer = json.loads(done.stdout)
        return Loaded(answer["error"], answer["tokens"])
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    reason = next(
        (line for line in said if "GGML_ASSERT" in line or "rror" in line), said[-1] if said else "no reason given"
    )
    return Loaded(f"it aborted: {reason[:200]}", [])


def main() -> None:
    """Serve one request from stdin."""
    from owm.errors import OwmError
    from owm.native.llama import Model

    request = json.loads(sys.stdin.read())
    try:
        model = Model(Path(request["path"]), n_gpu_layers=0, has_weights=False)
        tokens = [model.tokenize(text, add_special=False, parse_special=True) for text in request["texts"]]
        answer: dict[str, object] = {"error": None, "tokens": tokens}
    except OwmError as error:
        answer = {"error": str(error).partition(": ")[2] or str(error), "tokens": []}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
