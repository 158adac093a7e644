"""One case of fuzzing: what drives it, within which limits, and how it is told that it has failed.

A case has failed if its reader raises anything but an `OwmError`, takes 2 s of processor time, grows the process by
more than 256 MiB, opens a file for writing (or changes one) outside its folder, connects or starts a program.
"""

import os
import random
import re
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

SECONDS_PER_CASE = 2.0  # of processor time: other work on the machine is no fault of a reader's
BYTES_PER_CASE = 256 << 20
MOST_BYTES = 2 << 30  # of a process: the machine is to live through a finding
MAX_MESSAGE = 2001  # the largest of an `OwmError`, and a mark
_CHANGES = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate",
    "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile", "tempfile.mkstemp", "tempfile.mkdtemp",
)  # fmt: skip
_STRANGE = (
    "socket.connect",
    "socket.bind",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "ctypes.dlopen",
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class TooLong(BaseException):
    """A case has taken all its time. No `except Exception` of a reader stops it."""


class Wrong(Exception):
    """A reader has done what it must not, or has contradicted itself."""


class Target:
    """One reader, or several that read the same.

    Attributes:
        name: of the target; `file_name` is what a case is called on disk.
    """

    name = ""
    file_name = "case"

    @cached_property
    def seeds(self) -> list[bytes]:
        """Sound cases."""
        raise NotImplementedError

    def warm_up(self, folder: Path) -> None:
        """Do what is done once in a process: imports, caches."""
        for seed in self.seeds:
            outcome(self, seed, folder)

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        """Make a case; `kept` are those that were refused for a cause of their own."""
        raise NotImplementedError

    def drive(self, case: bytes, folder: Path) -> None:
        """Read a case as owm does; what it raises is the outcome."""
        raise NotImplementedError


_told: list[str] = []
_seen_refusals: list[str] = []


def tell(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Make one of several calls over a case: its refusal is noted, and does not keep the others from being made."""
    from owm.errors import OwmError

    try:
        return call(*arguments, **named)
    except OwmError as error:
        _seen_refusals.append(_said(error))
        return None


def outcome(target: Target, case: bytes, folder: Path) -> tuple[str, str | None]:
    """Drive one case; return what it was refused for (`taken` if it was not) and what is wrong (key and report)."""
    from owm.errors import OwmError

    _told.clear()
    _seen_refusals.clear()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cause, wrong = "", None
    signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_CASE)
    try:
        target.drive(case, folder)
    except OwmError as error:
        cause = _said(error)
        if not cause.partition(": ")[2].strip():
            wrong = "an empty message\n" + traceback.format_exc(limit=-8)
        elif len(str(error)) > MAX_MESSAGE:
            wrong = f"a long message: {_place(error.__traceback__)}\n{len(str(error))} characters: {str(error)[:300]}"
    except TooLong:
        wrong = f"too long: {_place(sys.exc_info()[2])}\n" + traceback.format_exc(limit=-12)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        said = str(error)[:60] if isinstance(error, Wrong) else ""
        wrong = (
            f"{type(error).__name__} {said}: {_place(error.__traceback__)}\n" + traceback.format_exc(limit=-12)[-6000:]
        )
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if wrong is None and grown * 1024 > BYTES_PER_CASE:
        wrong = f"too much memory\n{grown >> 10} MiB more than before"
    if wrong is None and _told:
        wrong = f"outside its folder: {_told[0][:120]}\n" + "\n".join(_told)
    return cause or " ".join(["taken", *_seen_refusals[:1]]), wrong


def _said(error: BaseException) -> str:
    text = re.sub(r"\S*/\S*", "P", str(error)[:300])
    return f"{type(error).__name__}: " + re.sub(r"(['\"`]).*?\1|b'.*|\d[\d.,e+]*|\([^)]*\)", "_", text)[:90]


def _place(trace: Any) -> str:
    """Name the innermost line of owm's in a traceback."""
    frames = traceback.extract_tb(trace)
    own = [frame for frame in frames if "/owm/" in frame.filename] or frames
    return f"{own[-1].filename.rpartition('/owm/')[2]}:{own[-1].name}" if own else "nowhere"


def watch_files(folder: Path) -> None:
    """From now on note what this process does to files outside `folder`, and what else is no business of a reader's."""
    inside = (str(folder), "/dev/null", "/proc/self/")

    def is_outside(path: object) -> bool:
        if isinstance(path, int) or path is None:
            return False
        text = os.fsdecode(path) if isinstance(path, bytes | str | os.PathLike) else str(path)
        return not os.path.abspath(text).startswith(inside)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if (
                (flags or 0) & _WRITES
                and is_outside(path)
                and not str(path).endswith(".pyc")
                and "__pycache__" not in str(path)
            ):
                _told.append(f"open for writing: {path!r} {mode} {flags}")
        elif event in _CHANGES:
            if any(is_outside(path) for path in arguments[:2] if isinstance(path, bytes | str | os.PathLike)):
                _told.append(f"{event}: {arguments!r}")
        elif event in _STRANGE and event != "ctypes.dlopen":
            _told.append(f"{event}: {arguments!r}"[:300])

    sys.addaudithook(hook)


def begin_limits() -> None:
    """Set the limits of this process, for all cases that come."""

    def stop(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGPROF, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    sys.unraisablehook = lambda args: _told.append(f"unraisable: {args.exc_type.__name__} {args.exc_value}")


def memory_folder() -> str | None:
    """Return a folder in memory, None for that of temporary files."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def sandbox(folder: Path) -> None:
    """Give this process a home of its own, and no network."""
    for name in ("OWM_HOME", "HF_HOME", "XDG_CONFIG_HOME", "HOME", "TMPDIR", "DOCKER_CONFIG"):
        (folder / name.lower()).mkdir(exist_ok=True)
        os.environ[name] = str(folder / name.lower())
    for name in (
        "HF_TOKEN",
        "HF_HUB_CACHE",
        "HF_ENDPOINT",
        "OWM_OLLAMA_REGISTRY",
        "MODELSCOPE_DOMAIN",
        "MODELSCOPE_API_TOKEN",
    ):
        os.environ.pop(name, None)
    tempfile.tempdir = None
    os.chdir(folder)
