"""A prompt written in another program: `$VISUAL` or `$EDITOR`, over a file of its own that only its owner can read."""

import os
import shlex
import subprocess
from pathlib import Path

from owm.errors import OwmError, UsageError
from owm.temporary import temporary_folder

_FALLBACKS = ("editor", "nano", "vi")


def edit(text: str) -> str | None:
    """Let a person edit a text and return it; None if the program ended with a failure, so that nothing changes.

    Raises:
        UsageError: there is no such program, or it left something that is no text.
        OwmError: the file cannot be written or read.
    """
    command = _command()
    try:
        with temporary_folder() as folder:
            file = folder / "prompt.md"
            file.touch(mode=0o600)
            file.write_text(f"{text}\n" if text else "", encoding="utf-8")
            try:
                code = subprocess.call([*command, str(file)])
            except OSError as error:
                raise UsageError(
                    f"cannot start {command[0]}: {error.strerror or error}", hint="$VISUAL or $EDITOR names your editor"
                ) from error
            return _read(file) if code == 0 else None
    except OSError as error:
        raise OwmError(f"cannot hand over the text: {error.strerror or error}") from error


def _read(file: Path) -> str:
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"your editor left no UTF-8 text (byte {error.start})", hint="save it as UTF-8") from error
    return text.replace("\r\n", "\n").removesuffix("\n")


def _command() -> list[str]:
    import shutil

    for name in ("VISUAL", "EDITOR"):
        if value := os.environ.get(name, "").strip():
            try:
                return shlex.split(value)
            except ValueError as error:
                raise UsageError(f"${name} is no command: {value}", hint="check its quotes") from error
    for program in _FALLBACKS:
        if shutil.which(program):
            return [program]
    raise UsageError("no editor is known", hint="$VISUAL or $EDITOR names it")
