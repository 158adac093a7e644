"""Files that are layers of a registry's manifest: how they are called, fetched, read in part, and unpacked."""

import gzip
import hashlib
import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal, cast

from owm.errors import Damaged, OwmError, Unsupported
from owm.events import Advanced, Finished, Sink, Started
from owm.publishing import create_anew, publish_text
from owm.store import quants
from owm.store.download import discard, download, publish, read_range
from owm.store.limits import Limits
from owm.store.names import safe_component
from owm.store.same import FindSame
from owm.store.sources.base import Check, Fetched, RemoteFile
from owm.store.sources.placing import bytes_here, partial_of, place
from owm.store.sources.registry_client import Layer, Registry

Packing = Literal["tar", "tar+gzip"]


@dataclass(frozen=True, slots=True)
class LayerFile(RemoteFile):
    """A file that is a layer, or lies in one that is an archive: then at `offset` of what is unpacked."""

    layer: Layer | None = None
    packing: Packing | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class MadeFile(RemoteFile):
    """A small file that is made here, of something published."""

    text: str = ""


def of_layer(path: str, layer: Layer) -> LayerFile:
    """Return a layer as a file."""
    return LayerFile(path, layer.size_bytes, layer.hex, layer=layer)


def made_file(path: str, text: str) -> MadeFile:
    """Return a file that is known whole."""
    content = text.encode()
    return MadeFile(path, len(content), hashlib.sha256(content).hexdigest(), text=text)


def model_name(stem: str, quant: str | None) -> str:
    """Return the name of a model's one file, made of a name and a tag; it says the quant, and that it is a model.

    A stranger's name may look like a part of several, or like a projector; then it is left out.
    """
    label = quants.label_of(f"x-{quant}.gguf") if quant else None
    for each in (stem, "model"):
        name = safe_component(each)
        if label and (quants.label_of(f"{name}.gguf") or "").lower() != label.lower():
            name = f"{name}-{label}"
        if len(quants.variants([RemoteFile(f"{name}.gguf")])) == 1:
            return f"{name}.gguf"
    return f"model-{label}.gguf" if label else "model.gguf"


class LayerFiles:
    """The files of one repository at one registry, for one model."""

    def __init__(self, registry: Registry, same: FindSame) -> None:
        self.registry = registry
        self.same = same

    def bytes_here(self, files: Sequence[RemoteFile], folder: Path) -> int:
        """Count what of the files is here; a layer that has to be unpacked takes room beside its file."""
        here = bytes_here(((file, folder / file.path) for file in files), self.same)
        for layer in _archives(files).values():
            here -= layer.size_bytes
            here += bytes_here([(RemoteFile("", layer.size_bytes), _archive_path(folder, layer))], self.same)
        return here

    def fetch(
        self, files: Sequence[RemoteFile], folder: Path, *, check: Check, sink: Sink, limits: Limits
    ) -> list[Fetched]:
        """Bring files into a folder; a layer that was unpacked is removed with the last of its files."""
        fetched = []
        for file in files:
            path = folder / PurePosixPath(file.path)
            if isinstance(file, MadeFile):
                publish_text(path, file.text)
                fetched.append(Fetched(path, path.stat().st_size, hashlib.sha256(file.text.encode()).hexdigest()))
            elif not isinstance(file, LayerFile) or file.layer is None:
                raise Damaged(f"{self.registry.name} was not asked for {file.path}")
            elif file.packing is not None:
                fetched.append(self._unpack(file, file.layer, path, folder, check, sink, limits))
            else:
                transfer = self.registry.transfer(file.layer, path.name)
                fetched.append(
                    place(transfer, path, name=file.path, check=check, sink=sink, limits=limits, same=self.same)
                )
        for layer in _archives(files).values():
            discard(partial_of(_archive_path(folder, layer)))
        return fetched

    def read(self, file: RemoteFile, begin: int, n_bytes: int) -> bytes:
        """Read a part of a file where it is."""
        if isinstance(file, MadeFile):
            return file.text.encode()[begin : begin + n_bytes]
        if not isinstance(file, LayerFile) or file.layer is None:
            raise Damaged(f"{self.registry.name} was not asked for {file.path}")
        if file.packing == "tar+gzip":
            raise Unsupported(f"{file.path} is packed with gzip, no part of it can be read", hint="pull it")
        wanted = min(n_bytes, max(0, (file.size_bytes or 0) - begin))
        return read_range(self.registry.transfer(file.layer, file.path), file.offset + begin, wanted)

    def _unpack(
        self, file: LayerFile, layer: Layer, path: Path, folder: Path, check: Check, sink: Sink, limits: Limits
    ) -> Fetched:
        archive = partial_of(_archive_path(folder, layer))
        path.parent.mkdir(parents=True, exist_ok=True)
        download(self.registry.transfer(layer, f"{path.name} (layer)"), archive, sink=sink, limits=limits)
        partial = partial_of(path)
        began, size = time.monotonic(), file.size_bytes or 0
        sink(Started(path.name, size, "bytes"))
        hasher, done = hashlib.sha256(), 0
        try:
            with _opened(archive, file.packing) as packed, open(create_anew(partial), "wb") as unpacked:
                packed.seek(file.offset)
                while done < size and (chunk := packed.read(min(1 << 20, size - done))):
                    hasher.update(chunk)
                    unpacked.write(chunk)
                    done += len(chunk)
                    sink(Advanced(path.name, done))
                unpacked.flush()
                os.fsync(unpacked.fileno())
            if done < size:
                raise Damaged(f"the layer with {path.name} ends before the file does")
            check(partial, file.path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            discard(partial)
            discard(archive)
            raise Damaged(f"the layer with {path.name} cannot be unpacked: {error}") from error
        except OwmError:
            discard(partial)
            discard(archive)
            raise
        publish(partial, path)
        sink(Finished(path.name, time.monotonic() - began))
        return Fetched(path, size, hasher.hexdigest())


def _opened(archive: Path, packing: Packing | None) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(archive)) if packing == "tar+gzip" else open(archive, "rb")


def _archives(files: Sequence[RemoteFile]) -> dict[str, Layer]:
    return {file.layer.hex: file.layer for file in files if isinstance(file, LayerFile) and file.packing and file.layer}


def _archive_path(folder: Path, layer: Layer) -> Path:
    return folder / f"layer-{layer.hex[:16]}"
