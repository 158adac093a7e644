"""A file of the store that has the content that is wanted: it need not be fetched again."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from owm.errors import OwmError, StoreError
from owm.store.local import Store

FindSame = Callable[[str, int], Path | None]


def nothing(sha256: str, size_bytes: int) -> Path | None:
    """Find nothing: for whoever has no store at hand."""
    return None


def same_in(store: Store) -> FindSame:
    """Return how to find a stored file by its content. Files of other tools and of the user are left alone."""

    @cache
    def index() -> dict[tuple[str, int], list[Path]]:
        """Read all manifests, once for all files of one pull."""
        found: dict[tuple[str, int], list[Path]] = {}
        problems: list[OwmError] = []
        try:
            stored = store.models(problems)
        except StoreError:
            return found
        for model in stored:
            if model.manifest is None or model.manifest.blanked:
                continue
            for record in model.manifest.files:
                if record.root in ("owm", "hub"):
                    found.setdefault((record.sha256, record.size_bytes), []).append(store.file_path(record))
        return found

    def find(sha256: str, size_bytes: int) -> Path | None:
        for path in index().get((sha256, size_bytes), []):
            with suppress(OSError):
                if path.is_file() and path.stat().st_size == size_bytes:
                    return path.resolve()
        return None

    return find
