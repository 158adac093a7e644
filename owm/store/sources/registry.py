"""Which source serves which kind of reference: the one table to extend for a new source."""

from owm.errors import ModelNotFound, Unsupported
from owm.store.local import Store
from owm.store.refs import Kind, ModelRef
from owm.store.same import same_in
from owm.store.sources.base import Source
from owm.store.sources.hub import HubSource
from owm.store.sources.modelscope import ModelScopeSource
from owm.store.sources.oci import OciSource
from owm.store.sources.ollama import OllamaSource
from owm.store.sources.pypi import PypiSource
from owm.store.sources.url import UrlSource


def source_for(ref: ModelRef, store: Store) -> Source:
    """Return the source of a reference.

    Raises:
        ModelNotFound: it names something that owm has made here, and that is not there any more.
        Unsupported: this version of owm has no such source.
    """
    same = same_in(store)
    table: dict[Kind, Source] = {
        "hub": HubSource(store.hub),
        "pypi": PypiSource(),
        "url": UrlSource(same),
        "ollama": OllamaSource(same),
        "oci": OciSource(same),
        "modelscope": ModelScopeSource(same),
    }
    if ref.kind == "local":
        raise ModelNotFound(f"{ref} is not stored", ref=str(ref), hint="`owm list` shows what is")
    if ref.kind not in table:
        raise Unsupported(
            f"this version of owm cannot fetch from {ref.kind}: {ref}",
            hint="it takes short names, Hub repos, registries, ModelScope, https addresses, `pypi:NAME` and paths",
        )
    return table[ref.kind]
