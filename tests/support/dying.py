"""`python -m support.dying EVENT NAME CODE`: Python that is killed right before it does something to a path.

EVENT is that of Python's audit table (`os.rename`, `os.remove`, `open`, …), NAME a part of one of its paths.
"""

import os
import signal
import sys
from pathlib import Path

from support.run import run


def main() -> None:
    """Run the code until its moment has come."""
    event, name, code = sys.argv[1:]

    def watch(happening: str, arguments: tuple[object, ...]) -> None:
        if happening == event and any(name in os.fsdecode(arg) for arg in arguments if isinstance(arg, str | bytes)):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    exec(code, {})  # of a test


def die(event: str, name: str, code: str, *paths: Path) -> None:
    """Run code in a process that dies at that moment; `{0}`, `{1}` in it stand for paths."""
    done = run(["-m", "support.dying", event, name, code.format(*map(repr, map(str, paths)))])
    assert done.exit_code == -signal.SIGKILL, (done.exit_code, done.stderr)


if __name__ == "__main__":
    main()
