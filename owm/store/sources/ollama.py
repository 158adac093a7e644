"""Ollama's registry: a manifest names the model as one GGUF, with template, parameters, system prompt and licence.

What needs more than llama.cpp and one file (adapters, safetensors, models that run elsewhere) is refused by name.
`OWM_OLLAMA_REGISTRY` puts another registry in the place of the usual one; `OLLAMA_HOST` is about Ollama's own server.
"""

import os
import time
from typing import Any

from owm.errors import ModelNotFound, OwmError, Unsupported, UsageError
from owm.store import ollama_files
from owm.store.licence_text import licence_of
from owm.store.refs import ModelRef
from owm.store.registry_refs import LATEST, OLLAMA_HOST, place_of
from owm.store.sources.base import Extra, Offer
from owm.store.sources.layer_files import made_file, model_name, of_layer
from owm.store.sources.registry_client import (
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    Layer,
    Registry,
    RemoteManifest,
    checked_base,
    registry_at,
)
from owm.store.sources.registry_source import MAX_EXTRA_BYTES, RegistrySource, config_of

VARIABLE = "OWM_OLLAMA_REGISTRY"
_ELSEWHERE = "other models of the Hub, `owner/repo`, have a GGUF for nearly all of them"


class OllamaSource(RegistrySource):
    """Models of Ollama's registry, kept in owm's own tree."""

    def offer(self, ref: ModelRef, *, deadline: float) -> Offer:
        """Read the manifest and the small layers that say what it is."""
        until = time.monotonic() + deadline
        registry = self._registry(ref)
        tag = ref.revision or LATEST
        if ref.digest and len(ref.digest) < 64:
            raise UsageError(f"a digest has 64 digits: {ref}", hint="leave it out, or give all of it")
        try:
            found = registry.manifest(
                f"sha256:{ref.digest}" if ref.digest else tag, (DOCKER_MANIFEST, OCI_MANIFEST), until=until
            )
        except ModelNotFound as error:
            raise _not_found(ref, registry, tag) from error
        config = config_of(registry, found, until)
        _refuse_unusable(ref, found, config)
        model = next(layer for layer in found.layers if layer.media_type == ollama_files.MODEL)
        name = model_name(f"{ref.name.rpartition('/')[2]}-{tag}", _text(config, "file_type"))
        projectors = [layer for layer in found.layers if layer.media_type == ollama_files.PROJECTOR]
        return Offer(
            ref,
            "ollama",
            place_of(ref.name.lower(), ref.revision, ref.digest),
            tag,
            found.digest,
            (of_layer(name, model), *(of_layer(f"mmproj-{i}.gguf", each) for i, each in enumerate(projectors, 1))),
            licence=_licence(registry, found, until),
            extras=_extras(registry, found, until),
        )

    def _registry_of(self, ref: ModelRef) -> Registry:
        parts = ref.name.split("/")
        if len(parts) == 3:
            return registry_at(parts[0], "/".join(parts[1:]))
        repository = "/".join(parts if len(parts) == 2 else ("library", *parts))
        if stated := os.environ.get(VARIABLE):
            return Registry(checked_base(stated, VARIABLE), OLLAMA_HOST, repository)
        return registry_at(OLLAMA_HOST, repository)


def _not_found(ref: ModelRef, registry: Registry, tag: str) -> ModelNotFound:
    if registry.name == OLLAMA_HOST:
        hint = f"https://ollama.com/{registry.repository}/tags shows which there are"
    else:
        hint = "check the name and the tag"
    return ModelNotFound(f"{registry.name} has no {ref.name} with the tag {tag}", ref=str(ref), hint=hint)


def _text(config: dict[str, Any], key: str) -> str | None:
    value = config.get(key)
    return value if isinstance(value, str) and value else None


def _refuse_unusable(ref: ModelRef, found: RemoteManifest, config: dict[str, Any]) -> None:
    kinds = [layer.media_type for layer in found.layers]
    n_models = kinds.count(ollama_files.MODEL)
    if _text(config, "remote_host"):
        raise Unsupported(f"{ref} runs on a server of its maker, its weights are not published", hint=_ELSEWHERE)
    if _text(config, "model_format") == "safetensors" or any(kind.startswith(ollama_files.TENSOR) for kind in kinds):
        raise Unsupported(f"{ref} has its weights as safetensors for an engine of Ollama's own", hint=_ELSEWHERE)
    if ollama_files.ADAPTER in kinds:
        raise Unsupported(
            f"{ref} is a model with an adapter over it, which are not taken together from here",
            hint="pull the model itself, and give the adapter with `--lora`",
        )
    if n_models != 1:
        what = "no model" if n_models == 0 else f"{n_models} model files, and one is needed"
        raise Unsupported(f"{ref} has {what}", hint=_ELSEWHERE)


def _licence(registry: Registry, found: RemoteManifest, until: float) -> str | None:
    for layer in found.layers:
        if layer.media_type == ollama_files.LICENCE and layer.size_bytes <= MAX_EXTRA_BYTES:
            text = _small(registry, layer, until)
            if text is not None:
                return licence_of(text.decode("utf-8", "replace"))
    return None


def _extras(registry: Registry, found: RemoteManifest, until: float) -> tuple[Extra, ...]:
    extras: list[Extra] = []
    taken: set[str] = set()
    for layer in found.layers:
        role, name = ollama_files.EXTRAS.get(layer.media_type, (None, ""))
        if role is None or not 0 < layer.size_bytes <= MAX_EXTRA_BYTES:
            continue
        stem, dot, ending = name.partition(".")
        number = next(i for i in range(1, len(taken) + 2) if _numbered(stem, i) not in taken)
        taken.add(_numbered(stem, number))
        extras.append(Extra(of_layer(f"{_numbered(stem, number)}{dot}{ending}", layer), role))
        if layer.media_type == ollama_files.PARAMS and number == 1:
            params = _small(registry, layer, until)
            text = ollama_files.generation_config(params) if params else None
            if text is not None:
                extras.append(Extra(made_file("generation_config.json", text), "generation_config"))
    return tuple(extras)


def _numbered(stem: str, number: int) -> str:
    return stem if number == 1 else f"{stem}-{number}"


def _small(registry: Registry, layer: Layer, until: float) -> bytes | None:
    """Return a small layer; a model without it is whole, so what goes wrong is not raised."""
    try:
        return registry.blob(layer, until=until, limit=MAX_EXTRA_BYTES)
    except OwmError:
        return None
