"""OCI registries: models as Docker's model runner, ModelPack, RamaLama, podman and ORAS publish them.

Credentials are those of Docker's config file; without any, one is a guest. Which layer is which file is said by
`layer_kinds`.
"""

import platform
import time
from dataclasses import replace
from typing import Any

from owm.errors import Damaged, ModelNotFound, NoUsableFile, OwmError, Unsupported, UsageError
from owm.store import quants
from owm.store.licence_text import licence_of
from owm.store.refs import ModelRef
from owm.store.registry_refs import LATEST, place_of
from owm.store.sources.base import Extra, Offer, RemoteFile
from owm.store.sources.layer_files import model_name, of_layer
from owm.store.sources.layer_kinds import Sorted, named, sort
from owm.store.sources.registry_client import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Layer,
    Registry,
    RemoteManifest,
    registry_at,
)
from owm.store.sources.registry_source import MAX_EXTRA_BYTES, RegistrySource, config_of

_ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX)
MAX_CONFIG_BYTES = 1 << 16
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class OciSource(RegistrySource):
    """Models in OCI registries, kept in owm's own tree."""

    def offer(self, ref: ModelRef, *, deadline: float) -> Offer:
        """Read manifest and config, and the beginning of a layer where these do not say what it is."""
        until = time.monotonic() + deadline
        if ref.digest and len(ref.digest) < 64:
            raise UsageError(f"a digest has 64 digits: {ref}", hint="leave it out, or give all of it")
        registry = self._registry(ref)
        tag = ref.revision or LATEST
        reference = f"sha256:{ref.digest}" if ref.digest else tag
        try:
            top = registry.manifest(reference, _ACCEPTED, until=until)
        except ModelNotFound as error:
            what = reference if ref.digest else f"tag {tag}"
            tags = registry.tags(until=until)
            hint = f"it has: {', '.join(tags[:12])}{', …' if len(tags) > 12 else ''}" if tags else "check the name"
            raise ModelNotFound(f"{ref.name} has no {what}", ref=str(ref), hint=hint) from error
        found = _chosen(registry, top, until)
        config = config_of(registry, found, until)
        sorted_ = sort(
            found.layers,
            lambda layer, begin, n_bytes: registry.part(layer, begin, n_bytes, until=until),
        )
        if not sorted_.models:
            raise _nothing(ref, sorted_)
        files = _named(ref, sorted_, _quant(config))
        return Offer(
            ref,
            "oci",
            place_of(ref.name, ref.revision, ref.digest),
            tag,
            top.digest,
            files,
            licence=_licence(registry, found, top, config, sorted_, until),
            extras=_extras(sorted_),
        )

    def _registry_of(self, ref: ModelRef) -> Registry:
        host, _, repository = ref.name.partition("/")
        return registry_at(host, repository)


def _chosen(registry: Registry, top: RemoteManifest, until: float) -> RemoteManifest:
    """Return the manifest of a model: what was asked for, or the one that fits best of an index."""
    if not top.manifests:
        return top
    here = _MACHINES.get(platform.machine(), platform.machine())

    def rank(each: Layer) -> tuple[bool, bool]:
        is_model = any(key.startswith(("org.cnai.model", "org.cncf.model")) for key in each.annotations)
        return not is_model, each.platform.get("architecture") not in (here, "unknown", None)

    candidates = [each for each in top.manifests if "vnd.docker.reference.type" not in each.annotations]
    if not candidates:
        raise Damaged(f"{registry.name} lists no manifest of {registry.repository}")
    chosen = registry.manifest(min(candidates, key=rank).digest, _ACCEPTED, until=until)
    if chosen.manifests:
        raise Unsupported(f"{registry.repository} at {registry.name} is a list of lists of manifests")
    return chosen


def _quant(config: dict[str, Any]) -> str | None:
    """Return the quant that a config names: Docker's and ModelPack's under `config`, Ollama's as `file_type`."""
    inner = config.get("config")
    stated = inner.get("quantization") if isinstance(inner, dict) else config.get("file_type")
    if not isinstance(stated, str) or len(stated) > 64:
        return None
    last = stated.rpartition("/")[2].upper().removeprefix("MOSTLY_")
    return quants.label_of(f"x-{last}.gguf")


def _named(ref: ModelRef, sorted_: Sorted, quant: str | None) -> tuple[RemoteFile, ...]:
    """Give every file its name.

    Raises:
        Damaged: two have the same, as far as file systems tell them apart.
    """
    tag = ref.revision or (ref.digest[:12] if ref.digest else LATEST)
    single = model_name(f"{ref.name.rpartition('/')[2]}-{tag}", quant)
    stem = single.removesuffix(".gguf")
    names = [single if not file.path and len(sorted_.models) == 1 else "" for file in sorted_.models]
    names = [name or other for name, other in zip(names, named(sorted_.models, stem), strict=True)]
    files: list[RemoteFile] = [replace(file, path=name) for file, name in zip(sorted_.models, names, strict=True)]
    if len(files) == 1 and _says_nothing(files[0].path, quant):
        files = [replace(sorted_.models[0], path=single)]
    for number, file in enumerate(sorted_.projectors, 1):
        is_named = file.path and not quants.is_model_file(file.path)
        files.append(file if is_named else replace(file, path=f"mmproj-{number}.gguf"))
    taken: set[str] = set()
    for each in files:
        if each.path.casefold() in taken:
            raise Damaged(f"{ref.name} lists two files with the same name: {each.path}")
        taken.add(each.path.casefold())
    return tuple(files)


def _says_nothing(name: str, quant: str | None) -> bool:
    """Tell whether a name hides what the file is: `model.gguf` where the quant is known, a stranger's `lora-x.gguf`."""
    return len(quants.variants([RemoteFile(name)])) != 1 or (quant is not None and quants.label_of(name) is None)


def _nothing(ref: ModelRef, sorted_: Sorted) -> NoUsableFile:
    listing = ", ".join(sorted_.others[:10]) + (", …" if len(sorted_.others) > 10 else "")
    return NoUsableFile(
        f"{ref.name} has no GGUF file to run", files=sorted_.others, hint=f"it has: {listing or 'nothing'}"
    )


def _licence(
    registry: Registry,
    found: RemoteManifest,
    top: RemoteManifest,
    config: dict[str, Any],
    sorted_: Sorted,
    until: float,
) -> str | None:
    """Return the licence by its name where one is stated, else by its text."""
    descriptor = config.get("descriptor")
    stated = descriptor.get("licenses") if isinstance(descriptor, dict) else None
    if isinstance(stated, list) and stated and all(isinstance(each, str) for each in stated):
        return " AND ".join(stated)[:120]
    for annotations in (found.annotations, top.annotations):
        if name := annotations.get("org.opencontainers.image.licenses"):
            return name[:120]
    for layer in sorted_.licences:
        if layer.size_bytes <= MAX_EXTRA_BYTES:
            try:
                text = registry.blob(layer, until=until, limit=MAX_EXTRA_BYTES)
            except OwmError:  # it is fetched with the model, and then is there or not
                return None
            return licence_of(text.decode("utf-8", "replace"))
    return None


def _extras(sorted_: Sorted) -> tuple[Extra, ...]:
    extras = []
    licences = [layer for layer in sorted_.licences if 0 < layer.size_bytes <= MAX_EXTRA_BYTES]
    for number, layer in enumerate(licences, 1):
        extras.append(Extra(of_layer(f"LICENSE{'' if number == 1 else f'-{number}'}.txt", layer), "licence"))
    if sorted_.templates and sorted_.templates[0].size_bytes <= MAX_EXTRA_BYTES:
        extras.append(Extra(of_layer("chat_template.jinja", sorted_.templates[0]), "template"))
    if sorted_.generation_configs and sorted_.generation_configs[0].size_bytes <= MAX_CONFIG_BYTES:
        config = of_layer("generation_config.json", sorted_.generation_configs[0])
        extras.append(Extra(config, "generation_config"))
    return tuple(extras)
