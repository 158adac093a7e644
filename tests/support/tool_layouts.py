"""The folders of other tools, as they lay them out on disk, with whatever bytes a test wants in them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from owm.store import ollama_files

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_LIST = "application/vnd.ollama.manifest.list.v2+json"
COMMIT = "c0ffee00" * 5


def put_blob(models: Path, content: bytes) -> dict[str, Any]:
    """Put a blob into Ollama's folder; return what a manifest says of it."""
    digest = hashlib.sha256(content).hexdigest()
    blob = models / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def put_ollama(
    models: Path,
    name: str,
    model: bytes | None,
    *,
    extras: Mapping[str, bytes] | None = None,
    root: str = "manifests",
    change: Mapping[str, Any] | None = None,
) -> Path:
    """Put a model into Ollama's folder; return its manifest.

    Args:
        name: `host/namespace/name/tag`.
        extras: media type, or the last word of Ollama's own, -> content.
        change: keys of the manifest to set.
    """
    layers = [] if model is None else [{"mediaType": ollama_files.MODEL, **put_blob(models, model)}]
    for kind, content in (extras or {}).items():
        media_type = kind if "/" in kind else f"application/vnd.ollama.image.{kind}"
        layers.append({"mediaType": media_type, **put_blob(models, content)})
    config = {"mediaType": "application/vnd.docker.container.image.v1+json", **put_blob(models, b"{}")}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, **(change or {})}
    path = models / root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest), "utf-8")
    return path


def put_in_hub_cache(
    cache: Path,
    repo: str,
    files: Mapping[str, bytes],
    *,
    commit: str = COMMIT,
    branch: str | None = "main",
    blob_names: Mapping[str, str] | None = None,
) -> Path:
    """Put a repo's files into a Hugging Face cache as the Hub's library does; return the snapshot.

    Args:
        blob_names: the names of blobs, where they shall not be the sha256 of the content.
    """
    folder = cache / ("models--" + repo.replace("/", "--"))
    snapshot = folder / "snapshots" / commit
    for path, content in files.items():
        name = (blob_names or {}).get(path) or hashlib.sha256(content).hexdigest()
        blob = folder / "blobs" / name
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        pointer = snapshot / path
        pointer.parent.mkdir(parents=True, exist_ok=True)
        up = Path(*[".."] * (len(Path(path).parts) + 1))
        pointer.symlink_to(up / "blobs" / name)
    if branch is not None:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / branch).write_text(commit)
    return snapshot


def put_file(path: Path, content: bytes) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
