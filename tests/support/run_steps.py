"""Many commands in one process, shut in as a whole: `python -m support.run_steps`, which reads what to do as JSON.

Before each command its number is written, so that whoever the kernel ends can be named. With `writable`, everything
else in the file system is read-only: for the kernel, in a mount namespace.
"""

import ctypes
import errno
import io
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_BIND, _RECURSIVE, _PRIVATE = 4096, 16384, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _RDONLY = 442, -100, 0x8000, 1
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.mkdir": (0,), "os.remove": (0,), "os.rmdir": (0,), "os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,),
    "os.chmod": (0,), "os.truncate": (0,), "os.utime": (0,), "os.chown": (0,), "os.setxattr": (0,),
    "os.removexattr": (0,),
}  # fmt: skip


class _Attributes(ctypes.Structure):
    """ref: linux/mount.h, struct mount_attr"""

    _fields_ = (("set", ctypes.c_uint64), ("clear", ctypes.c_uint64), ("how", ctypes.c_uint64), ("fd", ctypes.c_uint64))


def make_read_only(writable: list[str]) -> None:
    """Let only what lies in these folders be changed, by this process and all that it starts.

    Raises:
        OSError: the kernel does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_MOUNTS) != 0:
        _check(libc.unshare(_NEW_USER | _NEW_MOUNTS), "unshare")
        own = Path("/proc/self")
        (own / "setgroups").write_text("deny")
        (own / "uid_map").write_text(f"{user} {user} 1")
        (own / "gid_map").write_text(f"{group} {group} 1")
    _check(libc.mount(None, b"/", None, _RECURSIVE | _PRIVATE, None), "mount")
    for folder in map(os.fsencode, writable):
        _check(libc.mount(folder, folder, None, _BIND | _RECURSIVE, None), "mount")
    _set(libc, b"/", _Attributes(set=_RDONLY))
    for folder in (*map(os.fsencode, writable), b"/proc"):
        _set(libc, folder, _Attributes(clear=_RDONLY))
    os.chdir(os.getcwd())  # into the new mount of it


def _set(libc: ctypes.CDLL, folder: bytes, attributes: _Attributes) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _check(
        libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, folder, _AT_RECURSIVE, ctypes.byref(attributes), size), "mount_setattr"
    )


def _check(code: int, what: str) -> None:
    if code != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


class Watch:
    """Sees each change that Python code asks for; what native code and other processes do, the kernel sees."""

    def __init__(self, writable: list[str], temporary: str) -> None:
        self.outside: set[str] = set()
        self.careless: set[str] = set()  # straight in the folder for temporary files, and not made by `tempfile`
        self.fails_at = 0
        self.code = 0
        self._writable = (*(f"{folder}/" for folder in writable), "/proc/", "/dev/null")
        self._temporary = temporary
        self._made: set[str] = set()

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(path, str | bytes) and flags & _WRITING:
                self._see(os.fsdecode(path), flags)
                self._fail()
        elif event in ("tempfile.mkstemp", "tempfile.mkdtemp"):
            self._made.add(os.path.abspath(args[0]))
        elif event in _CHANGES:
            folder = args[-1] if isinstance(args[-1], int) and args[-1] >= 0 else None
            for place in _CHANGES[event]:
                if isinstance(args[place], str | bytes):
                    name = os.fsdecode(args[place])
                    self._see(os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name) if folder else name, 0)

    def _see(self, path: str, flags: int) -> None:
        path = os.path.abspath(path)
        if not f"{path}/".startswith(self._writable):
            self.outside.add(path)
        if flags & os.O_CREAT and os.path.dirname(path) == self._temporary and path not in self._made:
            self.careless.add(path)

    def _fail(self) -> None:
        if self.fails_at and threading.current_thread() is threading.main_thread():
            self.fails_at -= 1
            if not self.fails_at:
                if self.code == 130:
                    raise KeyboardInterrupt
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def main() -> None:
    """Run what stdin says, and print a line of JSON for each command."""
    asked = json.load(sys.stdin)
    report = os.fdopen(os.dup(1), "w", buffering=1)
    writable = asked["writable"]
    watch = None
    if writable is not None:
        if asked["is_enforced"]:
            make_read_only(writable)
        tempfile.gettempdir()  # the first call tries to write there
        watch = Watch(writable, asked["temporary"])
    from owm.cli.app import main as run

    if watch is not None:
        sys.addaudithook(watch)
    for number, step in enumerate(asked["steps"]):
        report.write(json.dumps({"began": number}) + "\n")
        report.write(json.dumps({"number": number, **_run(run, step, watch)}) + "\n")


def _run(run: Any, step: dict[str, Any], watch: Watch | None) -> dict[str, Any]:
    given, taken = os.pipe()
    os.write(taken, step["stdin"].encode())
    os.close(taken)
    os.dup2(given, 0)
    os.close(given)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    said = [os.memfd_create(name) for name in ("out", "err")]
    for number, each in enumerate(said, 1):
        os.dup2(each, number)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding="utf-8", write_through=True)
    was_offline = os.environ.get("OWM_OFFLINE")
    if watch is not None:
        watch.outside.clear()
        watch.careless.clear()
        watch.fails_at, watch.code = step["fails_at"], step["code"]
    began = time.process_time()
    try:
        code: object = run(step["args"])
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    if was_offline is None:
        os.environ.pop("OWM_OFFLINE", None)  # `--offline` means the process, which goes on here
    texts = [os.pread(each, 1 << 20, 0).decode("utf-8", "replace") for each in said]
    for each in said:
        os.close(each)
    found = {"seconds": time.process_time() - began, "code": code, "out": texts[0][-2000:], "err": texts[1][-2000:]}
    if watch is not None:
        watch.fails_at = 0
        found |= {"outside": sorted(watch.outside), "careless": sorted(watch.careless)}
    return found


if __name__ == "__main__":
    main()
