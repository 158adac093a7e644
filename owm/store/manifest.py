"""The manifest: one versioned JSON file per stored model that says what it is, where from, and which bytes.

A manifest of a newer schema is refused by name; one of an older schema is read, and written anew when it changes.
Paths are relative to a root, so that a store can move; only files of other tools are named by whole paths.
"""

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from owm.errors import Damaged, StoreError, UsageError
from owm.publishing import json_text, publish_text
from owm.store import refs

SCHEMA = 2  # 1 had no `mtime_ns`, `owner`, `extras` and root `outside`
FILE_NAME = "manifest.json"
USER = "user"  # the owner of files that are nobody's but the user's
MAX_NUMBER = (1 << 63) - 1
MAX_BLANKED = 4096  # more of a file is never left out of its sha256
MAX_NESTING = 32  # of what a manifest says of a model's making, which holds the same of what it was made of

Root = Literal["owm", "hub", "outside"]
Role = Literal["model", "shard", "generation_config", "template", "params", "system", "licence", "projector"]
ROOTS = get_args(Root)
ROLES = get_args(Role)
_NONE = type(None)
_OF_MANIFEST: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("ref", "source", "name", "label", "created_at"), str),
    **dict.fromkeys(("revision", "commit", "licence", "owner"), (str, _NONE)),
    **dict.fromkeys(("made_from", "quality"), (dict, _NONE)),
    "gated": bool,
}
_OF_FACTS: dict[str, type | tuple[type, ...]] = {
    "architecture": str,
    **dict.fromkeys(("name", "licence"), (str, _NONE)),
    **dict.fromkeys(("n_params", "n_ctx_train"), (int, _NONE)),
}
_OF_FILE: dict[str, type | tuple[type, ...]] = {
    "path": str, "sha256": str, "size_bytes": int, "mtime_ns": (int, _NONE), "validator": (str, _NONE),
}  # fmt: skip
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UPWARDS = re.compile(r"(?:^|[\\/])\.\.(?:[\\/]|$)")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a model: where it lies under its root, and its exact content.

    Attributes:
        path: relative, with `/`; whole if the root is `outside`, which means a file that another tool or the user owns.
        mtime_ns: of the file when its content was last known to be right; None where that was not noted. It is no part
            of what a record says of the content: records that differ in it alone are equal.
        validator: the ETag that the file had at its source, where the source publishes no sha256.
    """

    path: str
    root: Root
    size_bytes: int
    sha256: str
    role: Role = "model"
    mtime_ns: int | None = field(default=None, compare=False)
    validator: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model file's header says, kept so that listing needs no header reading."""

    architecture: str
    name: str | None = None
    n_params: int | None = None
    n_ctx_train: int | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What owm knows of one stored model.

    `ref` names the model at its source without quant, `label` is the quant as people type it, `revision` what was
    asked for and `commit` what it resolved to. `owner` is the tool that the bytes belong to if they were only adopted;
    `extras` are small files that came along.
    """

    ref: str
    source: str
    name: str
    label: str
    revision: str | None
    commit: str | None
    files: tuple[FileRecord, ...]
    licence: str | None
    facts: ModelFacts
    created_at: str
    gated: bool = False
    made_from: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None
    generation_config: FileRecord | None = None  # of the repo: how its makers advise to sample
    owner: str | None = None
    extras: tuple[FileRecord, ...] = ()
    schema: int = field(default=SCHEMA)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def kept_files(self) -> tuple[FileRecord, ...]:
        """The model's files, and the small ones that came with them."""
        return (*self.files, *((self.generation_config,) if self.generation_config else ()), *self.extras)

    @property
    def blanked(self) -> tuple[int, int] | None:
        """Offset and length of the text in the first file that counts as spaces in its sha256: its certificate."""
        place = (self.quality or {}).get("blanked")
        if not isinstance(place, dict):
            return None
        offset, length = place.get("offset"), place.get("size_bytes")
        if isinstance(offset, int) and isinstance(length, int) and offset >= 0 and 0 < length <= MAX_BLANKED:
            return offset, length
        return None


def dump(manifest: Manifest) -> str:
    """Write a manifest as JSON text."""
    return json_text(asdict(manifest))


def parse(text: str, path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        StoreError: it was written by a newer owm.
        Damaged: it is not a manifest.
    """
    try:
        raw = json.loads(text)
        schema = raw["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise StoreError(
                f"{path} was written by a newer owm (schema {schema}, this one knows {SCHEMA})", hint="update owm"
            )
        raw["files"] = tuple(FileRecord(**file) for file in raw["files"])
        raw["facts"] = ModelFacts(**raw["facts"])
        if raw.get("generation_config") is not None:
            raw["generation_config"] = FileRecord(**raw["generation_config"])
        raw["extras"] = tuple(FileRecord(**file) for file in raw.get("extras", ()))
        manifest = Manifest(**{**raw, "schema": SCHEMA})
        if schema not in (1, SCHEMA) or isinstance(schema, bool) or not manifest.files:
            raise ValueError("unknown schema or no files")
        if any(file.root not in ROOTS or file.role not in ROLES for file in manifest.kept_files):
            raise ValueError("unknown root or role of a file")
        _check_types(manifest, _OF_MANIFEST)
        _check_types(manifest.facts, _OF_FACTS)
        refs.parse(manifest.ref)
        if is_nested_deeply(manifest.made_from) or is_nested_deeply(manifest.quality):
            raise ValueError("it is nested too deeply")
        for file in manifest.kept_files:
            _check_types(file, _OF_FILE)
            if isinstance(file.size_bytes, bool) or file.size_bytes < 0 or not _SHA256.fullmatch(file.sha256):
                raise ValueError("a size or a sha256 cannot be right")
            if os.path.isabs(file.path) != (file.root == "outside") or _UPWARDS.search(file.path):
                raise ValueError("a path leaves its root")
            if b"\0" in os.fsencode(file.path) or max(file.size_bytes, abs(file.mtime_ns or 0)) > MAX_NUMBER:
                raise ValueError("a path, a size or a time cannot be one")
        if any(abs(number or 0) > MAX_NUMBER for number in (manifest.facts.n_params, manifest.facts.n_ctx_train)):
            raise ValueError("a fact cannot be right")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UsageError) as error:
        raise Damaged(
            f"{path} is not a manifest: {error}", hint=f"remove {path.parent} and pull the model again"
        ) from error
    return manifest


def is_nested_deeply(value: object) -> bool:
    """Tell whether lists and objects lie in one another deeper than anything that owm writes."""
    level: list[object] = [value]
    for _ in range(MAX_NESTING):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _check_types(record: Manifest | FileRecord | ModelFacts, kinds: dict[str, type | tuple[type, ...]]) -> None:
    for name, kind in kinds.items():
        if not isinstance(getattr(record, name), kind):
            raise ValueError(f"{name} has the wrong type")


def write(manifest: Manifest, folder: Path) -> None:
    """Publish a manifest in its folder in one step: a reader sees the old one, the new one or none."""
    publish_text(folder / FILE_NAME, dump(manifest))
