"""The clipboard: through the program of this desktop, else, for copying, through the terminal itself (OSC 52)."""

import base64
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from owm.errors import OwmError, Unsupported, UsageError
from owm.units import format_bytes

MAX_OSC_BYTES = 74_994  # what the strictest of the terminals that know it takes, 99,992 characters of base64
MAX_BYTES = 64 << 20
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that writes to and reads from the clipboard, and the variable without which it has none."""

    copy: tuple[str, ...]
    paste: tuple[str, ...]
    needs: str | None = None


_TOOLS = (
    Tool(("pbcopy",), ("pbpaste",)),
    Tool(("wl-copy",), ("wl-paste", "--no-newline"), "WAYLAND_DISPLAY"),
    Tool(("xclip", "-selection", "clipboard"), ("xclip", "-selection", "clipboard", "-o"), "DISPLAY"),
    Tool(("xsel", "--clipboard", "--input"), ("xsel", "--clipboard", "--output"), "DISPLAY"),
)
_HINT = "the terminal's own keys for pasting work in the prompt"


def copy(text: str) -> str:
    """Put a text on the clipboard; return by what, for people.

    Raises:
        UsageError: there is only the terminal's way, and the text is too long for it.
        Unsupported: there is no way.
        OwmError: the program for it fails.
    """
    tool = _tool()
    if tool is not None:
        _run(tool.copy, text.encode("utf-8", "replace"), answers=False)
        return f"`{tool.copy[0]}`"
    if not sys.stdout.isatty():
        raise Unsupported("there is no clipboard here", hint="`/export FILE` and `/save-code FILE` write files")
    content = text.encode("utf-8", "replace")
    if len(content) > MAX_OSC_BYTES:
        raise UsageError(
            f"the terminal takes at most {format_bytes(MAX_OSC_BYTES)}, this is {format_bytes(len(content))}",
            hint="`/export FILE` writes it",
        )
    sys.stdout.write(f"\x1b]52;c;{base64.b64encode(content).decode('ascii')}\x07")
    sys.stdout.flush()
    return "the terminal (OSC 52)"


def paste() -> str:
    """Return the text on the clipboard.

    Raises:
        Unsupported: there is no program that reads it.
        OwmError: the program fails, or what it gives is no text.
    """
    tool = _tool()
    if tool is None:
        raise Unsupported("no program here reads the clipboard", hint=_HINT)
    content = _run(tool.paste, b"", answers=True)
    if len(content) > MAX_BYTES:
        raise UsageError(f"the clipboard holds {format_bytes(len(content))}", hint="send the part that matters")
    try:
        text = content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise OwmError("the clipboard holds no text", hint=_HINT) from error
    if "\0" in text:
        raise OwmError("the clipboard holds no text", hint=_HINT)
    return text


def _tool() -> Tool | None:
    for tool in _TOOLS:
        is_usable = tool.needs is None or os.environ.get(tool.needs)
        if is_usable and all(shutil.which(words[0]) for words in (tool.copy, tool.paste)):
            return tool
    return None


def _run(command: tuple[str, ...], content: bytes, *, answers: bool) -> bytes:
    try:
        done = subprocess.run(
            command,
            input=content,
            # A copying program stays to hand the text out: a pipe that it inherits would keep us waiting.
            stdout=subprocess.PIPE if answers else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise OwmError(f"`{command[0]}` did not end within {_SECONDS:.0f} s", hint=_HINT) from error
    except subprocess.CalledProcessError as error:
        raise OwmError(f"`{command[0]}` fails, with exit code {error.returncode}", hint=_HINT) from error
    except OSError as error:
        raise OwmError(f"cannot run `{command[0]}`: {error.strerror or error}") from error
    return done.stdout or b""
