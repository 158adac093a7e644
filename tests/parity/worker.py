"""A process that answers requests one by one, and may die of one: llama.cpp aborts on what it cannot read."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Request = Mapping[str, Any]
_HERE = Path(__file__).parent


class RefusedError(Exception):
    """The worker could not do it, and says why."""


class Worker:
    """Runs a module of this folder, starts it again when it has died; no request outlives its time."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", f"parity.{module}", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()

    def ask(self, request: Request, timeout: float = 60) -> dict[str, Any]:
        """Return the answer.

        Raises:
            RefusedError: the request failed, killed the process or took too long.
        """
        if self._process is None:
            env = {**os.environ, "PYTHONPATH": str(_HERE.parent)}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
            self._process = subprocess.Popen(self._command, env=env, bufsize=0, **pipes)  # type: ignore[call-overload]
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(dict(request)).encode() + b"\n")
        except BrokenPipeError:
            raise RefusedError(self._buried()) from None
        answer, deadline = b"", time.monotonic() + timeout
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))
            part = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                raise RefusedError(self._buried() if ready else f"no answer in {timeout:.0f} s: {self._buried()}")
            answer += part
        result: dict[str, Any] = json.loads(answer)
        if "error" in result:
            raise RefusedError(result["error"])
        return result

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._buried()
        self._log.close()

    def _buried(self) -> str:
        """End the process and return its last words."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            code = self._process.wait(0.5)  # it may just be dying
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process = None
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 2000))
        words = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return f"ended with {code}: {words[-1] if words else ''}"


def serve(answer: Callable[[Request], dict[str, Any]]) -> None:
    """Answer the requests on stdin until it ends; whatever else is printed goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        for line in sys.stdin:
            try:
                result = answer(json.loads(line))
            except (Exception, SystemExit) as error:
                traceback.print_exc()
                result = {"error": f"{type(error).__name__}: {error}"}
            out.write(json.dumps(result) + "\n")
            out.flush()
