"""Models put into a store by hand, for tests that are not about pulling."""

import hashlib
from pathlib import Path

from owm.store import manifest
from owm.store.local import Store
from owm.store.manifest import FileRecord, Manifest, ModelFacts
from support.facts import model_bytes


def put_model(
    store: Store,
    ref: str,
    label: str,
    *,
    source: str = "hub",
    name: str | None = None,
    revision: str | None = "main",
    commit: str | None = "a" * 40,
    content: bytes | None = None,
    created_at: str = "2025-01-01T00:00:00+00:00",
) -> Path:
    """Store one model with one file of its own beside the manifest; return its folder."""
    content = model_bytes(64) if content is None else content
    folder = store.folder_of(source, name or ref, commit or revision, label)
    folder.mkdir(parents=True)
    file = folder / f"model-{label.replace('/', '_')}.gguf"
    file.write_bytes(content)
    record = FileRecord(
        file.relative_to(store.home).as_posix(), "owm", len(content), hashlib.sha256(content).hexdigest()
    )
    facts = ModelFacts("llama")
    manifest.write(
        Manifest(ref, source, name or ref, label, revision, commit, (record,), "mit", facts, created_at), folder
    )
    return folder
