"""Texts to embed, from the argument, files or a pipe: each whole, a line each, or a row of JSON Lines each."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from owm.cli.asking import text_of
from owm.cli.terminal import is_terminal
from owm.engine import material
from owm.engine.embedding import Passage
from owm.errors import NotFound, OwmError, UsageError

PIPE = "-"
_ROW = 'a row is like {"id": 1, "text": "…"}'


@dataclass(frozen=True, slots=True)
class Row:
    """A text, and what is to stand beside its vector: the `id` of its row, or its `file`."""

    passage: Passage
    labels: Mapping[str, Any] = field(default_factory=dict)


def read(
    model: str,
    text: str | None,
    files: Sequence[str],
    *,
    is_lines: bool,
    is_jsonl: bool,
    note: Callable[[str], None],
) -> tuple[Iterable[Row], int | None]:
    """Return the texts that a command line means, and how many they are if that is known before they are read.

    The pipe is read if neither an argument nor a file is given, or where a file is `-`.

    Raises:
        UsageError: there are none, or options contradict each other. The rest comes to light while they are read:
        NotFound, UsageError, Unsupported, MalformedFile: a file, a line or a row is not what it should be.
    """
    if is_lines and is_jsonl:
        raise UsageError("--lines and --jsonl say two things of the same lines")
    sources = list(files) or ([] if text is not None else [PIPE])
    if PIPE in sources and (sys.stdin is None or is_terminal(sys.stdin)):
        raise UsageError("there is nothing to embed", hint=f'`owm embed {model} "a text"`, or pipe texts into it')
    if not (is_lines or is_jsonl):
        return _whole(text, sources, note), len(sources) + (text is not None)
    if text is not None:
        raise UsageError(f"--{'lines' if is_lines else 'jsonl'} is about a pipe or `-f FILE`, not about an argument")
    return (_lines(sources) if is_lines else _rows(sources)), None


def _whole(text: str | None, sources: Sequence[str], note: Callable[[str], None]) -> Iterator[Row]:
    if text is not None:
        yield Row(Passage(text_of(text, "the text"), "the text"))
    for source in sources:
        piece = material.read_stdin(sys.stdin.buffer) if source == PIPE else material.read_file(source)
        for sentence in piece.notes:
            note(sentence)
        yield Row(Passage(piece.text, piece.name), {} if source == PIPE else {"file": piece.name})


def _lines(sources: Sequence[str]) -> Iterator[Row]:
    for line, name in _numbered(sources):
        yield Row(Passage(line, name))


def _rows(sources: Sequence[str]) -> Iterator[Row]:
    for line, name in _numbered(sources):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name} is no JSON: {error}", hint=_ROW) from error
        if not isinstance(row, dict):
            raise UsageError(f"{name} is no JSON object", hint=_ROW)
        text = row.get("text", row.get("input"))
        if not isinstance(text, str):
            raise UsageError(f"{name} has no `text` that is one", hint=_ROW)
        yield Row(Passage(text, name), {"id": _checked(row["id"], name)} if "id" in row else {})


def _checked(id_: Any, name: str) -> Any:
    """Refuse an `id` that cannot be written again."""
    try:
        json.dumps(id_, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} has an `id` that is no text and no number", hint=_ROW) from error
    return id_


def _numbered(sources: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each line with the name that messages call it by."""
    for source in sources:
        for number, raw in enumerate(_raw_lines(source), 1):
            name = f"line {number} of {material.STDIN if source == PIPE else source}"
            yield material.decode(raw.rstrip(b"\r\n"), name), name


def _raw_lines(source: str) -> Iterator[bytes]:
    path = os.path.expanduser(source)
    try:
        opened: Any = nullcontext(sys.stdin.buffer) if source == PIPE else open(path, "rb")  # noqa: SIM115
        with opened as file:
            stream: BinaryIO = file
            yield from stream
    except FileNotFoundError as error:
        raise NotFound(f"no such file: {source}", hint="check the path") from error
    except OSError as error:
        raise OwmError(f"cannot read {source}: {error.strerror or error}") from error
