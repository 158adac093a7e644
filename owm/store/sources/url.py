"""A GGUF at a web address. Plain http is taken from this machine only: nothing vouches for what it brings.

An address of one part of several means all of them. Mirrors are other addresses of the same file; they may be slower,
gone or wrong, so a file that comes from one of them is taken only if it is known to be the same.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from owm.errors import AccessDenied, ModelNotFound, NetworkError, TransferFailed, UsageError
from owm.events import Sink
from owm.store.download import Digest, Transfer, read_range, write_error
from owm.store.limits import DEFAULT, Limits
from owm.store.names import safe_gguf_name
from owm.store.refs import ModelRef, hash_of
from owm.store.same import FindSame, nothing
from owm.store.sources.asking import LOOPBACK, ask, host_of
from owm.store.sources.base import Check, Fetched, Offer, RemoteFile
from owm.store.sources.placing import bytes_here, place

MAX_PARTS = 400
_NO_HEAD = (405, 501)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class UrlFile(RemoteFile):
    """A file with the addresses at which it is; they may hold a secret."""

    addresses: tuple[str, ...] = field(default=(), repr=False)


class UrlSource:
    """Files at https addresses, kept in owm's own tree."""

    def __init__(self, same: FindSame = nothing) -> None:
        self.same = same

    def offer(self, ref: ModelRef, *, deadline: float) -> Offer:
        """Ask for the headers of the address; a server that knows no HEAD is asked again by the download."""
        until = time.monotonic() + deadline
        parts = urlsplit(ref.name)
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise UsageError(f"plain http is not taken: {ref.name}", hint="use the https address")
        name = PurePosixPath(unquote(parts.path)).name
        if not name.lower().endswith(".gguf"):
            raise ModelNotFound(
                f"the address names no .gguf file: {ref.name}",
                ref=ref.name,
                hint="give the address of the file itself",
            )
        addresses = (_address(ref), *ref.mirrors)
        files = []
        for each, at in _parts(ref, name, addresses):
            size, validator = _size_and_validator(ref, each, at, until)
            files.append(UrlFile(safe_gguf_name(each), size, ref.sha256, at, validator=validator))
        stem = PurePosixPath(safe_gguf_name(name)).stem
        host = parts.hostname or ""
        return Offer(ref, "url", f"{host}/{stem}", None, ref.revision or hash_of(ref.name), tuple(files))

    def free_space_folder(self, offer: Offer, folder: Path) -> Path:
        """The store's own disk must have the room."""
        return folder

    def partial_bytes(self, offer: Offer, files: Sequence[RemoteFile], folder: Path) -> int:
        """Count what an earlier download left."""
        return bytes_here(((file, folder / file.path) for file in files), self.same)

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
        """Download into `folder`."""
        try:
            return [
                place(
                    _transfer(offer, file),
                    folder / file.path,
                    name=file.path,
                    check=check,
                    sink=sink,
                    limits=limits,
                    same=self.same,
                )
                for file in files
            ]
        except OSError as error:
            raise write_error(error, folder / "file") from error

    def read(self, offer: Offer, file: RemoteFile, begin: int, n_bytes: int) -> bytes:
        """Ask the address for a part."""
        return read_range(_transfer(offer, file), begin, n_bytes)


def _transfer(offer: Offer, file: RemoteFile) -> Transfer:
    addresses = file.addresses if isinstance(file, UrlFile) else (_address(offer.ref), *offer.ref.mirrors)
    digest = Digest("sha256", file.sha256) if file.sha256 else None
    return Transfer(addresses[0], file.path, file.size_bytes, digest, mirrors=addresses[1:])


def _parts(ref: ModelRef, name: str, addresses: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the names of all parts of a model, each with its addresses; most models are one."""
    shard = _SHARD.search(name)
    count = int(shard[2]) if shard else 1
    # The query of an address is often a signature of this one part.
    at = [(address, found) for address in addresses if (found := _SHARD.search(address))]
    if not 1 < count <= MAX_PARTS or ref.query is not None or not at:
        return [(name, addresses)]
    if ref.sha256 is not None:
        raise UsageError(f"a sha256 is of one file, and {name} is one of {count}", hint="leave it out")
    numbers = [f"-{i:05d}-of-{count:05d}" for i in range(1, count + 1)]
    return [
        (
            _SHARD.sub(number, name),
            tuple(address[: found.start()] + number + address[found.end() :] for address, found in at),
        )
        for number in numbers
    ]


def _size_and_validator(
    ref: ModelRef, name: str, addresses: Sequence[str], until: float
) -> tuple[int | None, str | None]:
    """Ask for the size and the ETag where the file is first found.

    Raises:
        What the first address said, if none has it.
    """
    problem: NetworkError | ModelNotFound | None = None
    for address in addresses:
        try:
            return _ask_at(ref, name, address, until)
        except (NetworkError, ModelNotFound) as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _ask_at(ref: ModelRef, name: str, address: str, until: float) -> tuple[int | None, str | None]:
    host = host_of(address)
    answer = ask(address, until=until, method="HEAD", accepts=_NO_HEAD)
    if answer.status in (404, 410):
        raise ModelNotFound(f"{host} has no {name} (HTTP {answer.status})", ref=ref.name, hint="check the address")
    if answer.status in (401, 403):
        if ref.query is None or not _can_be_read(address, until):
            raise AccessDenied(f"{host} refuses {name} (HTTP {answer.status})", hint="the address may have expired")
        return None, None
    if answer.status >= 400 and answer.status not in _NO_HEAD:
        raise TransferFailed(f"{host} answered HTTP {answer.status}", hint="try again later")
    if answer.headers.get("content-type", "").lower().startswith("text/html") and answer.status == 200:
        raise ModelNotFound(
            f"{host} answers with a web page, not with {name}",
            ref=ref.name,
            hint="open the address in a browser: it may ask you to log in, or be a page about the file",
        )
    length = answer.headers.get("content-length", "") if answer.status == 200 else ""
    etag = answer.headers.get("etag", "") if answer.status == 200 else ""
    validator = etag if re.fullmatch(r'"[!#-~]{1,200}"', etag) else None  # a weak one says nothing of the bytes
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None, validator


def _can_be_read(address: str, until: float) -> bool:
    """Tell whether an address gives its first byte: a signed one is often signed for that only, not for its headers."""
    answer = ask(address, until=until, headers={"Range": "bytes=0-0"}, wants_body=False)
    return answer.status in (200, 206)


def _address(ref: ModelRef) -> str:
    """Return the whole address to ask; its query is known only to the command that was given it."""
    if ref.revision and ref.query is None:
        raise UsageError(
            f"the query of this address is not kept, as it may hold a secret: {ref.name}",
            hint="give the whole address again",
        )
    return ref.name if ref.query is None else f"{ref.name}?{ref.query}"
