"""The one download engine's door: a transfer that resumes, verifies while it streams, and never publishes.

The bytes go to a partial file (`*.incomplete`); whoever asked calls `publish` when `download` has returned. A killed
process leaves the partial file, and the next call goes on from there. Knows nothing of any source's routes. How it is
done is in `transfers/`.
"""

import errno
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from owm.errors import (
    ChecksumMismatch,
    Damaged,
    NetworkError,
    NotEnoughDisk,
    SourceUnreachable,
    StoreError,
    TransferFailed,
    Unsupported,
)
from owm.events import Finished, Sink, Warned, ignore
from owm.publishing import sync_folder
from owm.store.limits import DEFAULT, Limits
from owm.store.transfers import note
from owm.store.transfers.http import Busy, NoRanges, ask, host_of, is_same_host, new_session, read_head
from owm.store.transfers.transfer import Digest, Patience, Transfer
from owm.units import format_bytes

if TYPE_CHECKING:
    import requests

__all__ = [
    "Digest",
    "Transfer",
    "discard",
    "download",
    "new_session",
    "publish",
    "read_range",
    "state_path",
    "write_error",
]

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0
MAX_TRIES = 6  # in a row that come no further than one before them
FIRST_WAIT_SECONDS = 0.2  # before the second try, doubled for each further one
MAX_WAIT_SECONDS = 60.0
OUTAGE_SECONDS = 60.0  # that a network may be away in the midst of a transfer
MAX_SKIPPED_BYTES = 16 << 20  # that are read over to a part, from a server that gives no parts


def download(
    transfer: Transfer,
    partial: Path,
    *,
    sink: Sink = ignore,
    session: "requests.Session | None" = None,
    limits: Limits = DEFAULT,
) -> str:
    """Bring a file's bytes into `partial`, whole, verified and fsynced; return their sha256.

    What turns out to be damaged is removed and fetched once more, from another mirror if there is one.

    Raises:
        SourceUnreachable, TransferFailed: the partial file stays for the next try.
        AccessDenied, ModelNotFound: the server said no.
        ChecksumMismatch, Damaged: the content is wrong; the partial file is removed.
        NotEnoughDisk: the disk is full; the partial file stays.
    """
    from owm.store.transfers.assembly import Assembly

    began = time.monotonic()
    session = session or new_session()
    label = transfer.label

    def prepare(wanted: Transfer) -> Assembly:
        return Assembly(wanted, partial, sink=sink, session=session, limits=limits, patience=_patience())

    try:
        is_resumed = partial.exists() and partial.stat().st_size > 0
        whole = prepare(transfer)
        try:
            sha256 = whole.run()
        except Damaged as problem:
            discard(partial)
            if not (is_resumed or transfer.mirrors or isinstance(problem, ChecksumMismatch)):
                raise
            what = f"what an earlier download left of {label} was damaged, starting again"
            sink(Warned(label, what if is_resumed else f"{label} arrived damaged, fetching it once more"))
            again = [transfer] if is_resumed else _one_by_one(transfer, whole.used_urls)
            for index, wanted in enumerate(again, 1):
                try:
                    sha256 = prepare(wanted).run()
                    break
                except Damaged:
                    discard(partial)
                    if index == len(again):
                        raise
    except OSError as error:
        raise write_error(error, partial) from error
    sink(Finished(label, time.monotonic() - began))
    return sha256


def _one_by_one(transfer: Transfer, used_urls: set[str]) -> list[Transfer]:
    """Return transfers from one address each, at most two: first those that cannot alone have brought the damage."""
    urls = [transfer.url, *transfer.mirrors]
    if len(used_urls) == 1:
        urls.sort(key=lambda url: url in used_urls)
    return [
        replace(transfer, url=url, mirrors=(), headers=transfer.headers if is_same_host(url, transfer.url) else {})
        for url in urls[: 2 if len(used_urls) > 1 else 1]
    ]


def read_range(transfer: Transfer, begin: int, n_bytes: int, *, session: "requests.Session | None" = None) -> bytes:
    """Read a part of a remote file; fewer bytes come only at the end of the file.

    Raises:
        SourceUnreachable, TransferFailed, AccessDenied, ModelNotFound.
        Unsupported: the server gives whole files only, and the part lies too far into it.
    """
    if n_bytes <= 0:
        return b""
    session = session or new_session()
    patience = _patience()
    problem: NetworkError | None = None
    for n_tries in range(3):
        if problem is not None:
            asked = getattr(problem, "wait_seconds", None)
            time.sleep(min(patience.wait_after(n_tries) if asked is None else asked, 2.0))
        for url in (transfer.url, *transfer.mirrors):
            headers = transfer.headers if url == transfer.url else {}
            try:
                return _read_range(session, url, headers, transfer.label, begin, n_bytes)
            except _Retry as error:
                problem = error.problem
    assert problem is not None
    raise problem


class _Retry(Exception):
    def __init__(self, problem: NetworkError) -> None:
        super().__init__()
        self.problem = problem


def _read_range(
    session: "requests.Session", url: str, headers: Mapping[str, str], label: str, begin: int, n_bytes: int
) -> bytes:
    import urllib3

    from owm.store.transfers.watch import MIN_BYTES_PER_SECOND

    host = host_of(url)
    asked = {**headers, "Range": f"bytes={begin}-{begin + n_bytes - 1}"}
    began = time.monotonic()
    try:
        response = ask(session, url, asked, label, (CONNECT_SECONDS, STALL_SECONDS))
    except SourceUnreachable as error:
        raise _Retry(error) from None
    with response:
        try:
            head = read_head(response, label, host)
        except NoRanges:
            return b""  # there is nothing there
        except Busy as error:
            raise _Retry(error) from None
        n_skipped = begin - head.begin
        if n_skipped < 0 or (head.is_part and n_skipped):
            raise Unsupported(f"{host} sent another part of {label} than was asked for")
        if n_skipped > MAX_SKIPPED_BYTES:
            raise Unsupported(f"{host} gives no parts of {label}", hint="pull it, then ask again")
        body = bytearray()
        end = n_skipped + n_bytes if head.length is None else min(n_skipped + n_bytes, head.length)
        try:
            while len(body) < end and (chunk := response.raw.read1(end - len(body), decode_content=False)):
                body += chunk
                waited = time.monotonic() - began
                if waited > STALL_SECONDS and len(body) < MIN_BYTES_PER_SECOND * waited:
                    raise _Retry(TransferFailed(f"{host} sends next to nothing"))
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            raise _Retry(TransferFailed(f"the connection to {host} broke off")) from None
        if head.length is not None and len(body) < end:
            raise _Retry(TransferFailed(f"the connection to {host} broke off"))
        return bytes(body[n_skipped:end])


def publish(partial: Path, path: Path) -> None:
    """Give a downloaded file its final name, in one step that survives a power cut."""
    os.replace(partial, path)
    note.remove(partial)
    sync_folder(path.parent)


def discard(partial: Path) -> None:
    """Remove a partial file and what is noted about it."""
    partial.unlink(missing_ok=True)
    note.remove(partial)


def state_path(partial: Path) -> Path:
    """Return where is noted what is known of a partial file: its validator, and which parts of it are here."""
    return note.path_of(partial)


def _patience() -> Patience:
    return Patience(CONNECT_SECONDS, STALL_SECONDS, MAX_TRIES, FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS, OUTAGE_SECONDS)


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
