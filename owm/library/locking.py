"""`owm.lock`: which models a project uses, each pinned to a commit and to the sha256 of every file.

TOML that a person can read and compare: one table a model, in the order of their names. It is read as hostile input.
"""

import os
import re
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from owm.errors import MalformedFile, ModelNotFound, StoreError, Unsupported, UsageError
from owm.library.made import natural, text
from owm.publishing import publish_text
from owm.store import matching, refs
from owm.store.digest import sha256_of
from owm.store.manifest import ROLES, Manifest, Role
from owm.store.model import StoredModel, read_error
from owm.store.names import check_repo_path
from owm.store.refs import ModelRef

if TYPE_CHECKING:
    from owm.store.local import Store

FILE_NAME = "owm.lock"
VERSION = 1
MAX_BYTES, MAX_MODELS, MAX_FILES, MAX_TEXT = 4 << 20, 4096, 1024, 512
FETCHED = ("hub", "modelscope", "pypi", "ollama", "oci", "url")  # what can be brought again
_COMMENT = "# Models of this project, pinned. `owm lock` writes this file, `owm sync` makes the store match it.\n"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,127}")
# The lines that `dump` writes, and that a person does who changes them. TOML has more (dotted keys, tables in a line),
# of which a few kilobytes can take gigabytes to read. Possessive, so that no line takes long.
_LINE = re.compile(
    r"""[ \t]*+(?:\[\[model(?:\.file)?\]\]
    |[a-z0-9_]{1,40}+[ \t]*+=[ \t]*+(?:"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+'|\d{1,19}+|true|false))?+[ \t]*+(?:\#.*)?\r?""",
    re.VERBOSE,
)
_KEYS = {"name", "source", "quant", "commit", "licence", "made_here", "file"}


@dataclass(frozen=True, slots=True)
class LockedFile:
    """A file of a model: where it lies at its source (or in the project), and its exact content."""

    path: str
    size_bytes: int
    sha256: str
    role: Role = "model"


@dataclass(frozen=True, slots=True)
class LockedModel:
    """A model of a project.

    Attributes:
        name: as commands take it.
        ref: where it is from, without quant; a path for a file of the project.
        commit: what it resolved to; None where the source has no such thing.
        is_made_here: it was made of other weights, and only its content is pinned: nobody has it to be fetched.
    """

    name: str
    ref: ModelRef
    quant: str | None
    commit: str | None
    files: tuple[LockedFile, ...]
    licence: str | None = None
    is_made_here: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def weights(self) -> tuple[LockedFile, ...]:
        """The files that a model cannot be without."""
        return tuple(file for file in self.files if file.role in ("model", "shard"))

    @property
    def can_be_fetched(self) -> bool:
        """Whether a source can be asked for it; the query of an address is not kept, as it may hold a secret."""
        is_whole = self.ref.kind != "url" or self.ref.revision is None
        return self.ref.kind in FETCHED and is_whole and not self.is_made_here


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file's models, in the order of their names."""

    models: tuple[LockedModel, ...] = ()

    def find(self, name: str) -> LockedModel | None:
        """Return the model of that name."""
        return next((model for model in self.models if model.name == name), None)

    def put(self, models: Sequence[LockedModel], without: Sequence[str] = ()) -> "Lock":
        """Return the lock with models added, or put in the place of those of the same name."""
        names = {model.name for model in models} | set(without)
        kept = [model for model in self.models if model.name not in names]
        return Lock(tuple(sorted([*kept, *models], key=lambda model: model.name)))


def lock_model(name: str, store: "Store", folder: Path) -> LockedModel:
    """Pin a stored model, or a file in the project's folder, as it is now.

    Raises:
        ModelNotFound: nothing stored has the name, or its files are gone.
        Unsupported: a file that does not lie in the project's folder.
    """
    stored = store.find_stored(name)
    if stored.is_gone:
        from owm.store import absent

        raise absent.gone(stored, store)
    if stored.manifest is None:
        return _lock_path(stored, name, folder)
    of = stored.manifest
    files = tuple(
        LockedFile(_path_at_source(of, index), record.size_bytes, record.sha256, record.role)
        for index, record in enumerate(of.kept_files)
    )
    ref = refs.parse(of.ref).with_quant(None)
    is_made = of.made_from is not None
    called = next(matching.names(stored.name, of))
    asked = store.aliases.expand(refs.parse(name))
    if asked.kind == ref.kind and asked.revision is not None and ref.kind in ("hub", "modelscope"):
        called = str(replace(ref, revision=asked.revision, quant=of.label))
    return LockedModel(called, ref, of.label, of.commit, files, of.licence, is_made)


def _path_at_source(of: Manifest, index: int) -> str:
    record = of.kept_files[index]
    return matching.path_in_repo(record) if record.root != "outside" else PurePosixPath(record.path).name


def _lock_path(stored: StoredModel, name: str, folder: Path) -> LockedModel:
    files = []
    for index, path in enumerate(stored.files):
        try:
            inside = path.resolve().relative_to(folder.resolve()).as_posix()
        except ValueError:
            raise Unsupported(
                f"{path} does not lie in the folder of the lock file",
                hint=f"`owm import {path}` stores it under a name, by which it can be locked",
            ) from None
        try:
            role: Role = "shard" if index else "model"
            files.append(LockedFile(inside, path.stat().st_size, sha256_of(path), role))
        except OSError as error:
            raise read_error(error, path) from error
    return LockedModel(f"./{files[0].path}", ModelRef("path", f"./{files[0].path}"), stored.label, None, tuple(files))


def is_same(locked: LockedModel, now: LockedModel) -> bool:
    """Tell whether a name means the content that is locked."""
    return (locked.commit, locked.weights) == (now.commit, now.weights)


# -- the file ----------------------------------------------------------------------------------------------------------


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        ModelNotFound: there is none.
        StoreError: it cannot be read, or a newer owm wrote it.
        MalformedFile: it is no lock file.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                _fail(path, "it is no regular file")
            raw = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        _fail(path, "it is a folder")
    except FileNotFoundError as error:
        raise ModelNotFound(f"no such file: {path}", ref=str(path), hint="`owm lock MODEL` writes one") from error
    except OSError as error:
        raise read_error(error, path) from error
    if len(raw) > MAX_BYTES:
        _fail(path, f"it has more than {MAX_BYTES >> 20} MiB")
    try:
        text_ = raw.decode()
        for number, line in enumerate(text_.split("\n"), 1):
            if not _LINE.fullmatch(line):
                _fail(path, f"its line {number} is none that a lock file has")
        document = tomllib.loads(text_)
    except ValueError as error:
        _fail(path, f"it is no TOML: {error}")
    version = document.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        raise StoreError(
            f"{path} was written by a newer owm (version {version}, this one knows {VERSION})", hint="update owm"
        )
    if version != VERSION or isinstance(version, bool) or document.keys() - {"version", "model"}:
        _fail(path, f"it does not say `version = {VERSION}`, or says something else beside models")
    tables = document.get("model", [])
    if not isinstance(tables, list) or len(tables) > MAX_MODELS:
        _fail(path, "its models are no list, or too many")
    models = [_model(path, table) for table in tables]
    if len({model.name for model in models}) != len(models):
        _fail(path, "it names a model twice")
    return Lock(tuple(sorted(models, key=lambda model: model.name)))


def _open_at_once(name: str, flags: int) -> int:
    """Open a file without waiting for who writes to it, should it be a pipe."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _model(path: Path, table: Any) -> LockedModel:
    if not isinstance(table, dict) or table.keys() - _KEYS:
        _fail(path, "a model of it is no table, or has a key that none has")
    name, source = _line(path, table, "name"), _line(path, table, "source")
    assert name is not None
    assert source is not None
    optional = {key: _line(path, table, key) if key in table else None for key in ("quant", "commit", "licence")}
    is_made, listed = table.get("made_here", False), table.get("file")
    if not isinstance(is_made, bool) or not isinstance(listed, list) or not 0 < len(listed) <= MAX_FILES:
        _fail(path, f"the model {name} has no files, or too many, or a value of the wrong type")
    if optional["commit"] is not None and not _COMMIT.fullmatch(optional["commit"]):
        _fail(path, f"the commit of {name} cannot be one")
    try:
        ref, called = refs.parse(source), refs.parse(name)
    except UsageError as error:
        _fail(path, str(error))
    if ref.kind == "path" and source != f"./{source[2:]}":
        _fail(path, f"the path {source} does not lie in the folder of the lock file")
    if ref.kind not in (*FETCHED, "local", "path") or ref.quant is not None or ref.file is not None:
        _fail(path, f"{source} names no source")
    files = tuple(_file(path, name, each) for each in listed)
    if not files or files[0].role != "model" or sum(file.role == "model" for file in files) != 1:
        _fail(path, f"the model {name} has not one first file")
    if ref.kind == "path" and source != f"./{files[0].path}":
        _fail(path, f"the path of {name} is not that of its file")
    if called.kind != "catalog" and (called.name != ref.name or (ref.kind != "local" and called.kind != ref.kind)):
        _fail(path, f"it calls {source} by the name of another: {name}")
    return LockedModel(name, ref, optional["quant"], optional["commit"], files, optional["licence"], is_made)


def _file(path: Path, name: str, table: Any) -> LockedFile:
    from owm.errors import Damaged

    if not isinstance(table, dict) or table.keys() - {"path", "size", "sha256", "role"}:
        _fail(path, f"a file of {name} is no table, or has a key that none has")
    where, size, sha256, role = (
        _line(path, table, "path"),
        table.get("size"),
        table.get("sha256"),
        table.get("role", "model"),
    )
    size = natural(size)
    if size is None or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        _fail(path, f"the size or the sha256 of a file of {name} cannot be right")
    if role not in get_args(Role) or role not in ROLES:
        _fail(path, f"a file of {name} has a role that none has")
    assert where is not None
    try:
        check_repo_path(where)
    except Damaged:
        _fail(path, f"a path of {name} leaves its folder: {where}")
    return LockedFile(where, size, sha256, role)


def _line(path: Path, table: dict[str, Any], key: str) -> str | None:
    found = text(table.get(key))
    if found is None or len(found) > MAX_TEXT or not found.isprintable():
        _fail(path, f"a {key} of it is no printable text of at most {MAX_TEXT} characters")
    return found


def write_lock(lock: Lock, path: Path) -> None:
    """Write a lock file in one step.

    Raises:
        StoreError: it cannot be written.
    """
    from owm.store.download import write_error

    try:
        publish_text(path, dump(lock))
    except OSError as error:
        raise write_error(error, path) from error


def dump(lock: Lock) -> str:
    """Return the text of a lock file."""
    parts = [f"{_COMMENT}version = {VERSION}\n"]
    for model in lock.models:
        lines = ["[[model]]", f"name = {_quoted(model.name)}", f"source = {_quoted(str(model.ref))}"]
        for key, value in (("quant", model.quant), ("commit", model.commit), ("licence", model.licence)):
            lines += [f"{key} = {_quoted(value)}"] if value else []
        lines += ["made_here = true"] if model.is_made_here else []
        for file in model.files:
            lines += ["", "[[model.file]]", f"path = {_quoted(file.path)}", f"size = {file.size_bytes}"]
            lines += [f"sha256 = {_quoted(file.sha256)}"]
            lines += [f"role = {_quoted(file.role)}"] if file.role != "model" else []
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _quoted(value: str) -> str:
    """Write a text as TOML's basic string."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _fail(path: Path, cause: str) -> NoReturn:
    raise MalformedFile(path, cause, kind="lock", hint="`owm lock MODEL…` writes one anew, in another folder")
