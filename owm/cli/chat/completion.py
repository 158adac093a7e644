"""What Tab offers at the prompt of `owm chat`: commands, their arguments, and paths after `@` and `/file`.

Prompt_toolkit is not known here: offers are plain values that the editor shows.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from owm.cli.chat.commands import ALIASES, COMMANDS
from owm.cli.terminal import one_line

MAX_PATHS = 500

_AT = re.compile(r"""(?:^|(?<=[\s(\[{<"'`]))@(?P<word>"[^"\n]*|'[^'\n]*|[^\s@"'][^\s]*|)$""")
_FILE_WORD = re.compile(r"""(?:^|(?<=\s))(?P<word>"[^"\n]*|'[^'\n]*|(?:\\.|[^\s"'])*)$""")
_UNTYPEABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SWITCHES = {"raw": ("on", "off"), "multi": ("on", "off"), "copy": ("code",), "system": ("none",)}
_PATH_COMMANDS = ("file", "save-code", "export")
_EXPORTS = (".md", ".json", ".html")


def _none() -> Sequence[str]:
    return ()


def known_settings() -> Mapping[str, Sequence[str]]:
    """Return the settings of an answer, each with the values that can be named."""
    from owm.settings.keys import KEYS

    return {name: (*key.choices, "default") for name, key in KEYS.items() if name != "system"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What can be named beside commands and files; asked when Tab is pressed, in the editor's thread.

    Attributes:
        settings: for `/set`: the values that each key's can be named by.
        think: for `/think`.
    """

    model_names: Callable[[], Sequence[str]] = _none
    branch_names: Callable[[], Sequence[str]] = _none
    settings: Callable[[], Mapping[str, Sequence[str]]] = known_settings
    think: Sequence[str] = ("on", "off", "show", "hide", "low", "medium", "high")


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to go on: `text` stands for what is between `start` and the cursor; `shown`, `about` are for the list."""

    text: str
    start: int
    shown: str
    about: str = ""


def offers(before: str, facts: Facts) -> list[Offer]:
    """Return what can stand at the cursor, given what stands before it; nothing at an empty line."""
    if match := _AT.search(before):
        return _paths(match["word"], match.start("word"), quote_by_sign=True)
    if "\n" in before or not before.startswith("/") or before.startswith("//"):
        return []
    word, blank, rest = before[1:].partition(" ")
    if not blank:
        return _commands(word)
    name = ALIASES.get(word.lower(), word.lower())
    return _arguments(name, rest.lstrip(" "), len(before) - len(rest.lstrip(" ")), facts)


def _commands(word: str) -> list[Offer]:
    found = [
        Offer(f"/{command.name}{' ' if command.arguments else ''}", 0, command.usage, command.about)
        for command in COMMANDS.values()
        if command.name.startswith(word.lower())
    ]
    return found or [
        Offer(f"/{name}", 0, f"/{name}", COMMANDS[of].about) for name, of in ALIASES.items() if name == word.lower()
    ]


def _arguments(name: str, rest: str, start: int, facts: Facts) -> list[Offer]:
    if name in _PATH_COMMANDS:
        if name == "file":
            word = _FILE_WORD.search(rest)
            return _paths(word["word"], start + word.start("word")) if word else []
        return _paths(rest, start, quote_by_sign=None, endings=_EXPORTS if name == "export" else ())
    if name == "set":
        key, blank, value = rest.partition(" ")
        if blank:
            values = facts.settings().get(key.lower().replace("-", "_"), ())
            return _words(values, value.lstrip(" "), start + len(rest) - len(value.lstrip(" ")))
        return _settings(key, start, facts)
    if name == "model":
        return _words(facts.model_names(), rest, start, is_anywhere=True)
    if name == "switch":
        return _words(facts.branch_names(), rest, start)
    if name == "think":
        return _words(facts.think, rest, start)
    if name == "help":
        return _words(COMMANDS, rest, start)
    return _words(_SWITCHES.get(name, ()), rest, start)


def _settings(key: str, start: int, facts: Facts) -> list[Offer]:
    from owm.settings.keys import KEYS

    begun = key.lower().replace("-", "_")
    return [
        Offer(f"{name} ", start, name, KEYS[name].about if name in KEYS else "")
        for name in facts.settings()
        if name.startswith(begun)
    ]


def _words(names: Iterable[str], begun: str, start: int, *, is_anywhere: bool = False) -> list[Offer]:
    """Offer the names that begin so, case aside; for want of any, those that have it in them."""
    names = list(dict.fromkeys(names))
    wanted = begun.casefold()
    found = [name for name in names if name.casefold().startswith(wanted)]
    if not found and is_anywhere:
        found = [name for name in names if wanted in name.casefold()]
    return [Offer(name, start, one_line(name)) for name in found]


def _paths(word: str, start: int, *, quote_by_sign: bool | None = False, endings: tuple[str, ...] = ()) -> list[Offer]:
    """Offer the files and folders that a path's beginning fits.

    Args:
        word: as it is typed, an opening quote and backslashes included.
        quote_by_sign: what a name with blanks needs: quotes (True, as after `@`), quotes or backslashes as they are
            typed (False, as for `/file`), or nothing (None: the whole rest of the line is one path).
        endings: only files that end so.
    """
    quote = word[0] if word[:1] in ("'", '"') and quote_by_sign is not None else ""
    typed = word[1:] if quote else word
    if quote_by_sign is False and not quote:
        typed = re.sub(r"\\(.)", r"\1", typed)
    folder, _, begun = typed.rpartition("/")
    folder = f"{folder}/" if "/" in typed else ""
    found = []
    for name, is_folder in _entries(folder, begun):
        if endings and not is_folder and not name.lower().endswith(endings):
            continue
        if (text := _written(f"{folder}{name}", is_folder, quote, quote_by_sign)) is not None:
            found.append(Offer(text, start, one_line(f"{name}/" if is_folder else name)))
    return found


def _entries(folder: str, begun: str) -> list[tuple[str, bool]]:
    """Return the names in a folder that begin so, folders marked; hidden ones only if asked for by their dot."""
    try:
        where = os.path.expanduser(folder) or "."
        names = [
            (entry.name, entry.is_dir())
            for entry in os.scandir(where)
            if entry.name.startswith(begun)
            and (begun.startswith(".") or not entry.name.startswith("."))
            and not _UNTYPEABLE.search(entry.name)
        ]
    except (OSError, ValueError):
        return []
    return sorted(names, key=lambda named: (named[0].casefold(), named[0]))[:MAX_PATHS]


def _written(path: str, is_folder: bool, quote: str, quote_by_sign: bool | None) -> str | None:
    """Return a path as it has to be typed, None if it cannot be; a folder's quote is left open to go on."""
    end = "/" if is_folder else ""
    if quote_by_sign is None:
        return f"{path}{end}"
    if quote_by_sign:
        quote = quote or ('"' if re.search(r"\s|^[@\"']", path) else "")
        if quote and re.search("[\"']", path):
            return None
    else:
        quote = quote or ('"' if re.search(r"[\s\"'\\]", path) else "")
        if quote == '"' and re.search(r'["\\]', path):
            quote = "'"
        if quote == "'" and "'" in path:
            return None
    return f"{quote}{path}{end}{'' if is_folder else quote}"
