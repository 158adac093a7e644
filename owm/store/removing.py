"""Removing a stored model: its files first and its manifest last, so that whoever is killed meanwhile can go on.

A model whose files have gone and whose manifest has not is `gone`: listed, never offered, and the same command goes on.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from owm.errors import OwmError, UsageError
from owm.store import inside, manifest
from owm.store.digest import sha256_of
from owm.store.download import write_error
from owm.store.manifest import FileRecord, Manifest
from owm.store.model import StoredModel

if TYPE_CHECKING:
    from owm.store.local import Store


def stays(record: FileRecord, of: Manifest) -> bool:
    """Tell whether a file belongs to another tool or to the user, and stays where it is when the model goes."""
    return record.root == "outside" or (record.root == "hub" and of.owner is not None)


def is_shared(model: StoredModel) -> bool:
    """Tell whether removing a model would take files that other programs may use."""
    of = model.manifest
    return of is not None and any(record.root == "hub" and not stays(record, of) for record in of.files)


def remove(
    model: StoredModel,
    store: "Store",
    *,
    remove_hub_files: Callable[[list[Path]], None],
    on_wait: Callable[[], None] | None = None,
) -> int:
    """Remove a stored model; return the bytes freed. Files in the Hub cache go through the Hub library.

    Raises:
        UsageError: the model is a file of the user's that owm only refers to.
        StoreError: the store cannot be written.
    """
    refuse_the_users_own(model)
    of, folder = model.manifest, model.folder
    assert of is not None
    assert folder is not None
    with store.lock(folder, on_wait=on_wait):
        with suppress(OwmError):  # one that cannot be read is removed as it was found
            if (current := store.at(folder)) is None:
                return 0  # another process has removed it meanwhile
            of = current.manifest or of
        try:
            others = [other for other in store.models() if other.folder != folder and other.manifest]
            shared = {
                store.file_path(record) for other in others if other.manifest for record in other.manifest.kept_files
            }
            going = [(record, store.file_path(record)) for record in of.kept_files if not stays(record, of)]
            paths = [(record, path) for record, path in going if path.exists() and path not in shared]
            freed = sum(_freed(path) for record, path in paths if record in of.files)
            if in_hub := [path for record, path in paths if record.root == "hub"]:
                remove_hub_files(in_hub)
            _remove_unlinked([record for record, path in going if record.root == "hub" and path not in shared], store)
            _remove_folder(folder, store.home / "models")
            _remove_empty_parents(folder.parent, store.home)
        except OSError as error:
            raise write_error(error, folder) from error
    return freed


def refuse_the_users_own(model: StoredModel) -> None:
    """Refuse to remove a file that the store only refers to.

    Raises:
        UsageError: it is one.
    """
    if model.manifest is None or model.folder is None:
        raise UsageError(f"{model.name} is a file of yours, not in the store", hint=f"rm {model.path}")


def staying(model: StoredModel, store: "Store") -> list[Path]:
    """Return the files of a model that belong to others and stay when it goes."""
    of = model.manifest
    paths = [store.file_path(record) for record in of.files if stays(record, of)] if of else []
    return [path for path in paths if path.exists()]


def freed_bytes(model: StoredModel, store: "Store") -> int:
    """Return how many bytes the removal of a model would free."""
    of = model.manifest
    if of is None:
        return 0
    return sum(_freed(store.file_path(record)) for record in of.files if not stays(record, of))


def _remove_unlinked(records: Sequence[FileRecord], store: "Store") -> None:
    """Remove bytes in the Hub cache of which a killed removal has taken the links, and no other link is left."""
    sha256s = {record.size_bytes: record.sha256 for record in records}
    top = Path(os.path.realpath(store.hub))
    for repo in {store.file_path(record).relative_to(store.hub).parts[0] for record in records}:
        linked = {os.path.realpath(path) for path in (top / repo).glob("snapshots/**/*") if path.is_symlink()}
        for blob in (top / repo).glob("blobs/*"):
            if os.path.realpath(blob) != os.fspath(blob) or not blob.is_file() or os.fspath(blob) in linked:
                continue  # a link leads elsewhere, or it is in use
            wanted = sha256s.get(blob.stat().st_size)
            if wanted is not None and wanted in (blob.name, sha256_of(blob)):
                blob.unlink()


def _freed(path: Path) -> int:
    """Count a file's bytes, unless it has another name elsewhere and they stay."""
    try:
        status = path.stat()
        is_only_link = path.is_symlink() and not _is_in_hub(path)
    except FileNotFoundError:
        return 0
    return 0 if status.st_nlink > 1 or is_only_link else status.st_size


def _is_in_hub(path: Path) -> bool:
    """Tell whether a link is one of the Hub cache's own, into its blobs."""
    return "blobs" in Path(os.readlink(path)).parts


def _remove_folder(folder: Path, top: Path) -> None:
    """Remove a model's folder, the manifest last."""
    with inside.opened(folder, top) as here:
        for name in sorted(inside.names(here), key=lambda name: name == manifest.FILE_NAME):
            inside.remove(name, here)
    with inside.opened(folder.parent, top) as above:
        inside.remove_empty(folder.name, above)


def _remove_empty_parents(folder: Path, top: Path) -> None:
    # The models may have been moved: then the folder of all of them is a link.
    while folder != top and folder.is_relative_to(top) and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
