"""Whether stored files are what was published: told by size and time where those are known, else by every byte.

A file that was found whole has its modification time in the manifest; as long as size and time are those, it is taken
for whole. `full` takes nothing for granted. Nothing here changes a file of a model.
"""

import functools
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from owm.errors import ChecksumMismatch, Damaged, MalformedFile, ModelNotFound, OwmError, StoreError
from owm.events import Sink, ignore
from owm.store import manifest
from owm.store.digest import Hashing, sha256_of_all
from owm.store.manifest import FileRecord
from owm.store.model import StoredModel, read_error
from owm.store.shelf import Shelf

if TYPE_CHECKING:
    from owm.store.local import Store

Status = Literal["whole", "damaged", "gone", "unreadable"]
DISPENSABLE = ("generation_config", "licence")  # a model is whole without them
WEIGHTS = ("model", "shard")

Blanked = tuple[int, int] | None


class RowCheck(Protocol):
    """Looks at the rows of a model file while its bytes are read for something else."""

    @property
    def problem(self) -> OwmError | None:
        """What was found wrong by now."""

    def take(self, chunk: memoryview) -> None:
        """Look at the next bytes of the file."""


@dataclass(slots=True)
class Examined:
    """A file of a model, and what is wrong with it if anything is.

    Attributes:
        is_as_recorded: its bytes are those that its manifest records, so what is wrong was wrong before.
    """

    record: FileRecord
    path: Path
    blanked: Blanked
    problem: OwmError | None = None
    status: os.stat_result | None = None  # before it was read, None where it was not
    is_as_recorded: bool = False


@dataclass(slots=True)
class Verdict:
    """What became of a model's verification."""

    model: StoredModel
    files: list[Examined] = field(default_factory=list)

    @property
    def damaged(self) -> list[Examined]:
        """The files that are not as they should be."""
        return [file for file in self.files if file.problem is not None]

    @property
    def problem(self) -> OwmError | None:
        """What is wrong with the model: of several things the one that was found first."""
        return self.damaged[0].problem if self.damaged else None

    @property
    def can_be_mended(self) -> bool:
        """Tell whether anything is wrong that other bytes would mend."""
        return any(not file.is_as_recorded for file in self.damaged)

    @property
    def status(self) -> Status:
        """What a person is told of it, in a word."""
        return status_of(self.problem)


def status_of(problem: OwmError | None) -> Status:
    """Name a problem in a word."""
    if problem is None:
        return "whole"
    return "gone" if isinstance(problem, ModelNotFound) else "unreadable" if type(problem) is StoreError else "damaged"


def verify(
    models: Sequence[StoredModel],
    store: "Store",
    *,
    full: bool = False,
    inspect: Callable[[Path], object] = lambda path: None,
    rows: Callable[[Path], RowCheck | None] | None = None,
    n_threads: int | None = None,
    is_locked: bool = False,
    sink: Sink = ignore,
) -> list[Verdict]:
    """Examine the files of models, each file once however many models have it; what is wrong is in the verdicts.

    Args:
        full: read every byte, whatever size and time say.
        inspect: reads the header of a model file whose bytes are the recorded ones, and raises if it cannot be used.
        rows: makes what looks at the rows of a model file that is read whole, None for a file that has none.
        n_threads: that read and hash at once, None for as many as there are processors.
        is_locked: whether the caller holds the models' locks.
    """
    verdicts = [Verdict(model, _files_of(model, store)) for model in models]
    for verdict in verdicts:
        if verdict.model.manifest is None:
            _read_headers(verdict, inspect, is_read=full and rows is not None)
    shelf = functools.cache(lambda: Shelf(store.models()))  # of use only where something is wrong
    unread: dict[tuple[int, int, Blanked], list[Examined]] = {}
    for verdict in verdicts:
        for file in verdict.files:
            if verdict.model.manifest is not None:
                _look(file, full=full)
            if isinstance(file.problem, ModelNotFound):
                file.problem = _gone(file.path, verdict.model, store.shown_name(verdict.model, shelf()))
            if file.status is not None:
                unread.setdefault((file.status.st_dev, file.status.st_ino, file.blanked), []).append(file)
    groups = list(unread.values())
    checks = [rows(same[0].path) if rows and same[0].record.role in WEIGHTS else None for same in groups]
    hashings = [
        Hashing(same[0].path, _size_of(same[0]), same[0].blanked, None if check is None else check.take)
        for same, check in zip(groups, checks, strict=True)
    ]
    found = sha256_of_all(hashings, n_threads=n_threads, sink=sink) if hashings else []
    for same, result, check in zip(groups, found, checks, strict=True):
        for file in same:
            file.problem = _compare(file, result, inspect)
            if file.problem is None and check is not None:
                file.problem = check.problem
    for verdict in verdicts:
        for file in verdict.damaged if verdict.model.manifest is not None else ():
            if isinstance(file.problem, Damaged) and not file.is_as_recorded:
                file.problem.hint = store.hint_to_mend(verdict.model, shelf())
        if not is_locked and verdict.model.manifest is not None:
            _note_times(verdict, store)
    return verdicts


def _files_of(model: StoredModel, store: "Store") -> list[Examined]:
    if model.manifest is None:
        return []
    return [
        Examined(record, store.file_path(record), model.manifest.blanked if number == 0 else None)
        for number, record in enumerate(model.manifest.kept_files)
    ]


def _read_headers(verdict: Verdict, inspect: Callable[[Path], object], *, is_read: bool) -> None:
    """Examine a file that is not stored: nobody knows what its bytes should be, but its header says much.

    Args:
        is_read: whether the rest of it is to be read, too.
    """
    for path in verdict.model.files:
        file = Examined(FileRecord(str(path), "outside", 0, ""), path, None)
        verdict.files.append(file)
        try:
            inspect(path)
            file.status = path.stat() if is_read else None
        except OwmError as problem:
            file.problem = problem
        except OSError as error:
            file.problem = read_error(error, path)


def _look(file: Examined, *, full: bool) -> None:
    """Note what can be said of a file without reading it; `status` stays None where nothing is left to be read."""
    record = file.record
    try:
        status = file.path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if record.role not in DISPENSABLE:
            file.problem = ModelNotFound("", ref="")
        return
    except OSError as error:
        file.problem = read_error(error, file.path)
        return
    if status.st_size != record.size_bytes:
        cause = f"it has {status.st_size} bytes instead of {record.size_bytes}"
        file.problem = MalformedFile(file.path, cause, kind=_kind(record))
    elif full or record.mtime_ns is None or status.st_mtime_ns != record.mtime_ns:
        file.status = status


def _gone(path: Path, model: StoredModel, name: str) -> ModelNotFound:
    of = model.manifest
    is_lost = of is not None and (of.owner is not None or of.made_from is not None or of.source == "local")
    return ModelNotFound(
        f"{name} is gone: {path} was removed by another program",
        ref=model.name,
        hint=f"`owm rm {name}` forgets it" if is_lost else f"`owm pull {name}` fetches it again",
    )


def _compare(file: Examined, result: str | OSError, inspect: Callable[[Path], object]) -> OwmError | None:
    if isinstance(result, OSError):
        return read_error(result, file.path)
    if not file.record.sha256:  # nobody knows what it should be
        return None
    if result != file.record.sha256:
        return ChecksumMismatch(
            f"{file.path.name} is damaged: its sha256 is not the recorded one",
            expected=file.record.sha256,
            actual=result,
        )
    file.is_as_recorded = True
    if file.record.role in WEIGHTS:
        try:
            inspect(file.path)
        except OwmError as problem:
            problem.hint = "the bytes are those that were recorded, fetching them again mends nothing: take another one"
            return problem
    return None


def _size_of(file: Examined) -> int:
    return file.record.size_bytes or (file.status.st_size if file.status else 0)


def _kind(record: FileRecord) -> str:
    return "GGUF" if record.role in WEIGHTS else record.role


def _note_times(verdict: Verdict, store: "Store") -> None:
    """Let the next verification go by the times of files that were read now and are whole.

    Where a manifest cannot be written, or another process changes it just now, they are read again next time.
    """
    found = {
        file.record.path: (file.record, file.status.st_mtime_ns)
        for file in verdict.files
        if file.status is not None and file.problem is None and _is_still(file)
    }
    folder = verdict.model.folder
    if folder is None or all(record.mtime_ns == mtime_ns for record, mtime_ns in found.values()):
        return

    def noted(record: FileRecord) -> FileRecord:
        known, mtime_ns = found.get(record.path, (None, None))
        return replace(record, mtime_ns=mtime_ns) if record == known else record

    with suppress(OSError, OwmError), store.try_lock(folder) as is_ours:
        current = store.at(folder)
        if not is_ours or current is None or current.manifest is None:
            return
        of = current.manifest
        times = (folder / manifest.FILE_NAME).stat()
        changed = replace(
            of,
            files=tuple(map(noted, of.files)),
            generation_config=noted(of.generation_config) if of.generation_config else None,
            extras=tuple(map(noted, of.extras)),
        )
        manifest.write(changed, folder)
        # A manifest's time says when the model was last used.
        os.utime(folder / manifest.FILE_NAME, ns=(times.st_atime_ns, times.st_mtime_ns))


def _is_still(file: Examined) -> bool:
    """Tell whether a file is unchanged since before it was read."""
    try:
        now = file.path.stat()
    except OSError:
        return False
    before = file.status
    return before is not None and (now.st_size, now.st_mtime_ns, now.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
