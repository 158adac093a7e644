"""How a model's chat template differs from the one that was published with the model it was made from."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from owm.engine import published
from owm.engine.anatomy import Trait, outline, traits
from owm.errors import OwmError
from owm.formats import gguf

if TYPE_CHECKING:
    from owm.formats.gguf import Header
    from owm.store.local import Store
    from owm.store.model import StoredModel

MAX_BASES = 8  # that a file may name
_ADDRESS = re.compile(r"https?://(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)/?")
_PACKED = re.compile(r"[-_.](?:i1[-_.])?gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A template beside the published one.

    Attributes:
        base: whose template it was compared with (`owner/name`).
        is_same: to the byte.
        added: what it says or looks at and the published one does not, in the order of its lines.
    """

    base: str
    is_same: bool
    added: tuple[Trait, ...] = ()

    @property
    def is_suspect(self) -> bool:
        """It adds a text, or looks for more in what was said than marks such as `</think>`."""
        return any(trait.kind == "text" or not trait.is_mark for trait in self.added)

    def record(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "base": self.base,
            "is_same": self.is_same,
            "added": [{"kind": trait.kind, "line": trait.line, "quote": trait.quote} for trait in self.added],
        }


def compare(stored: "StoredModel", header: "Header", store: "Store") -> Comparison | None:
    """Compare a model's template with the published one, None where it has none or that is not known.

    Raises:
        TemplateError: it cannot be read.
    """
    source = header.text("tokenizer.chat_template")
    if not source:
        return None
    for base in _bases(stored, header):
        if (known := published.of_repo(base)) is not None:
            is_same = published.hash_text(source) in known.sha256
            return Comparison(base, is_same, () if is_same else _added(source, known.outline))
        if (its := _stored_template(base, stored, store)) is not None:
            return Comparison(base, its == source, () if its == source else _added(source, outline(its)))
    return None


def _added(source: str, known: frozenset[str]) -> tuple[Trait, ...]:
    return tuple(trait for trait in traits(source) if trait.digest not in known)


def _bases(stored: "StoredModel", header: "Header") -> Iterator[str]:
    """Yield the repos that may have published a model, the likeliest first; what its file says comes last."""
    from owm.store import catalog, refs

    manifest = stored.manifest
    for ref in (manifest.ref, (manifest.made_from or {}).get("checkpoint")) if manifest is not None else ():
        try:
            parsed = refs.parse(str(ref)).with_quant(None) if ref else None
        except OwmError:
            parsed = None
        if parsed is None:
            continue
        entries = catalog.load().entries
        if (short := catalog.load().short_name(parsed)) is not None:
            name, _, size = short.partition(":")
            yield entries[name].sizes[size].origin
        if parsed.kind == "hub":
            yield parsed.name
            if (original := _unpacked(parsed.name)) is not None:
                yield original
    count = header.metadata.get("general.base_model.count")
    for i in range(min(count, MAX_BASES) if isinstance(count, int) else 1):
        if address := _ADDRESS.fullmatch(header.text(f"general.base_model.{i}.repo_url") or ""):
            yield address[1]


def _unpacked(repo: str) -> str | None:
    """Return the published repo that a repo of GGUF files is named for: `x/Qwen_Qwen3-4B-GGUF` or `x/Qwen3-4B-GGUF`."""
    owner, _, name = repo.partition("/")
    plain = _PACKED.sub("", name)
    if plain == name:
        return None
    for each in (plain.replace("_", "/", 1), f"{owner}/{plain}"):
        if published.of_repo(each) is not None:
            return each
    owners = dict.fromkeys(pattern.partition("/")[0] for each in published.load() for pattern in each.repos)
    return next((f"{who}/{plain}" for who in owners if published.of_repo(f"{who}/{plain}") is not None), None)


def _stored_template(base: str, stored: "StoredModel", store: "Store") -> str | None:
    for model in store.models([]):
        manifest = model.manifest
        if manifest is None or manifest.source != "hub" or manifest.name.lower() != base.lower():
            continue
        if model.files != stored.files and not model.is_gone:
            with store.reading(model):
                return gguf.read_header(model.path).text("tokenizer.chat_template")
    return None
