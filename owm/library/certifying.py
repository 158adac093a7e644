"""Recording what was measured of a model: in its manifest, and in its file if owm made that."""

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from owm import paths
from owm.events import Sink, ignore
from owm.formats import gguf
from owm.quality import certificate
from owm.quality.certificate import Certificate
from owm.quality.figures import Divergence
from owm.store import manifest
from owm.store.digest import sha256_of
from owm.store.download import write_error
from owm.store.local import Store
from owm.store.model import StoredModel

ORIGINAL_TYPES = ("F32", "F16", "BF16")


def is_original(files: Sequence[Path]) -> bool:
    """Tell whether a model file holds original weights: no tensor of it is quantized."""
    return all(tensor.type_name in ORIGINAL_TYPES for path in files for tensor in gguf.read_header(path).tensors)


def sha256_of_model(model: StoredModel, *, sink: Sink = ignore) -> str:
    """Return what identifies a model's bytes, certificates apart: the sha256 of its file, of parts that of theirs.

    Raises:
        StoreError: a file cannot be read.
    """
    if model.manifest is not None:
        found = [file.sha256 for file in model.manifest.files]
    else:
        found = []
        for path in model.files:
            place = certificate.place_of(gguf.read_header(path))
            blanked = None if place is None else (place.offset, place.size_bytes)
            found.append(sha256_of(path, blanked=blanked, sink=sink))
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def certify(
    model: StoredModel,
    divergence: Divergence,
    *,
    reference: str,
    reference_sha256: str,
    store: Store,
) -> Certificate | None:
    """Record what was measured of a model; return the certificate, None where there is nothing to keep it in.

    A file that owm did not make is never edited; of a stored one the manifest alone says it then.

    Raises:
        StoreError: the manifest or the file cannot be written.
    """
    made = certificate.certify(divergence, reference=reference, reference_sha256=reference_sha256)
    if model.manifest is None or model.folder is None:
        if certificate.place_of(gguf.read_header(model.path)) is None or _is_shared(model.path):
            return None
        certificate.stamp(model.path, made)
        return made
    with store.lock(model.folder):
        current = store.at(model.folder)
        if current is None or current.manifest is None or current.is_gone:
            return None
        known = current.manifest
        if known.files != model.manifest.files:  # replaced while it was measured
            return None
        is_own = known.made_from is not None and known.files[0].root == "owm"
        place = certificate.place_of(gguf.read_header(current.path)) if is_own else None
        # The manifest first: whether or not the file is stamped then, it is whole by what the manifest says.
        try:
            manifest.write(replace(known, quality=certificate.manifest_entry(made, place)), model.folder)
        except OSError as error:
            raise write_error(error, model.folder / manifest.FILE_NAME) from error
        if place is not None and is_alone(current.path):
            certificate.stamp(current.path, made)
    return made


def is_alone(path: Path) -> bool:
    """Tell whether a file has this one name: what is written into it is written into nobody else's file."""
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _is_shared(path: Path) -> bool:
    """Tell whether a path leads into the Hugging Face cache, which other programs share."""
    return path.resolve().is_relative_to(paths.hub_cache().resolve())
