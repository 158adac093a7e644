"""A child process for calls into llama.cpp that may abort the process: looks at headers, and trials of whole models."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from owm.errors import EngineError

TIMEOUT_SECONDS = 120.0
TRIAL_SECONDS = 120.0  # for any model, and
TRIAL_BYTES_PER_SECOND = 16 << 20  # for what is read of it: a slow disk over a network


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


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a model that was loaded, given a context and one token.

    Attributes:
        error: why it did not come to its end, None if it did.
        stage: what llama.cpp refused in an orderly way: `load`, `adapter`, `context` or `decode`; empty otherwise.
        signal: what ended the process, if one did: `SIGABRT`, `SIGSEGV`.
    """

    error: str | None
    stage: str = ""
    signal: str | None = None


class Child:
    """The process, which gets ready (a third of a second) while its caller does something else.

    It is started again when it is asked after an abort, or after it was told to rest.
    """

    def __init__(self, first: Literal["header", "trial"] = "header") -> None:
        """Start it.

        Args:
            first: what it is going to be asked for, and gets ready for.
        """
        self._lock = threading.Lock()
        self._first = first
        self._signal: str | None = None
        self._start()

    def _start(self) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "owm.native.guarded", self._first],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
            # An abort is to be over at once: no debugger is started to look for where it was.
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
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

    def trial(
        self,
        path: Path,
        *,
        size_bytes: int,
        n_threads: int,
        adapters: Sequence[Path] = (),
        limit_seconds: float | None = None,
    ) -> Trial:
        """Load a whole model and adapters on the CPU, make a small context, and read one token. The process ends then.

        Args:
            path: the model file, or the first of its shards.
            size_bytes: of all of them, by which it is known how long that may take.
            limit_seconds: how long it may take, if not that.
        """
        limit = TRIAL_SECONDS + size_bytes / TRIAL_BYTES_PER_SECOND if limit_seconds is None else limit_seconds
        request = {"what": "trial", "path": str(path), "adapters": [str(each) for each in adapters]}
        answer, error = self._ask({**request, "n_threads": n_threads}, limit)
        ended = self._signal
        self.close()
        return Trial(error, signal=ended) if error else Trial(answer["error"], answer["stage"])

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

    def _ask(
        self, request: Mapping[str, Any], limit_seconds: float = TIMEOUT_SECONDS
    ) -> tuple[dict[str, Any], str | None]:
        """Return the answer, or why there is none."""
        with self._lock:
            if not self._is_up:
                self._start()
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            timer = threading.Timer(limit_seconds, self._process.kill)
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
            self._signal = _signal_name(self._process.returncode)
            self.close()
            if time.monotonic() - began >= limit_seconds:
                self._signal = None
                return {}, f"it did not come to an end in {limit_seconds:.0f} s"
            if self._signal not in (None, "SIGABRT", "SIGKILL"):
                return {}, f"it crashed ({self._signal})"
            return {}, f"it aborted: {reason}"

    def _reason(self) -> str:
        """Find the line that says why the process ended."""
        self._process.wait()
        self._complaints.seek(0)
        complained = self._complaints.read().decode("utf-8", "replace")
        lines = [line.strip() for line in complained.splitlines() if line.strip()]
        last = lines[-1] if lines else "no reason given"
        for sign in ("GGML_ASSERT", "what():", "rror"):
            if found := next((line for line in lines if sign in line), None):
                said = found.partition("what():")[2].strip() or found
                return re.sub(r"^\S*/(?=[^/\s]+:\d+: )", "", said)[:200]  # where it was built says nothing here
        return last[:200]


def _signal_name(exit_status: int) -> str | None:
    try:
        return signal.Signals(-exit_status).name if exit_status < 0 else None
    except ValueError:
        return str(-exit_status)
