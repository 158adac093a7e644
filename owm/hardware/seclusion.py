"""Running a program with no way to the network, by means of the system that hold for native code too.

As a module it shuts itself in and then becomes the program: `python -m owm.hardware.seclusion MEANS… -- PROGRAM …`.
"""

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Means = Literal["filter", "namespace", "sandbox"]
# filter: the kernel ends the process at its first socket but AF_UNIX; namespace: a network without any device;
# sandbox: macOS refuses whatever is of the network.

TIMEOUT_SECONDS = 600.0
KILLED = 128 + 31  # SIGSYS, which the filter ends a process with

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER_MODE = 38, 22, 2
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_ALLOWED = (1,)  # AF_UNIX; all other families are refused: the internet's, a host's of virtual machines, packets, …
_IO_URING_SETUP = 425  # it can make sockets without `socket`
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
# machine -> (AUDIT_ARCH_*, number of `socket`). ref: linux/audit.h, asm/unistd.h
_ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198), "riscv64": (0xC00000F3, 198)}
_X32 = 0x40000000
_PROFILE = "(version 1)(allow default)(deny network*)"
_SANDBOX = Path("/usr/bin/sandbox-exec")


@dataclass(frozen=True, slots=True)
class Secluded:
    """What became of a program that was shut in.

    Attributes:
        means: those that held; empty where this system has none.
        was_killed: it tried to open a socket to other than a program of this machine, and the kernel ended it for that.
    """

    means: tuple[Means, ...]
    code: int
    output: str
    errors: str
    was_killed: bool


def available() -> tuple[Means, ...]:
    """Return the means that hold here: each is tried on a program that does open a socket, and has to stop it."""
    return tuple(means for means in _candidates() if _holds(means))


def run(
    program: Sequence[str], means: Sequence[Means], *, environment: Mapping[str, str] | None = None, given: str = ""
) -> Secluded:
    """Run a program with no way to the network, to its end.

    Args:
        given: what it reads from its standard input.

    Raises:
        subprocess.TimeoutExpired: it does not come to an end.
        OSError: it cannot be started.
    """
    done = subprocess.run(
        command(program, means),
        input=given,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_SECONDS,
        env=None if environment is None else dict(environment),
    )
    was_killed = done.returncode in (-31, KILLED)
    return Secluded(tuple(means), done.returncode, done.stdout, done.stderr, was_killed)


def _candidates() -> tuple[Means, ...]:
    if sys.platform == "linux":
        return ("filter", "namespace")
    if sys.platform == "darwin" and _SANDBOX.exists():
        return ("sandbox",)
    return ()


def _holds(means: Means) -> bool:
    """Try it on a program that connects to this machine's own loopback, which needs no network."""
    attempt = (
        "import socket\n"
        "listening = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(listening.getsockname(), 5)\n"
        "print('through')\n"
    )
    try:
        found = run([sys.executable, "-I", "-c", attempt], [means])
    except (OSError, subprocess.SubprocessError):
        return False
    # A program that cannot be started shows nothing: the same one without the network has to come to its end.
    harmless = run([sys.executable, "-I", "-c", "print('through')"], [means])
    return "through" not in found.output and "through" in harmless.output


def command(program: Sequence[str], means: Sequence[Means]) -> list[str]:
    """Return the command line that shuts a program in and then is it."""
    if "sandbox" in means:
        return [str(_SANDBOX), "-p", _PROFILE, *program]
    return [sys.executable, "-P", "-m", "owm.hardware.seclusion", *means, "--", *program]


class _Instruction(ctypes.Structure):
    """ref: linux/filter.h, struct sock_filter"""

    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """ref: linux/filter.h, struct sock_fprog"""

    _fields_ = (("len", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


def _instructions(architecture: int, socket_number: int) -> list[tuple[int, int, int, int]]:
    """Return the filter: kill at sockets of families not allowed, at io_uring, and at calls of other architectures.

    ref: linux/seccomp.h, struct seccomp_data: `nr` at 0, `arch` at 4, the first argument's lower half at 16.
    """
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06
    n = len(_ALLOWED)
    lines = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (end, 0, 0, _KILL),
        (load, 0, 0, 0),
        (equal, n + 3, 0, _IO_URING_SETUP),
        (at_least, n + 2, 0, _X32),
        (equal, 0, n + 2, socket_number),
        (load, 0, 0, 16),
    ]
    lines += [(equal, n - i, 0, family) for i, family in enumerate(_ALLOWED)]
    return [*lines, (end, 0, 0, _KILL), (end, 0, 0, _ALLOW)]


def _set_filter() -> None:
    """Have the kernel end this process, and all that it starts, at the first socket but to programs of this machine.

    Raises:
        OSError: the kernel does not take it.
    """
    architecture, socket_number = _ARCHITECTURES[platform.machine()]
    lines = _instructions(architecture, socket_number)
    filters = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), filters)
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_NO_NEW_PRIVILEGES, 1, 0, 0, 0),
        (_SECCOMP, _FILTER_MODE, ctypes.addressof(program), 0, 0),
    ):
        if libc.prctl(*(ctypes.c_ulong(number) for number in call)) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def _set_namespace() -> None:
    """Leave this machine's network for an empty one.

    Raises:
        OSError: the kernel does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(ctypes.c_int(_NEW_NETWORK)) == 0:
        return
    if libc.unshare(ctypes.c_int(_NEW_USER | _NEW_NETWORK)) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{user} {user} 1")
    (own / "gid_map").write_text(f"{group} {group} 1")


def main(arguments: Sequence[str]) -> None:
    """Shut this process in by the means that are named, and become the program after `--`."""
    at = list(arguments).index("--")
    means, program = arguments[:at], arguments[at + 1 :]
    try:
        if "namespace" in means:
            _set_namespace()
        if "filter" in means:
            _set_filter()
    except (OSError, KeyError, AttributeError) as error:
        sys.stderr.write(f"cannot be shut in: {error}\n")
        os._exit(125)
    os.execv(program[0], list(program))


if __name__ == "__main__":
    main(sys.argv[1:])
