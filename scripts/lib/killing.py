"""Kills commands of owm at chosen moments, and compares what then lies on the disk.

Commands run as forks of a process that has imported owm already, so that a kill hits work and not imports, and some as
processes of their own. Each has a session of its own; changes to the disk are counted where a fork is asked to.
"""

import atexit
import io
import mmap
import os
import random
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lib.inside import BIN

TIMEOUT = 120.0
POLL_SECONDS = 0.0002
MARK = "OWM_PROOF_KILL"
CHANGES = frozenset({
    "open", "os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate", "os.utime",
    "os.chmod", "shutil.rmtree", "sqlite3.connect",
})  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True, slots=True)
class Moment:
    """When a process is killed: after so many seconds, counted from its start or from its n-th change to the disk."""

    seconds: float
    n_changes: int | None = None
    is_group: bool = False

    def __str__(self) -> str:
        since = "its start" if self.n_changes is None else f"change {self.n_changes}"
        return f"{1000 * self.seconds:.1f} ms after {since}, {'group' if self.is_group else 'leader'}"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: `code` is None if it was killed; `times` are those of its changes to the disk.

    All that it has started have its `mark` in their environment.
    """

    code: int | None
    stdout: bytes
    stderr: str
    seconds: float
    n_changes: int
    times: tuple[float, ...] = ()
    mark: str = ""


class Counter:
    """Changes to the disk below a folder, counted by the one who makes them where another process can see it."""

    SLOTS = 4096

    def __init__(self, top: Path) -> None:
        """Count changes below `top`."""
        self._top = os.fspath(top)
        self._memory = mmap.mmap(-1, 8 * (self.SLOTS + 1))

    @property
    def n(self) -> int:
        """How many there were."""
        return int(struct.unpack_from("q", self._memory, 0)[0])

    def clear(self) -> None:
        """Begin anew."""
        struct.pack_into("q", self._memory, 0, 0)

    def times(self, since: float) -> tuple[float, ...]:
        """Return when each was begun, in seconds."""
        n = min(self.n, self.SLOTS)
        return tuple(struct.unpack_from("d", self._memory, 8 * (1 + index))[0] - since for index in range(n))

    def begin(self) -> None:
        """Count what this process does from now on."""

        def note(event: str, arguments: tuple[object, ...]) -> None:
            if event not in CHANGES or not self._is_below(arguments[0]):
                return
            if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
                return
            n = self.n
            if n < self.SLOTS:
                struct.pack_into("d", self._memory, 8 * (1 + n), time.monotonic())
            struct.pack_into("q", self._memory, 0, n + 1)

        sys.addaudithook(note)

    def _is_below(self, path: object) -> bool:
        """Tell whether a path lies in the folder, where commands run, too: so what is not absolute does."""
        text = os.fsdecode(path) if isinstance(path, bytes | str | os.PathLike) else ""
        return text.startswith(self._top) or not os.path.isabs(text)


class Runner:
    """Runs commands with one folder as their home, and kills them."""

    def __init__(self, top: Path, place: Path, here: Path) -> None:
        """Take a folder for output, the folder that is watched, and the one that commands run in."""
        self._top = top
        self._here = here
        self._counter = Counter(place)
        self._n_started = 0

    def run(
        self, words: Sequence[str], *, stdin: bytes = b"", kill: Moment | None = None, is_fork: bool = True
    ) -> Ended:
        """Run a command to its end, or to the moment at which it is killed."""
        self._n_started += 1
        mark = f"{os.getpid()}-{self._n_started}"
        (self._top / "stdin").write_bytes(stdin)
        self._counter.clear()
        files = [open(self._top / name, mode) for name, mode in (("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb"))]  # noqa: SIM115 (closed below)
        began = time.monotonic()
        try:
            numbers = [file.fileno() for file in files]
            pid = self._fork(words, numbers, mark) if is_fork else self._start(words, numbers, mark)
        finally:
            for file in files:
                file.close()
        code = self._wait(pid, began, kill)
        seconds = time.monotonic() - began
        return Ended(
            code,
            (self._top / "stdout").read_bytes(),
            (self._top / "stderr").read_text("utf-8", "replace"),
            seconds,
            self._counter.n,
            self._counter.times(began),
            mark,
        )

    def _wait(self, pid: int, began: float, kill: Moment | None) -> int | None:
        """Wait for a process, kill it at its moment; return its exit code, None if it was killed."""
        descriptor = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if kill is not None:
                if kill.n_changes is not None:
                    while self._counter.n < kill.n_changes and not poll.poll(0):
                        time.sleep(POLL_SECONDS)
                    began = time.monotonic()
                _sleep(began + kill.seconds - time.monotonic(), poll)
                with suppress(ProcessLookupError):
                    (os.killpg if kill.is_group else os.kill)(pid, signal.SIGKILL)
            if not poll.poll(1000 * TIMEOUT):
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return 124
        finally:
            os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            return None if kill is not None and os.WTERMSIG(status) == signal.SIGKILL else 128 + os.WTERMSIG(status)
        return os.waitstatus_to_exitcode(status)

    def _start(self, words: Sequence[str], numbers: Sequence[int], mark: str) -> int:
        stdin, stdout, stderr = numbers
        environment = {**os.environ, MARK: mark}
        process = subprocess.Popen(
            [str(BIN / "owm"), *words], stdin=stdin, stdout=stdout, stderr=stderr, cwd=self._here, env=environment,
            start_new_session=True,
        )  # fmt: skip
        process.returncode = 0  # it is waited for by its number
        return process.pid

    def _fork(self, words: Sequence[str], numbers: Sequence[int], mark: str) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                for target, number in enumerate(numbers):
                    os.dup2(number, target)
                os.closerange(3, 64)
                os.chdir(self._here)
                os.environ[MARK] = mark
                _become(words, self._counter)
            except BaseException:
                traceback.print_exc()
                os._exit(70)
        return pid


def _sleep(seconds: float, poll: select.poll) -> None:
    """Sleep exactly, unless the process ends before."""
    until = time.monotonic() + seconds
    if seconds > 0.002 and poll.poll(1000 * (seconds - 0.001)):
        return
    while time.monotonic() < until:
        time.sleep(POLL_SECONDS / 2)


def _become(words: Sequence[str], counter: Counter) -> NoReturn:
    """Be the command line of owm in a process that was just forked."""
    sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8")  # noqa: SIM115 (for the whole process)
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8")  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), encoding="utf-8", line_buffering=True)  # noqa: SIM115
    sys.argv = ["owm", *words]
    counter.begin()
    from owm.__main__ import main

    code: object = 0
    try:
        main()
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
        code = 1
    with suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def still_running(mark: str) -> list[str]:
    """Return the command lines of processes that a command has started and left, after a while of grace."""
    until = time.monotonic() + 5
    while found := _marked(mark):
        if time.monotonic() > until:
            return found
        time.sleep(0.02)
    return []


def _marked(mark: str) -> list[str]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return found


def moment(dice: random.Random, whole: Ended, *, is_fork: bool) -> Moment:
    """Draw a moment: while a command changes the disk in most cases, else from its start to a little after its end."""
    is_group = dice.random() < 0.5
    if not is_fork:
        return Moment(dice.uniform(0.3, 1.05) * whole.seconds, None, is_group)
    times = whole.times
    kind = dice.random()
    if not times or kind < 0.2:
        return Moment(dice.uniform(0, 1.05) * whole.seconds, None, is_group)
    if kind < 0.5:
        return Moment(dice.uniform(0.98 * times[0], times[-1] + 0.05 * (whole.seconds - times[0])), None, is_group)
    number = dice.randint(1, len(times))
    after = times[number] if number < len(times) else whole.seconds
    return Moment(dice.uniform(0, 1.2) * (after - times[number - 1]), number, is_group)
