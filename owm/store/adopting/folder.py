"""A folder of the user's, with model files anywhere in it, and a single file."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from owm.errors import MalformedFile, OwmError, StoreError
from owm.store import quants
from owm.store.adopting import huggingface, ollama
from owm.store.adopting.found import Finding, Found, FoundFile, LeftOut, cannot_look, found_file, no_model
from owm.store.model import at_path
from owm.store.refs import ModelRef

MAX_DEPTH = 16
MAX_ENTRIES = 200_000  # looked at in one search

Naming = Callable[[Path], ModelRef | None]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file by its path relative to the folder that is searched, as `quants` takes it."""

    path: str
    file: FoundFile

    @property
    def size_bytes(self) -> int:
        return self.file.size_bytes


def search(
    top: Path, *, owner: str | None = None, name: Naming | None = None, skip: Sequence[Path] = ()
) -> list[Finding]:
    """Find the models in a folder, also where another tool's whole store lies in it. Links to folders are not followed.

    Args:
        name: tells by a file's path what the model is called at its source, where the folder's layout says that.
        skip: folders that are left alone.
    """
    left = MAX_ENTRIES
    findings: list[Finding] = []
    apart = {os.path.realpath(each) for each in skip}

    def note(error: OSError) -> None:
        folder = Path(error.filename or top)
        findings.append(LeftOut(owner, folder.name, folder, cannot_look(error, folder)))

    for at, folders, names in os.walk(top, onerror=note):
        folder = Path(at)
        left -= len(folders) + len(names)
        if left < 0:
            cause = StoreError(
                f"{top} holds too much to be searched whole: only {MAX_ENTRIES:,} files were looked at",
                hint="name a smaller folder",
            )
            findings.append(LeftOut(owner, top.name, top, cause))
            break
        if ollama.is_store(folder):
            folders.clear()
            findings += ollama.search(folder)
            continue
        if huggingface.is_repo(folder):
            folders.clear()
            findings += [replace(each, owner=owner or each.owner) for each in huggingface.search_repo(folder)]
            continue
        deep = len(folder.relative_to(top).parts) >= MAX_DEPTH
        folders[:] = [] if deep else sorted(each for each in folders if os.path.realpath(folder / each) not in apart)
        findings += _in_folder(folder, sorted(names), top, owner, name)
    return findings


def _in_folder(
    folder: Path, names: Sequence[str], top: Path, owner: str | None, name: Naming | None
) -> Iterator[Finding]:
    entries = []
    for each in names:
        path = folder / each
        if not each.lower().endswith(".gguf"):
            continue
        if what := quants.part_of_a_model(each):
            yield LeftOut(owner, each, path, no_model(path, what), is_fault=False)
            continue
        try:
            entries.append(_Entry(path.relative_to(top).as_posix(), found_file(path)))
        except OwmError as problem:
            yield LeftOut(owner, each, path, problem)
    whole = quants.variants(entries)
    for variant in whole:
        first = variant.files[0]
        ref = name(Path(first.path)) if name else None
        label = quants.label_of(first.path)
        yield Found(owner, ref, tuple(entry.file for entry in variant.files), label)
    taken = {entry.path for variant in whole for entry in variant.files}
    missing = quants.missing_parts(entries)
    for entry in entries:
        if entry.path not in taken:
            stem = entry.path.rpartition("-of-")[0][: -len("00001")]
            part = next((part for part in missing if part.startswith(stem)), None)
            cause = f"its part {Path(part).name} is missing" if part else "its parts do not fit together"
            cut = MalformedFile(entry.file.path, cause, hint="all parts must lie in one folder")
            yield LeftOut(owner, entry.file.path.name, entry.file.path, cut)
            missing = [each for each in missing if not each.startswith(stem)]
            taken |= {each.path for each in entries if each.path.startswith(stem)}


def single(path: Path) -> list[Finding]:
    """Find the one model of a file, which may be any part of it.

    Raises:
        ModelNotFound: there is no such file. MalformedFile: a part of it is missing.
        Unsupported: by its name it is no model. StoreError: it cannot be looked at.
    """
    if what := quants.part_of_a_model(path.name):
        raise no_model(path, what)
    files = tuple(found_file(file) for file in at_path(ModelRef("path", os.path.abspath(path))).files)
    return [Found(None, None, files, quants.label_of(path.name))]
