"""Rich texts broken into lines that fit.

Not with Rich's own wrapping: it cuts off what it counts wrongly, fails on some clusters, and takes a text without
blanks, as Chinese and Japanese are written, for one word.
"""

import re
from functools import lru_cache

from rich.cells import get_character_cell_size
from rich.text import Text

# A line can be broken after each of the wide characters that are written without blanks.
_WIDE = "\u2e80-\u2fff\u3040-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"(?:[{_WIDE}][^\w\s{_WIDE}]*|[^\s{_WIDE}]+)\s*|\s+")


def wrapped(text: Text, width: int) -> list[Text]:
    """Return the text in lines of at most `width` columns, broken between words where that is possible."""
    lines = []
    for line in text.split("\n", allow_blank=True) if "\n" in text.plain else [text]:
        for part in line.divide(_breaks(line.plain, width)) if columns(line.plain) > width else [line]:
            part.rstrip()
            lines.append(part)
    return lines


def folded(line: Text, width: int) -> list[Text]:
    """Return a line as the rows that a terminal would break it into."""
    return list(line.divide(_folds(line.plain, width))) if columns(line.plain) > width else [line]


def columns(text: str) -> int:
    """Return how many columns a text takes at most: what some terminals put into one cluster is counted singly."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


@lru_cache(4096)
def _columns_of(character: str) -> int:
    return 1 if character == "\ufe0f" else get_character_cell_size(character)  # it makes some characters wide


def _breaks(text: str, width: int) -> list[int]:
    breaks: list[int] = []
    taken = 0
    for match in _WORD.finditer(text):
        word = match[0]
        needed = columns(word.rstrip())
        if taken and taken + needed > width:
            breaks.append(match.start())
            taken = 0
        if needed > width:
            folds = _folds(word.rstrip(), width)
            breaks += [match.start() + fold for fold in folds]
            taken = columns(word[folds[-1] :]) if folds else columns(word)
        else:
            taken += columns(word)
    return breaks


def _folds(text: str, width: int) -> list[int]:
    if text.isascii():
        return list(range(width, len(text), width))
    folds: list[int] = []
    taken = 0
    for at, character in enumerate(text):
        needed = _columns_of(character)
        if taken and taken + needed > width:
            folds.append(at)
            taken = 0
        taken += needed
    return folds
