"""The lines of a stream of bytes, one at a time and none of them larger than memory allows."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from owm.batch.fields import Refused
from owm.errors import OwmError

MAX_LINE_BYTES = 64 << 20
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line, and the line break at its end; of one that is too long, no more than shows that it is."""

    number: int
    raw: bytes
    end: str = ""

    @property
    def is_too_long(self) -> bool:
        """It has more bytes than are read."""
        return len(self.raw) > MAX_LINE_BYTES

    @property
    def is_blank(self) -> bool:
        """There is nothing but space."""
        return not self.raw.strip() and not self.is_too_long

    def text(self) -> str:
        """Return what it says.

        Raises:
            Refused: it is too long, or no UTF-8.
        """
        if self.is_too_long:
            raise Refused("line_too_long", f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
        try:
            return self.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused("invalid_utf8", f"the line is not UTF-8 text (byte {error.start})") from error


def numbered(file: BinaryIO, name: str) -> Iterator[Line]:
    """Yield all lines, counted from 1; a byte order mark is no part of the first.

    Raises:
        OwmError: the file cannot be read; the message has its `name`.
    """
    try:
        number = 1
        limit = MAX_LINE_BYTES + len(b"\r\n")
        raw = file.readline(limit + len(_BOM)).removeprefix(_BOM)
        while raw:
            if raw[-2:] == b"\r\n":
                yield Line(number, raw[:-2], "\r\n")
            elif raw[-1:] == b"\n":
                yield Line(number, raw[:-1], "\n")
            else:
                yield Line(number, raw)
                if len(raw) > MAX_LINE_BYTES:
                    _skip_line(file)
            number += 1
            raw = file.readline(limit)
    except OSError as error:
        raise OwmError(f"cannot read {name}: {error.strerror or error}") from error


def _skip_line(file: BinaryIO) -> None:
    while (rest := file.readline(1 << 20)) and rest[-1:] != b"\n":
        pass
