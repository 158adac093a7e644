"""The store: the models on this machine, found by name. It reads and removes; `pull.py` adds.

A model is a folder `models/<source>/<owner>/<name>/<revision>/<label>/` with a `manifest.json`; its bytes lie beside
the manifest or in the Hugging Face cache. A folder without a manifest is no model, whatever else it holds.
"""

import hashlib
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from owm.errors import Damaged, ModelNotFound, OwmError, UsageError
from owm.events import Sink, ignore
from owm.store import catalog, inside, manifest, matching, quants, refs, trees
from owm.store.aliases import Aliases
from owm.store.manifest import FileRecord
from owm.store.model import Entry, StoredModel, at_path, read_error
from owm.store.names import safe_component
from owm.store.refs import ModelRef
from owm.store.shelf import Shelf

if TYPE_CHECKING:  # loaded when something is locked: listing needs no lock
    from filelock import FileLock

CLOCK_TICK_NS = 20_000_000  # the times of files are as exact as this, at worst of the usual file systems


@dataclass(frozen=True, slots=True)
class Store:
    """The models under `home` and in the Hugging Face cache `hub`."""

    home: Path
    hub: Path

    @property
    def aliases(self) -> Aliases:
        """The user's own names for models."""
        return Aliases(self.home / "aliases.json")

    # -- reading ---------------------------------------------------------------------------------------------------

    def models(self, problems: list[OwmError] | None = None) -> list[StoredModel]:
        """Return every stored model, sorted by name; unreadable manifests go to `problems`.

        Raises:
            StoreError: the store cannot be read at all.
        """
        found = []
        for folder in self._folders():
            try:
                if model := self.at(folder):
                    found.append(model)
            except OwmError as problem:
                if problems is not None:
                    problems.append(problem)
        return sorted(found, key=lambda model: (model.name, model.label or ""))

    def at(self, folder: Path) -> StoredModel | None:
        """Return the model stored in a folder, None if there is none.

        Raises:
            StoreError: its manifest cannot be read, or was written by a newer owm.
            Damaged: it is not a manifest.
        """
        path = folder / manifest.FILE_NAME
        try:
            read = manifest.parse(path.read_bytes().decode(), path)
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise Damaged(f"{path} is not a manifest: {error.reason}") from error
        except OSError as error:
            raise read_error(error, path) from error
        short = catalog.load().short_name(refs.parse(read.ref))
        return StoredModel(short or read.ref, read.label, tuple(map(self.file_path, read.files)), read, folder)

    def find(self, ref: ModelRef) -> StoredModel | None:
        """Return the stored model that `ref` names, None if it has to be pulled first.

        A path is always found where it lies. Without a quant, the best one stored is taken.

        Raises:
            ModelNotFound: a path that does not exist, or a short name that nobody knows.
            StoreError: it is stored, but what is stored cannot be read.
        """
        ref = self.aliases.expand(ref)
        if ref.kind == "path":
            return at_path(ref)
        for wanted in self.candidates(ref):
            if model := self._find_source(wanted):
                return model
        self._refuse_unreadable(ref)
        return None

    def find_exactly(self, text: str) -> StoredModel:
        """Return the one stored model that `text` names in full, for a command that removes it.

        Raises:
            ModelNotFound: nothing stored has that name, or several have.
        """
        ref = self.aliases.expand(refs.parse(text))
        if ref.kind == "path":
            return at_path(ref)
        stored = self.models()
        found = Shelf(stored).named(self.candidates(ref))
        text = matching.words(ref, text)
        if len(found) == 1:
            return found[0]
        if found:
            listing = ", ".join(self.shown_name(model, stored) for model in found[:8])
            raise ModelNotFound(f"{text} names {len(found)} stored models", ref=text, hint=f"say which: {listing}")
        self._refuse_unreadable(ref)
        raise ModelNotFound(f"{text} is not stored", ref=text, hint="`owm list` shows what is")

    def find_stored(self, text: str) -> StoredModel:
        """Return the stored model that `text` names, which may be the beginning of a stored name.

        Raises:
            ModelNotFound: nothing stored has that name, or several begin with it.
        """
        problem: ModelNotFound | None = None
        ref = refs.parse(text)
        text = matching.words(ref, text)
        try:
            if model := self.find(ref):
                return model
        except ModelNotFound as error:
            problem = error
            if ref.kind == "path":
                raise
        stored = self.models()
        shelf = Shelf(stored)
        names = {self.shown_name(model, shelf): model for model in stored}
        begins = [model for name, model in names.items() if name.lower().startswith(text.lower())]
        if len(begins) == 1:
            return begins[0]
        if len(begins) > 1:
            listing = ", ".join(self.shown_name(model, stored) for model in begins[:8])
            raise ModelNotFound(f"{text} could be several stored models", ref=text, hint=f"say which: {listing}")
        if problem is not None:
            raise problem
        near = catalog.load().nearest(text, *names) if names else None
        suggestion = f"did you mean `{near}`? " if near in names else ""
        other = "`owm list` shows what is" if ref.kind == "local" else f"`owm pull {text}` fetches it"
        raise ModelNotFound(f"{text} is not stored", ref=text, hint=f"{suggestion}{other}")

    def shown_name(self, model: StoredModel, among: "Sequence[StoredModel] | Shelf | None" = None) -> str:
        """Return the shortest text that names exactly this model.

        Args:
            among: all stored models, for a caller that has them already; on a shelf where many names are asked for.
        """
        if model.manifest is None:
            return model.name
        among = self.models() if among is None else among
        shelf = among if isinstance(among, Shelf) else Shelf(among)
        name = model.name
        for name in matching.names(model.name, model.manifest):
            with suppress(UsageError, ModelNotFound):
                if [found.folder for found in shelf.named(self.candidates(refs.parse(name)))] == [model.folder]:
                    break
        return name

    def candidates(self, ref: ModelRef) -> tuple[ModelRef, ...]:
        """Return the references at real sources that `ref` stands for, in the order to try."""
        if ref.kind == "catalog":
            ref = self.aliases.expand(ref)
        if ref.kind != "catalog":
            return (ref,)
        try:
            return (*catalog.load().sources(ref), *self._made_here(ref))
        except ModelNotFound:
            if made := self._made_here(ref):
                return made
            raise

    def _made_here(self, ref: ModelRef) -> tuple[ModelRef, ...]:
        """Return the reference to what was made of the user's own files under a short name, if there is such."""
        name = f"{ref.name}:{ref.size}" if ref.size else ref.name
        is_there = (self.home / "models" / "local" / safe_component(name)).is_dir()
        return (ModelRef("local", name, quant=ref.quant),) if is_there else ()

    def folder_of(self, source: str, name: str, revision: str | None, label: str) -> Path:
        """Return the folder of a model that is or will be stored."""
        parts = [safe_component(part) for part in (source, *name.split("/"), revision or "latest", label)]
        return self.home.joinpath("models", *parts)

    def file_path(self, record: manifest.FileRecord) -> Path:
        """Return where a recorded file lies."""
        if record.root == "outside":
            return Path("/", record.path)
        return (self.hub if record.root == "hub" else self.home) / record.path

    def record_of(
        self, path: Path, sha256: str, role: manifest.Role = "model", *, may_be_outside: bool = False
    ) -> FileRecord:
        """Describe a whole file for a manifest, just after its sha256 was found, with what `verify` goes by later.

        Args:
            may_be_outside: the file may be another tool's or the user's, which stays where it is.

        Raises:
            Damaged: the file lies outside the store.
            StoreError: it cannot be looked at.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise read_error(error, path) from error
        # A file that is changed within one tick of the file system's clock keeps its time: let that tick pass.
        if 0 <= time.time_ns() - status.st_mtime_ns < CLOCK_TICK_NS:
            time.sleep(CLOCK_TICK_NS / 1e9)
        roots = sorted(((self.home, "owm"), (self.hub, "hub")), key=lambda each: len(each[0].parts), reverse=True)
        for base, root in roots:  # the inner one first, where one lies in the other
            if path.is_relative_to(base):
                return FileRecord(
                    path.relative_to(base).as_posix(),
                    root,  # type: ignore[arg-type]
                    status.st_size,
                    sha256,
                    role,
                    status.st_mtime_ns,
                )
        if not may_be_outside:
            raise Damaged(f"{os.fspath(path)} lies outside the store")
        whole = Path(os.path.abspath(path)).as_posix()
        return FileRecord(whole, "outside", status.st_size, sha256, role, status.st_mtime_ns)

    def touch(self, model: StoredModel) -> None:
        """Note that a model is being used; a store that cannot be written is no reason to fail."""
        if model.folder is not None:
            try:
                os.utime(model.folder / manifest.FILE_NAME)
            except OSError:
                return

    # -- changing --------------------------------------------------------------------------------------------------

    def remove(self, model: StoredModel, *, remove_hub_files: Callable[[list[Path]], None]) -> int:
        """Remove a stored model; return the bytes freed; see `owm.store.removing.remove`."""
        from owm.store import removing

        return removing.remove(model, self, remove_hub_files=remove_hub_files)

    def verify(self, model: StoredModel, *, sink: Sink = ignore) -> None:
        """Hash every file of a model and compare with the manifest; see `owm.store.verifying.verify` for many.

        Raises:
            ModelNotFound: a file is gone.
            ChecksumMismatch, MalformedFile: a file is not what was pulled.
            StoreError: a file cannot be read.
        """
        from owm.store import verifying

        if problem := verifying.verify([model], self, full=True, sink=sink)[0].problem:
            raise problem

    @contextmanager
    def reading(self, model: StoredModel) -> Iterator[None]:
        """Let an error about damaged files of a stored model say what mends them."""
        try:
            yield
        except Damaged as error:
            if model.manifest is not None:
                error.hint = self.hint_to_mend(model)
            raise

    def hint_to_mend(self, model: StoredModel, among: "Sequence[StoredModel] | Shelf | None" = None) -> str:
        """Return what replaces a damaged stored model by a whole one."""
        name = shlex.quote(self.shown_name(model, among))
        of = model.manifest
        is_shared = of is not None and any(file.root == "hub" for file in of.files)
        remove = f"`owm rm {'--yes ' if is_shared else ''}{name}`"
        if of is not None and of.owner is not None and any(file.root == "outside" for file in of.files):
            if of.owner == manifest.USER:
                return f"the file is yours: put a whole one in its place and import it again, or {remove}"
            return f"the file belongs to {of.owner}: have it fetched again there, then `owm verify {name}`"
        if of is not None and (of.made_from is not None or of.source == "local"):
            return f"it was made here: {remove}, then make it again"
        return f"{remove}, then `owm pull {name}`"

    @contextmanager
    def lock(self, folder: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock of one model; `on_wait` is called once if another process has it."""
        with self.try_lock(folder) as is_ours:
            if is_ours:
                yield
                return
        if on_wait is not None:
            on_wait()
        lock = self._lock_of(folder)
        try:
            lock.acquire()
            while trees.is_moving(self.home):
                lock.release()
                trees.wait_for_move(self.home)
                lock.acquire()
        except OSError as error:
            raise _lock_error(error, Path(lock.lock_file)) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def try_lock(self, folder: Path) -> Iterator[bool]:
        """Hold the lock of one model if no other process has it; gives whether it is held."""
        from filelock import Timeout

        lock = self._lock_of(folder)
        try:
            lock.acquire(timeout=0)
            is_ours = not trees.is_moving(self.home)
        except Timeout:
            yield False
            return
        except OSError as error:
            lock.release()
            raise _lock_error(error, Path(lock.lock_file)) from error
        try:
            yield is_ours
        finally:
            lock.release()

    def lock_path(self, folder: Path) -> Path:
        """Return the lock file of one model; it stays when nobody holds it."""
        name = hashlib.sha256(str(folder.relative_to(self.home)).encode()).hexdigest()[:20]
        return self.home / "locks" / f"{name}.lock"

    # -- inside ----------------------------------------------------------------------------------------------------

    def _lock_of(self, folder: Path) -> "FileLock":
        from filelock import FileLock

        path = self.lock_path(folder)
        inside.refuse_links(folder, self.home)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _lock_error(error, path) from error
        return FileLock(path)

    def _folders(self, *parts: str) -> Iterator[Path]:
        """Yield the folders that have a manifest, and those that may have one, but cannot be looked into.

        Raises:
            StoreError: nothing can be looked for at all.
        """
        top = self.home.joinpath("models", *parts)
        waiting, locked = [str(top)], []
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    found = list(entries)
            except FileNotFoundError:  # removed meanwhile
                if folder == str(top) and trees.models_of(self.home).is_found_again():
                    waiting.append(folder)
                continue
            except OSError as error:
                if folder == str(top):
                    raise read_error(error, top) from error
                locked.append(folder)
                continue
            if manifest.FILE_NAME in [entry.name for entry in found]:
                yield Path(folder)
            else:
                waiting += sorted([entry.path for entry in found if _is_folder(entry)], reverse=True)
        yield from map(Path, locked)

    def _find_source(self, ref: ModelRef) -> StoredModel | None:
        stored = []
        for folder in self._folders(ref.kind):
            with suppress(OwmError):
                if model := self.at(folder):
                    stored.append(model)
        newest = {model.label: model for model in reversed(matching.of_source(ref, stored)) if not model.is_gone}
        if not newest:
            return None
        labels: list[quants.Variant[Entry]] = [quants.Variant(label or "", ()) for label in newest]
        return newest[quants.choose(labels, None, where=str(ref)).label]

    def _refuse_unreadable(self, ref: ModelRef) -> None:
        """Raise what keeps a stored model from being read, rather than have it pulled over or called not stored."""
        for wanted in self.candidates(ref):
            for folder in self._folders(wanted.kind):
                if matching.lies_where(folder, self.home / "models" / wanted.kind, wanted):
                    with suppress(Damaged):  # is mended by a pull
                        self.at(folder)


def _lock_error(error: OSError, path: Path) -> OwmError:
    from owm.store.download import write_error

    return write_error(error, path)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
