"""Prompts that are kept under names: plain text files with `{placeholders}`, `{{` and `}}` for braces."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from owm import paths
from owm.errors import NotFound, StoreError, UsageError
from owm.publishing import PRIVATE, make_private, publish_text

INPUT = "input"  # the placeholder that takes what is piped in or given as the prompt

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_-]*)\}|[{}]")


def placeholders(text: str) -> list[str]:
    """Return the names of the placeholders in `text`, each once, in their order.

    Raises:
        UsageError: a brace is neither part of a placeholder nor doubled; the message names the line.
    """
    found: dict[str, None] = {}
    for match in _PLACEHOLDER.finditer(text):
        if match[1]:
            found[match[1]] = None
        elif len(match[0]) == 1:
            line = text.count("\n", 0, match.start()) + 1
            raise UsageError(
                f"a brace in line {line} of the prompt belongs to no placeholder: {match[0]}",
                hint=f"write `{{name}}` for a placeholder, `{match[0] * 2}` for a brace",
            )
    return list(found)


def fill(text: str, variables: Mapping[str, str]) -> str:
    """Put `variables` into the placeholders of `text`; what is put in is not looked at again.

    Raises:
        UsageError: a placeholder has no variable, or a variable no placeholder; the message names all of them.
    """
    names = placeholders(text)
    if missing := [name for name in names if name not in variables]:
        ways = [f"`--var {name}=…`" for name in missing if name != INPUT]
        if INPUT in missing:
            ways.append("a text from a pipe, or the prompt as an argument")
        raise UsageError(f"the prompt needs: {', '.join(missing)}", hint="give it " + " and ".join(ways))
    if unused := [name for name in variables if name not in names]:
        raise UsageError(
            f"the prompt has no placeholder for: {', '.join(unused)}",
            hint=f"it has: {', '.join(names) or 'none'}",
        )
    return _PLACEHOLDER.sub(lambda match: variables[match[1]] if match[1] else match[0][0], text)


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts in a folder, `NAME.txt` each."""

    folder: Path

    def names(self) -> list[str]:
        """Return all names, sorted.

        Raises:
            StoreError: the folder cannot be read.
        """
        try:
            found = [path.stem for path in self.folder.iterdir() if path.suffix == ".txt"]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"cannot read {self.folder}: {error.strerror or error}") from error
        return sorted(name for name in found if _NAME.fullmatch(name))

    def path(self, name: str) -> Path:
        """Return where a prompt lies or would lie.

        Raises:
            UsageError: `name` is no name.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"not a name for a prompt: {name!r}", hint="letters, digits, `.`, `_` and `-`")
        return self.folder / f"{name}.txt"

    def load(self, name: str) -> str:
        """Return a prompt's text, without the line break at its end.

        Raises:
            NotFound: there is none of that name; the hint suggests the nearest.
            UsageError: it is no UTF-8 text.
            StoreError: it cannot be read.
        """
        path = self.path(name)
        try:
            text = path.read_bytes().decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8") from error
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
        if "\0" in text:
            raise UsageError(f"{path} is no text, it has a NUL in it")
        return text

    def save(self, name: str, text: str) -> bool:
        """Keep a text under a name; return whether it takes the place of another.

        Raises:
            UsageError: it is empty or no UTF-8 text, or a brace in it belongs to nothing.
            StoreError: it cannot be written.
        """
        path = self.path(name)
        if not text.strip():
            raise UsageError("the prompt is empty")
        placeholders(text)
        if "\0" in text:
            raise UsageError("the prompt is no text, it has a NUL in it")
        if any("\ud800" <= character < "\ue000" for character in text):
            raise UsageError("the prompt is not UTF-8 text", hint="pipe it through `iconv`")
        try:
            make_private(self.folder)
            is_there = path.exists()
            publish_text(path, text if text.endswith("\n") else text + "\n", mode=PRIVATE)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
        return is_there

    def remove(self, name: str) -> None:
        """Forget a prompt.

        Raises:
            NotFound: there is none of that name.
            StoreError: it cannot be removed.
        """
        try:
            self.path(name).unlink()
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except OSError as error:
            raise StoreError(f"cannot remove {self.path(name)}: {error.strerror or error}") from error

    def _missing(self, name: str) -> NotFound:
        import difflib

        near = difflib.get_close_matches(name, self.names(), n=1)
        suggestion = f"did you mean `{near[0]}`? " if near else ""
        return NotFound(f"no prompt named {name}", hint=f"{suggestion}`owm prompts` lists them")


def open_prompts() -> Prompts:
    """Return the prompts of this user."""
    return Prompts(paths.config_home() / "prompts")
