"""Ollama: `manifests/<host>/<namespace>/<name>/<tag>`, JSON that names blobs by their sha256, and `blobs/sha256-…`.

Newer versions write `manifests-v2` (which counts where a model is in both), with `ollama.com` as the public host, and
manifests that list one for each runner.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from owm.errors import Damaged, MalformedFile, OwmError, Unsupported, UsageError
from owm.store import ollama_files, quants, refs
from owm.store.adopting.found import (
    Finding,
    Found,
    FoundExtra,
    FoundFile,
    LeftOut,
    check_name,
    entries,
    found_file,
    parse_table,
    read_small,
)  # fmt: skip
from owm.store.model import file_exists
from owm.store.refs import ModelRef
from owm.store.registry_refs import OLLAMA_HOST

OWNER = "Ollama"
PUBLIC_HOSTS = (OLLAMA_HOST, "ollama.com")
HUB_HOSTS = ("hf.co", "huggingface.co")
_ROOTS = ("manifests-v2", "manifests")
_LIST = "application/vnd.ollama.manifest.list.v2+json"
_RUNNERS = ("ollama", "llamacpp", "")


@dataclass(frozen=True, slots=True)
class _Name:
    """A model's name, by the folders that its manifest lies in."""

    host: str
    namespace: str
    name: str
    tag: str

    def __str__(self) -> str:
        if self.host != PUBLIC_HOSTS[0]:
            return f"{self.host}/{self.namespace}/{self.name}:{self.tag}"
        return f"{self.name}:{self.tag}" if self.namespace == "library" else f"{self.namespace}/{self.name}:{self.tag}"


def places(home: Path, environ: Mapping[str, str]) -> list[Path]:
    """Return where it keeps models: the folder of `OLLAMA_MODELS`, the user's, and those of its system services."""
    if chosen := environ.get("OLLAMA_MODELS"):
        return [Path(chosen).expanduser()]
    services = ("/usr/share/ollama/.ollama/models", "/var/lib/ollama/.ollama/models", "/var/lib/ollama/models",
                "/var/snap/ollama/common/models")  # fmt: skip
    return [home / ".ollama" / "models", *map(Path, services)]


def is_store(folder: Path) -> bool:
    """Tell whether a folder is its folder of models."""
    return os.path.isdir(folder / "blobs") and any(os.path.isdir(folder / root) for root in _ROOTS)


def search(top: Path) -> list[Finding]:
    """Find its models; one that cannot be used is told with the reason."""
    findings: list[Finding] = []
    known: set[_Name] = set()
    for root in _ROOTS:
        try:
            manifests = list(_manifests(top / root)) if os.path.isdir(top / root) else []
        except OwmError as problem:
            findings.append(LeftOut(OWNER, root, top / root, problem))
            continue
        for path in manifests:
            host, *rest = path.relative_to(top / root).parts
            host = PUBLIC_HOSTS[0] if unquote(host) in PUBLIC_HOSTS else unquote(host)
            name = _Name(host, *rest)
            if name in known:
                continue
            known.add(name)
            try:
                findings.append(_read(top, path, name))
            except Unsupported as problem:
                findings.append(LeftOut(OWNER, str(name), path, problem, is_fault=False))
            except OwmError as problem:
                findings.append(LeftOut(OWNER, str(name), path, problem))
    return findings


def _manifests(root: Path, depth: int = 4) -> Iterator[Path]:
    for path in entries(root):
        if path.name.startswith("."):
            continue  # a file that is being written
        if depth > 1:
            if os.path.isdir(path) and not path.is_symlink():
                yield from _manifests(path, depth - 1)
        elif not os.path.isdir(path):
            yield path


def _read(top: Path, path: Path, name: _Name) -> Found:
    check_name(path)
    manifest = _for_us(parse_table(read_small(path), path), top, path)
    layers = manifest.get("layers")
    if not isinstance(layers, list):
        raise Damaged(f"{path} is not what it should be: it names no layers")
    models: list[FoundFile] = []
    extras: list[FoundExtra] = []
    advice: str | None = None
    for layer in layers:
        if not isinstance(layer, dict) or not isinstance(kind := layer.get("mediaType"), str):
            raise Damaged(f"{path} is not what it should be: a layer has no type")
        if kind == ollama_files.MODEL:
            models.append(_model_file(top, layer, path))
        elif kind.startswith(ollama_files.TENSOR):
            raise Unsupported(f"{name} holds no GGUF but safetensors, for an engine of Ollama's own")
        elif kind == ollama_files.ADAPTER:
            raise Unsupported(f"{name} is a model with an adapter over it, which are not taken together")
        elif kind in ollama_files.EXTRAS:
            role, file_name = ollama_files.EXTRAS[kind]
            number = 1 + sum(extra.role == role for extra in extras)
            if number > 1:
                stem, _, ending = file_name.partition(".")
                file_name = f"{stem}-{number}.{ending}"
            extras.append(FoundExtra(role, file_name, _small_blob(top, layer, path)))
            if kind == ollama_files.PARAMS and advice is None:
                advice = ollama_files.generation_config(extras[-1].content)
    if len(models) != 1:
        what = f"{len(models)} model files, and one is needed" if models else "no model file"
        raise Unsupported(f"{name} has {what}")
    ref, label = _called(name)
    return Found(
        OWNER, ref, tuple(models), label, extras=tuple(extras), advice=advice.encode() if advice is not None else None
    )


def _for_us(manifest: dict[str, Any], top: Path, path: Path) -> dict[str, Any]:
    """Return the manifest for llama.cpp's file format, of a list of several."""
    if manifest.get("mediaType") != _LIST:
        return manifest
    listed = manifest.get("manifests")
    children = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    usable = [each for each in children if each.get("format", "gguf") == "gguf"]
    for runner in _RUNNERS:
        for child in usable:
            if str(child.get("runner", "")).lower() == runner:
                if "layers" in child:
                    return child
                return parse_table(_small_blob(top, child, path), path)
    raise Unsupported(f"{path.parent.name}:{path.name} comes in no form that llama.cpp can run")


def _blob(top: Path, layer: dict[str, Any], path: Path) -> tuple[Path, str]:
    """Return where a layer lies, and its sha256."""
    match = re.fullmatch(r"sha256[:-]([0-9a-fA-F]{64})", str(layer.get("digest")))
    if match is None:
        raise Damaged(f"{path} is not what it should be: a layer is named by no sha256")
    digest = match[1].lower()
    found = top / "blobs" / f"sha256-{digest}"
    early = top / "blobs" / f"sha256:{digest}"
    return (early if not file_exists(found) and file_exists(early) else found), digest


def _model_file(top: Path, layer: dict[str, Any], path: Path) -> FoundFile:
    blob, digest = _blob(top, layer, path)
    if not file_exists(blob):
        raise Damaged(f"its blob {blob.name[:19]}… is not there", hint="its download may be under way still")
    file = found_file(blob, digest)
    if file.size_bytes != layer.get("size"):
        raise MalformedFile(blob, f"it has {file.size_bytes} bytes instead of {layer.get('size')}")
    return file


def _small_blob(top: Path, layer: dict[str, Any], path: Path) -> bytes:
    blob, digest = _blob(top, layer, path)
    content = read_small(blob)
    if hashlib.sha256(content).hexdigest() != digest:
        raise Damaged(f"its blob {blob.name[:19]}… is damaged", hint=f"`ollama pull {path.parent.name}:{path.name}`")
    return content


def _called(name: _Name) -> tuple[ModelRef | None, str | None]:
    """Return what a model is called at its source, and the quant in its name."""
    label = quants.label_of(f"{name.tag}.gguf")
    texts = [f"{name.namespace}/{name.name}"] if name.host in HUB_HOSTS else []
    with suppress(UsageError):
        for text in (*texts, f"ollama:{name}"):
            return refs.parse(text), label
    return None, label
