"""A child process for calls into llama.cpp that may abort the process: it looks at headers, without weights."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from owm.errors import EngineError

TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a header: `error` in llama.cpp's words, or the token ids of each text."""

    error: str | None
    tokens: list[list[int]]


@dataclass(frozen=True, slots=True)
class Mixture:
    """What decides which type each tensor gets, in llama.cpp's terms.

    Attributes:
        file_type: llama.cpp's number of the quantization type (`llama_ftype`).
        overrides: (regular expression on the tensor's name, ggml's number of the type) in order of precedence.
        output_type, embedding_type: ggml's number for `output.weight` and the token embeddings.
        pruned: blocks to leave out.
    """

    file_type: int
    overrides: tuple[tuple[str, int], ...] = ()
    output_type: int | None = None
    embedding_type: int | None = None
    is_pure: bool = False
    has_imatrix: bool = False
    pruned: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """The type (`Q4_K`) llama.cpp gives a tensor, and the one it would have but for the shape or an override."""

    name: str
    type_name: str
    instead_of: str | None = None
    is_override: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """What became of a dry run: `error` in llama.cpp's words, or the tensors in its order."""

    error: str | None
    tensors: tuple[Chosen, ...] = ()
    needs_imatrix: bool = False


@dataclass(frozen=True, slots=True)
class ContextWish:
    """A context as llama.cpp makes it: `n_ctx` counts the tokens of all sequences; None is llama.cpp's default."""

    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_sequences: int = 1
    is_unified: bool = False
    flash_attention: bool | None = None
    type_k: str | None = None
    type_v: str | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large llama.cpp makes its buffers: `error` in its words, or bytes.

    Attributes:
        places: of each place (`CPU`, `CUDA0`), the bytes of its `state`, `compute` and `output` buffers.
        kv_bytes: of the KV cache, wherever it is.
        touched_bytes: what the compute buffer of the CPU would have where only the last tokens' logits are asked for.
        process_bytes: what the process holds with the vocabulary, but for these buffers and the weights.
        unused: tensors that llama.cpp does not load.
    """

    error: str | None
    places: dict[str, dict[str, int]] = field(default_factory=dict)
    kv_bytes: int = 0
    touched_bytes: int = 0
    process_bytes: int = 0
    unused: tuple[str, ...] = ()


class Child:
    """The process, which gets ready (a third of a second) while its caller does something else.

    It is started again when it is asked after an abort, or after it was told to rest.
    """

    def __init__(self) -> None:
        """Start it."""
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "owm.native.guarded"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is its caller's to handle
        )
        self._is_up = True

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load_header(self, path: Path, texts: Sequence[str]) -> Loaded:
        """Load a model file of which only the header is there (the rest may be a hole), and tokenize texts with it.

        Tensor names, shapes and metadata are checked as for a real load; special tokens in the texts are recognized
        and none is added.
        """
        answer, error = self._ask({"what": "load", "path": str(path), "texts": list(texts)})
        return Loaded(error or answer.get("error"), answer.get("tokens", []))

    def recipe(self, path: Path, mixture: Mixture) -> Recipe:
        """Ask for the type of every tensor of a model file of which only the header is there."""
        answer, error = self._ask({"what": "recipe", "path": str(path), "mixture": asdict(mixture)})
        if error or answer["error"]:
            return Recipe(error or answer["error"])
        return Recipe(None, tuple(Chosen(*row) for row in answer["tensors"]), answer["needs_imatrix"])

    def sizes(self, path: Path, wish: ContextWish, *, n_gpu_layers: int = 0) -> Sizes:
        """Ask for the sizes of the buffers over a model file of which only the header need be there."""
        request = {"what": "sizes", "path": str(path), "context": asdict(wish), "n_gpu_layers": n_gpu_layers}
        answer, error = self._ask(request)
        if error or answer["error"]:
            return Sizes(error or answer["error"])
        return Sizes(**{**answer, "unused": tuple(answer["unused"])})

    def copies(self, weights: Sequence[tuple[int, tuple[int, ...], int]]) -> list[int]:
        """Return for each weight the bytes of the copy that the CPU computes with, 0 for one that is used as it lies.

        Args:
            weights: (ggml's number of the type, shape with the row length first, experts that are used at once or 0).

        Raises:
            EngineError: ggml cannot say.
        """
        answer, error = self._ask({"what": "copies", "path": "", "weights": list(weights)})
        if error:
            raise EngineError(f"ggml does not say how it computes with these weights: {error}")
        found: list[int] = answer["copies"]
        return found

    def rest(self) -> None:
        """End the process, which takes memory, until it is asked again."""
        with self._lock:
            self.close()

    def close(self) -> None:
        """End it, whatever it does."""
        if not self._is_up:
            return
        self._is_up = False
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # it died with a request unread
                pipe.close()
        self._complaints.close()

    def _ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Return the answer, or why there is none."""
        with self._lock:
            if not self._is_up:
                self._start()
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            timer = threading.Timer(TIMEOUT_SECONDS, self._process.kill)
            timer.daemon = True
            began = time.monotonic()
            timer.start()
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                said = self._process.stdout.readline()
            except (BrokenPipeError, ValueError):
                said = ""
            finally:
                timer.cancel()
            if said.endswith("\n"):
                answer: dict[str, Any] = json.loads(said)
                return answer, None
            reason = self._reason()
            self.close()
            if time.monotonic() - began >= TIMEOUT_SECONDS:
                return {}, f"it did not come to an end in {TIMEOUT_SECONDS:.0f} s"
            return {}, f"it aborted: {reason}"

    def _reason(self) -> str:
        """Find the line that says why the process ended."""
        self._process.wait()
        self._complaints.seek(0)
        complained = self._complaints.read().decode("utf-8", "replace")
        lines = [line.strip() for line in complained.splitlines() if line.strip()]
        last = lines[-1] if lines else "no reason given"
        return next((line for line in lines if "GGML_ASSERT" in line or "rror" in line), last)[:200]
