"""The one download engine: a ranged HTTP transfer that resumes, verifies while it streams, and never publishes.

The bytes go to a partial file (`*.incomplete`); whoever asked calls `publish` when `download` has returned. A killed
process leaves the partial file, and the next call goes on from its end. Knows nothing of any source's routes.
"""

import email.utils
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from owm.errors import (
    AccessDenied,
    ChecksumMismatch,
    Damaged,
    ModelNotFound,
    NetworkError,
    NotEnoughDisk,
    SourceUnreachable,
    StoreError,
    TransferFailed,
)
from owm.events import Advanced, Finished, Sink, Started, Warned, ignore
from owm.publishing import sync_folder
from owm.units import format_bytes

if TYPE_CHECKING:
    import requests

CHUNK_BYTES = 1 << 20
CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0
MAX_TRIES = 6  # in a row that come no further than one before them
FIRST_WAIT_SECONDS = 0.2  # before the second try, doubled for each further one
MAX_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Digest:
    """An expected content: a plain sha256, or git's blob hash (sha1 over `blob SIZE\\0` and the content)."""

    algorithm: Literal["sha256", "git-sha1"]
    hex: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """One file to bring. The address and the headers may hold a token and are kept out of every message."""

    url: str = field(repr=False)
    label: str
    size_bytes: int | None = None
    digest: Digest | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> object: ...
    def hexdigest(self) -> str: ...


def new_session() -> "requests.Session":
    """Return an HTTP session that honours proxies and certificate settings of the environment, but no `.netrc`."""
    import requests

    class _NoNetrc(requests.auth.AuthBase):
        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            return request

    class _Session(requests.Session):
        def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
            # The token goes to its own host only, and a redirect gets none from .netrc instead.
            if urlsplit(str(response.request.url))[:2] != urlsplit(str(prepared_request.url))[:2]:
                prepared_request.headers.pop("Authorization", None)

        def get_redirect_target(self, resp: requests.Response) -> str | None:
            target = super().get_redirect_target(resp)
            if target and resp.url.lower().startswith("https:") and target.lower().startswith("http:"):
                raise requests.exceptions.InvalidSchema("a redirect from https to plain http is not followed")
            return target

    from owm import __version__

    session = _Session()
    session.auth = _NoNetrc()  # otherwise a .netrc entry replaces the token that we send
    session.headers["User-Agent"] = f"owm/{__version__}"
    session.headers["Accept-Encoding"] = "identity"
    return session


def download(
    transfer: Transfer, partial: Path, *, sink: Sink = ignore, session: "requests.Session | None" = None
) -> str:
    """Bring a file's bytes into `partial`, whole, verified and fsynced; return their sha256.

    Raises:
        SourceUnreachable, TransferFailed: the partial file stays for the next try.
        AccessDenied, ModelNotFound: the server said no.
        ChecksumMismatch, Damaged: the content is wrong; the partial file is removed.
        NotEnoughDisk: the disk is full; the partial file stays.
    """
    began = time.monotonic()
    session = session or new_session()
    resumed = partial.exists() and partial.stat().st_size > 0
    try:
        sha256 = _Download(transfer, partial, sink, session).run()
    except (ChecksumMismatch, Damaged):
        discard(partial)
        if not resumed:
            raise
        sink(Warned(transfer.label, f"what an earlier download left of {transfer.label} was damaged, starting again"))
        try:
            sha256 = _Download(transfer, partial, sink, session).run()
        except (ChecksumMismatch, Damaged):
            discard(partial)
            raise
    except OSError as error:
        raise write_error(error, partial) from error
    sink(Finished(transfer.label, time.monotonic() - began))
    return sha256


def publish(partial: Path, path: Path) -> None:
    """Give a downloaded file its final name, in one step that survives a power cut."""
    os.replace(partial, path)
    state_path(partial).unlink(missing_ok=True)
    sync_folder(path.parent)


def discard(partial: Path) -> None:
    """Remove a partial file and what is noted about it."""
    partial.unlink(missing_ok=True)
    state_path(partial).unlink(missing_ok=True)


def state_path(partial: Path) -> Path:
    """Return where the validator (ETag) of a partial file is noted."""
    return partial.with_name(partial.name + ".json")


def write_error(error: OSError, path: Path) -> NotEnoughDisk | StoreError:
    """Translate a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(path.parent).free
        if error.errno == errno.ENOSPC and _is_out_of_inodes(path.parent):
            return NotEnoughDisk(
                f"the disk has no room for another file: {path.parent} (bytes are free, inodes are not)",
                needed=free + 1,
                free=free,
                hint="remove some files (many small ones count most) and run the same command again",
            )
        return NotEnoughDisk(
            f"the disk is full: {path.parent} ({format_bytes(free)} free)",
            needed=free + 1,
            free=free,
            hint="free some space and run the same command again, it goes on from where it stopped",
        )
    return StoreError(
        f"cannot write to {path.parent}: {error.strerror or error}",
        hint="the store's place is set by OWM_HOME, the Hub cache's by HF_HOME",
    )


def _is_out_of_inodes(folder: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return False
    counted = os.statvfs(folder)
    return counted.f_files > 0 and counted.f_favail == 0


class _Download:
    """The state of one running transfer."""

    def __init__(self, transfer: Transfer, partial: Path, sink: Sink, session: "requests.Session") -> None:
        self.transfer = transfer
        self.partial = partial
        self.sink = sink
        self.session = session
        self.size = transfer.size_bytes
        self.validator: str | None = None
        self.done = 0
        self.reported = 0

    def run(self) -> str:
        self._read_state()
        self.sink(Started(self.transfer.label, self.size, "bytes"))
        with open(self.partial, "ab+") as file:
            self._start_hashes()
            self._hash_what_is_there(file)
            tries = 0
            while self.size is None or self.done < self.size:
                furthest = self.reported
                try:
                    if self._one_request(file):
                        break
                    problem: NetworkError = TransferFailed(f"the connection to {self._host()} broke off")
                except (TransferFailed, SourceUnreachable) as error:
                    problem = error
                tries = 1 if self.reported > furthest else tries + 1
                if tries >= MAX_TRIES:
                    raise TransferFailed(
                        f"{self.transfer.label} could not be fetched whole: {problem}",
                        hint=f"{format_bytes(self.done)} are kept, the same command goes on from there",
                    ) from problem
                time.sleep(
                    min(getattr(problem, "wait_seconds", FIRST_WAIT_SECONDS * 2 ** (tries - 1)), MAX_WAIT_SECONDS)
                )
            file.flush()
            os.fsync(file.fileno())
        return self._verify()

    def _read_state(self) -> None:
        """Take up the validator of an earlier try; without one, only a known digest makes resuming safe."""
        try:
            state = json.loads(state_path(self.partial).read_text("utf-8"))
            self.validator = state["validator"] if isinstance(state["validator"], str) else None
        except (OSError, ValueError, KeyError, TypeError):
            self.validator = None
        if self.validator is None and self.transfer.digest is None:
            self.partial.unlink(missing_ok=True)

    def _note_validator(self, validator: str | None) -> None:
        if validator != self.validator and self.transfer.digest is None:
            self.validator = validator
            state_path(self.partial).write_text(json.dumps({"validator": validator}), "utf-8")

    def _start_hashes(self) -> None:
        self.sha256: _Hasher = hashlib.sha256()
        self.git_sha1: _Hasher | None = None
        digest = self.transfer.digest
        if digest is not None and digest.algorithm == "git-sha1":
            self.git_sha1 = hashlib.sha1(b"blob %d\0" % (self.size or 0), usedforsecurity=False)

    def _hash_what_is_there(self, file: "_File") -> None:
        file.seek(0, os.SEEK_END)
        if self.size is not None and file.tell() > self.size:
            file.truncate(0)
        file.seek(0)
        self.done = 0
        while chunk := file.read(CHUNK_BYTES):
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        self.sha256.update(chunk)
        if self.git_sha1 is not None:
            self.git_sha1.update(chunk)
        self.done += len(chunk)
        if self.done > self.reported:
            self.reported = self.done
            self.sink(Advanced(self.transfer.label, self.done))

    def _restart(self, file: "_File") -> None:
        file.truncate(0)
        self._start_hashes()
        self.done = 0

    def _one_request(self, file: "_File") -> bool:
        """Ask for the rest and take what comes; True when the body ended where it should."""
        import requests
        import urllib3

        headers = dict(self.transfer.headers)
        if self.done and self.transfer.digest is None and self.validator is None:
            self._restart(file)  # nothing would tell if the file has changed since
        if self.done:
            headers["Range"] = f"bytes={self.done}-"
            if self.validator is not None and self.transfer.digest is None:
                headers["If-Range"] = self.validator
        try:
            response = self.session.get(
                self.transfer.url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, STALL_SECONDS)
            )
        except requests.exceptions.ProxyError as error:
            raise SourceUnreachable(f"the proxy refuses to connect to {self._host()}") from error
        except (ValueError, requests.exceptions.TooManyRedirects) as error:  # InvalidURL and InvalidSchema among them
            raise ModelNotFound(
                f"cannot follow the address of {self.transfer.label}", ref=self.transfer.label
            ) from error
        except requests.exceptions.RequestException as error:
            raise SourceUnreachable(f"{self._host()} cannot be reached") from error
        with response:
            total = self._accept(response, file)
            start = self.done
            try:
                for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                    if total is not None and self.done + len(chunk) > total:
                        raise Damaged(f"the server sent more bytes of {self.transfer.label} than it announced")
                    file.write(chunk)
                    self._take(chunk)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                    raise
                file.flush()
                return False
            file.flush()
            # Without a length nothing tells a body that was cut from one that ended; the header check after it will.
            if total is None:
                announced = response.headers.get("Content-Length")
                return announced is None or self.done - start == int(announced)
            return self.done == total

    def _accept(self, response: "requests.Response", file: "_File") -> int | None:
        """Check a response's status and headers; return the whole file's size if it is known."""
        status = response.status_code
        if status == 416 and self.done:
            self._restart(file)
            raise TransferFailed(f"{self._host()} no longer has what was begun")
        if status in (401, 403):
            raise AccessDenied(
                f"{self._host()} refuses {self.transfer.label} (HTTP {status})",
                hint="the file may need a token, an accepted licence, or a fresh address",
            )
        if status in (404, 410):
            raise ModelNotFound(f"{self._host()} has no {self.transfer.label} (HTTP {status})", ref=self.transfer.label)
        if status not in (200, 206):
            raise _Retry(f"{self._host()} answered HTTP {status}", _wait_seconds(response))
        length = _int(response.headers.get("Content-Length"))
        etag = response.headers.get("ETag")
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        if status == 206:
            begin, total = _content_range(response.headers.get("Content-Range"))
            if begin != self.done:
                self._restart(file)
                raise TransferFailed(f"{self._host()} sent another part than was asked for")
            if self.transfer.digest is None and validator is not None and validator != self.validator:
                self._restart(file)
                raise TransferFailed(f"{self.transfer.label} has changed at {self._host()}")
        else:
            if self.done:
                self._restart(file)
            total = length
        self._note_validator(validator)
        if self.size is None:
            self.size = total
            if total is not None:
                self.sink(Started(self.transfer.label, total, "bytes"))
        elif total is not None and total != self.size:
            raise Damaged(f"{self.transfer.label} should be {self.size} bytes, the server has {total}")
        return self.size

    def _verify(self) -> str:
        if self.size is not None and self.done != self.size:
            raise Damaged(f"{self.transfer.label} should be {self.size} bytes, {self.done} arrived")
        digest = self.transfer.digest
        if digest is not None:
            hasher = self.sha256 if digest.algorithm == "sha256" else self.git_sha1
            actual = hasher.hexdigest() if hasher is not None else ""
            if actual != digest.hex.lower():
                raise ChecksumMismatch(
                    f"{self.transfer.label} is damaged: its {digest.algorithm} is not the published one",
                    expected=digest.hex,
                    actual=actual,
                    hint="nothing was kept; try again, and if it happens again the source or a proxy is at fault",
                )
        return self.sha256.hexdigest()

    def _host(self) -> str:
        return urlsplit(self.transfer.url).hostname or "the server"


class _Retry(TransferFailed):
    """The server asks for patience."""

    def __init__(self, message: str, wait_seconds: float | None) -> None:
        super().__init__(message)
        if wait_seconds is not None:
            self.wait_seconds = wait_seconds


class _File(Protocol):
    def read(self, n: int, /) -> bytes: ...
    def write(self, data: bytes, /) -> int: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...
    def truncate(self, size: int, /) -> int: ...
    def flush(self) -> None: ...
    def fileno(self) -> int: ...


def _wait_seconds(response: "requests.Response") -> float | None:
    """Read Retry-After: seconds, or a date."""
    text = response.headers.get("Retry-After")
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _content_range(text: str | None) -> tuple[int, int | None]:
    """Read `bytes 5-9/10` as (5, 10); anything else as (-1, None)."""
    unit, _, rest = (text or "").partition(" ")
    span, _, total = rest.partition("/")
    begin = span.partition("-")[0]
    if unit != "bytes" or not begin.isdigit():
        return -1, None
    return int(begin), int(total) if total.isdigit() else None


def _int(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
