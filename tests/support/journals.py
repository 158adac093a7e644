"""Journals of batches: records for them, and processes that write and break them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from owm.batch.journal import Journal
from owm.batch.row import Failure, Record
from support.run import finish, start


def record(number: int, *, text: str = "Grüße", n_bytes: int = 0) -> Record:
    answer = {"text": text + "x" * n_bytes, "finish_reason": "stop", "usage": {"total_tokens": number}}
    return Record(number, f"row {number}", number, "plain", f"{number:016x}", "m", "0" * 16, {"n": [number]}, answer)


FAILED = replace(record(9), answer=None, failure=Failure("too_long", "the row is too long"))

# For children, which get the path as their argument.
CHILD = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from owm.batch.journal import Journal
from owm.batch.row import Record
from owm.errors import OwmError

def record(number, n_bytes=0):
    answer = {"text": "Grüße" + "x" * n_bytes, "finish_reason": "stop", "usage": {"total_tokens": number}}
    return Record(number, f"row {number}", number, "plain", f"{number:016x}", "m", "0" * 16, {"n": [number]}, answer)

path = Path(sys.argv[1])
"""


def write(path: Path, *records: Record) -> list[int]:
    with Journal.open(path) as journal:
        return [journal.append(each) for each in records]


def read(path: Path) -> list[Record]:
    with Journal.open(path) as journal:
        return [each for _, each in journal.scan()]


@contextmanager
def child(path: Path, code: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a process that runs `code`, and kill it at the end."""
    process = start(["-c", CHILD + code, path])
    try:
        yield process
    finally:
        process.kill()
        finish(process)


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
