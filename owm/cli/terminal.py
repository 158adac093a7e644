"""Text from strangers (models, servers, file names) made safe to show: what would steer a terminal is made visible."""

import codecs
import re
import sys
from typing import TextIO

# C0 but tab and newline, DEL, C1 (the 8-bit CSI and OSC among them), the characters that reorder or hide text, and
# halves of characters, as which Python hands on bytes of file names that are no text.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
# What is seen by nobody, which in a name serves to pass for another one. Joiners and breaks between the letters of
# scripts that are written with them stay.
_UNSEEN = re.compile(
    "[\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0]|(?<![^\x00-\xbf])[\u200c\u200d]"
    "|(?<![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\u200b"
)
_BROKEN = "owm.broken"  # the name of an error handler of Python's codecs


def visible(text: str) -> str:
    """Replace control and bidi characters by `\\xNN` or `\\uNNNN`; newlines and tabs stay."""
    return _STEERING.sub(lambda match: _escape(match[0]), text)


def one_line(text: str) -> str:
    """Make text safe and keep it on one line, for names and messages; what is not seen is made visible, too."""
    shown = visible(text).replace("\n", "\\n").replace("\t", "\\t")
    return shown if shown.isascii() else _UNSEEN.sub(lambda match: _escape(match[0]), shown)


def _escape(character: str) -> str:
    code = ord(character)
    code = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code  # the byte that it stands for
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def is_terminal(stream: object) -> bool:
    """Tell whether a stream is a terminal; a closed or missing stream is none."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


class Shown:
    """A terminal for what writes data of its own accord: all of it is made safe on its way."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it, lines as they are."""
        return self._stream.write(visible(text))

    def flush(self) -> None:
        """Flush the terminal."""
        self._stream.flush()


def speak_utf8() -> None:
    """Make stdin, stdout and stderr UTF-8 whatever the locale says; whatever is written, writing it does not fail."""
    codecs.register_error(_BROKEN, _write_broken)
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, _BROKEN), (sys.stderr, "backslashreplace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors=errors)


def _write_broken(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write the bytes of file names as they are, and other halves of characters, which JSON can hold, as JSON does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    first, after = error.object[error.start], error.start + 1
    how = "surrogateescape" if 0xDC80 <= ord(first) <= 0xDCFF else "backslashreplace"
    return first.encode("utf-8", how), after
