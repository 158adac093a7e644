"""Programs that are shut in: what they do without the network, and what becomes of those that want it."""

import subprocess
import sys

import pytest

from owm.hardware import seclusion

CONNECT = "import socket; s = socket.socket({family}, socket.SOCK_{kind}); print('through')"


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-c", code]


def test_there_are_means_here() -> None:
    assert set(seclusion.available()) & {"filter", "namespace", "sandbox"}


def test_a_program_without_the_network_does_what_it_always_does() -> None:
    means = seclusion.available()
    done = seclusion.run(python("import sys; print('done'); print('talk', file=sys.stderr); sys.exit(3)"), means)
    assert (done.code, done.output, done.errors, done.was_killed) == (3, "done\n", "talk\n", False)
    assert done.means == means


@pytest.mark.parametrize("family", ["socket.AF_INET", "socket.AF_INET6", "socket.AF_PACKET"])
@pytest.mark.parametrize("kind", ["STREAM", "DGRAM", "RAW"])
def test_the_kernel_ends_a_program_at_its_first_socket_for_the_internet(family: str, kind: str) -> None:
    done = seclusion.run(python(CONNECT.format(family=family, kind=kind)), ["filter"])
    assert done.was_killed
    assert done.output == ""


@pytest.mark.parametrize("family", [0, 3, 9, 15, 16, 21, 31, 38, 40, 43, 44, 2**31])
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_the_kernel_ends_a_program_at_a_socket_of_any_other_family(family: int, kind: int) -> None:
    code = f"import ctypes; ctypes.CDLL(None).socket(ctypes.c_int({family}), {kind}, 0); print('through')"
    done = seclusion.run(python(code), ["filter"])
    assert done.was_killed
    assert done.output == ""


def test_sockets_between_programs_of_this_machine_are_let_be() -> None:
    done = seclusion.run(python(CONNECT.format(family="socket.AF_UNIX", kind="STREAM")), ["filter"])
    assert (done.code, done.output) == (0, "through\n")


def test_what_it_starts_is_shut_in_as_well() -> None:
    code = (
        "import subprocess, sys; "
        f"done = subprocess.run([sys.executable, '-I', '-c', {CONNECT.format(family='2', kind='STREAM')!r}]); "
        "print(done.returncode)"
    )
    done = seclusion.run(python(code), ["filter"])
    assert done.output == "-31\n"
    assert not done.was_killed


def test_native_code_is_stopped_like_any_other() -> None:
    done = seclusion.run(python("import ctypes; print(ctypes.CDLL(None).socket(2, 1, 0))"), ["filter"])
    assert done.was_killed


def test_a_ring_of_calls_is_no_way_around() -> None:
    done = seclusion.run(python("import ctypes; print(ctypes.CDLL(None).syscall(425, 1, 0))"), ["filter"])
    assert done.was_killed


def test_means_that_do_not_hold_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seclusion, "_set_filter", lambda: None)
    assert seclusion._holds("filter")  # in the child it is the real one
    monkeypatch.setattr(seclusion, "command", lambda program, means: list(program))
    assert not seclusion._holds("filter")
    assert seclusion.available() == ()


def test_a_program_that_cannot_be_shut_in_is_not_run() -> None:
    code = "import owm.hardware.seclusion as s; s._ARCHITECTURES.clear(); s.main(['filter', '--', '/bin/echo', 'ran'])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("cannot be shut in: ")


def judged(lines: list[tuple[int, int, int, int]], architecture: int, number: int, argument: int) -> int:
    """Return what a filter says of a call, as the kernel reads it."""
    words, place, value = {4: architecture, 0: number, 16: argument}, 0, 0
    while True:
        code, yes, no, wanted = lines[place]
        place += 1
        if code == 0x06:
            return wanted
        if code == 0x20:
            value = words[wanted]
        else:
            place += yes if (value == wanted if code == 0x15 else value >= wanted) else no


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_what_the_filter_says_on_each_machine(machine: str) -> None:
    architecture, socket = seclusion._ARCHITECTURES[machine]
    lines = seclusion._instructions(architecture, socket)
    allowed = [family for family in range(256) if judged(lines, architecture, socket, family) == 0x7FFF0000]
    assert allowed == [1]
    assert judged(lines, architecture, 0, 2) == 0x7FFF0000
    for other in (425, 0x40000000 + socket, 0xFFFFFFFF):
        assert judged(lines, architecture, other, 1) == 0x80000000
    assert judged(lines, architecture + 1, socket, 1) == 0x80000000
