"""What a search finds: models of other tools that could be registered, and what could not, with the reason."""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owm.errors import Damaged, MalformedFile, OwmError, StoreError, Unsupported
from owm.store.manifest import Role
from owm.store.model import read_error
from owm.store.refs import ModelRef

MAX_SMALL_BYTES = 1 << 20  # of a tool's own notes; more is none


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a model. `sha256` is what the tool's own name for the file states, None where it states nothing."""

    path: Path
    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class FoundExtra:
    """A small file that comes with a model, under the name that it gets beside the manifest."""

    role: Role
    file_name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A model that another tool, or the user, keeps.

    Attributes:
        owner: the tool, as people call it; None if it is the user's own.
        ref: what the model is called at its source, without quant; None if nobody but its file's name says.
        files: in the order of their parts.
        label: the quant that its name or its folder's states.
        must_hash: what the tool states of a file has to be checked before it is believed.
        advice: of its makers on how to sample (`generation_config.json`): a file, or the content for one.
    """

    owner: str | None
    ref: ModelRef | None
    files: tuple[FoundFile, ...]
    label: str | None = None
    revision: str | None = None
    commit: str | None = None
    extras: tuple[FoundExtra, ...] = ()
    advice: Path | bytes | None = None
    must_hash: bool = False

    @property
    def path(self) -> Path:
        """The file, or the first of its parts."""
        return self.files[0].path

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that is not registered; `is_fault` is false where nothing is wrong with it."""

    owner: str | None
    name: str
    path: Path
    problem: OwmError
    is_fault: bool = True


Finding = Found | LeftOut


def found_file(path: Path, sha256: str | None = None) -> FoundFile:
    """Look at a file without opening it.

    Raises:
        StoreError: it cannot be looked at. MalformedFile: it is no file, or a link to nothing.
        Damaged: its name is no text.
    """
    check_name(path)
    try:
        status = path.stat()
    except FileNotFoundError as error:
        cause = "it is a link to a file that is gone" if path.is_symlink() else "it is gone"
        raise MalformedFile(path, cause) from error
    except OSError as error:
        raise read_error(error, path) from error
    if not stat.S_ISREG(status.st_mode):
        raise MalformedFile(path, "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is no file")
    return FoundFile(Path(os.path.abspath(path)), status.st_size, sha256)


def check_name(path: Path) -> None:
    """Refuse a path that a manifest cannot hold.

    Raises:
        Damaged: it holds bytes that are no text, or characters that steer a terminal.
    """
    text = os.fspath(path)
    if any("\ud800" <= c <= "\udfff" or ord(c) < 32 or ord(c) == 127 for c in text):
        raise Damaged(f"the name of a file is no plain text: {text!a}", hint="rename it, then import it")


def read_small(path: Path) -> bytes:
    """Read a small file of another tool.

    Raises:
        StoreError: it cannot be read. Damaged: it is no file, or too large to be what it should.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Damaged(f"{path} is no file")
        with path.open("rb") as file:
            content = file.read(MAX_SMALL_BYTES + 1)
    except OSError as error:
        raise read_error(error, path) from error
    if len(content) > MAX_SMALL_BYTES:
        raise Damaged(f"{path} is too large to be believed")
    return content


def read_table(path: Path) -> dict[str, Any]:
    """Read a small JSON object.

    Raises:
        StoreError: it cannot be read. Damaged: it is none.
    """
    return parse_table(read_small(path), path)


def parse_table(content: bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        Damaged: it is none.
    """
    try:
        table = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is not what it should be: no JSON") from error
    if not isinstance(table, dict):
        raise Damaged(f"{path} is not what it should be: no JSON object")
    return table


def entries(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder, sorted.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise cannot_look(error, folder) from error
    yield from (folder / name for name in names)


def no_model(path: Path, what: str) -> Unsupported:
    """Say that a file is something else than a model to run."""
    return Unsupported(f"{path.name} is {what}, no model to run")


def cannot_look(error: OSError, folder: Path) -> StoreError:
    """Say that a folder of another tool may not be read, and who may allow it."""
    problem = read_error(error, folder)
    if isinstance(error, PermissionError):
        problem.hint = "it belongs to another user: be let into its group, or have it made readable"
    return problem
