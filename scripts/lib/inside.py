"""Puts a benchmark into the checkout's virtual environment, whichever Python it was started with."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".venv" / "bin"


def enter() -> None:
    """Start the script again with the environment's interpreter, unless it already runs there."""
    if Path(sys.prefix).resolve() == BIN.parent.resolve():
        return
    if not (BIN / "owm").exists():
        sys.exit("error: owm is not installed in .venv; hint: run `./scripts/quickstart` or `./scripts/test` first")
    os.execv(BIN / "python", [str(BIN / "python"), *sys.argv])
