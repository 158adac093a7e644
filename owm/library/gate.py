"""The gate before llama.cpp: a model is tried in a process of its own before this one loads it for the first time.

What passed is remembered by its content, in a small file under `OWM_HOME`; what did not is tried again the next time.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

from owm import paths
from owm.errors import EngineError, MalformedFile, OwmError
from owm.native.installed import library_stamp
from owm.publishing import publish_text
from owm.store.model import StoredModel

if TYPE_CHECKING:
    from owm.native.guard import Trial

VARIABLE = "OWM_TRUST"
FOLDER = "tried"
VERSION = 1  # of these files, and of what a trial does
PATIENCE_SECONDS = 1.0  # that a trial may take without a word
MOST_KEPT = 1000
SMALL_BYTES = 256 << 20  # of which a token is read sooner than several threads agree, where others work too
_MAX_BYTES = 4096
_NO = ("", "0", "false", "no", "off")
_HINT = "get the model from somewhere else; `--trust` loads it all the same, whatever comes of it"


def trusts() -> bool:
    """Tell whether models are loaded without a trial; only a clear yes or `--trust` says so."""
    return os.environ.get(VARIABLE, "").strip().lower() not in _NO


def trust() -> None:
    """Load models without a trial from now on, in this process and all that it starts."""
    os.environ[VARIABLE] = "1"


def admit(
    model: StoredModel, *, adapters: Sequence[Path] = (), tell: Callable[[str], None] = lambda message: None
) -> None:
    """Try a model and the adapters that it is to be loaded with, unless that was done or the user trusts it.

    Args:
        tell: takes a sentence where it takes more than a moment.

    Raises:
        MalformedFile: a header is not what it should be, or llama.cpp does not survive the model.
        Unsupported, NotEnoughMemory, EngineError: llama.cpp does not take it.
    """
    if trusts():
        return
    files = (*model.files, *adapters)
    try:
        before = [_identity(path) for path in files]
    except OSError:
        return  # one is not there or may not be read, as whoever opens it says
    verdict = _Verdict(_key(model, before), library_stamp())
    if verdict.is_kept():
        return
    _try(model, adapters, tell)
    with suppress(OSError):  # where nothing can be kept, it is tried again the next time
        if [_identity(path) for path in files] == before:
            verdict.keep()


def admit_files(files: Sequence[Path], *, tell: Callable[[str], None] = lambda message: None) -> None:
    """Try a model of which only its files are known; see `admit`."""
    admit(StoredModel(files[0].name, None, tuple(files)), tell=tell)


def _try(model: StoredModel, adapters: Sequence[Path], tell: Callable[[str], None]) -> None:
    from owm.native.guard import Child

    name = model.path.name
    note = Timer(PATIENCE_SECONDS, tell, (f"trying {name} in a process of its own before its first use",))
    note.daemon = True
    with Child("trial") as child:  # gets ready meanwhile
        note.start()
        try:
            from owm.engine.adapter import check_adapter
            from owm.engine.model import read_headers
            from owm.hardware import probe

            headers = read_headers(model.files, is_verified=model.is_verified)
            for adapter in adapters:
                check_adapter(adapter, headers)
            size_bytes = sum(path.stat().st_size for path in model.files)
            n_threads = 1 if size_bytes < SMALL_BYTES else probe.cores().usable
            found = child.trial(model.path, size_bytes=size_bytes, n_threads=n_threads, adapters=adapters)
        finally:
            note.cancel()
    if found.error is not None:
        raise _problem(model.path, found)


def _problem(path: Path, found: "Trial") -> OwmError:
    from owm.native.refusal import load_error

    said = str(found.error)
    if found.signal == "SIGKILL":
        return EngineError(
            f"trying {path.name} was ended from outside (SIGKILL)",
            hint="most often memory has run out; the same command tries it again, `--trust` leaves the trial out",
        )
    if found.stage == "load":
        problem = load_error(path.name, said)
        if isinstance(problem, EngineError):
            problem.hint = "`--trust --verbose` shows its whole log"  # of a load in this process
        return problem
    if found.stage == "adapter":
        return EngineError(f"llama.cpp cannot load an adapter of {path.name}: {said}")
    if found.stage:
        what = "make a context for" if found.stage == "context" else "compute with"
        return EngineError(f"llama.cpp cannot {what} {path.name}: {said}", hint=_HINT)
    return MalformedFile(path, f"tried in a process of its own, {said}", hint=_HINT)


def _identity(path: Path) -> tuple[int, int, int, int]:
    """Say which file it is, and in which state."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _key(model: StoredModel, identities: Sequence[tuple[int, int, int, int]]) -> str:
    """Name a model by the sha256 of its files where they are as its manifest says, else by which files they are."""
    records = model.manifest.files if model.manifest is not None else ()
    facts: list[object] = list(identities)
    if len(records) == len(model.files):
        for index, (record, (_, _, size, mtime_ns)) in enumerate(zip(records, identities, strict=False)):
            if (record.size_bytes, record.mtime_ns) == (size, mtime_ns):
                facts[index] = record.sha256
    return hashlib.sha256(repr(facts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Verdict:
    """That a model passed a trial with a build of llama.cpp, as it is kept: in a file of its own."""

    key: str
    build: str

    @property
    def path(self) -> Path:
        return paths.owm_home() / FOLDER / f"{self.key}.json"

    def _text(self) -> str:
        return json.dumps({"version": VERSION, "model": self.key, "llama.cpp": self.build, "result": "passed"}) + "\n"

    def is_kept(self) -> bool:
        """Tell whether exactly this is kept; whatever else is there counts for nothing, and is not waited for."""
        try:
            fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode) and os.read(fd, _MAX_BYTES) == self._text().encode()
        except OSError:
            return False
        finally:
            os.close(fd)

    def keep(self) -> None:
        """Keep it, in the place of one with another build; the oldest of very many are forgotten."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        publish_text(self.path, self._text())
        kept = [entry for entry in os.scandir(self.path.parent) if entry.is_file(follow_symlinks=False)]
        for entry in sorted(kept, key=lambda entry: entry.stat().st_mtime_ns)[: max(0, len(kept) - MOST_KEPT)]:
            os.unlink(entry.path)
