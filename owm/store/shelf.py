"""Many stored models at hand, and quickly which of them a reference can mean."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from owm.store import matching, refs
from owm.store.model import StoredModel
from owm.store.refs import ModelRef

_BY_NAME = ("hub", "pypi", "url", "local")  # a reference of these kinds means a model by one of its two names


@dataclass(frozen=True, slots=True)
class Shelf:
    """Stored models, found by name without looking at each of them."""

    models: Sequence[StoredModel]
    _by_key: dict[tuple[str, str], list[StoredModel]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for model in self.models:
            if model.manifest is not None:
                of = refs.parse(model.manifest.ref)
                for name in {_key(of.kind, of.name), _key(of.kind, model.manifest.name)}:
                    self._by_key.setdefault(name, []).append(model)

    def __iter__(self) -> Iterator[StoredModel]:
        return iter(self.models)

    def named(self, wanted: Iterable[ModelRef]) -> list[StoredModel]:
        """Return all models that references could mean."""
        return [
            model for ref in wanted for model in matching.of_source(ref, self._by_key.get(_key(ref.kind, ref.name), ()))
        ]


def _key(kind: str, name: str) -> tuple[str, str]:
    return kind, name.lower() if kind in _BY_NAME else ""
