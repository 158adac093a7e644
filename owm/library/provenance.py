"""Where a model is from: its files by content, how it was made, and what of, up to the weights as they were published.

All is read from manifests, records and headers on this machine. What they say is shown as it stands and believed only
as far as it names content; where the chain cannot be followed further, the last that is known says why. A manifest that
merely lies beside a file may be anybody's: what it says is told as hearsay.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from owm.errors import OwmError, UsageError
from owm.events import Sink, ignore
from owm.formats import gguf
from owm.library import made
from owm.library.made import Made, text
from owm.quality import certificate
from owm.store import refs
from owm.store.digest import Hashing, sha256_of_all
from owm.store.manifest import Manifest, is_nested_deeply
from owm.store.model import StoredModel, read_error

if TYPE_CHECKING:
    from owm.store.local import Store

Kind = Literal["published", "made", "file"]
MAX_GENERATIONS = 16
MAX_FILES = 4096  # of one generation
CLAIMS = (
    "general.name", "general.author", "general.organization", "general.license", "general.url", "general.repo_url",
    "general.source.url", "general.source.repo_url", "general.base_model.count", "general.base_model.0.name",
    "general.base_model.0.repo_url", "general.quantized_by", "quantize.imatrix.file", "quantize.imatrix.dataset",
)  # fmt: skip
_SAID = ("action", "type", "by", "versions", "options", "imatrix", "tensor_types", "known_differences")
_OLDER = "it was made by an older owm"
BESIDE = "only a manifest beside the file says how it was made, which nobody has checked"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file, by content; `blanked` is the text of its certificate, which counts as spaces in the sha256."""

    path: str
    size_bytes: int | None
    sha256: str | None
    role: str | None = None
    blanked: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is known of where a model, or what it was made of, is from.

    Attributes:
        kind: `published` bytes as a source has them; `made` here; or a `file` of somebody's of which no more is known.
        source: the reference at its source, None for a file.
        recipe: how it was made; a key is None where that is not known, and `unknown` lists these.
        ends: why the chain ends here, or why all that follows is not to be relied on; None where it goes on, or where
            it ends at what was published.
        claims: what the file says of itself, which nobody has checked.
        is_unchecked: only a manifest beside the file says all this.
    """

    kind: Kind
    name: str
    source: str | None = None
    commit: str | None = None
    files: tuple[FileFacts, ...] = ()
    recipe: Mapping[str, Any] | None = None
    parents: "tuple[Provenance, ...]" = ()
    ends: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    is_unchecked: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every line of it leads to what was published."""
        return self.ends is None and all(parent.is_complete for parent in self.parents)

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "source": self.source,
            "commit": self.commit,
            "files": [asdict(file) for file in self.files],
            "recipe": self.recipe,
            "parents": [parent.record() for parent in self.parents],
            "ends": self.ends,
            "claims": dict(self.claims),
            "is_complete": self.is_complete,
        }


class Lineages:
    """Follows the lines of models in one store, which is looked through once."""

    def __init__(self, store: "Store", models: Sequence[StoredModel] | None = None) -> None:
        """Take all stored models, where the caller has them."""
        self._store = store
        self._models = models

    def of(self, model: StoredModel, *, sink: Sink = ignore) -> Provenance:
        """Follow a model's line; the files of one that is not stored are hashed.

        Raises:
            MalformedFile, StoreError: a file that is not stored cannot be read.
        """
        known = model.manifest
        if known is not None:
            return self._of_manifest(known, model)
        files = hash_files(model.files, sink=sink)
        found = self.found(files)
        facts = tuple(
            FileFacts(str(path.absolute()), file.size_bytes, file.sha256, "shard" if index else "model", file.blanked)
            for index, (path, file) in enumerate(zip(model.files, files, strict=True))
        )
        name = model.name
        if isinstance(found, Manifest):
            return self._of_manifest(found, model, facts)
        if found is not None:
            return self._made("made", name, found.ref, found.commit, facts, found.made_from, ())
        if (said := beside(model.path, files)) is not None:
            line = self._made("made", name, said.ref, said.commit, facts, said.made_from, ())
            return replace(_unchecked(line), claims=claims_of(model.path))
        why = "nothing on this machine says where the file is from"
        return Provenance("file", name, files=facts, ends=why, claims=claims_of(model.path))

    def stored_at(self, path: Path) -> StoredModel | None:
        """Return the stored model that a path leads to a file of."""
        for model in self._all:
            for file in model.files:
                with suppress(OSError):
                    if file.samefile(path):
                        return model
        return None

    @property
    def _all(self) -> Sequence[StoredModel]:
        if self._models is None:
            self._models = self._store.models([])
        return self._models

    @cached_property
    def _by_sha256(self) -> dict[str, Manifest]:
        known = [model.manifest for model in self._all if model.manifest is not None]
        # What was made here tells more of the same bytes than where they were found again.
        return {one.files[0].sha256: one for one in sorted(known, key=lambda one: one.made_from is not None)}

    def found(self, files: Sequence[FileFacts]) -> Manifest | Made | None:
        """Return what this machine itself has noted of these very files, all of them."""
        first = files[0].sha256 if files else None
        if first is None:
            return None
        found = self._by_sha256.get(first) or made.find(first, self._store)
        return found if found is not None and _has(found, files) else None

    def _of_manifest(
        self, known: Manifest, model: StoredModel, files: tuple[FileFacts, ...] | None = None
    ) -> Provenance:
        name = model.name if files is not None else f"{known.ref}:{known.label}"
        if files is None:
            files = tuple(
                FileFacts(
                    str(self._store.file_path(record)),
                    record.size_bytes,
                    record.sha256,
                    record.role,
                    _blanked(known) if record is known.files[0] else None,
                )
                for record in known.kept_files
            )
        if known.made_from is not None:
            return self._made("made", name, known.ref, known.commit, files, known.made_from, ())
        if known.source == "local":
            why = "the file was imported, and nothing on this machine says where it is from"
            return Provenance("file", name, known.ref, None, files, ends=why, claims=claims_of(model.path))
        return Provenance("published", name, known.ref, known.commit, files)

    def _made(
        self,
        kind: Kind,
        name: str,
        source: str | None,
        commit: str | None,
        files: tuple[FileFacts, ...],
        made_from: Mapping[str, Any],
        seen: tuple[str, ...],
    ) -> Provenance:
        if is_nested_deeply(made_from):
            return Provenance(kind, name, source, commit, files, ends="its record cannot be right: it is nested deeply")
        recipe = recipe_of(made_from)
        seen = (*seen, files[0].sha256 or "") if files else seen
        if len(seen) > MAX_GENERATIONS:
            why = f"more than {MAX_GENERATIONS} generations are not followed"
            return Provenance(kind, name, source, commit, files, recipe, ends=why)
        parent = self._parent(made_from, seen)
        if parent is None:
            why = "its record does not say what it was made of"
            return Provenance(kind, name, source, commit, files, recipe, ends=why)
        return Provenance(kind, name, source, commit, files, recipe, (parent,))

    def _parent(self, made_from: Mapping[str, Any], seen: tuple[str, ...]) -> Provenance | None:
        files, commit = _files(made_from.get("files")), text(made_from.get("commit"))
        if checkpoint := text(made_from.get("checkpoint")):
            is_exact = commit is not None and bool(files)
            why = None if is_exact else f"{_OLDER}, which did not say of which commit and files"
            return Provenance("published", checkpoint, checkpoint, commit, files, ends=why)
        name = text(made_from.get("model")) or text(made_from.get("path"))
        if name is None:
            return None
        source = _without_quant(text(made_from.get("model")))
        first = files[0].sha256 if files else None
        if first is not None and first in seen:
            return Provenance("made", name, source, commit, files, ends="it is said to be made of itself")
        earlier = made_from.get("made_from")
        if isinstance(earlier, dict):
            if made_from.get("is_cut") or not earlier:
                why = "earlier generations are not noted"
                return Provenance("made", name, source, commit, files, ends=why)
            return self._made("made", name, source, commit, files, earlier, seen)
        known = self.found(files)
        if known is not None and known.made_from is not None:
            return self._made("made", name, source, commit, files, known.made_from, seen)
        if isinstance(known, Manifest) and known.source != "local":
            return Provenance("published", name, known.ref, known.commit, files)
        return _end(name, source, commit, files, made_from)


def _unchecked(line: Provenance) -> Provenance:
    """Return what a manifest beside a file says, each generation of it marked as hearsay."""
    why = BESIDE if line.ends is None else f"{BESIDE}; {line.ends}"
    return replace(line, ends=why, parents=tuple(map(_unchecked, line.parents)), is_unchecked=True)


def _end(
    name: str, source: str | None, commit: str | None, files: tuple[FileFacts, ...], made_from: Mapping[str, Any]
) -> Provenance:
    """Describe what a model was made of where no more is known than its maker noted."""
    if source is None:
        what = "folder" if any(file.path.endswith(".safetensors") for file in files) else "file"
        why = f"it is a {what} of the user's, and nothing on this machine says where it is from"
        if not files:
            why = f"{_OLDER}, which noted nothing of it but its place"
        return Provenance("file", name, files=files, ends=why)
    if source.startswith("local:"):
        why = "the file was imported, and nothing on this machine says where it is from"
        return Provenance("file", name, source, commit, files, ends=why)
    if "versions" in made_from:  # whoever wrote it would have said that it was made
        return Provenance("published", name, source, commit, files)
    why = f"{_OLDER}, which did not say whether this was published so, and it is not stored any more"
    return Provenance("file", name, source, commit, files, ends=why)


def find(text_: str, store: "Store", lineages: Lineages) -> StoredModel:
    """Return the stored model of a name or of a path that leads into the store, or what lies at a path.

    Raises:
        ModelNotFound: there is none.
    """
    model = store.find_stored(text_)
    return model if model.manifest is not None else lineages.stored_at(model.path) or model


def hash_files(paths: Sequence[Path], *, sink: Sink = ignore) -> tuple[FileFacts, ...]:
    """Hash the files of a model that is not stored, each with its certificate blanked.

    Raises:
        MalformedFile, StoreError: one cannot be read.
    """
    hashings = []
    for path in paths:
        place = certificate.place_of(gguf.read_header(path))
        blanked = None if place is None else (place.offset, place.size_bytes)
        hashings.append(Hashing(path, path.stat().st_size, blanked))
    found = []
    for each, digest in zip(hashings, sha256_of_all(hashings, sink=sink), strict=True):
        if isinstance(digest, OSError):
            raise read_error(digest, each.path)
        blanked_at = {"offset": each.blanked[0], "size_bytes": each.blanked[1]} if each.blanked else None
        found.append(FileFacts(each.path.name, each.size_bytes, digest, None, blanked_at))
    return tuple(found)


def claims_of(path: Path) -> dict[str, Any]:
    """Return what a model file says of its own origin; nothing if it cannot be read."""
    try:
        header = gguf.read_header(path)
    except (OwmError, OSError):
        return {}
    found = {key: header.metadata[key] for key in CLAIMS if key in header.metadata}
    return {key: value for key, value in found.items() if text(value) is not None or isinstance(value, int)}


def recipe_of(made_from: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a model was made, for JSON; what is not said, or is no such thing, is None and listed as `unknown`."""
    kinds: dict[str, type] = {
        **dict.fromkeys(("action", "type", "by"), str),
        **dict.fromkeys(("versions", "options", "imatrix", "tensor_types"), dict),
        "known_differences": list,
    }
    recipe: dict[str, Any] = {
        key: _finite(value) if isinstance(value := made_from.get(key), kinds[key]) else None for key in _SAID
    }
    tailored = made_from.get("recipe")
    recipe["tailored"] = (
        {key: _finite(tailored.get(key)) for key in ("target_bytes", "n_bytes", "predicted_kld", "measured_kld")}
        if isinstance(tailored, dict)
        else None
    )
    needed = ["action", "type", "by", "versions", "options"]
    if "versions" not in made_from:
        needed.append("imatrix")
    recipe["unknown"] = [key for key in needed if recipe[key] is None]
    return recipe


def _finite(value: Any) -> Any:
    """Return JSON's values without numbers that JSON cannot say."""
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _without_quant(model: str | None) -> str | None:
    try:
        return None if model is None else str(refs.parse(model).with_quant(None))
    except UsageError:
        return model


def _files(value: object) -> tuple[FileFacts, ...]:
    found = []
    for each in value[:MAX_FILES] if isinstance(value, list) else ():
        if isinstance(each, dict) and (path := text(each.get("path"))) is not None:
            size = each.get("size_bytes")
            is_size = isinstance(size, int) and not isinstance(size, bool)
            found.append(FileFacts(path, size if is_size else None, text(each.get("sha256"))))
    return tuple(found)


def _blanked(known: Manifest) -> Mapping[str, int] | None:
    return {"offset": known.blanked[0], "size_bytes": known.blanked[1]} if known.blanked else None


def beside(path: Path, files: Sequence[FileFacts]) -> Made | None:
    """Read the manifest that `owm export --with-manifest` puts beside a file, if it names these files.

    Anybody can write such a one beside any file: the caller says so, and does nothing on its word alone.
    """
    named = path.with_name(f"{path.stem}.manifest.json")
    try:
        if not named.is_file() or named.stat().st_size > made.MAX_BYTES:
            return None
        found = made.read(json.loads(named.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
    return found if found is not None and _has(found, files) else None


def _has(known: Manifest | Made, files: Sequence[FileFacts]) -> bool:
    return [file.sha256 for file in known.files] == [file.sha256 for file in files]
