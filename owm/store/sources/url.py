"""A GGUF at a web address. Plain http is taken from this machine only: nothing vouches for what it brings."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from owm.errors import AccessDenied, ModelNotFound, OwmError, SourceUnreachable, TransferFailed, UsageError
from owm.events import Sink
from owm.store.download import Transfer, discard, download, new_session, publish, write_error
from owm.store.names import safe_gguf_name
from owm.store.refs import ModelRef, hash_of
from owm.store.sources.base import Check, Fetched, Offer, RemoteFile

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class UrlSource:
    """Single files at https addresses, kept in owm's own tree."""

    def offer(self, ref: ModelRef, *, deadline: float) -> Offer:
        """Ask for the headers of the address; a server that knows no HEAD is asked again by the download."""
        import requests

        parts = urlsplit(ref.name)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise UsageError(f"plain http is not taken: {ref.name}", hint="use the https address")
        name = PurePosixPath(unquote(parts.path)).name
        if not name.lower().endswith(".gguf"):
            raise ModelNotFound(
                f"the address names no .gguf file: {ref.name}",
                ref=ref.name,
                hint="give the address of the file itself",
            )
        host = parts.hostname or ""
        address = _address(ref)
        try:
            response = new_session().head(address, timeout=deadline, allow_redirects=True)
        except (requests.exceptions.RequestException, ValueError) as error:
            raise SourceUnreachable(f"{host} cannot be reached", hint="check the address and the network") from error
        if response.status_code in (404, 410):
            raise ModelNotFound(
                f"{host} has no {name} (HTTP {response.status_code})", ref=ref.name, hint="check the address"
            )
        if response.status_code in (401, 403):
            raise AccessDenied(
                f"{host} refuses {name} (HTTP {response.status_code})", hint="the address may have expired"
            )
        if response.status_code >= 400 and response.status_code not in (405, 501):
            raise TransferFailed(f"{host} answered HTTP {response.status_code}", hint="try again later")
        length = response.headers.get("Content-Length", "") if response.status_code == 200 else ""
        file = RemoteFile(safe_gguf_name(name), int(length) if length.isdigit() else None)
        stem = PurePosixPath(file.path).stem
        return Offer(ref, "url", f"{host}/{stem}", None, ref.revision or hash_of(ref.name), (file,))

    def free_space_folder(self, offer: Offer, folder: Path) -> Path:
        """The store's own disk must have the room."""
        return folder

    def partial_bytes(self, offer: Offer, files: Sequence[RemoteFile], folder: Path) -> int:
        """Count what an earlier download left."""
        partials = [_partial(folder, file) for file in files]
        return sum(partial.stat().st_size for partial in partials if partial.exists())

    def fetch(
        self, offer: Offer, files: Sequence[RemoteFile], folder: Path, *, check: Check, sink: Sink
    ) -> list[Fetched]:
        """Download into `folder`."""
        try:
            return [self._fetch_one(offer, file, folder, check, sink) for file in files]
        except OSError as error:
            raise write_error(error, folder / "file") from error

    def _fetch_one(self, offer: Offer, file: RemoteFile, folder: Path, check: Check, sink: Sink) -> Fetched:
        partial = _partial(folder, file)
        sha256 = download(Transfer(_address(offer.ref), file.path, file.size_bytes), partial, sink=sink)
        try:
            check(partial, file.path)
        except OwmError:
            discard(partial)
            raise
        path = folder / file.path
        publish(partial, path)
        return Fetched(path, path.stat().st_size, sha256)


def _address(ref: ModelRef) -> str:
    """Return the whole address to ask; its query is known only to the command that was given it."""
    if ref.revision and ref.query is None:
        raise UsageError(
            f"the query of this address is not kept, as it may hold a secret: {ref.name}",
            hint="give the whole address again",
        )
    return ref.name if ref.query is None else f"{ref.name}?{ref.query}"


def _partial(folder: Path, file: RemoteFile) -> Path:
    return folder / f"{file.path}.incomplete"
