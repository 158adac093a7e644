"""Steps run by a process of their own, and what became of each."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owm.hardware import seclusion
from support.every_command import Step, as_json
from support.run import environment

TIMEOUT_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the steps; `ended_in` is the one in which the process was ended from outside."""

    of: tuple[tuple[Step, dict[str, Any]], ...]
    ended_in: Step | None
    errors: str

    def surprises(self) -> list[str]:
        """Return the steps that ended otherwise than they should, with what they said."""
        found = [
            f"{' '.join(step.args)}: exit code {said['code']}, {said['err'][-400:]}"
            for step, said in self.of
            if said["code"] != step.code
        ]
        return [
            *found,
            *([f"{' '.join(self.ended_in.args)}: ended by the kernel, {self.errors}"] if self.ended_in else []),
        ]


def run_steps(
    steps: Sequence[Step],
    cwd: Path,
    *,
    means: Sequence[seclusion.Means] = (),
    writable: Sequence[Path] | None = None,
    is_enforced: bool = True,
    temporary: Path | None = None,
    env: Mapping[str, str | None] | None = None,
) -> Outcome:
    """Run steps one after the other, all in one process that is shut in.

    Args:
        means: how it is kept from the network.
        writable: the only folders that may be changed.
        is_enforced: the kernel sees to that; otherwise it is only noted.
    """
    asked = {
        "steps": as_json(list(steps)),
        "writable": None if writable is None else [str(folder) for folder in writable],
        "is_enforced": is_enforced,
        "temporary": str(temporary),
    }
    program = [sys.executable, "-m", "support.run_steps"]
    if means:
        program = seclusion.command(program, means)
    done = subprocess.run(
        program,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=environment({"PYTHONDONTWRITEBYTECODE": "1", **(env or {})}),
        cwd=cwd,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ended = {line["number"]: line for line in lines if "number" in line}
    begun = [line["began"] for line in lines if "began" in line]
    ended_in = next((steps[number] for number in begun if number not in ended), None)
    if not begun:
        raise AssertionError(f"the process did not begin: {done.stderr[-2000:]}")
    return Outcome(tuple((steps[number], said) for number, said in ended.items()), ended_in, done.stderr[-2000:])
