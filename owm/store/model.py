"""A stored model: files that can be opened, and what is known of them. Also a model that merely lies at a path."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from owm.errors import MalformedFile, ModelNotFound, StoreError
from owm.store import manifest, quants
from owm.store.manifest import Manifest
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
    def full_name(self) -> str:
        """The one name of a model: a file on disk by its whole path."""
        if self.manifest is None:
            return str(self.path.resolve())
        return f"{self.name}:{self.label}" if self.label else self.name

    @property
    def is_verified(self) -> bool:
        """The files are as they were checked: they are owm's or the Hub cache's own, which change by content only."""
        if self.manifest is None or self.manifest.owner is not None:
            return False
        return all(file.root != "outside" for file in self.manifest.files)

    @property
    def is_gone(self) -> bool:
        """Another tool removed the files."""
        return not all(map(file_exists, self.files))

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
        try:
            return datetime.fromtimestamp((self.folder / manifest.FILE_NAME).stat().st_mtime, UTC)
        except OSError:  # removed or locked away since it was read
            return None


def at_path(ref: ModelRef) -> StoredModel:
    try:
        path = Path(ref.name).expanduser()
        is_folder, exists = path.is_dir(), path.exists()
    except PermissionError as error:
        raise read_error(error, path) from error
    except (OSError, RuntimeError) as error:  # too long, not to be looked into, or no such user's home
        raise ModelNotFound(f"no such file: {ref.name}", ref=ref.name, hint="check the path") from error
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


@dataclass(frozen=True, slots=True)
class Entry:
    path: str
    size_bytes: int | None


def _listing(folder: Path) -> list[Entry]:
    try:
        return [Entry(entry.name, entry.stat().st_size) for entry in folder.iterdir() if entry.is_file()]
    except OSError as error:
        raise read_error(error, folder) from error


def file_exists(path: Path) -> bool:
    """Tell whether a file is there; one that may not be looked at is not known to be gone."""
    try:
        return path.exists()
    except OSError:
        return True


def read_error(error: OSError, path: Path) -> StoreError:
    return StoreError(f"cannot read {path}: {error.strerror or error}", hint="look at its permissions")
