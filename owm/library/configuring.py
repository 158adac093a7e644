"""Which settings hold for a model: the layers of `owm.settings`, found by the names that the store knows it by."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.errors import ModelNotFound
from owm.settings import config, generation_config
from owm.settings.layers import Setting
from owm.store import catalog, quants, refs
from owm.store.local import Store
from owm.store.model import StoredModel, at_path
from owm.store.refs import ModelRef

if TYPE_CHECKING:
    from owm.engine.sampling import Sampling
    from owm.formats.gguf import Header


def effective(
    stored: StoredModel,
    store: Store,
    flags: Mapping[str, Any],
    *,
    header: "Header | None" = None,
    family: Mapping[str, Any] | None = None,
) -> "tuple[Sampling, dict[str, Setting]]":
    """Return the settings that hold for a model; see `owm.engine.sampling.resolve`.

    Args:
        header: of the model's file; without it, what the file says is left out.

    Raises:
        UsageError: the config file, a variable or a flag says what cannot be.
        StoreError: the config file cannot be read.
    """
    from owm.engine.sampling import resolve

    settings = config.load(config.default_path())
    return resolve(
        header, flags, family=family, advised=_advised(stored, store), config=settings.layers(names_of(stored, store))
    )


def names_of(stored: StoredModel, store: Store, *, with_quant: bool = True) -> list[str]:
    """Return what the config file may call a stored model, from its repo to this one of its quants, aliases too."""
    if stored.manifest is None:
        return _with_aliases([os.path.abspath(stored.path)], store)
    of_repo = [stored.manifest.name] if stored.manifest.source == "hub" else []
    names = list(dict.fromkeys((*of_repo, stored.manifest.ref, *_without_size(stored.name), stored.name)))
    return _with_aliases([*names, *(f"{name}:{stored.label}" for name in names if stored.label and with_quant)], store)


def _without_size(name: str) -> list[str]:
    """Return the short name that stands for `name` because its size is the default one."""
    entries = catalog.load().entries.values()
    return [entry.name for entry in entries if name == f"{entry.name}:{entry.default_size}"]


def _with_aliases(names: list[str], store: Store) -> list[str]:
    """Put each alias of the user's before what it stands for."""
    aliases = store.aliases.load()
    return [
        each
        for name in names
        for each in (*(alias for alias, target in aliases.items() if config.same_name(target, [name])), name)
    ]


def names_for(text: str, store: Store) -> list[str]:
    """Return what the config file may call the model that `text` names; the last is the one to write.

    An alias or the beginning of a stored model's name stands for that model, any other name for itself, stored or not.
    With a quant in it only that one is meant.

    Raises:
        ModelNotFound: no such short name or file, or several stored models begin so.
        UsageError: it is no name of a model.
    """
    ref = store.aliases.expand(refs.parse(text))
    if ref.kind == "path":
        return names_of(at_path(ref), store)
    try:
        return names_of(store.find_stored(text), store, with_quant=bool(ref.quant or ref.file))
    except ModelNotFound as problem:
        begins = {model.name: model for model in store.models() if model.name.lower().startswith(text.lower())}
        if len(begins) == 1:  # in several quants
            return names_of(begins.popitem()[1], store, with_quant=False)
        try:
            return _full_names(ref)
        except ModelNotFound:
            raise problem from None


def _full_names(ref: ModelRef) -> list[str]:
    if ref.kind == "catalog":
        ref = catalog.load().sources(ref)[0]
    of_repo = ref.with_quant(None)
    name = catalog.load().short_name(of_repo) or str(of_repo)
    names = [*_without_size(name), name]
    label = quants.label_of(ref.file) if ref.file else ref.quant
    return [*names, *(f"{name}:{label}" for name in names if label)]


def _advised(stored: StoredModel, store: Store) -> dict[str, Any]:
    record = stored.manifest.generation_config if stored.manifest else None
    return generation_config.read(Path(store.file_path(record))) if record else {}
