"""Commands run as real processes, with a result that reads like the text they printed."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[2]


class Output(str):
    """The standard output of a finished command, with `stderr` and `exit_code` beside it."""

    stderr: str
    exit_code: int

    @property
    def json(self) -> Any:
        """The output read as JSON."""
        return json.loads(self)


def run_here(capsys: "pytest.CaptureFixture[str]", *args: str | os.PathLike[str]) -> Output:
    """Run a command in this process: a third of the time, for what does not depend on the process."""
    from owm.cli.app import main

    capsys.readouterr()
    was_offline = os.environ.get("OWM_OFFLINE")
    try:
        code = main([*map(os.fspath, args)])
    finally:
        if was_offline is None:
            os.environ.pop("OWM_OFFLINE", None)  # `--offline` means the process, which goes on here
    said = capsys.readouterr()
    output = Output(said.out)
    output.stderr, output.exit_code = said.err, code
    return output


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return the environment of the test with the sources importable; None removes a variable."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    for name, value in (changes or {}).items():
        env.pop(name, None)
        if value is not None:
            env[name] = value
    return env


def start(
    args: Sequence[str | os.PathLike[str]], env: Mapping[str, str | None] | None = None, *, unprivileged: bool = False
) -> "subprocess.Popen[str]":
    """Start this Python with `args`; the caller waits for it or kills it.

    Args:
        unprivileged: let the permissions of files bind the process even if root runs the tests.
    """
    return subprocess.Popen(
        [sys.executable, *map(os.fspath, args)],
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        preexec_fn=_let_permissions_bind if unprivileged and os.geteuid() == 0 else None,
    )


def _let_permissions_bind() -> None:
    """Give up root's rights to read and write anywhere, for whatever is executed next."""
    drop_from_bounding_set = 24
    for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if ctypes.CDLL(None, use_errno=True).prctl(drop_from_bounding_set, right, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot give up the rights of root")


def finish(process: "subprocess.Popen[str]", *, timeout: float = 60) -> Output:
    """Wait for a process and return what it printed."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    output = Output(stdout)
    output.stderr = stderr
    output.exit_code = process.returncode
    return output


def run(
    args: Sequence[str | os.PathLike[str]],
    env: Mapping[str, str | None] | None = None,
    *,
    timeout: float = 60,
    unprivileged: bool = False,
) -> Output:
    """Run this Python with `args` to its end: `run(["-m", "owm", "list", "--json"])`."""
    return finish(start(args, env, unprivileged=unprivileged), timeout=timeout)
