"""The store: the models on this machine, found by name. It reads and removes; `pull.py` adds.

A model is a folder `models/<source>/<owner>/<name>/<revision>/<label>/` with a `manifest.json`; its bytes lie beside
the manifest or in the Hugging Face cache. A folder without a manifest is no model, whatever else it holds.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from owm.errors import ChecksumMismatch, Damaged, MalformedFile, ModelNotFound, OwmError, StoreError, UsageError
from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.store import catalog, manifest, quants, refs
from owm.store.aliases import Aliases
from owm.store.download import write_error
from owm.store.manifest import Manifest
from owm.store.names import safe_component
from owm.store.refs import ModelRef

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that can be opened: files in shard order, and its manifest unless it is a bare path."""

    name: str
    label: str | None
    files: tuple[Path, ...]
    manifest: Manifest | None = None
    folder: Path | None = None

    @property
    def path(self) -> Path:
        """The file to hand to llama.cpp: the only one, or the first shard."""
        return self.files[0]

    @property
    def is_gone(self) -> bool:
        """Another tool removed the files."""
        return not all(path.exists() for path in self.files)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        if self.manifest is not None:
            return self.manifest.size_bytes
        return sum(path.stat().st_size for path in self.files)

    @property
    def last_used(self) -> datetime | None:
        """When the model was last opened, kept as the manifest's modification time."""
        if self.folder is None:
            return None
        return datetime.fromtimestamp((self.folder / manifest.FILE_NAME).stat().st_mtime, UTC)


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
        """Return every stored model, sorted by name; unreadable manifests go to `problems`."""
        found = [model for path in self._manifests() if (model := self._read(path, problems))]
        return sorted(found, key=lambda model: (model.name, model.label or ""))

    def find(self, ref: ModelRef) -> StoredModel | None:
        """Return the stored model that `ref` names, None if it has to be pulled first.

        A path is always found where it lies. Without a quant, the best one stored is taken.

        Raises:
            ModelNotFound: a path that does not exist, or a short name that nobody knows.
        """
        ref = self.aliases.expand(ref)
        if ref.kind == "path":
            return self._at_path(ref)
        for wanted in self.candidates(ref):
            if model := self._find_source(wanted):
                return model
        return None

    def find_exactly(self, text: str) -> StoredModel:
        """Return the one stored model that `text` names in full, for a command that removes it.

        Raises:
            ModelNotFound: nothing stored has that name, or several have.
        """
        ref = self.aliases.expand(refs.parse(text))
        if ref.kind == "path":
            return self._at_path(ref)
        found = [model for wanted in self.candidates(ref) for model in self._of_source(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            listing = ", ".join(self.shown_name(model) for model in found[:8])
            raise ModelNotFound(f"{text} names {len(found)} stored models", ref=text, hint=f"say which: {listing}")
        raise ModelNotFound(f"{text} is not stored", ref=text, hint="`owm list` shows what is")

    def find_stored(self, text: str) -> StoredModel:
        """Return the stored model that `text` names, which may be the beginning of a stored name.

        Raises:
            ModelNotFound: nothing stored has that name, or several begin with it.
        """
        problem: ModelNotFound | None = None
        try:
            ref = refs.parse(text)
            if model := self.find(ref):
                return model
        except ModelNotFound as error:
            problem = error
            if ref.kind == "path":
                raise
        stored = self.models()
        names = {self.shown_name(model): model for model in stored}
        begins = [model for name, model in names.items() if name.lower().startswith(text.lower())]
        if len(begins) == 1:
            return begins[0]
        if len(begins) > 1:
            listing = ", ".join(self.shown_name(model) for model in begins[:8])
            raise ModelNotFound(f"{text} could be several stored models", ref=text, hint=f"say which: {listing}")
        if problem is not None:
            raise problem
        near = catalog.load().nearest(text, *names) if names else None
        suggestion = f"did you mean `{near}`? " if near in names else ""
        raise ModelNotFound(f"{text} is not stored", ref=text, hint=f"{suggestion}`owm pull {text}` fetches it")

    def shown_name(self, model: StoredModel) -> str:
        """Return the shortest text that names exactly this model."""
        return f"{model.name}:{model.label}" if model.label and model.manifest else model.name

    def candidates(self, ref: ModelRef) -> tuple[ModelRef, ...]:
        """Return the references at real sources that `ref` stands for, in the order to try."""
        ref = self.aliases.expand(ref)
        return catalog.load().sources(ref) if ref.kind == "catalog" else (ref,)

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
            freed = sum(path.stat().st_size for path in model.files if path.exists())
            try:
                (model.folder / manifest.FILE_NAME).unlink(missing_ok=True)
                in_hub = [
                    p for p, f in zip(model.files, model.manifest.files, strict=True) if f.root == "hub" and p.exists()
                ]
                shared = {self.file_path(f) for other in self.models() if other.manifest for f in other.manifest.files}
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
        """
        if model.manifest is None:
            return
        for record in model.manifest.files:
            path = self.file_path(record)
            if not path.exists():
                raise ModelNotFound(
                    f"{self.shown_name(model)} is gone: {path} was removed by another program",
                    ref=model.name,
                    hint=f"`owm pull {self.shown_name(model)}` fetches it again",
                )
            hint = f"`owm rm {self.shown_name(model)}`, then `owm pull {self.shown_name(model)}`"
            if path.stat().st_size != record.size_bytes:
                raise MalformedFile(
                    path, f"it has {path.stat().st_size} bytes instead of {record.size_bytes}", hint=hint
                )
            actual = sha256_of(path, sink=sink)
            if actual != record.sha256:
                raise ChecksumMismatch(
                    f"{path.name} is damaged: its sha256 is not the recorded one",
                    expected=record.sha256,
                    actual=actual,
                    hint=hint,
                )

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
        top = self.home.joinpath("models", *parts)
        for folder, folders, files in os.walk(top):
            folders.sort()
            if manifest.FILE_NAME in files:
                folders.clear()
                yield Path(folder, manifest.FILE_NAME)

    def _read(self, path: Path, problems: list[OwmError] | None = None) -> StoredModel | None:
        try:
            read = manifest.parse(path.read_text("utf-8"), path)
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            problem: OwmError = Damaged(f"{path} is not a manifest: {error.reason}")
        except OSError as error:
            problem = StoreError(f"cannot read {path}: {error.strerror}")
        except OwmError as error:
            problem = error
        else:
            short = catalog.load().short_name(refs.parse(read.ref))
            return StoredModel(short or read.ref, read.label, tuple(map(self.file_path, read.files)), read, path.parent)
        if problems is not None:
            problems.append(problem)
        return None

    def _find_source(self, ref: ModelRef) -> StoredModel | None:
        newest = {model.label: model for model in reversed(self._of_source(ref)) if not model.is_gone}
        if not newest:
            return None
        labels: list[quants.Variant[_Entry]] = [quants.Variant(label or "", ()) for label in newest]
        return newest[quants.choose(labels, None, where=str(ref)).label]

    def _of_source(self, ref: ModelRef) -> list[StoredModel]:
        """Return what is stored of one repo or package, in the quant that `ref` asks for, newest first."""
        read = [model for path in self._manifests(ref.kind) if (model := self._read(path))]
        stored = [model for model in read if _matches(model.manifest, ref)]
        stored.sort(key=lambda m: m.manifest.created_at if m.manifest else "", reverse=True)
        if ref.quant is None:
            return stored
        wanted = ref.quant.lower()
        exact = [m for m in stored if m.label and m.label.lower() == wanted]
        return exact or [m for m in stored if m.label and re.sub(r"^(ud|i1)-", "", m.label.lower()) == wanted]

    def _at_path(self, ref: ModelRef) -> StoredModel:
        try:
            path = Path(ref.name).expanduser()
            is_folder, exists = path.is_dir(), path.exists()
        except (OSError, RuntimeError) as error:  # too long, not to be looked into, or no such user's home
            raise ModelNotFound(f"no such file: {ref.name}", ref=ref.name) from error
        if is_folder:
            found = quants.variants(_listing(path))
            if not found:
                raise ModelNotFound(f"no GGUF file in {ref.name}", ref=ref.name, hint="name a .gguf file")
            if len(found) > 1:
                listing = ", ".join(file.path for variant in found for file in variant.files[:1])
                raise ModelNotFound(f"{ref.name} holds several models", ref=ref.name, hint=f"name one: {listing}")
            return StoredModel(ref.name, found[0].label, tuple(path / file.path for file in found[0].files))
        if not exists:
            raise ModelNotFound(
                f"no such file: {ref.name}",
                ref=ref.name,
                hint="a Hub repo is written `owner/repo`, a path as it is on disk",
            )
        files = [path]
        if shard := _SHARD.search(path.name):
            stem, count = path.name[: shard.start()], int(shard[2])
            files = [path.with_name(f"{stem}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]
            missing = [file.name for file in files if not file.exists()]
            if missing:
                raise MalformedFile(path, f"its part {missing[0]} is missing", hint="all parts must lie in one folder")
        return StoredModel(ref.name, quants.label_of(path.name), tuple(files))

    def _remove_empty_parents(self, folder: Path) -> None:
        while folder != self.home and folder.is_relative_to(self.home) and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    size_bytes: int | None


def _listing(folder: Path) -> list[_Entry]:
    return [_Entry(entry.name, entry.stat().st_size) for entry in folder.iterdir() if entry.is_file()]


def _matches(stored: Manifest | None, ref: ModelRef) -> bool:
    if stored is None:
        return False
    of = refs.parse(stored.ref)
    # The Hub takes names in any case, and a renamed repo by its old name; `stored.name` is what it goes by now.
    names = {of.name} if ref.kind == "url" else {of.name.lower(), stored.name.lower()}
    if of.kind != ref.kind or (ref.name if ref.kind == "url" else ref.name.lower()) not in names:
        return False
    if ref.file is not None and not any(file.path.endswith("/" + ref.file) for file in stored.files):
        return False
    if ref.revision is None:
        return True
    if ref.revision in (stored.revision, of.revision):
        return True
    return bool(re.fullmatch(r"[0-9a-f]{7,40}", ref.revision)) and (stored.commit or "").startswith(ref.revision)


def sha256_of(path: Path, *, sink: Sink = ignore) -> str:
    """Hash a file, reporting progress in bytes."""
    import time

    began = time.monotonic()
    hasher = hashlib.sha256()
    done = 0
    with open(path, "rb", buffering=0) as file:
        sink(Started(path.name, os.fstat(file.fileno()).st_size, "bytes"))
        while chunk := file.read(1 << 22):
            hasher.update(chunk)
            done += len(chunk)
            sink(Advanced(path.name, done))
    sink(Finished(path.name, time.monotonic() - began))
    return hasher.hexdigest()
