"""The store: the models on this machine, found by name. It reads and removes; `pull.py` adds.

A model is a folder `models/<source>/<owner>/<name>/<revision>/<label>/` with a `manifest.json`; its bytes lie beside
the manifest or in the Hugging Face cache. A folder without a manifest is no model, whatever else it holds.
"""

import hashlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from owm.errors import ChecksumMismatch, Damaged, MalformedFile, ModelNotFound, OwmError, UsageError
from owm.events import Sink, ignore
from owm.store import catalog, manifest, matching, quants, refs
from owm.store.aliases import Aliases
from owm.store.digest import sha256_of
from owm.store.download import write_error
from owm.store.model import Entry, StoredModel, at_path, file_exists, read_error
from owm.store.names import safe_component
from owm.store.refs import ModelRef


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
        for path in self._manifests():
            try:
                if model := self.at(path.parent):
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
            read = manifest.parse(path.read_text("utf-8"), path)
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
        found = self._named(ref, stored)
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
        names = {self.shown_name(model, stored): model for model in stored}
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
        raise ModelNotFound(f"{text} is not stored", ref=text, hint=f"{suggestion}`owm pull {text}` fetches it")

    def shown_name(self, model: StoredModel, among: Sequence[StoredModel] | None = None) -> str:
        """Return the shortest text that names exactly this model.

        Args:
            among: all stored models, for a caller that has them already.
        """
        if model.manifest is None:
            return model.name
        among = self.models() if among is None else among
        names = matching.names(model.name, model.manifest)
        for name in names:
            try:
                if [found.folder for found in self._named(refs.parse(name), among)] == [model.folder]:
                    return name
            except (UsageError, ModelNotFound):
                continue
        return names[-1]

    def candidates(self, ref: ModelRef) -> tuple[ModelRef, ...]:
        """Return the references at real sources that `ref` stands for, in the order to try."""
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
        return (self.hub if record.root == "hub" else self.home) / record.path

    def touch(self, model: StoredModel) -> None:
        """Note that a model is being used; a store that cannot be written is no reason to fail."""
        if model.folder is not None:
            try:
                os.utime(model.folder / manifest.FILE_NAME)
            except OSError:
                return

    # -- changing --------------------------------------------------------------------------------------------------

    def remove(self, model: StoredModel, *, remove_hub_files: Callable[[list[Path]], None]) -> int:
        """Remove a stored model; return the bytes freed. Files in the Hub cache go through the Hub library.

        Raises:
            UsageError: the model is a file of the user's that owm only refers to.
            StoreError: the store cannot be written.
        """
        if model.manifest is None or model.folder is None:
            raise UsageError(f"{model.name} is a file of yours, not in the store", hint=f"rm {model.path}")
        with self.lock(model.folder):
            try:
                freed = sum(path.stat().st_size for path in model.files if path.exists())
                (model.folder / manifest.FILE_NAME).unlink(missing_ok=True)
                kept = [(record, self.file_path(record)) for record in model.manifest.kept_files]
                in_hub = [path for record, path in kept if record.root == "hub" and path.exists()]
                others = [other.manifest for other in self.models() if other.manifest]
                shared = {self.file_path(record) for other in others for record in other.kept_files}
                in_hub = [path for path in in_hub if path not in shared]
                if in_hub:
                    remove_hub_files(in_hub)
                shutil.rmtree(model.folder)
                self._remove_empty_parents(model.folder.parent)
            except OSError as error:
                raise write_error(error, model.folder) from error
        return freed

    def verify(self, model: StoredModel, *, sink: Sink = ignore) -> None:
        """Hash every file of a model and compare with the manifest.

        Raises:
            ModelNotFound: a file is gone.
            ChecksumMismatch, MalformedFile: a file is not what was pulled.
            StoreError: a file cannot be read.
        """
        if model.manifest is None:
            return
        for number, record in enumerate(model.manifest.kept_files):
            path = self.file_path(record)
            if not file_exists(path):
                if record.role == "generation_config":
                    continue  # the model is whole without it
                raise ModelNotFound(
                    f"{self.shown_name(model)} is gone: {path} was removed by another program",
                    ref=model.name,
                    hint=f"`owm pull {self.shown_name(model)}` fetches it again",
                )
            hint = self.hint_to_mend(model)
            try:
                size = path.stat().st_size
                if size != record.size_bytes:
                    raise MalformedFile(path, f"it has {size} bytes instead of {record.size_bytes}", hint=hint)
                actual = sha256_of(path, blanked=model.manifest.blanked if number == 0 else None, sink=sink)
            except OSError as error:
                raise read_error(error, path) from error
            if actual != record.sha256:
                raise ChecksumMismatch(
                    f"{path.name} is damaged: its sha256 is not the recorded one",
                    expected=record.sha256,
                    actual=actual,
                    hint=hint,
                )

    @contextmanager
    def reading(self, model: StoredModel) -> Iterator[None]:
        """Let an error about damaged files of a stored model say what mends them."""
        try:
            yield
        except Damaged as error:
            if model.manifest is not None:
                error.hint = self.hint_to_mend(model)
            raise

    def hint_to_mend(self, model: StoredModel) -> str:
        """Return the commands that replace a damaged stored model by a whole one."""
        name = shlex.quote(self.shown_name(model))
        is_shared = model.manifest is not None and any(file.root == "hub" for file in model.manifest.files)
        return f"`owm rm {'--yes ' if is_shared else ''}{name}`, then `owm pull {name}`"

    @contextmanager
    def lock(self, folder: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock of one model; `on_wait` is called once if another process has it."""
        locks = self.home / "locks"
        name = hashlib.sha256(str(folder.relative_to(self.home)).encode()).hexdigest()[:20]
        try:
            locks.mkdir(parents=True, exist_ok=True)
            lock = FileLock(locks / f"{name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if on_wait is not None:
                    on_wait()
                lock.acquire()
        except OSError as error:
            raise write_error(error, locks / name) from error
        try:
            yield
        finally:
            lock.release()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _manifests(self, *parts: str) -> Iterator[Path]:
        """Yield where manifests are, and where one may be that cannot be looked for.

        Raises:
            StoreError: nothing can be looked for at all.
        """
        top = self.home.joinpath("models", *parts)
        locked: list[Path] = []

        def note(error: OSError) -> None:
            if error.filename == str(top) and not isinstance(error, FileNotFoundError):
                raise read_error(error, top) from error
            locked.append(Path(error.filename))

        for folder, folders, files in os.walk(top, onerror=note):
            folders.sort()
            if manifest.FILE_NAME in files:
                folders.clear()
                yield Path(folder, manifest.FILE_NAME)
        yield from (folder / manifest.FILE_NAME for folder in locked)

    def _find_source(self, ref: ModelRef) -> StoredModel | None:
        stored = []
        for path in self._manifests(ref.kind):
            with suppress(OwmError):
                if model := self.at(path.parent):
                    stored.append(model)
        newest = {model.label: model for model in reversed(matching.of_source(ref, stored)) if not model.is_gone}
        if not newest:
            return None
        labels: list[quants.Variant[Entry]] = [quants.Variant(label or "", ()) for label in newest]
        return newest[quants.choose(labels, None, where=str(ref)).label]

    def _named(self, ref: ModelRef, stored: Sequence[StoredModel]) -> list[StoredModel]:
        """Return all of `stored` that `ref` could mean."""
        return [model for wanted in self.candidates(ref) for model in matching.of_source(wanted, stored)]

    def _refuse_unreadable(self, ref: ModelRef) -> None:
        """Raise what keeps a stored model from being read, rather than have it pulled over or called not stored."""
        for wanted in self.candidates(ref):
            for path in self._manifests(wanted.kind):
                if matching.lies_where(path.parent, self.home / "models" / wanted.kind, wanted):
                    with suppress(Damaged):  # is mended by a pull
                        self.at(path.parent)

    def _remove_empty_parents(self, folder: Path) -> None:
        while folder != self.home and folder.is_relative_to(self.home) and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent
