"""What every source at a registry does alike: its files are layers, and one registry is kept for each reference."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from owm.errors import NotFound
from owm.events import Sink
from owm.store.download import write_error
from owm.store.limits import DEFAULT, Limits
from owm.store.refs import ModelRef
from owm.store.same import FindSame, nothing
from owm.store.sources.base import Check, Fetched, Offer, RemoteFile
from owm.store.sources.layer_files import LayerFiles
from owm.store.sources.registry_client import Registry, RemoteManifest

MAX_EXTRA_BYTES = 1 << 20


class RegistrySource(ABC):
    """Models in registries, kept in owm's own tree; what a manifest means is for the sources themselves."""

    def __init__(self, same: FindSame = nothing) -> None:
        self.same = same
        self._registries: dict[ModelRef, Registry] = {}  # with what lets one in

    @abstractmethod
    def offer(self, ref: ModelRef, *, deadline: float) -> Offer:
        """Look at a manifest, and at what is small of what it lists."""

    @abstractmethod
    def _registry_of(self, ref: ModelRef) -> Registry:
        """Return where a reference points."""

    def free_space_folder(self, offer: Offer, folder: Path) -> Path:
        """The store's own disk must have the room."""
        return folder

    def partial_bytes(self, offer: Offer, files: Sequence[RemoteFile], folder: Path) -> int:
        """Count what an earlier download left, and what the store has under another name."""
        return self._files(offer).bytes_here(files, folder)

    def fetch(
        self,
        offer: Offer,
        files: Sequence[RemoteFile],
        folder: Path,
        *,
        check: Check,
        sink: Sink,
        limits: Limits = DEFAULT,
    ) -> list[Fetched]:
        """Download into `folder`."""
        try:
            return self._files(offer).fetch(files, folder, check=check, sink=sink, limits=limits)
        except OSError as error:
            raise write_error(error, folder / "file") from error

    def read(self, offer: Offer, file: RemoteFile, begin: int, n_bytes: int) -> bytes:
        """Ask the registry, or the host it redirects to, for a part."""
        return self._files(offer).read(file, begin, n_bytes)

    def _files(self, offer: Offer) -> LayerFiles:
        return LayerFiles(self._registry(offer.ref), self.same)

    def _registry(self, ref: ModelRef) -> Registry:
        return self._registries.setdefault(ref, self._registry_of(ref))


def config_of(registry: Registry, found: RemoteManifest, until: float) -> dict[str, Any]:
    """Return what the manifest's config says of the model; a registry without one says nothing."""
    if found.config is None or not 2 < found.config.size_bytes <= MAX_EXTRA_BYTES:
        return {}
    try:
        stated = json.loads(registry.blob(found.config, until=until))
    except (ValueError, RecursionError, NotFound):
        return {}
    return stated if isinstance(stated, dict) else {}
