"""`@file` in a prompt: which of its words name files, and the prompt as it reads without the signs.

A file that is named so becomes material, under a header with its name; in the prompt the name stays, without the `@`.
Only a word that begins with `@` and is a file's path is meant: mail addresses, `@people` and decorators stay text.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

# After a space or an opening sign: `@@name`, `@"a name"`, `@name`.
_MENTION = re.compile(r"""(?<![^\s(\[{<"'`])(@@?)(?:(["'])([^"'\n]+)\2|([^\s@"'][^\s]*))""")
_CLOSING = ".,;:!?)]}>\"'`"
_LIKE_A_PATH = re.compile(r"(?=.*/|.*\.[A-Za-z]\w{0,7}$)[\w.~+/-]+")


@dataclass(frozen=True, slots=True)
class Mentions:
    """A prompt with its mentions taken out of their signs, the files they name, and notes on what may have been one."""

    text: str
    paths: tuple[str, ...]
    notes: tuple[str, ...]


def find(text: str, *, is_file: Callable[[str], bool] | None = None) -> Mentions:
    """Find the files that a prompt mentions, each once. `@@name` is `@name` and no file, whatever there is."""
    is_file = is_file or _is_file
    paths: dict[str, None] = {}
    notes: list[str] = []

    def replace(match: re.Match[str]) -> str:
        sign, quote, quoted, plain = match.groups()
        word = quoted or plain
        name = _longest_file(word, is_file) if quoted is None else word if is_file(word) else None
        looks_like_path = quoted is not None or _LIKE_A_PATH.fullmatch(word.rstrip(_CLOSING)) is not None
        if sign == "@@":
            return match[0][1:] if name is not None or looks_like_path else match[0]
        if name is not None:
            paths[name] = None
            return f"{quote}{quoted}{quote}" if quoted else word
        if looks_like_path:
            what = word if quoted else word.rstrip(_CLOSING)
            notes.append(f"there is no file {what}, so `@{what}` stays as it is")
        return match[0]

    return Mentions(_MENTION.sub(replace, text), tuple(paths), tuple(notes))


def _longest_file(word: str, is_file: Callable[[str], bool]) -> str | None:
    """Return the word, or what is left of it without closing signs, whichever names a file first."""
    while word:
        if is_file(word):
            return word
        if word[-1] not in _CLOSING:
            return None
        word = word[:-1]
    return None


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(os.path.expanduser(native(path)))
    except (OSError, ValueError):
        return False


def native(path: str) -> str:
    """Return a path that was read as UTF-8 as the system wants it, whatever the locale."""
    return os.fsdecode(path.encode("utf-8", "surrogateescape"))
