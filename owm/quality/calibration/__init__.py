"""The text that a model reads while its activations are measured: the bundled one, or a file of the user's.

Plain text stays as it is; conversations are rendered with the model's own chat template. SOURCES.md tells where the
bundled parts come from. None of it is used to measure quality.
"""

import hashlib
import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from owm.engine.model import Model
from owm.engine.template import Message
from owm.errors import MalformedFile, StoreError, TemplateError, UsageError
from owm.events import Sink, Warned, ignore

STAGE = "importance matrix"
BUNDLED = "owm calibration text, version 1"
_FILE = "calibration.jsonl"
MAX_BYTES = 256 << 20
_LINE_HINT = 'a line is `{"messages": [{"role": "user", "content": "…"}, …]}` or `{"text": "…"}`'


@dataclass(frozen=True, slots=True)
class Part:
    """Something to read: a text, or a conversation (then `text` is empty)."""

    text: str = ""
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Calibration:
    """What to read, and its name. `sha256` is of the file."""

    name: str
    parts: tuple[Part, ...]
    sha256: str


def bundled() -> Calibration:
    """Return the calibration text that comes with owm."""
    content = (resources.files(__name__) / _FILE).read_bytes()
    return Calibration(BUNDLED, tuple(_parts(Path(_FILE), content)), hashlib.sha256(content).hexdigest())


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file: `.jsonl` holds conversations or texts, one a line; anything else is text as it is.

    Raises:
        UsageError: it is empty, too long, no UTF-8, or no file.
        MalformedFile: a line of JSON is not of the kind.
        StoreError: it cannot be read.
    """
    hint = "`--calibration` takes a text file or `.jsonl`"
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint=hint)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe that nobody writes to would be waited for without end
            raise UsageError(f"{path} is no file", hint=hint)
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"no file can have this name: {str(path)!r}", hint=hint) from error
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path.name} has more than {MAX_BYTES >> 20} MiB", hint="a few hundred KiB are enough")
    parts = tuple(_parts(path, content))
    if not any(part.text.strip() or part.messages for part in parts):
        raise UsageError(f"{path.name} holds no text to read")
    return Calibration(str(path), parts, hashlib.sha256(content).hexdigest())


def _parts(path: Path, content: bytes) -> Iterator[Part]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path.name} is no UTF-8 text, byte {error.start} is none") from error
    if path.suffix.lower() != ".jsonl":
        yield Part(text.removesuffix("\n"))  # as llama.cpp's tools read a file
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _line(path, number, line)


def _line(path: Path, number: int, line: str) -> Part:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        text, messages = found.get("text"), found.get("messages")
        if isinstance(text, str):
            return Part(text)
        if isinstance(messages, list) and messages and all(map(_is_message, messages)):
            return Part(messages=tuple({"role": one["role"], "content": one["content"]} for one in messages))
    raise MalformedFile(path, f"line {number} is neither a conversation nor a text", kind="JSONL", hint=_LINE_HINT)


def _is_message(found: object) -> bool:
    return isinstance(found, dict) and isinstance(found.get("role"), str) and isinstance(found.get("content"), str)


def tokenize(calibration: Calibration, model: Model, sink: Sink = ignore) -> list[int]:
    """Turn a calibration into the tokens of one model, its parts one after another.

    Without a chat template, or with one that takes no such conversation, conversations are read as plain text.
    """
    tokens: list[int] = []
    n_refused = 0
    for part in calibration.parts:
        if not part.messages:
            # As llama-imatrix does: what looks like a special token in a text is text.
            tokens += model.native.tokenize(part.text, add_special=not tokens, parse_special=False)
            continue
        try:
            tokens += model.chat_prompt(part.messages, is_open=False).tokens
        except TemplateError:
            n_refused += 1
            plain = "\n\n".join(str(message["content"]) for message in part.messages)
            tokens += model.native.tokenize(plain, add_special=False, parse_special=False)
    if n_refused:
        sink(Warned(STAGE, f"the model's chat template refuses {n_refused} conversations: they are read as plain text"))
    return tokens
