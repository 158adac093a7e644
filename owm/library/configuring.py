"""Which settings hold for a model: the layers of `owm.settings`, found by the names that the store knows it by."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.errors import ModelNotFound, OwmError
from owm.settings import config, generation_config, tuned
from owm.settings.layers import Setting
from owm.settings.tuned import Tuned
from owm.store import catalog, quants, refs
from owm.store.local import Store
from owm.store.model import StoredModel, at_path
from owm.store.refs import ModelRef

if TYPE_CHECKING:
    from owm.engine.sampling import Sampling
    from owm.engine.tuning import Tuning
    from owm.formats.gguf import Header

# setting -> field of `owm.engine.tuning.Tuning`
_TUNED = {
    "threads": "n_threads",
    "gpu_layers": "n_gpu_layers",
    "batch_size": "n_batch",
    "ubatch_size": "n_ubatch",
    "flash_attn": "flash_attention",
    "cache_type_k": "type_k",
    "cache_type_v": "type_v",
    "parallel": "n_parallel",
}


def effective(
    stored: StoredModel,
    store: Store,
    flags: Mapping[str, Any],
    *,
    header: "Header | None" = None,
    family: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda message: None,
) -> "tuple[Sampling, dict[str, Setting]]":
    """Return the settings that hold for a model; see `owm.engine.sampling.resolve`.

    Args:
        header: of the model's file; without it, what the file says is left out.
        note: takes a sentence where tuned values cannot be used.

    Raises:
        UsageError: the config file, a variable or a flag says what cannot be.
        StoreError: the config file cannot be read.
    """
    from owm.engine.sampling import resolve

    settings = config.load(config.default_path())
    measured = tuned_for(stored, note=note)
    return resolve(
        header,
        flags,
        family=family,
        advised=_advised(stored, store),
        config=[measured.layer() if measured else {}, *settings.layers(names_of(stored, store))],
    )


def tuned_for(stored: StoredModel, *, note: Callable[[str], None] = lambda message: None) -> Tuned | None:
    """Return what was tuned for a model on this machine with this build; a file that is damaged is as good as none."""
    try:
        entries = tuned.load(tuned.default_path())
        return tuned.find(entries, identity_of(stored), _place) if entries else None
    except OwmError as error:
        note(str(error))
    except OSError:  # the model is gone, which is for others to say
        pass
    return None


def _place() -> tuple[str, str]:
    from owm.hardware.machine import this_machine

    machine = this_machine()
    return machine.fingerprint, machine.build


def identity_of(stored: StoredModel) -> str:
    """Say which bytes a model is: by their sha256, or where they lie, for a file that owm has not stored."""
    if stored.manifest is None:
        facts = [(path.stat().st_size, path.stat().st_mtime_ns) for path in stored.files]
        return f"{os.path.realpath(stored.path)} {hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"
    digests = [record.sha256 for record in stored.manifest.files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def tuning_of(values: Mapping[str, Any]) -> "Tuning":
    """Return how to compute, from the values of settings by name.

    Raises:
        UsageError: they contradict each other.
    """
    from owm.engine.tuning import Tuning

    found = {field: values.get(name) for name, field in _TUNED.items()}
    if found["flash_attention"] is not None:
        found["flash_attention"] = found["flash_attention"] == "on"
    return Tuning(**found)


def settings_of(tuning: "Tuning") -> dict[str, Any]:
    """Return the values of settings, by name, that make a tuning; what it leaves to the default is not among them."""
    said = tuning.said()
    if "flash_attention" in said:
        said["flash_attention"] = "on" if said["flash_attention"] else "off"
    return {name: said[field] for name, field in _TUNED.items() if field in said}


def said_tuned(settings: Mapping[str, Setting]) -> str | None:
    """Say which settings are as they were tuned for this model and machine, None if none is."""
    found = {name: setting.value for name, setting in settings.items() if setting.origin == tuned.ORIGIN}
    if not found:
        return None
    values = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in found.items())
    return f"tuned for this model and machine: {values}"


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
