"""Text from strangers (models, servers, file names) made safe to show: what would steer a terminal is made visible."""

import codecs
import re
import sys
from typing import TextIO

# C0 but tab and newline, DEL, C1 (the 8-bit CSI and OSC among them), the characters that reorder or hide text, and
# halves of characters, as which Python hands on bytes of file names that are no text. Variation selectors, too, but
# where they belong.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff0-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_EMOJI = (
    "\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001faff"
)
# Arabic to Mandaic, those of India, Tibetan, Burmese, Khmer, Mongolian, and those of Java, Bali and old India.
_JOINED = (
    "\u0600-\u061b\u061d-\u085f\u0870-\u0dff\u0f00-\u109f\u1780-\u17b3\u17b6-\u180a\u1810-\u18af\u1a20-\u1aaf"
    "\u1b00-\u1c4f\ua800-\ua82f\ua840-\ua8ff\ua930-\ua9ff\uaa60-\uaa7f\uaae0-\uaaff\uabc0-\uabff\ufb50-\ufdff"
    "\ufe70-\ufefc\U00010a00-\U00010a5f\U00010ac0-\U00010aff\U00011000-\U00011fff\U0001e900-\U0001e95f"
)
# What is seen by nobody, which in a name serves to pass for another one. Joiners and breaks between the letters of
# scripts that are written with them stay, and what belongs to an emoji.
_UNSEEN = re.compile(
    "[\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0e\uffa0"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
    "|(?<![\u0e00-\u0eff\u1000-\u109f\u1780-\u17b3\u17b6-\u17ff])\u200b"
    f"|(?<![{_JOINED}])\u200c"
    f"|(?!(?:(?<=[{_EMOJI}])|(?<=[{_EMOJI}]\ufe0f))\u200d[{_EMOJI}])(?<![{_JOINED}])\u200d"
    f"|(?!(?<=[0-9#*])\ufe0f\u20e3)(?<![{_EMOJI}])\ufe0f"
)
_VARIED = re.compile(
    "(?:|[0-9#*]|[^\x00-\x7f\ufe00-\ufe0f\U000e0100-\U000e01ef])[\ufe00-\ufe0f]"  # nothing: a piece of an answer begins
    f"|[{_HAN}][\U000e0100-\U000e01ef]"
)
_BROKEN = "owm.broken"  # the name of an error handler of Python's codecs


def visible(text: str) -> str:
    """Replace control and bidi characters by `\\xNN` or `\\uNNNN`; newlines and tabs stay."""
    return _STEERING.sub(_made_visible, text)


def one_line(text: str) -> str:
    """Make text safe and keep it on one line, for names and messages; what is not seen is made visible, too."""
    shown = visible(text).replace("\n", "\\n").replace("\t", "\\t")
    return shown if shown.isascii() else _UNSEEN.sub(lambda match: _escape(match[0]), shown)


def _made_visible(match: re.Match[str]) -> str:
    after = match.end()
    return match[0] if _VARIED.fullmatch(match.string, max(after - 2, 0), after) else _escape(match[0])


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
