"""A planned model as a file with nothing but its header, and a hole for the weights: what llama.cpp can look at."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from owm.errors import StoreError
from owm.pipeline.plan import Plan, PlannedFile, make_plan
from owm.temporary import temporary_folder


@contextmanager
def hollow_file(plan: Plan) -> Iterator[Path]:
    """Write the header of a plan, as of one whole file, to a temporary file, in memory where the system can.

    Raises:
        StoreError: there is no place for temporary files.
    """
    whole = plan.files[0] if len(plan.files) == 1 else make_plan(plan.metadata, plan.tensors).files[0]
    if (fd := _memory_file()) >= 0:  # nothing is written to a disk
        with open(fd, "r+b") as file:
            _fill(file, whole)
            yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        return
    with temporary_folder() as folder:
        path = folder / "header.gguf"
        try:
            with open(path, "wb") as file:
                _fill(file, whole)
        except OSError as error:
            raise StoreError(
                f"cannot write the header to be checked to {folder}: {error.strerror}",
                hint="TMPDIR names another folder for temporary files",
            ) from error
        yield path


def _memory_file() -> int:
    """Open a file in memory that another process can open by its number; -1 where there is none."""
    try:
        return os.memfd_create("header.gguf") if os.path.isdir("/proc/self/fd") else -1
    except (AttributeError, OSError):
        return -1


def _fill(file: IO[bytes], planned: PlannedFile) -> None:
    file.write(planned.header)
    file.truncate(planned.n_bytes)
    file.flush()
