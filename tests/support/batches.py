"""Inputs of batches, the command itself, and what it wrote."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.run import Output, run_here

if TYPE_CHECKING:
    import pytest

FEW = ("--temp", "0", "--max-tokens", "6", "--ignore-eos", "-np", "2", "-t", "1")


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    """Write rows as JSONL; a text is a line as it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def prompts(n: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": f"row {i}", "prompt": f"the tin {i}", **fields} for i in range(n)]


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def batch(capsys: "pytest.CaptureFixture[str]", source: Path, output: Path, model: str, *args: str) -> Output:
    return run_here(capsys, "batch", source, "-m", model, "-o", output, *FEW, *args)
