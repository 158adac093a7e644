"""Texts that a question is about, read from files and pipes: bytes become text here, or one error that says why not.

UTF-8 and, with a byte order mark, UTF-16 and UTF-32 are text; of a PDF its text is taken. Nothing is guessed: any other
encoding, and anything binary, is refused. What is larger than every context is refused before it is read.
"""

import codecs
import io
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from owm.engine import pdf
from owm.errors import NotFound, OwmError, UsageError
from owm.units import format_bytes

MAX_BYTES = 64 << 20  # the largest contexts have ten million tokens, of four or five bytes each
MAX_PDF_BYTES = 1 << 30  # most of a PDF is no text
STDIN = "stdin"

_HEAD_BYTES = 8192
_PDF_MAGIC = b"%PDF-"
_MARKS = (  # UTF-32's begin like UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
_KINDS = (
    (b"GGUF", "a model file (GGUF)"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "audio, video or an image (RIFF)"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\xd0\xcf\x11\xe0", "an office document of the old kind"),
    (b"\x1f\x8b", "compressed (gzip)"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)"),
    (b"\xfd7zXZ", "compressed (xz)"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "an SQLite database"),
)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Piece:
    """One text with the name of what it was read from; `notes` are sentences about what it lacks."""

    name: str
    text: str
    notes: tuple[str, ...] = ()


def read_file(path: str | os.PathLike[str]) -> Piece:
    """Read a file as text, `~` expanded. A last line end is left out.

    Raises:
        NotFound: there is no such file.
        UsageError: it is a folder, too large, binary, or of another encoding.
        Unsupported: it is a PDF without text, or encrypted.
        MalformedFile: it is a damaged PDF.
        OwmError: it cannot be read.
    """
    name = _shown(os.fspath(path))
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return _read(file, name)
    except FileNotFoundError as error:
        raise NotFound(f"no such file: {name}", hint="check the path") from error
    except IsADirectoryError as error:
        raise UsageError(
            f"{name} is a folder, not a file", hint=f"name its files one by one, or pipe them: `cat {name}/* | …`"
        ) from error
    except OSError as error:
        raise OwmError(f"cannot read {name}: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in the path
        raise NotFound(f"no such file: {name}") from error


def read_stdin(stream: BinaryIO) -> Piece:
    """Read a pipe to its end, as `read_file` does."""
    try:
        return _read(stream, STDIN)
    except OSError as error:
        raise OwmError(f"cannot read {STDIN}: {error.strerror or error}") from error


def join(pieces: Sequence[Piece]) -> str:
    """Put texts under each other, each under a header line with its name; only what was piped in alone has none."""
    if [piece.name for piece in pieces] == [STDIN]:
        return pieces[0].text
    return "\n\n".join(f"=== {piece.name} ===\n{piece.text}" for piece in pieces)


def decode(raw: bytes, name: str) -> str:
    """Turn bytes into text.

    Raises:
        UsageError: they are binary, or of another encoding.
    """
    mark, encoding = next((found for found in _MARKS if raw.startswith(found[0])), (b"", "utf-8"))
    try:
        text = raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        if (kind := _kind(raw)) is not None or (b"\0" in raw[:_HEAD_BYTES] and not mark):
            raise _binary(raw, name, kind) from error
        at = error.start + len(mark)
        both = f"byte 0), nor {encoding[:6].upper()} (byte {at}" if mark and encoding != "utf-8" else f"byte {at}"
        raise UsageError(f"{name} is not UTF-8 text ({both})", hint=_hint(name)) from error
    if "\0" in text:
        raise _binary(raw, name, _kind(raw))
    return text


def _read(file: BinaryIO, name: str) -> Piece:
    head = file.read(_HEAD_BYTES)
    if head.startswith(_PDF_MAGIC) or (name.lower().endswith(".pdf") and _PDF_MAGIC in head[:1024]):
        text, notes = pdf.read_text(_seekable(file, head, name), name)
        return Piece(name, text, notes)
    if b"\0" in head and not head.startswith(tuple(mark for mark, _ in _MARKS)):
        raise _binary(head, name, _kind(head))
    if (size := _size(file)) is not None:
        _check_size(size, MAX_BYTES, name)
    raw = head + file.read(MAX_BYTES + 1 - len(head))
    _check_size(len(raw), MAX_BYTES, name)
    return Piece(name, decode(raw, name).removesuffix("\n").removesuffix("\r"))


def _seekable(file: BinaryIO, head: bytes, name: str) -> BinaryIO:
    if (size := _size(file)) is not None:
        _check_size(size, MAX_PDF_BYTES, name)
        if file.tell() == len(head):
            return file
    raw = head + file.read(MAX_PDF_BYTES + 1 - len(head))
    _check_size(len(raw), MAX_PDF_BYTES, name)
    return io.BytesIO(raw)


def _size(file: BinaryIO) -> int | None:
    """Return the size of a regular file, None of anything else."""
    try:
        found = os.fstat(file.fileno())
    except (OSError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _check_size(n_bytes: int, most: int, name: str) -> None:
    if n_bytes > most:
        raise UsageError(
            f"{name} is larger than any context: it has more than {format_bytes(most)}",
            hint="send the part that matters",
        )


def _kind(raw: bytes) -> str | None:
    return next((kind for magic, kind in _KINDS if raw.startswith(magic)), None)


def _binary(raw: bytes, name: str, kind: str | None) -> UsageError:
    if kind is not None:
        return UsageError(f"{name} is {kind}, not text", hint=_hint(name, "convert it to text first"))
    return UsageError(f"{name} is binary, not text (a zero byte at {raw.find(0)})", hint=_hint(name))


def _hint(name: str, of_file: str | None = None) -> str:
    if name == STDIN:
        return "pipe text, for example through `iconv`"
    return of_file or f"pipe its text, for example `iconv -f latin1 -t utf-8 {name} | …`"


def _shown(path: str) -> str:
    """Return a path as text for one line, whatever its bytes are."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", os.fsencode(path).decode("utf-8", "replace"))
