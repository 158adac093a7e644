"""Tracebacks of bugs and warnings, which Python itself would write: they quote strangers, and may tell secrets."""

import sys
import threading
import warnings
from types import TracebackType
from typing import TextIO

from owm.cli.output import talk
from owm.cli.secrets import hidden
from owm.cli.terminal import visible


def take_over() -> None:
    """Write them as all else that goes to stderr: nothing that steers a terminal, no passwords and tokens."""
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _uncaught_in_thread
    warnings.showwarning = _warning


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    import traceback

    _say("".join(traceback.format_exception(kind, error, trace)))


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_type is SystemExit or arguments.exc_value is None:
        return
    name = arguments.thread.name if arguments.thread is not None else "?"
    _say(f"Exception in thread {name}:\n")
    _uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)


def _unraisable(arguments: "sys.UnraisableHookArgs") -> None:
    _say(f"{arguments.err_msg or 'Exception ignored in'}: {arguments.object!r}\n")
    if arguments.exc_value is not None:
        _uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _say(warnings.formatwarning(message, category, filename, lineno, line))


def _say(text: str) -> None:
    talk(visible(hidden(text)))
