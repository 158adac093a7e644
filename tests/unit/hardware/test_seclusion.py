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


def test_the_filter_jumps_only_to_where_it_ends() -> None:
    lines = seclusion._instructions(0xC000003E, 41)
    for place, (code, yes, no, _) in enumerate(lines):
        if code in (0x15, 0x35):
            assert place + 1 + yes < len(lines)
            assert place + 1 + no < len(lines)
    assert [line[0] for line in lines[-2:]] == [6, 6]
