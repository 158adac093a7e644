"""The end of what is written on a terminal, drawn anew in place until it is final.

Nothing depends on how wide the terminal takes a character to be: final lines are never counted, and rows that will be
drawn over are cut to the window and written with automatic wrapping off, so that each takes one row whatever is in it.
"""

from collections.abc import Callable, Sequence

from rich.text import Text

from owm.cli.look import Look
from owm.cli.wrapping import columns, folded

_BEGIN = "\x1b[?2026h\x1b[?25l"  # one frame at a time, where terminals know that; no cursor that flits about
_END = "\x1b[?25h\x1b[?2026l"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_ERASE_BELOW = "\x1b[J"
_NEXT_ROW = "\r\n"


class LivePart:
    """Rows under what is final. Between calls the cursor is shown: in the last live row, or in an empty row below."""

    def __init__(
        self, write: Callable[[str], object], *, width: Callable[[], int], height: Callable[[], int], look: Look
    ) -> None:
        self._write = write
        self._width = width
        self._height = height
        self._look = look
        self._rows: tuple[str, ...] = ()
        self._size = (0, 0)

    def prepare(self, final: Sequence[Text], live: Sequence[Text]) -> Callable[[], None]:
        """Plan to write `final` where the live part begins, and `live` as the new live part; the result does it.

        What does not fit into the window is left out of the live part, at its beginning. A final line that is longer
        than the window is left to the terminal to wrap, which does so without a line break.
        """
        if self._look.is_plain:
            shown = "".join(self._look.paint(line) + "\n" for line in final)
            return lambda: self._draw(shown, (), (0, 0))
        size = width, height = max(self._width(), 1), max(self._height(), 2)
        finished = [self._look.paint(line) for line in final]
        rows = [self._look.paint(row) for line in live for row in folded(line, width)][-(height - 1) :]
        old, whole = self._rows, [*finished, *rows]
        n_same = 0
        if size == self._size:
            fits = [columns(line.plain) <= width for line in final] + [True] * len(rows)
            while n_same < min(len(old), len(whole)) and fits[n_same] and old[n_same] == whole[n_same]:
                n_same += 1
        if n_same == len(old) == len(whole) and not final:
            return lambda: None
        if rows and n_same == len(whole):
            n_same -= 1  # the cursor has to be in the last row
        parts = [_BEGIN]
        if old:
            up = len(old) - 1 - n_same
            parts.append(f"\r\x1b[{up}A" if up > 0 else _NEXT_ROW if up < 0 else "\r")
            parts.append(_ERASE_BELOW)
        parts += [line + _NEXT_ROW for line in finished[n_same:]]
        changed = rows[max(n_same - len(finished), 0) :]
        parts += [_NO_WRAP, _NEXT_ROW.join(changed), _WRAP, _END]
        return lambda: self._draw("".join(parts), tuple(rows), size)

    def _draw(self, output: str, rows: tuple[str, ...], size: tuple[int, int]) -> None:
        # First what is known, then the writing: what an interrupt leaves in a stream's buffer is written later.
        self._rows, self._size = rows, size
        if output:
            self._write(output)
