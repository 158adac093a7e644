"""The Hugging Face Hub: the only importer of its library, which owns layout, metadata and links of the cache.

The bytes come through owm's own engine into `blobs/<etag>`, under the library's lock; the library then only links.
`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_HOME` mean what they mean to the library.
"""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from owm.errors import (
    AccessDenied,
    Damaged,
    ModelNotFound,
    NetworkError,
    OwmError,
    SourceUnreachable,
    TransferFailed,
    UsageError,
)
from owm.events import Sink
from owm.store.download import Digest, Transfer, discard, download, new_session, publish, write_error
from owm.store.names import check_repo_path
from owm.store.refs import ModelRef
from owm.store.sources.base import Check, Fetched, Offer, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

T = TypeVar("T")
_TRIES = 4
FIRST_WAIT_SECONDS = 0.3  # before a busy Hub is asked again, doubled for each further time


class HubSource:
    """Repos of the Hub; files live in the Hugging Face cache `cache`."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def offer(self, ref: ModelRef, *, deadline: float) -> Offer:
        """List a repo at a revision with one request."""
        hub = _library()
        began = time.monotonic()

        def ask() -> Any:
            return hub.HfApi().model_info(ref.name, revision=ref.revision, timeout=deadline, files_metadata=True)

        def attempt() -> Any:
            left = deadline - (time.monotonic() - began)
            with _translated(ref):
                return _within(left, ask, f"{_host()} did not answer within {deadline:.0f} s")

        try:
            info = _patiently(attempt, until=began + deadline)
        except OSError as error:  # the library looks for its token in HF_HOME
            raise write_error(error, self.cache / "hub") from error
        if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):
            raise SourceUnreachable(f"{_host()} does not answer like a Hub: it names no commit of {ref.name}")
        card = info.card_data.to_dict() if info.card_data else {}
        files = tuple(
            RemoteFile(check_repo_path(s.rfilename), s.size, s.lfs.sha256 if s.lfs else None)
            for s in info.siblings or ()
        )
        licence = card.get("license")
        return Offer(
            ref=ref,
            source="hub",
            name=info.id or ref.name,
            revision=ref.revision or "main",
            commit=info.sha,
            files=files,
            licence=str(card.get("license_name") or licence) if licence else None,
            gated=bool(info.gated),
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
                    here += min(path.stat().st_size, file.size_bytes or 0)
                    break
        return here

    def fetch(
        self, offer: Offer, files: Sequence[RemoteFile], folder: Path, *, check: Check, sink: Sink
    ) -> list[Fetched]:
        """Bring files into the cache, each verified before it gets its name."""
        session = new_session()
        try:
            return [self._fetch_one(offer, file, check, sink, session) for file in files]
        except OSError as error:
            raise write_error(error, self._repo_folder(offer)) from error

    def _fetch_one(
        self, offer: Offer, file: RemoteFile, check: Check, sink: Sink, session: "requests.Session"
    ) -> Fetched:
        hub = _library()
        commit = offer.commit or offer.revision or "main"
        url = hub.hf_hub_url(offer.name, file.path, revision=commit)

        def ask() -> Any:
            with _translated(offer.ref, file.path):
                return hub.get_hf_file_metadata(url, token=None, timeout=10)

        metadata = _patiently(ask)
        etag = metadata.etag
        if not etag or not re.fullmatch(r"[A-Za-z0-9_.-]+", etag):
            raise Damaged(f"the Hub names no content hash for {file.path}")
        size = metadata.size if metadata.size is not None else file.size_bytes
        blob = self._repo_folder(offer) / "blobs" / etag
        locks = self.cache / ".locks" / blob.parent.parent.name
        blob.parent.mkdir(parents=True, exist_ok=True)
        locks.mkdir(parents=True, exist_ok=True)
        digest = _digest(file, etag)
        with hub.utils.WeakFileLock(locks / f"{etag}.lock"):
            sha256 = self._sha256_of_whole(blob, file, size) if blob.exists() else None
            if sha256 is None:
                partial = _partial(blob)
                transfer = Transfer(url, Path(file.path).name, size, digest, hub.utils.build_hf_headers())
                try:
                    sha256 = download(transfer, partial, sink=sink, session=session)
                except AccessDenied as error:
                    raise _gated(offer.ref) from error
                try:
                    check(partial, file.path)
                except OwmError:
                    discard(partial)
                    raise
                publish(partial, blob)
            else:
                check(blob, file.path)
        with _translated(offer.ref, file.path):
            pointer = Path(hub.hf_hub_download(offer.name, file.path, revision=commit, cache_dir=self.cache))
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
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit, "utf-8")

    def _repo_folder(self, offer: Offer) -> Path:
        return self.cache / ("models--" + offer.name.replace("/", "--"))


def remove_files(cache: Path, paths: Iterable[Path]) -> None:
    """Remove snapshot files from the cache; what other revisions use stays."""
    hub = _library()
    wanted = set(paths)
    info = hub.scan_cache_dir(cache)
    info.delete_files(
        *(file for repo in info.repos for rev in repo.revisions for file in rev.files if file.file_path in wanted)
    ).execute()


def _partial(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.owm.incomplete")


def _digest(file: RemoteFile, etag: str) -> Digest | None:
    if file.sha256:
        return Digest("sha256", file.sha256)
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        return Digest("sha256", etag)
    return Digest("git-sha1", etag) if re.fullmatch(r"[0-9a-f]{40}", etag) else None


def _library() -> Any:
    """Import the Hub library, silent and without telemetry (it reads both settings at import).

    Raises:
        UsageError: its settings cannot be used; it would print them, or fail where nobody expects it.
    """
    _check_settings()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import huggingface_hub
    from huggingface_hub import constants, utils  # noqa: F401

    return huggingface_hub


def _check_settings() -> None:
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not re.fullmatch(r"[!-~]+", endpoint):
        raise UsageError(
            "HF_ENDPOINT is not a web address: it must be http(s):// and a host",
            hint="unset HF_ENDPOINT to use https://huggingface.co",
        )
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if not re.fullmatch(r"[!-~]*", os.environ.get(name, "").strip(" ")):
            raise UsageError(
                f"{name} is not a token: it holds a line break or other characters that no token has",
                hint=f"set {name} again, without quotes or line breaks, or unset it",
            )


def _host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]


def is_offline() -> bool:
    """Tell whether the library is told to leave the network alone (`HF_HUB_OFFLINE`)."""
    _library()
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def ask_whether_there(seconds: float) -> str:
    """Send the Hub one HEAD request; return its host and how it answered.

    Raises:
        SourceUnreachable: it did not answer, or the library is offline.
        UsageError: the settings of the library cannot be used.
    """
    library = _library()
    import httpx2
    from huggingface_hub import constants, errors

    def ask() -> str:
        try:
            answer = library.get_session().head(constants.ENDPOINT, timeout=seconds)
        except errors.OfflineModeIsEnabled as error:
            raise SourceUnreachable("offline mode is on, the Hub is not asked") from error
        except httpx2.TimeoutException as error:
            raise SourceUnreachable(f"{_host()} did not answer in {seconds:g} s") from error
        except httpx2.HTTPError as error:
            raise SourceUnreachable(f"{_host()} cannot be reached: {str(error) or type(error).__name__}") from error
        return f"{_host()} answered HTTP {answer.status_code}"

    return _within(2 * seconds, ask, f"{_host()} did not answer in {2 * seconds:g} s")


def _within(seconds: float, call: Callable[[], T], message: str) -> T:
    """Run a call that may hang where no timeout reaches (name lookup); give it up after `seconds`."""
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, name="owm-hub", daemon=True).start()
    try:
        answer, problem = answers.get(timeout=max(seconds, 0.05))
    except queue.Empty:
        raise SourceUnreachable(message) from None
    if problem is not None:
        raise problem
    return answer  # type: ignore[return-value]


def _patiently(call: Callable[[], T], *, until: float = float("inf")) -> T:
    """Repeat a request that the server asks to repeat (429, 5xx), a few times and not beyond `until`."""
    for attempt in range(_TRIES):
        try:
            return call()
        except _Busy as busy:
            wait = min(busy.wait_seconds if busy.wait_seconds is not None else FIRST_WAIT_SECONDS * 2**attempt, 30.0)
            if attempt == _TRIES - 1 or time.monotonic() + wait >= until:
                raise TransferFailed(str(busy), hint="the server is in trouble or busy, try again later") from busy
            time.sleep(wait)
    raise AssertionError("unreachable")


class _Busy(NetworkError):
    def __init__(self, message: str, wait_seconds: float | None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


def _gated(ref: ModelRef) -> AccessDenied:
    from huggingface_hub import constants, get_token

    page = f"{constants.ENDPOINT}/{ref.name}"
    login = "run `hf auth login` or set HF_TOKEN" if get_token() is None else "check that your token may read it"
    return AccessDenied(
        f"{ref.name} is gated: its licence must be accepted first", hint=f"accept it at {page}, then {login}"
    )


@contextmanager
def _translated(ref: ModelRef, file: str | None = None) -> "Iterator[None]":
    """Turn the Hub library's errors into owm's."""
    import httpx2
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise _gated(ref) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(
            f"{ref.name} has no revision {ref.revision}",
            ref=str(ref),
            hint="without `@REVISION` the main branch is taken",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"no repo {ref.name} on {_host()}, or it is private",
            ref=str(ref),
            hint="check the spelling; for a private repo run `hf auth login` or set HF_TOKEN",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise SourceUnreachable(
            f"{_host()} cannot be reached any more", hint="run the same command again, what arrived is kept"
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelNotFound(
            f"{ref.name} has no file {file}",
            ref=str(ref),
            hint="it may have been removed just now; run the same command again",
        ) from error
    except errors.HFValidationError as error:
        raise ModelNotFound(
            f"not the name of a Hub repo: {ref.name}", ref=str(ref), hint="a Hub repo is written `owner/repo`"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise SourceUnreachable(
            "offline mode is on, the Hub is not asked", hint="unset HF_HUB_OFFLINE, or name a stored model"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise AccessDenied(
                f"{_host()} refuses access to {ref.name} (HTTP {status})",
                hint=f"see {constants.ENDPOINT}/{ref.name}; log in with `hf auth login` or set HF_TOKEN",
            ) from error
        if status == 429 or status >= 500:
            wait = error.response.headers.get("Retry-After", "")
            raise _Busy(f"{_host()} answered HTTP {status}", float(wait) if wait.isdigit() else None) from error
        raise TransferFailed(f"{_host()} answered HTTP {status} for {ref.name}") from error
    except httpx2.TimeoutException as error:
        raise SourceUnreachable(f"{_host()} did not answer in time") from error
    except httpx2.ProxyError as error:
        raise SourceUnreachable(f"the proxy refuses to connect to {_host()}") from error
    except (httpx2.TransportError, errors.FileMetadataError) as error:
        raise SourceUnreachable(f"{_host()} cannot be reached") from error
    except httpx2.InvalidURL as error:
        raise SourceUnreachable(f"{_host()} is not an address that can be asked") from error
    except OSError as error:
        # The library wraps some answers of a proxy or a captive portal in plain OSErrors; disk errors pass through.
        if error.errno is not None:
            raise
        raise SourceUnreachable(f"{_host()} does not answer like a Hub") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # the library believes what it is sent
        raise SourceUnreachable(f"{_host()} does not answer like a Hub") from error
