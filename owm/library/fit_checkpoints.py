"""Original weights that are elsewhere, as a folder without weights: what a conversion can be planned over."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from owm.convert.checkpoint import INDEX, read_json, weight_files
from owm.errors import MalformedFile, StoreError
from owm.formats import safetensors
from owm.store.checkpoint import CheckpointPlan
from owm.store.names import safe_component
from owm.store.sources.base import RemoteFile
from owm.temporary import temporary_folder
from owm.units import format_bytes

FIRST_BYTES = 1 << 20
MAX_HEADER_BYTES = 8 + safetensors.MAX_HEADER_BYTES
MAX_SIDE_BYTES = 128 << 20  # of one small file; the largest tokenizers take some 40 MB


@contextmanager
def hollow_checkpoint(plan: CheckpointPlan) -> Iterator[Path]:
    """Read a checkpoint's small files and the headers of its weights into a temporary folder.

    Raises:
        Unsupported: the source gives whole files only.
        MalformedFile: a header is not what it should be.
        NetworkError, NotFound: as the source raises them.
        StoreError: there is no place for temporary files.
    """
    with temporary_folder() as above:
        folder = above / safe_component(plan.offer.name.rpartition("/")[2])  # which the model is named after
        try:
            for file in plan.side_files:
                path = folder / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_whole(plan, file))
            index = read_json(folder / INDEX).get("weight_map") if (folder / INDEX).is_file() else None
            wanted = set(weight_files([file.path for file in plan.weights], index, plan.offer.name))
            for file in plan.weights:
                if file.path in wanted:
                    _write_hollow(folder / file.path, _header(plan, file), file)
        except OSError as error:
            raise StoreError(
                f"cannot write the headers to be looked at: {error.strerror or error}",
                hint="TMPDIR names another folder for temporary files",
            ) from error
        yield folder


def _whole(plan: CheckpointPlan, file: RemoteFile) -> bytes:
    n_bytes = file.size_bytes if file.size_bytes is not None else MAX_SIDE_BYTES
    if n_bytes > MAX_SIDE_BYTES:
        raise MalformedFile(Path(file.path), f"it has {format_bytes(n_bytes)}", kind="JSON")
    return plan.source.read(plan.offer, file, 0, n_bytes) if n_bytes else b""


def _header(plan: CheckpointPlan, file: RemoteFile) -> bytes:
    raw = plan.source.read(plan.offer, file, 0, FIRST_BYTES)
    if len(raw) < 8:
        raise MalformedFile(Path(file.path), "it ends inside its header", kind="safetensors")
    end = 8 + struct.unpack_from("<Q", raw)[0]
    if end > MAX_HEADER_BYTES:
        raise MalformedFile(
            Path(file.path), f"its header is larger than {format_bytes(MAX_HEADER_BYTES)}", kind="safetensors"
        )
    if end > len(raw):
        raw += plan.source.read(plan.offer, file, len(raw), end - len(raw))
    return raw[:end]


def _write_hollow(path: Path, header: bytes, file: RemoteFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as opened:
        opened.write(header)
        opened.truncate(max(len(header), file.size_bytes or 0))
