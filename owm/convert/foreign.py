"""The converter of a llama.cpp checkout, run on a checkpoint that owm does not convert.

It is foreign code in a process of its own, by a Python that has what it needs. owm gives it a place to write, and its
result a name only after the header of a model file was found in it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from owm.convert import tensor_types
from owm.convert.checkpoint import Checkpoint
from owm.convert.conversion import STAGE, TYPES
from owm.errors import Damaged, NotEnoughDisk, NotFound, Unsupported, UsageError
from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.formats import gguf
from owm.pipeline.rows import n_rows
from owm.pipeline.writer import RESERVE_BYTES, Written
from owm.store.download import write_error
from owm.units import format_bytes

SCRIPT = "convert_hf_to_gguf.py"
_NEEDS = ("torch", "transformers")
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class Converter:
    """A converter and the Python that runs it."""

    script: Path
    python: str


def find_converter(folder: Path) -> Converter:
    """Find the converter of a llama.cpp checkout, and a Python for it.

    That is the checkout's own (`.venv`), else the first that has torch and transformers of: owm's, `python3` and
    `python` on the PATH.

    Raises:
        UsageError: the folder has no converter.
        NotFound: no Python here has what it needs.
    """
    script = folder / SCRIPT
    if not script.is_file():
        raise UsageError(f"{folder} is no checkout of llama.cpp: it has no {SCRIPT}")
    own = folder / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if own.is_file():
        return Converter(script, str(own))
    for python in dict.fromkeys(filter(None, (sys.executable, shutil.which("python3"), shutil.which("python")))):
        if _has_needs(python):
            return Converter(script, python)
    raise NotFound(
        f"no Python here has {' and '.join(_NEEDS)}, which {script} needs",
        hint=f"make one in {folder / '.venv'}, with the checkout's requirements.txt, or put one on the PATH",
    )


def _has_needs(python: str) -> bool:
    test = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {_NEEDS!r})))"
    try:
        return subprocess.run([python, "-c", test], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def choose_type(checkpoint: Checkpoint, type_name: str) -> str:
    """Return the type to ask the converter for: the one wanted, or for `auto` that of the checkpoint."""
    wanted = type_name if type_name == "auto" else type_name.upper()
    if wanted not in TYPES:
        raise UsageError(f"unknown type: {type_name}", hint=f"it is one of {', '.join(TYPES).lower()}")
    return tensor_types.own_type(checkpoint.tensors.values()) if wanted == "auto" else wanted


def estimate_bytes(checkpoint: Checkpoint, type_name: str) -> int:
    """Return about how large the file will be."""
    return _BYTES[type_name] * sum(
        n_rows(rows.shape) * rows.shape[-1] for rows in checkpoint.tensors.values() if rows.shape
    )


def run_converter(
    converter: Converter,
    checkpoint: Checkpoint,
    path: Path,
    type_name: str,
    *,
    log: Callable[[str], None] = lambda line: None,
    sink: Sink = ignore,
) -> Written:
    """Convert to one file, which appears when it is whole and has a header that owm can read.

    Args:
        type_name: `F32`, `F16` or `BF16`.
        log: is given each line that the converter says.

    Raises:
        Unsupported: the converter failed, in its own last words.
        MalformedFile, Damaged: what it wrote is no model file.
        NotEnoughDisk, StoreError: the disk is full or cannot be written.
    """
    began = time.perf_counter()
    incomplete = path.with_name(f"{path.name}.incomplete")
    expected = estimate_bytes(checkpoint, type_name)
    _check_space(path, expected)
    sink(Started(STAGE, expected, "bytes"))
    # The name is a template to the converter.
    target = incomplete.with_name(incomplete.name.replace("{", "{{").replace("}", "}}"))
    command = [converter.python, str(converter.script), str(checkpoint.folder.resolve())]
    command += ["--outfile", str(target), "--outtype", type_name.lower()]
    try:
        incomplete.unlink(missing_ok=True)
        last = ""
        with _running(command) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if text := line.strip():
                    last = text
                    log(text)
                sink(Advanced(STAGE, min(_size_of(incomplete), expected)))
        if process.returncode:
            signal = f"it was ended by signal {-process.returncode}" if process.returncode < 0 else ""
            raise Unsupported(
                f"{converter.script} failed: {signal or last[:300] or f'exit code {process.returncode}'}",
                hint="`--verbose` shows all that it says",
            )
        if not incomplete.is_file():
            raise Damaged(f"{converter.script} wrote nothing, and said: {last[:300]}")
        gguf.read_header(incomplete).check_vocabulary()
        written = _publish(incomplete, path)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        incomplete.unlink(missing_ok=True)
    sink(Finished(STAGE, time.perf_counter() - began))
    return written


@contextmanager
def _running(command: list[str]) -> "Iterator[subprocess.Popen[str]]":
    """Start a process that is over when the block is, however the block is left."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def _check_space(path: Path, expected: int) -> None:
    needed, free = expected + RESERVE_BYTES, shutil.disk_usage(path.parent).free
    if needed > free:
        raise NotEnoughDisk(
            f"{path.name} needs about {format_bytes(needed)}, "
            f"{format_bytes(free)} are free on the disk of {path.parent}",
            needed=needed,
            free=free,
            hint="free some space or write to another disk (`-o`)",
        )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _publish(incomplete: Path, path: Path) -> Written:
    """Bring a file to disk and give it its name."""
    with open(incomplete, "rb") as file:
        os.fsync(file.fileno())
        size_bytes, sha256 = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(incomplete, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return Written(path, size_bytes, sha256)
