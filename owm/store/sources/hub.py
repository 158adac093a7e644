"""The Hugging Face Hub: repos whose files lie in the cache that its library owns: layout, metadata and links.

The bytes come through owm's own engine into `blobs/<etag>`, under the library's lock; the library then only links.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.errors import AccessDenied, Damaged, OwmError, SourceUnreachable, StoreError
from owm.events import Sink, Warned, ignore
from owm.publishing import create_anew, sync_folder
from owm.store.download import Digest, Transfer, discard, download, new_session, publish, read_range, write_error
from owm.store.limits import DEFAULT, Limits
from owm.store.names import check_repo_path
from owm.store.refs import ModelRef
from owm.store.sources.asking import within
from owm.store.sources.base import Check, Fetched, Offer, RemoteFile
from owm.store.sources.hub_card import card_of
from owm.store.sources.hub_client import (
    gated_error,
    guarded,
    headers,
    host,
    library,
    own_headers,
    patiently,
    translated,
)
from owm.store.sources.placing import bytes_on_disk

if TYPE_CHECKING:
    import requests

LOCK_SECONDS = 0.5  # that another program may hold a blob before a word is said


class HubSource:
    """Repos of the Hub; files live in the Hugging Face cache `cache`."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def offer(self, ref: ModelRef, *, deadline: float) -> Offer:
        """List a repo at a revision with one request."""
        hub = library()
        began = time.monotonic()

        def ask() -> Any:
            api = hub.HfApi(headers=own_headers())
            return api.model_info(ref.name, revision=ref.revision, timeout=deadline, files_metadata=True)

        def attempt() -> Any:
            left = deadline - (time.monotonic() - began)
            with translated(ref):
                return within(left, ask, f"{host()} did not answer within {deadline:.0f} s")

        try:
            info = patiently(attempt, until=began + deadline)
        except OSError as error:  # the library looks for its token in HF_HOME
            raise write_error(error, self.cache / "hub") from error
        with translated(ref):  # the library believes what it is sent
            if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):
                raise SourceUnreachable(f"{host()} does not answer like a Hub: it names no commit of {ref.name}")
            if not isinstance(info.id, str | None):
                raise ValueError("a name that is no text")
            files = tuple(map(_file, info.siblings or ()))
            card = card_of(info)
        return Offer(
            ref=ref,
            source="hub",
            name=info.id or ref.name,
            revision=ref.revision or "main",
            commit=info.sha,
            files=files,
            licence=card.licence_name or card.licence,
            gated=card.gate is not None,
            card=card,
        )

    def free_space_folder(self, offer: Offer, folder: Path) -> Path:
        """The cache's disk must have the room."""
        return self._repo_folder(offer)

    def partial_bytes(self, offer: Offer, files: Sequence[RemoteFile], folder: Path) -> int:
        """Count whole blobs and what earlier downloads left."""
        blobs = self._repo_folder(offer) / "blobs"
        here = 0
        for file in files:
            for path in (blobs / (file.sha256 or "-"), _partial(blobs / (file.sha256 or "-"))):
                if path.exists():
                    here += min(bytes_on_disk(path), file.size_bytes or 0)
                    break
        return here

    def fetch(
        self,
        offer: Offer,
        files: Sequence[RemoteFile],
        folder: Path,
        *,
        check: Check,
        sink: Sink,
        limits: Limits = DEFAULT,
    ) -> list[Fetched]:
        """Bring files into the cache, each verified before it gets its name."""
        session = new_session()
        try:
            return [self._fetch_one(offer, file, check, sink, session, limits) for file in files]
        except OSError as error:
            raise write_error(error, self._repo_folder(offer)) from error

    def read(self, offer: Offer, file: RemoteFile, begin: int, n_bytes: int) -> bytes:
        """Ask the Hub, or the host it redirects to, for a part."""
        hub = library()
        if hub.constants.HF_HUB_OFFLINE:
            raise SourceUnreachable(
                "offline mode is on, the Hub is not asked", hint="unset HF_HUB_OFFLINE, or name a stored model"
            )
        url = hub.hf_hub_url(offer.name, file.path, revision=offer.commit or offer.revision or "main")
        transfer = Transfer(url, Path(file.path).name, file.size_bytes, headers=headers())
        try:
            return read_range(transfer, begin, n_bytes)
        except AccessDenied as error:
            raise gated_error(offer.ref) from error

    def _fetch_one(
        self,
        offer: Offer,
        file: RemoteFile,
        check: Check,
        sink: Sink,
        session: "requests.Session",
        limits: Limits,
    ) -> Fetched:
        hub = library()
        commit = offer.commit or offer.revision or "main"
        url = hub.hf_hub_url(offer.name, file.path, revision=commit)

        def ask() -> Any:
            with translated(offer.ref, file.path):
                return guarded().get_hf_file_metadata(url, token=None, timeout=10, headers=own_headers())

        metadata = patiently(ask)
        etag = metadata.etag
        if not etag or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", etag):
            raise Damaged(f"the Hub names no content hash for {file.path}")
        size = metadata.size if metadata.size is not None else file.size_bytes
        blob = self._repo_folder(offer) / "blobs" / etag
        locks = self.cache / ".locks" / blob.parent.parent.name
        blob.parent.mkdir(parents=True, exist_ok=True)
        locks.mkdir(parents=True, exist_ok=True)
        digest = _digest(file, etag)
        with _locked(locks / f"{etag}.lock", Path(file.path).name, sink):
            sha256 = self._sha256_of_whole(blob, file, size) if blob.exists() else None
            if sha256 is None:
                partial = _partial(blob)
                transfer = Transfer(url, Path(file.path).name, size, digest, headers())
                try:
                    sha256 = download(transfer, partial, sink=sink, session=session, limits=limits)
                except AccessDenied as error:
                    raise gated_error(offer.ref) from error
                try:
                    check(partial, file.path)
                except OwmError:
                    discard(partial)
                    raise
                publish(partial, blob)
            else:
                check(blob, file.path)

        def link() -> Path:
            with translated(offer.ref, file.path):
                return Path(
                    guarded().hf_hub_download(
                        offer.name, file.path, revision=commit, cache_dir=self.cache, headers=own_headers()
                    )
                )

        pointer = patiently(link)
        self._note_revision(offer, commit)
        return Fetched(pointer, pointer.stat().st_size, sha256)

    def _sha256_of_whole(self, blob: Path, file: RemoteFile, size: int | None) -> str | None:
        """Return the sha256 of a blob that another program put there, None (and no blob) if it is damaged."""
        from owm.store.digest import sha256_of

        if size is None or blob.stat().st_size == size:
            actual = sha256_of(blob)
            digest = _digest(file, blob.name)
            if digest is None or digest.algorithm != "sha256" or digest.hex == actual:
                return actual
        blob.unlink()
        return None

    def _note_revision(self, offer: Offer, commit: str) -> None:
        """Let other users of the cache find the snapshot by the name of its branch."""
        if offer.revision in (None, offer.commit) or {"", ".", ".."} & set(str(offer.revision).split("/")):
            return
        ref = self._repo_folder(offer) / "refs" / str(offer.revision)
        if ref.is_file() and ref.read_bytes() == commit.encode():
            return
        ref.parent.mkdir(parents=True, exist_ok=True)
        # Not beside it: whatever lies among the refs is taken for one.
        partial = _partial(self._repo_folder(offer) / "blobs" / "ref")
        locks = self.cache / ".locks" / self._repo_folder(offer).name
        with _locked(locks / "ref.lock", str(offer.revision), ignore):
            with open(create_anew(partial), "wb") as file:
                file.write(commit.encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, ref)
            sync_folder(ref.parent)

    def _repo_folder(self, offer: Offer) -> Path:
        return self.cache / ("models--" + offer.name.replace("/", "--"))


def remove_files(cache: Path, paths: Iterable[Path]) -> None:
    """Remove snapshot files from the cache; what other revisions use stays."""
    hub = library()
    whole = cache.resolve()  # as the library names files, also where the cache is a link to another disk
    wanted = {whole / path.relative_to(cache) for path in paths}
    info = hub.scan_cache_dir(cache)
    files = [file for repo in info.repos for rev in repo.revisions for file in rev.files if file.file_path in wanted]
    for file in files:
        _refuse_ways_out(file.file_path, whole)
        _refuse_ways_out(file.blob_path, whole)
    info.delete_files(*files).execute()


def _refuse_ways_out(path: Path, cache: Path) -> None:
    """Refuse to remove what lies outside the cache, where a link leads that the library did not make.

    Raises:
        StoreError: it does.
    """
    if not path.is_relative_to(cache) or not Path(os.path.realpath(path.parent)).is_relative_to(cache):
        raise StoreError(
            f"{path} is not removed: it lies outside the Hub cache, and a link in there leads to it",
            hint="remove that link, then run the same command again",
        )


@contextmanager
def _locked(path: Path, label: str, sink: Sink) -> Iterator[None]:
    """Hold the library's lock on a blob; say so if another program has it."""
    from filelock import Timeout

    lock = library().utils.WeakFileLock
    with ExitStack() as held:
        try:
            held.enter_context(lock(path, timeout=LOCK_SECONDS))
        except Timeout:
            sink(Warned("pull", f"another program is fetching {label} into the Hub cache, waiting for it"))
            held.enter_context(lock(path))
        yield


def _file(said: Any) -> RemoteFile:
    """Return a file that the Hub lists.

    Raises:
        ValueError, AttributeError: it says of it what cannot be.
        Damaged: its path leads elsewhere.
    """
    path, size, sha256 = said.rfilename, said.size, said.lfs.sha256 if said.lfs else None
    if not isinstance(path, str) or not (size is None or (type(size) is int and size >= 0)):
        raise ValueError("a file without a name, or of no size")
    if not (sha256 is None or (isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256))):
        raise ValueError("a hash that is none")
    return RemoteFile(check_repo_path(path), size, sha256)


def _partial(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.owm.incomplete")


def _digest(file: RemoteFile, etag: str) -> Digest | None:
    if file.sha256:
        return Digest("sha256", file.sha256)
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        return Digest("sha256", etag)
    return Digest("git-sha1", etag) if re.fullmatch(r"[0-9a-f]{40}", etag) else None
