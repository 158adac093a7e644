"""Projectors (`mmproj`): what makes pictures or sound into tokens; fetched beside a model where that is asked for."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

from owm.errors import MalformedFile, NoUsableFile
from owm.events import Sink, ignore
from owm.formats import gguf
from owm.store import manifest, pull, quants, refs
from owm.store.download import write_error
from owm.store.limits import DEFAULT, Limits
from owm.store.local import Store
from owm.store.manifest import FileRecord
from owm.store.model import StoredModel
from owm.store.pull import Look
from owm.store.sources.base import Offer, RemoteFile
from owm.store.space import check_space

# Projectors are small beside their models and lose by quantization, so that half precision is the usual one.
_ORDER = ("F16", "BF16", "Q8_0", "F32")


def projector_in(offer: Offer) -> RemoteFile:
    """Return the projector of a repo, of several the one in half precision.

    Raises:
        NoUsableFile: it has none.
    """
    paths = tuple(file.path for file in offer.files)
    found = [file for file in offer.files if _is_projector(file.path)]
    if not found:
        raise NoUsableFile(f"{offer.name} has no projector", files=paths, hint="leave out `--mmproj`")
    return min(found, key=lambda file: (_rank(file.path), file.path.count("/"), file.path))


def projector_of(stored: StoredModel) -> FileRecord | None:
    """Return the projector that a stored model came with."""
    extras = stored.manifest.extras if stored.manifest else ()
    return next((record for record in extras if record.role == "projector"), None)


def look_again(stored: StoredModel, store: Store, *, sink: Sink = ignore) -> Look:
    """Look at the source of a stored model, at the commit that it was fetched at.

    Raises:
        ModelNotFound, SourceUnreachable, AccessDenied, Unsupported.
    """
    assert stored.manifest is not None
    ref = refs.parse(stored.manifest.ref)
    if ref.kind in ("hub", "modelscope"):
        ref = replace(ref, revision=stored.manifest.commit or ref.revision)
    return pull.look(ref, store, sink=sink)


def add_projector(
    stored: StoredModel,
    found: Look,
    file: RemoteFile,
    store: Store,
    *,
    sink: Sink = ignore,
    limits: Limits = DEFAULT,
) -> StoredModel:
    """Fetch the projector of a stored model beside it, and note it in the manifest.

    Raises:
        NotEnoughDisk, TransferFailed, ChecksumMismatch, MalformedFile, StoreError: the model stays as it is.
    """
    assert stored.manifest is not None
    assert stored.folder is not None
    with store.lock(stored.folder):
        check_space(file.path, found.source, found.offer, [file], stored.folder)
        item = found.source.fetch(found.offer, [file], stored.folder, check=_check, sink=sink, limits=limits)[0]
        record = store.record_of(item.path, item.sha256, "projector")
        others = tuple(each for each in stored.manifest.extras if each.role != "projector")
        changed = replace(stored.manifest, extras=(*others, record))
        try:
            manifest.write(changed, stored.folder)
        except OSError as error:
            raise write_error(error, stored.folder / manifest.FILE_NAME) from error
    return store.at(stored.folder) or stored


def _check(path: Path, name: str) -> None:
    header = gguf.read_header(path)
    if header.architecture != "clip" and header.text("general.type") != "mmproj":
        raise MalformedFile(Path(name), f"it is a model ({header.architecture})", kind="projector")


def _is_projector(path: str) -> bool:
    return path.lower().endswith(".gguf") and quants.part_of_a_model(path) == "a projector"


def _rank(path: str) -> int:
    label = quants.label_of(PurePosixPath(path).name) or ""
    return _ORDER.index(label) if label in _ORDER else len(_ORDER)
