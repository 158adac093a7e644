"""Records of files that owm made outside the store: found again by content, wherever the file lies by then.

One small file each, `made/<sha256>.json`, named by the sha256 of the model's first file with its certificate blanked.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.publishing import json_text, publish_text
from owm.store.manifest import is_nested_deeply

if TYPE_CHECKING:
    from owm.library.keeping import Origin
    from owm.pipeline.writer import Written
    from owm.store.local import Store

FORMAT, VERSION = "owm.made", 1
MAX_TEXT = 4096
MAX_BYTES = 16 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file as it was written."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Made:
    """What is known of a model that was written to a place of the user's; `ref` names what it was made of."""

    ref: str
    name: str
    label: str
    commit: str | None
    files: tuple[MadeFile, ...]
    made_from: Mapping[str, Any]


def note(
    origin: "Origin", label: str, written: "Sequence[Written]", made_from: Mapping[str, Any], store: "Store"
) -> None:
    """Keep a record of what was written, if that is possible: without it the file is as good."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "ref": origin.ref,
        "name": origin.name,
        "label": label,
        "commit": origin.commit,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": [{"name": file.path.name, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in written],
        "made_from": {**origin.made_from, **made_from},
    }
    with suppress(OSError):
        path = _path(written[0].sha256, store)
        path.parent.mkdir(parents=True, exist_ok=True)
        publish_text(path, json_text(document))


def find(sha256: str, store: "Store") -> Made | None:
    """Return what is known of a file by its content; a record that cannot be read is none."""
    if not _SHA256.fullmatch(sha256):
        return None
    try:
        with open(_path(sha256, store), "rb") as file:
            raw = file.read(MAX_BYTES + 1)
        return read(json.loads(raw)) if len(raw) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None


def read(document: object) -> Made | None:
    """Read a record, or the manifest that `owm export` puts beside a file; None if it is none."""
    if not isinstance(document, dict) or is_nested_deeply(document):
        return None
    texts = [document.get(key) for key in ("ref", "name", "label")]
    commit, files, made_from = (document.get(key) for key in ("commit", "files", "made_from"))
    if not all(map(_is_text, texts)) or not (commit is None or _is_text(commit)):
        return None
    if not isinstance(made_from, dict) or not isinstance(files, list) or not files:
        return None
    found = []
    for each in files:
        if not isinstance(each, dict):
            return None
        name, size, digest = each.get("name"), each.get("size_bytes"), each.get("sha256")
        if not _is_text(name) or not isinstance(size, int) or not isinstance(digest, str):
            return None
        if isinstance(size, bool) or size < 0 or not _SHA256.fullmatch(digest):
            return None
        found.append(MadeFile(str(name), size, digest))
    ref, name, label = (str(each) for each in texts)
    return Made(ref, name, label, commit, tuple(found), made_from)


def text(value: object) -> str | None:
    """Return a text of bearable length without NUL, None for anything else."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT and "\0" not in value else None


def natural(value: object) -> int | None:
    """Return a number that counts something, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else None


def path_of(value: object) -> Path | None:
    """Return a path, None for what cannot be one."""
    found = text(value)
    return Path(found) if found is not None else None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _path(sha256: str, store: "Store") -> Path:
    return store.home / "made" / f"{sha256}.json"
