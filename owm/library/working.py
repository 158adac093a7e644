"""What quantizing needs beside the source: a file of it that runs, and an importance matrix, both kept while of use."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from owm.engine.model import Model
from owm.events import Sink, ignore
from owm.formats.imatrix import Imatrix, read_imatrix, write_imatrix
from owm.library.gate import admit, admit_files
from owm.library.quantizing import Source
from owm.native.llama import library_build
from owm.pipeline import writer
from owm.quality import imatrix
from owm.quality.calibration import BUNDLED, Calibration
from owm.store.download import write_error
from owm.store.local import Store

try:
    import fcntl
except ImportError:  # not a POSIX system: there processes are not kept apart
    fcntl = None  # type: ignore[assignment]

STAGE = "reference"
STALE_SECONDS = 24 * 3600
AUTO_CHUNKS = 64  # of the bundled text, whose beginning is as mixed as the whole; more change little


def work_folder(store: Store) -> Path:
    """Return the folder for files that are of use only while a command runs; what a killed one left is found there.

    Raises:
        StoreError: it cannot be made.
    """
    folder = store.home / "work"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, folder) from error
    return folder


@contextmanager
def runnable(
    source: Source, store: Store, *, n_threads: int | None = None, sink: Sink = ignore
) -> Iterator[list[Path]]:
    """Give the source as files that llama.cpp can run: its own, or its checkpoint converted to a file of its own types.

    That file is removed afterwards. One that a killed command left is used again. Either is tried first, see
    `owm.library.gate`.

    Raises:
        NotEnoughDisk, StoreError: it cannot be written.
        MalformedFile, EngineError: llama.cpp does not take it.
    """
    if source.model is not None:
        admit(source.model)
        yield list(source.files)
        return
    folder = work_folder(store)
    _sweep(folder)
    path = folder / _name(source)
    fd = -1
    while fd < 0:
        if not (path.exists() and path.stat().st_size == source.plan.n_bytes):
            writer.write(source.plan, [path], n_threads=n_threads, digest=False, stage=STAGE, sink=sink)
        fd = _claim(path)
    try:
        admit_files([path])
        yield [path]
    finally:
        _release(fd, path)


def forget(source: Source, store: Store) -> None:
    """Remove the file that a killed command has converted the source to, and that was not needed again."""
    path = store.home / "work" / _name(source)
    with suppress(OSError):
        if (fd := _claim(path)) >= 0:
            _release(fd, path)


def _name(source: Source) -> str:
    return f"{source.plan.digest()[:16]}.gguf"


def _sweep(folder: Path) -> None:
    """Remove what killed commands have left long ago."""
    for path in folder.iterdir():
        with suppress(OSError):
            if path.is_file() and time.time() - path.stat().st_mtime > STALE_SECONDS and (fd := _claim(path)) >= 0:
                _release(fd, path)


def _claim(path: Path) -> int:
    """Open a file that others may use at the same time, so that none removes it meanwhile; -1 if one just has."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return -1
    if fcntl is None:
        return fd
    fcntl.flock(fd, fcntl.LOCK_SH)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    os.close(fd)
    return -1


def _release(fd: int, path: Path) -> None:
    """Remove the file, unless others use it."""
    try:
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


def find_imatrix(source: Source, calibration: Calibration, store: Store) -> Imatrix | None:
    """Return the source's importance matrix for a text if it was computed before."""
    path = imatrix_path(source, calibration, store)
    return read_imatrix(path) if path.exists() else None


def imatrix_of(
    source: Source,
    files: list[Path],
    calibration: Calibration,
    store: Store,
    *,
    n_threads: int | None = None,
    sink: Sink = ignore,
) -> Imatrix:
    """Compute the source's importance matrix for a text, and keep it. Experts without data have the mean of the others.

    Raises:
        UsageError: the text is too short. EngineError: the source does not run.
    """
    path = imatrix_path(source, calibration, store)
    with Model(files) as model:
        made = imatrix.compute(
            model, calibration, n_chunks=n_chunks_of(calibration), n_threads=n_threads, sink=sink
        ).filled()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, path) from error
    write_imatrix(made, path)
    return read_imatrix(path)


def n_chunks_of(calibration: Calibration) -> int | None:
    """Return how many chunks are read: of a text of the user's all."""
    return AUTO_CHUNKS if calibration.name == BUNDLED else None


def imatrix_path(source: Source, calibration: Calibration, store: Store) -> Path:
    """Name an importance matrix by all that it depends on."""
    sha = hashlib.sha256(f"{library_build()} {calibration.sha256} {n_chunks_of(calibration)}".encode())
    sha.update((source.origin.commit or source.plan.origin).encode())
    sha.update(source.plan.files[0].header)
    return store.home / "imatrix" / f"{source.origin.short_name}-{sha.hexdigest()[:12]}.gguf"
