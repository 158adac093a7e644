"""Tracebacks of bugs, of whatever thread, and warnings: nothing in them steers the terminal or tells a secret."""

import pytest

from support.run import run

EVIL = "\\x1b]52;c;aGk=\\x07\\x9b2J\\u202e https://me:hunter2@host/x?signature=s1gned hf_abcdefghijklmnopqrst"
SHOWN = r"\x1b]52;c;aGk=\x07\x9b2J\u202e https://***@host/x?*** ***"
PLACES = {
    "the main thread": f"raise ValueError('{EVIL}')",
    "another thread": f"import threading\ndef f(): raise ValueError('{EVIL}')\n"
    f"t = threading.Thread(target=f, name='{EVIL}')\nt.start(); t.join()",
    "a cause": f"try: raise KeyError('x')\nexcept KeyError as e: raise ValueError('{EVIL}') from e",
    "a finalizer": f"class A:\n    def __del__(self): raise ValueError('{EVIL}')\nA()",
    "a warning": f"import warnings\nwarnings.warn('{EVIL}', UserWarning)",
}


@pytest.mark.parametrize("place", PLACES)
def test_what_python_itself_writes_is_safe(place: str) -> None:
    program = f"from owm.cli.tracebacks import take_over\ntake_over()\n{PLACES[place]}\n"
    done = run(["-c", f"exec({program!r})"])
    assert SHOWN in done.stderr
    for unsafe in ("\x1b", "\x07", "\x9b", "\u202e", "hunter2", "s1gned", "hf_abc"):
        assert unsafe not in done.stderr
    if place == "the main thread":
        assert done.exit_code == 1
        assert done.stderr.startswith("Traceback (most recent call last):\n")


def test_an_unknown_exception_of_a_command_keeps_its_traceback_without_secrets() -> None:
    program = (
        "import sys, owm.cli.app\n"
        f"def fail(argv): raise ValueError('{EVIL}')\n"
        "owm.cli.app.main = fail\n"
        "from owm.__main__ import main\n"
        "sys.argv = ['owm', 'list']\n"
        "main()\n"
    )
    done = run(["-c", program])
    assert done.exit_code == 1
    assert "Traceback" in done.stderr
    assert SHOWN in done.stderr
    assert "hunter2" not in done.stderr
