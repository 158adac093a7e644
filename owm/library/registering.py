"""Giving a manifest to a model that is on this machine already: what the store knows of it, its place, its files."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from owm.errors import ChecksumMismatch, Damaged, OwmError, StoreError, UsageError
from owm.events import Sink, ignore
from owm.publishing import create_anew
from owm.store import manifest, refs, removing
from owm.store.adopting.found import Found, FoundFile, read_small
from owm.store.adopting.linking import Link, put
from owm.store.digest import sha256_of
from owm.store.download import write_error
from owm.store.licence_text import licence_of
from owm.store.manifest import FileRecord, Manifest, ModelFacts
from owm.store.matching import matches
from owm.store.model import StoredModel, read_error
from owm.store.names import safe_component, safe_gguf_name
from owm.store.refs import ModelRef
from owm.store.registry_refs import place_of

if TYPE_CHECKING:
    from owm.store.local import Store

MAX_CONFIG_BYTES = 1 << 16
GENERATION_CONFIG = "generation_config.json"

Status = Literal["new", "changed", "unchanged", "known"]


@dataclass(slots=True)
class Known:
    """What the store has: models by their content, and sha256s by what is on disk now."""

    models: list[StoredModel] = field(default_factory=list)
    _sha256s: dict[tuple[int, int, int, int], str] = field(default_factory=dict)

    @classmethod
    def of(cls, store: "Store") -> "Known":
        """Look at every stored model whose files are there."""
        known = cls()
        for model in store.models([]):
            known.add(model)
        return known

    def of_repo(self, name: str) -> "Known":
        """Return the same with the models of one Hub repo alone: what another has of the same bytes is another's."""
        ref = ModelRef("hub", name)
        return Known([each for each in self.models if each.manifest and matches(each.manifest, ref)], self._sha256s)

    def add(self, model: StoredModel) -> None:
        """Note a model; it takes the place of what was stored in its folder."""
        self.models = [each for each in self.models if each.folder != model.folder]
        # Of a file with a certificate a part is left out of the recorded sha256: it is not that of the bytes.
        if model.manifest is None or model.is_gone or model.manifest.blanked is not None:
            return
        self.models.append(model)
        for path, record in zip(model.files, model.manifest.files, strict=True):
            with suppress(OSError):
                if (place := _place_on_disk(path))[2:] == (record.size_bytes, record.mtime_ns):
                    self._sha256s[place] = record.sha256

    def sha256_of(self, file: FoundFile) -> str | None:
        """Return the sha256 of a file that was hashed before and has not changed since, under any of its names."""
        with suppress(OSError):
            return self._sha256s.get(_place_on_disk(file.path))
        return None

    def at_place(self, found: Found) -> StoredModel | None:
        """Return the model that was registered of these very files under this name, if nothing has changed since."""
        paths = tuple(file.path for file in found.files)
        for model in self.models:
            known = model.manifest
            if known is None or model.files != paths or not _has_extras(known, found):
                continue
            if found.ref is not None and refs.parse(known.ref) != found.ref:
                continue
            if all(map(_is_as_recorded, known.files, found.files)):
                return model
        return None

    def twin(self, digests: Sequence[str], found: Found) -> StoredModel | None:
        """Return a model with the same content; the same name is better than another."""
        same = [model for model in self.models if _is_same(model, digests, found)]
        return min(same, key=lambda model: model.files != tuple(file.path for file in found.files), default=None)


def _place_on_disk(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _is_as_recorded(record: FileRecord, file: FoundFile) -> bool:
    if record.size_bytes != file.size_bytes or file.sha256 not in (None, record.sha256):
        return False
    return record.mtime_ns is None or record.mtime_ns == file.path.stat().st_mtime_ns


def _has_extras(known: Manifest, found: Found) -> bool:
    wanted = {(extra.role, sha256(extra.content).hexdigest()) for extra in found.extras}
    return {(record.role, record.sha256) for record in known.extras} == wanted


def is_outside(model: StoredModel) -> bool:
    """Tell whether a model's bytes are another's, and only referred to."""
    of = model.manifest
    return of is not None and any(removing.stays(record, of) for record in of.files)


def register(
    found: Found,
    ref: ModelRef,
    label: str,
    facts: ModelFacts,
    store: "Store",
    known: Known,
    *,
    is_named: bool = False,
    link: Link | None = None,
    sink: Sink = ignore,
) -> tuple[Status, StoredModel]:
    """Store a model that was found, unless it is there; return what was done and the stored model.

    Args:
        ref: what it is to be called; another one close to it where that is taken.
        is_named: the user chose the name: then it is stored under that, and nothing else is taken for it.
        link: how the bytes come into owm's own tree; without, they stay where they are.

    Raises:
        ChecksumMismatch: a file is not what its tool says.
        UsageError: the chosen name is taken.
        NotEnoughDisk, StoreError, Unsupported: it cannot be read, linked or written.
    """
    digests = [digest_of(file, found, known, sink) for file in found.files]
    twin = None if is_named else known.twin(digests, found)
    if twin is not None and (link is None or not is_outside(twin)):
        return _there(twin, found), twin
    while True:
        if twin is not None and twin.manifest is not None and twin.folder is not None:
            ref, label, folder = refs.parse(twin.manifest.ref), twin.manifest.label, twin.folder
        else:
            ref, label, folder = _free_place(found, ref, label, digests, store, is_named=is_named)
        with store.lock(folder):
            before = _at(store, folder)
            if before is not None and _is_same(before, digests, found) and (link is None or not is_outside(before)):
                return _there(before, found), before  # another process was quicker
            if twin is None and not _is_free(before, found, ref, digests):
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with _unless_whole(folder, store):
                    made = _make(found, ref, label, facts, digests, folder, store, link, sink)
                    manifest.write(made, folder)
                _remove_others(folder, made, store)
            except OSError as error:
                raise write_error(error, folder / manifest.FILE_NAME) from error
        stored = store.at(folder)
        if stored is None:
            raise Damaged(f"{ref} disappeared while it was being stored", hint="run the same command again")
        known.add(stored)
        return ("new" if before is None else "changed"), stored


def _there(model: StoredModel, found: Found) -> Status:
    """Tell whether a stored model with the same content is the one that was found, by its place and name too."""
    is_it = model.manifest is not None and found.ref in (None, refs.parse(model.manifest.ref))
    return "unchanged" if is_it and model.path == found.path else "known"


def _is_same(model: StoredModel, digests: Sequence[str], found: Found) -> bool:
    if model.manifest is None or model.is_gone or model.manifest.blanked is not None:
        return False
    if [file.sha256 for file in model.manifest.files] != list(digests):
        return False
    # One tool makes several models of one file by what it sends along with it; another's file is the same model.
    is_of_ollama = model.manifest.source == "ollama" and found.ref is not None and found.ref.kind == "ollama"
    return not is_of_ollama or _has_extras(model.manifest, found)


def digest_of(file: FoundFile, found: Found, known: Known, sink: Sink) -> str:
    """Return a file's sha256: as its tool states it, as it was computed before, or computed now.

    Raises:
        ChecksumMismatch: it is not what the tool states.
        StoreError: the file cannot be read, or changes meanwhile.
    """
    if file.sha256 is not None and not found.must_hash:
        return file.sha256
    digest = known.sha256_of(file)
    if digest is None:
        try:
            before = _place_on_disk(file.path)
            digest = sha256_of(file.path, sink=sink)
            if _place_on_disk(file.path) != before:
                raise StoreError(f"{file.path.name} changed while it was read", hint="import it when it is whole")
        except OSError as error:
            raise read_error(error, file.path) from error
    if file.sha256 not in (None, digest):
        raise ChecksumMismatch(
            f"{file.path.name} is damaged: its sha256 is not the one by which {found.owner} keeps it",
            expected=str(file.sha256),
            actual=digest,
            hint=f"have it fetched again; it lies in {file.path.parent}",
        )
    return digest


def _free_place(
    found: Found, ref: ModelRef, label: str, digests: Sequence[str], store: "Store", *, is_named: bool
) -> tuple[ModelRef, str, Path]:
    """Return a name and a folder that no other model has; the folder may hold an earlier state of this one."""
    tries, digest = [(ref, label)], digests[0]
    if is_named:
        pass
    elif ref.kind == "local":
        tries.append((replace(ref, name=f"{ref.name}-{digest[:8]}"), label))
    else:
        tries += [(ref, safe_component(found.path.stem)), (ref, f"{label}-{digest[:8]}")]
    for each, as_label in tries:
        folder = store.folder_of(each.kind, _stored_name(each), found.commit or each.revision, as_label)
        if _is_free(_at(store, folder), found, ref, digests):
            return each, as_label, folder
    raise UsageError(f"{ref}:{label} is stored already, with other content", hint=f"`owm rm {ref}:{label}` removes it")


def _stored_name(ref: ModelRef) -> str:
    """Return the name under which a model lies in the store, where a pull would put it."""
    return place_of(ref.name.lower(), ref.revision, ref.digest) if ref.kind == "ollama" else ref.name


def _is_free(there: StoredModel | None, found: Found, ref: ModelRef, digests: Sequence[str]) -> bool:
    if there is None or there.manifest is None or there.is_gone or there.path == found.path:
        return True
    if _is_same(there, digests, found):
        return True
    # Of a name that its tool gives to one model only, what was there is an earlier state.
    return ref.kind == "ollama" and there.manifest.owner == found.owner


def _at(store: "Store", folder: Path) -> StoredModel | None:
    with suppress(Damaged):  # is mended by writing it anew
        return store.at(folder)
    return None


def _make(
    found: Found,
    ref: ModelRef,
    label: str,
    facts: ModelFacts,
    digests: Sequence[str],
    folder: Path,
    store: "Store",
    link: Link | None,
    sink: Sink,
) -> Manifest:
    """Put in place what comes into owm's own tree, and describe the model."""
    paths = [file.path for file in found.files]
    if link is not None:
        targets = [folder / name for name in _file_names(found, ref, label)]
        if any(map(os.path.lexists, targets)):  # of an earlier state, which is no model while its files change
            (folder / manifest.FILE_NAME).unlink(missing_ok=True)
        for path, target, digest in zip(paths, targets, digests, strict=True):
            copied = put(path, target, link, sink=sink)
            if copied not in (None, digest):
                target.unlink(missing_ok=True)
                raise ChecksumMismatch(
                    f"{path.name} is damaged or was changed while it was copied", expected=digest, actual=str(copied)
                )
        paths = targets
    records = [
        store.record_of(path, digest, "model" if index == 0 else "shard", may_be_outside=True)
        for index, (path, digest) in enumerate(zip(paths, digests, strict=True))
    ]
    if link != "copy" and not found.must_hash:
        # What only the tool's word was taken for is hashed by the first `verify`.
        records = [
            replace(record, mtime_ns=None) if file.sha256 is not None else record
            for record, file in zip(records, found.files, strict=True)
        ]
    is_anothers = link == "sym" or any(record.root != "owm" for record in records)
    return Manifest(
        ref=str(ref.with_quant(None)),
        source=ref.kind,
        name=_stored_name(ref),
        label=label,
        revision=found.revision or ref.revision,
        commit=found.commit,
        files=tuple(records),
        licence=facts.licence or _licence(found),
        facts=facts,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        generation_config=_advice(found, folder, store),
        owner=(found.owner or manifest.USER) if is_anothers else None,
        extras=tuple(_write(folder / extra.file_name, extra.content, extra.role, store) for extra in found.extras),
    )


def _licence(found: Found) -> str | None:
    """Return the licence whose text came along."""
    texts = (extra.content.decode("utf-8", "replace") for extra in found.extras if extra.role == "licence")
    return next((name for name in map(licence_of, texts) if name), None)


def _file_names(found: Found, ref: ModelRef, label: str) -> list[str]:
    """Return what the files are called in owm's own tree: as they are, where that is safe."""
    names = [file.path.name for file in found.files]
    if all(name.lower().endswith(".gguf") and safe_gguf_name(name) == name for name in names):
        return names
    stem = safe_component(f"{ref.name.rpartition('/')[2]}-{label}")
    if len(names) == 1:
        return [f"{stem}.gguf"]
    return [f"{stem}-{number:05d}-of-{len(names):05d}.gguf" for number in range(1, len(names) + 1)]


def _advice(found: Found, folder: Path, store: "Store") -> FileRecord | None:
    """Note the makers' advice on sampling; a model without it is whole."""
    if isinstance(found.advice, bytes):
        return _write(folder / GENERATION_CONFIG, found.advice, "generation_config", store)
    if found.advice is not None:
        with suppress(OwmError):
            content = read_small(found.advice)
            if 0 < len(content) <= MAX_CONFIG_BYTES:
                digest = sha256(content).hexdigest()
                return store.record_of(found.advice, digest, "generation_config", may_be_outside=True)
    return None


def _write(path: Path, content: bytes, role: manifest.Role, store: "Store") -> FileRecord:
    """Keep a small file beside the manifest, as it is."""
    partial = path.with_name(f"{path.name}.incomplete")
    with open(create_anew(partial), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return store.record_of(path, sha256(content).hexdigest(), role)


def _remove_others(folder: Path, made: Manifest, store: "Store") -> None:
    """Remove what an earlier state of the model has left in its folder."""
    kept = {store.file_path(record) for record in made.kept_files} | {folder / manifest.FILE_NAME}
    for path in folder.iterdir():
        if path not in kept and (path.is_symlink() or path.is_file()):
            path.unlink()


@contextmanager
def _unless_whole(folder: Path, store: "Store") -> Iterator[None]:
    """Take back what was put into a folder if the block fails."""
    before = set(folder.iterdir())
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for path in set(folder.iterdir()) - before:
                if path.suffix != ".incomplete":  # of a copy, which goes on from it
                    path.unlink()
            while folder != store.home and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent
        raise
