"""The files of a batch: where its rows are, where answers and errors go, and what must not be written over."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from owm.batch.journal import journal_path, write_error
from owm.batch.manifest import manifest_path
from owm.batch.reading import Rows
from owm.errors import UsageError
from owm.publishing import PRIVATE, create_anew, sync_folder

if TYPE_CHECKING:
    from owm.library.batching import Batch


def count_rows(source: Path | None, rows: Rows) -> int | None:
    """Return how many rows a file has, as far as its lines tell; None where it cannot be read twice."""
    try:
        if source is None or not is_file(source):
            return None
        with source.open("rb") as file:
            return sum(1 for line in file if not line.isspace()) - (rows.form in ("csv", "tsv"))
    except OSError:
        return None


def check_output(output: Path, batch: "Batch") -> None:
    """Refuse to write where something else is."""
    _check_apart(batch.source, "the input", batch.output, "the output")
    _check_apart(batch.errors, "the errors", batch.output, "the output")
    check_errors(batch)
    for path in (journal_path(output), manifest_path(output)):
        _check_apart(batch.errors, "the errors", path, "a file beside the output")
    _check_place(output)
    if output.exists() and not output.is_file():
        raise UsageError(f"{output} is not a file", hint="without `-o`, the answers go to stdout")
    if output.exists() and not batch.restarts and not journal_path(output).exists():
        raise UsageError(
            f"{output} is there already, and no journal beside it", hint="`--restart` replaces it, or name another file"
        )


def check_errors(batch: "Batch") -> None:
    """Refuse to write errors over the rows, or where nothing can be.

    Raises:
        UsageError: that is asked for.
    """
    if batch.errors is not None:
        _check_apart(batch.errors, "the errors", batch.source, "the input")
        _check_place(batch.errors)


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"no such folder: {path.parent}")


def _check_apart(one: Path | None, what: str, other: Path | None, other_what: str) -> None:
    if one is not None and other is not None and os.path.realpath(one) == os.path.realpath(other):
        raise UsageError(f"{what} and {other_what} are one file: {one}")


class ErrorsFile(io.TextIOWrapper):
    """A file of failed rows that has each of them at once, and says by itself why it cannot be written."""

    def __init__(self, path: Path) -> None:
        """Open a file, which is empty then.

        Raises:
            NotEnoughDisk, StoreError: it cannot be opened.
        """
        try:
            file = open(path, "wb", buffering=0, opener=_open_private)  # noqa: SIM115
        except OSError as error:
            raise write_error(error, path) from error
        super().__init__(cast("BinaryIO", file), encoding="utf-8", errors="replace", newline="", write_through=True)
        self._path = path

    def write(self, text: str) -> int:
        """Write a row.

        Raises:
            NotEnoughDisk, StoreError: it cannot be written.
        """
        try:
            return super().write(text)
        except OSError as error:
            raise write_error(error, self._path) from error


@contextmanager
def replaced(path: Path | None) -> Iterator[TextIO | None]:
    """Give a file to write that takes the place of another when it is whole; None for None.

    Raises:
        NotEnoughDisk, StoreError: it cannot be written; what was there stays.
    """
    if path is None:
        yield None
        return
    if path.exists() and not path.is_file():  # a device or a pipe has to stay what it is
        with ErrorsFile(path) as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f"{path.name}.incomplete")
    try:
        opened = create_anew(temporary, mode=PRIVATE)
        with open(opened, "w", encoding="utf-8", errors="replace", newline="") as file:
            yield file
            file.flush()
            with suppress(FileNotFoundError):  # a file that was there keeps its permissions
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _open_private(name: str, flags: int) -> int:
    return os.open(name, flags, PRIVATE)


def is_file(path: Path | None) -> bool:
    """Tell what can be read twice from pipes and the like; what is not there at all will be told where it is read."""
    return path is not None and (path.is_file() or not path.exists() or path.is_dir())
