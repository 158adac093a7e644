"""Errors at the edge: one ordered table from exception type to exit code. Commands themselves catch nothing."""

import sys
from enum import IntEnum

from owm import errors
from owm.cli.secrets import spoken
from owm.cli.terminal import is_terminal
from owm.errors import OwmError


class ExitCode(IntEnum):
    """What the shell gets."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    NETWORK = 4
    UNSUPPORTED = 5
    NOT_ENOUGH = 6
    DAMAGED = 7
    INTERRUPTED = 130


EXIT_CODES: tuple[tuple[type[OwmError], ExitCode], ...] = (
    (errors.UsageError, ExitCode.USAGE),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.NetworkError, ExitCode.NETWORK),
    (errors.Unsupported, ExitCode.UNSUPPORTED),
    (errors.NotEnough, ExitCode.NOT_ENOUGH),
    (errors.Damaged, ExitCode.DAMAGED),
    (OwmError, ExitCode.FAILURE),
)


def exit_code(error: OwmError) -> ExitCode:
    """Return the exit code of an error."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def report(error: OwmError) -> ExitCode:
    """Say an error in one sentence, and its hint in another, on stderr."""
    say("error", str(error))
    if error.hint:
        say("hint", error.hint)
    return exit_code(error)


def say(word: str, message: str) -> None:
    """Write `word: message` to stderr, the word in colour on a terminal that wants it."""
    import os

    colour = {"error": "31", "warning": "33", "hint": "36"}.get(word)
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not is_terminal(sys.stderr)
    label = f"{word}:" if plain or colour is None else f"\x1b[{colour}m{word}:\x1b[0m"
    try:
        sys.stderr.write(f"{label} {spoken(message)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return
