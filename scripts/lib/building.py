"""Runs a long build with its output in a log file and one line every now and then. Needs only the standard library."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

# The build's own step counter: ninja prints [12/345], make prints [ 12%].
STEP = re.compile(r"^\s*\[\s*(\d+/\d+|\d+%)\s*\]")
SECONDS_BETWEEN_LINES = 20


def fail(problem: str, hint: str) -> NoReturn:
    """Say what is wrong in one line and stop."""
    sys.exit(f"error: {problem}; hint: {hint}")


def announce(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def follow(command: Sequence[str | Path], log: Path, what: str, minutes: int, environment: Mapping[str, str]) -> None:
    """Run a command that may compile `what`: say so once it does, then how far it is; stop if it fails."""
    started = spoken = 0.0
    with (
        log.open("w", encoding="utf-8", buffering=1) as file,
        subprocess.Popen(
            [str(word) for word in command],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            step = STEP.match(line)
            if step and not started:
                started = spoken = time.monotonic()
                announce(f"building {what}, about {minutes} minutes")
            elif step and time.monotonic() - spoken > SECONDS_BETWEEN_LINES:
                spoken = time.monotonic()
                announce(f"building {what}: {step[1]} after {spoken - started:.0f} s")
    if process.returncode:
        announce("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]))
        called = " ".join([Path(command[0]).name, *(str(word) for word in command[1:4])])
        fail(f"exit code {process.returncode} from `{called} …`", f"its whole output is in {log}")
