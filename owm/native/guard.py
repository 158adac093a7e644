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


class Child:
    """The process, which gets ready (a third of a second) while its caller does something else; answers once."""

    def __init__(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "owm.native.guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is its caller's to handle
        )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load_header(self, path: Path, texts: Sequence[str]) -> Loaded:
        """Load a model file of which only the header is there (the rest may be a hole), and tokenize texts with it.

        Tensor names, shapes and metadata are checked as for a real load; special tokens in the texts are recognized
        and none is added.
        """
        request = json.dumps({"path": str(path), "texts": list(texts)})
        try:
            said, complained = self._process.communicate(request, timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.close()
            return Loaded(f"it did not come to an end in {TIMEOUT_SECONDS:.0f} s", [])
        if self._process.returncode == 0:
            answer = json.loads(said)
            return Loaded(answer["error"], answer["tokens"])
        lines = [line.strip() for line in complained.splitlines() if line.strip()]
        last = lines[-1] if lines else "no reason given"
        reason = next((line for line in lines if "GGML_ASSERT" in line or "rror" in line), last)
        return Loaded(f"it aborted: {reason[:200]}", [])

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


def main() -> None:
    """Serve one request from stdin."""
    from owm.errors import OwmError
    from owm.native.llama import Model

    request = json.loads(sys.stdin.read() or "null")
    if request is None:  # nobody needs an answer any more
        return
    try:
        model = Model(Path(request["path"]), n_gpu_layers=0, has_weights=False)
        tokens = [model.tokenize(text, add_special=False, parse_special=True) for text in request["texts"]]
        answer: dict[str, object] = {"error": None, "tokens": tokens}
    except OwmError as error:
        answer = {"error": str(error).partition(": ")[2] or str(error), "tokens": []}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
