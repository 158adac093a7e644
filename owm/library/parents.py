"""What a model is made of, by content: hashed while the model is written, and noted with all that is known of it."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from owm.events import Advanced, Event
from owm.formats import gguf
from owm.library import made
from owm.library.keeping import as_parent
from owm.quality import certificate
from owm.store.digest import Hashing, sha256_of_all
from owm.store.model import read_error

if TYPE_CHECKING:
    from owm.library.keeping import Origin
    from owm.store.local import Store


class Parents:
    """The files of the user's that a model is made of, hashed in a thread while it is written; a context manager.

    Those of a repo or of a stored model are known by their sha256 already, and nothing is read.
    """

    def __init__(self, origin: "Origin", files: Sequence[Path], folder: Path | None = None) -> None:
        """Name the files; `folder` is that of a checkpoint, whose small files count too."""
        self._files = [] if "files" in origin.made_from else [*files, *(_side_files(folder) if folder else ())]
        self._folder = folder
        self._stopped = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._found: Future[list[dict[str, Any]]] | None = None

    def __enter__(self) -> "Parents":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._pool is not None:
            self._pool.shutdown()

    def begin(self) -> None:
        """Begin to hash."""
        if self._files and self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="owm-parents")
            self._found = self._pool.submit(self._hash)

    def record(self, store: "Store") -> dict[str, Any]:
        """Return what a manifest says of the files, when they are hashed; of what owm made, how it did.

        Raises:
            StoreError: one cannot be read.
        """
        self.begin()
        if self._found is None:
            return {}
        files = self._found.result()
        earlier = made.find(files[0]["sha256"], store) if self._folder is None else None
        return {"files": files} | ({} if earlier is None else {"made_from": as_parent(dict(earlier.made_from))})

    def _hash(self) -> list[dict[str, Any]]:
        hashings = []
        for path in self._files:
            try:
                hashings.append(Hashing(path, path.stat().st_size, blanked_in(path)))
            except OSError as error:
                raise read_error(error, path) from error
        digests = sha256_of_all(hashings, n_threads=1, sink=self._stop)
        found = []
        for each, digest in zip(hashings, digests, strict=True):
            if isinstance(digest, OSError):
                raise read_error(digest, each.path)
            name = each.path.relative_to(self._folder).as_posix() if self._folder else each.path.name
            found.append({"path": name, "size_bytes": each.size_bytes, "sha256": digest})
        return found

    def _stop(self, event: Event) -> None:
        if isinstance(event, Advanced) and self._stopped.is_set():
            raise InterruptedError


def _side_files(folder: Path) -> list[Path]:
    from owm.store.checkpoint import is_side_file

    found = [path for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    return sorted(path for path in found if is_side_file(path.relative_to(folder).as_posix()) and path.is_file())


def blanked_in(path: Path) -> tuple[int, int] | None:
    """Return where a file has a certificate, which is no part of what identifies it."""
    if path.suffix.lower() != ".gguf":
        return None
    place = certificate.place_of(gguf.read_header(path))
    return None if place is None else (place.offset, place.size_bytes)
