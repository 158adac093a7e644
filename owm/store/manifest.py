"""The manifest: one versioned JSON file per stored model that says what it is, where from, and which bytes.

A manifest of a newer schema is refused by name. Paths are relative to one of two roots, so that a store can move.
"""

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal

from owm.errors import Damaged, StoreError, UsageError
from owm.publishing import publish_text
from owm.store import refs

SCHEMA = 1
FILE_NAME = "manifest.json"
MAX_BLANKED = 4096  # more of a file is never left out of its sha256

Root = Literal["owm", "hub"]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a model: where it lies under its root, and its exact content."""

    path: str
    root: Root
    size_bytes: int
    sha256: str
    role: Literal["model", "shard", "generation_config"] = "model"


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
    asked for and `commit` what it resolved to.
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
    schema: int = field(default=SCHEMA)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def kept_files(self) -> tuple[FileRecord, ...]:
        """The model's files, and the small one that came with them."""
        return (*self.files, *((self.generation_config,) if self.generation_config else ()))

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
    return json.dumps(asdict(manifest), indent=1, ensure_ascii=False) + "\n"


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
        manifest = Manifest(**raw)
        if schema != SCHEMA or not manifest.files or any(f.root not in ("owm", "hub") for f in manifest.kept_files):
            raise ValueError("unknown schema, root or no files")
        _check_types(manifest, "quality", dict | None)
        _check_types(manifest, "ref source name label created_at", str)
        _check_types(manifest, "revision commit licence", str | None)
        _check_types(manifest.facts, "architecture", str)
        _check_types(manifest.facts, "name licence", str | None)
        _check_types(manifest.facts, "n_params n_ctx_train", int | None)
        refs.parse(manifest.ref)
        for file in manifest.kept_files:
            _check_types(file, "path sha256", str)
            _check_types(file, "size_bytes", int)
            if (
                isinstance(file.size_bytes, bool)
                or file.size_bytes < 0
                or not re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            ):
                raise ValueError("a size or a sha256 cannot be right")
            if os.path.isabs(file.path) or ".." in Path(file.path).parts:
                raise ValueError("a path leaves its root")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UsageError) as error:
        raise Damaged(
            f"{path} is not a manifest: {error}", hint=f"remove {path.parent} and pull the model again"
        ) from error
    return manifest


def _check_types(record: Manifest | FileRecord | ModelFacts, names: str, kind: type | UnionType) -> None:
    for name in names.split():
        if not isinstance(getattr(record, name), kind):
            raise ValueError(f"{name} is not {kind}")


def write(manifest: Manifest, folder: Path) -> None:
    """Publish a manifest in its folder in one step: a reader sees the old one, the new one or none."""
    publish_text(folder / FILE_NAME, dump(manifest))
