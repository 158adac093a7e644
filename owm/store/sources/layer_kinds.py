"""Which layer of a registry's manifest is which file: by the media types and annotations that tools publish with.

Docker's model runner, ModelPack (CNCF, formerly CNAI), podman and ORAS name files in three ways; images of containers
hold theirs in archives, of which the beginning is looked at.
"""

import io
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from owm.errors import Unsupported
from owm.store import ollama_files, quants
from owm.store.names import safe_component, safe_gguf_name
from owm.store.sources.layer_files import LayerFile, Packing, of_layer
from owm.store.sources.registry_client import Layer

_TITLES = ("org.cncf.model.filepath", "org.cnai.model.filepath", "org.opencontainers.image.title")
_IMAGE_LAYER = re.compile(
    r"application/vnd\.(?:oci\.image\.layer|docker\.image\.rootfs\.(?:foreign\.)?diff)(?:\.\w+)*\.tar(?:[.+]\w+)?"
)
_ARCHIVE = re.compile(r"\.tar(?:[.+]\w+)?$")
PEEKED_BYTES = 1 << 20  # of a packed layer, in which a model has to begin
MAX_UNPACKED_BYTES = 8 << 20  # of what these are unpacked to
MAX_PEEKS = 8
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

Peek = Callable[[Layer, int, int], bytes]


@dataclass(frozen=True, slots=True)
class Sorted:
    """The layers of a manifest, told apart. `others` are names or media types of what is no model."""

    models: tuple[LayerFile, ...]
    projectors: tuple[LayerFile, ...]
    licences: tuple[Layer, ...]
    templates: tuple[Layer, ...]
    generation_configs: tuple[Layer, ...]
    others: tuple[str, ...]


def title_of(layer: Layer) -> str | None:
    """Return the path under which a layer was packed."""
    return next((layer.annotations[key] for key in _TITLES if layer.annotations.get(key)), None)


def sort(layers: tuple[Layer, ...], peek: Peek) -> Sorted:
    """Tell the layers of a manifest apart.

    Args:
        peek: reads a part of a layer where it is: layer, begin, number of bytes.

    Raises:
        Unsupported: a model is packed in a way that cannot be read.
    """
    models: list[LayerFile] = []
    projectors: list[LayerFile] = []
    licences: list[Layer] = []
    templates: list[Layer] = []
    configs: list[Layer] = []
    archives: list[Layer] = []
    others: list[str] = []
    for layer in layers:
        kind, title = layer.media_type, title_of(layer)
        name = PurePosixPath((title or "").replace("\\", "/")).name
        gguf = safe_gguf_name(name) if name.lower().endswith(".gguf") else ""
        if kind.endswith((".mmproj", ollama_files.PROJECTOR)) or (gguf and _is_projector(gguf)):
            projectors.append(of_layer(gguf, layer))
        elif _ARCHIVE.search(kind):
            archives.append(layer)
        elif gguf or "gguf" in kind or kind == ollama_files.MODEL:
            models.append(of_layer(gguf, layer))
        elif kind.endswith(".license") or re.match(r"licen[cs]e(\.|$)", name, re.IGNORECASE):
            licences.append(layer)
        elif kind.endswith("chat.template.jinja") or name == "chat_template.jinja":
            templates.append(layer)
        elif name == "generation_config.json":
            configs.append(layer)
        elif title is None and re.fullmatch(r".+\.model\.weight\.v1\.raw|application/octet-stream", kind):
            if peek(layer, 0, 4) == b"GGUF":
                models.append(of_layer("", layer))
            else:
                others.append(kind)
        else:
            others.append(name or kind)
    if not models:
        archives.sort(key=lambda layer: -layer.size_bytes)
        for layer in archives[:MAX_PEEKS]:
            found = _inside(layer, peek)
            models += found
            if found and _IMAGE_LAYER.fullmatch(layer.media_type):
                break
        others += [PurePosixPath(title_of(layer) or layer.media_type).name for layer in archives] if not models else []
    return Sorted(tuple(models), tuple(projectors), tuple(licences), tuple(templates), tuple(configs), tuple(others))


def _is_projector(name: str) -> bool:
    return quants.part_of_a_model(name) == "a projector"


def _inside(layer: Layer, peek: Peek) -> list[LayerFile]:
    """Return the models in an archive; what is called one may be the bare file."""
    head = peek(layer, 0, 512)
    title = title_of(layer) or ""
    if head[:4] == b"GGUF":
        name = PurePosixPath(title.replace("\\", "/")).name
        return [of_layer(safe_gguf_name(name) if name.lower().endswith(".gguf") else "", layer)]
    if head[:4] == _ZSTD:
        raise Unsupported(
            "the model is packed with zstd, which owm cannot unpack", hint="look for one that is packed otherwise"
        )
    if head[:2] == _GZIP:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            beginning = unpacker.decompress(peek(layer, 0, PEEKED_BYTES), MAX_UNPACKED_BYTES)
        except zlib.error:
            return []
        return _members(io.BytesIO(beginning), layer, "tar+gzip")
    return _members(_Remote(layer, peek), layer, "tar")


def _members(file: io.BytesIO | io.RawIOBase, layer: Layer, packing: Packing) -> list[LayerFile]:
    found: list[LayerFile] = []
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for _ in range(256):
                member = archive.next()
                if member is None:
                    break
                if member.isreg() and not member.issparse() and member.name.lower().endswith(".gguf"):
                    name = safe_gguf_name(PurePosixPath(member.name).name)
                    if not _is_projector(name):
                        found.append(
                            LayerFile(name, member.size, layer=layer, packing=packing, offset=member.offset_data)
                        )
    except (tarfile.TarError, ValueError, EOFError, OSError):
        pass  # what was found before counts: the end of a beginning is no end of an archive
    return [file for file in found if packing == "tar+gzip" or file.offset + (file.size_bytes or 0) <= layer.size_bytes]


class _Remote(io.RawIOBase):
    """A layer as a file of which only headers are read."""

    def __init__(self, layer: Layer, peek: Peek) -> None:
        self.layer = layer
        self.peek = peek
        self.place = 0
        self.held = (0, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.place = offset + (0, self.place, self.layer.size_bytes)[whence]
        return self.place

    def read(self, size: int = -1, /) -> bytes:
        size = min(size if size >= 0 else PEEKED_BYTES, self.layer.size_bytes - self.place, PEEKED_BYTES)
        if size <= 0:
            return b""
        begin, held = self.held
        if not begin <= self.place or self.place + size > begin + len(held):
            self.held = begin, held = self.place, self.peek(self.layer, self.place, max(size, 4096))
        part = held[self.place - begin :][:size]
        self.place += len(part)
        return part


def named(files: tuple[LayerFile, ...], stem: str) -> list[str]:
    """Return a name for each of a model's files: as it was packed, or made of `stem`, numbered as llama.cpp does."""
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", safe_component(stem))
    if len(files) < 2:
        return [file.path or f"{stem}.gguf" for file in files]
    return [file.path or f"{stem}-{i:05d}-of-{len(files):05d}.gguf" for i, file in enumerate(files, 1)]
