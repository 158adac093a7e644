"""ModelScope: repos of GGUF files, listed with their sha256 by its API and fetched from its resolve addresses.

`MODELSCOPE_DOMAIN` and `MODELSCOPE_API_TOKEN` mean what they mean to its own tools.
"""

import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from owm.errors import AccessDenied, Damaged, ModelNotFound, OwmError, Unsupported, UsageError
from owm.events import Sink
from owm.store import quants
from owm.store.download import Digest, Transfer, read_range, write_error
from owm.store.limits import DEFAULT, Limits
from owm.store.names import check_repo_path, safe_path
from owm.store.refs import ModelRef
from owm.store.same import FindSame, nothing
from owm.store.sources.asking import ask, host_of
from owm.store.sources.base import Check, Extra, Fetched, Offer, RemoteFile
from owm.store.sources.placing import bytes_here, place
from owm.store.sources.registry_client import checked_base

VARIABLE = "MODELSCOPE_DOMAIN"
TOKEN_VARIABLE = "MODELSCOPE_API_TOKEN"
DEFAULT_BRANCH = "master"
MAX_LISTING_BYTES = 32 << 20
MAX_CONFIG_BYTES = 1 << 16


class ModelScopeSource:
    """Repos of ModelScope, kept in owm's own tree."""

    def __init__(self, same: FindSame = nothing) -> None:
        self.same = same

    def offer(self, ref: ModelRef, *, deadline: float) -> Offer:
        """List a repo at a revision."""
        until = time.monotonic() + deadline
        revision = ref.revision or DEFAULT_BRANCH
        listing = _listing(ref, revision, until)
        files = _files(listing)
        models = [file for file in files if file.path.lower().endswith(".gguf")]
        if not models and any(file.path.endswith(".safetensors") for file in files):
            raise Unsupported(
                f"{ref.name} at ModelScope has original weights only, which owm takes from the Hub",
                hint=f"`owm pull {ref.name}` looks for the same repo there",
            )
        config = next((file for file in files if file.path == "generation_config.json"), None)
        has_config = config is not None and 0 < (config.size_bytes or 0) <= MAX_CONFIG_BYTES
        return Offer(
            ref,
            "modelscope",
            ref.name,
            revision,
            _commit(listing, files),
            # Without its config.json a repo is not taken for one of original weights.
            tuple(file for file in files if file.path != "config.json"),
            licence=_licence(ref, revision, until),
            extras=(Extra(config, "generation_config"),) if config is not None and has_config and models else (),
        )

    def free_space_folder(self, offer: Offer, folder: Path) -> Path:
        """The store's own disk must have the room."""
        return folder

    def partial_bytes(self, offer: Offer, files: Sequence[RemoteFile], folder: Path) -> int:
        """Count what an earlier download left, and what the store has under another name."""
        return bytes_here(((file, _path(folder, file)) for file in files), self.same)

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
                    _path(folder, file),
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
        except AccessDenied as error:
            raise _refusal(offer.ref) from error

    def read(self, offer: Offer, file: RemoteFile, begin: int, n_bytes: int) -> bytes:
        """Ask ModelScope, or the host it redirects to, for a part."""
        try:
            return read_range(_transfer(offer, file), begin, n_bytes)
        except AccessDenied as error:
            raise _refusal(offer.ref) from error


def _path(folder: Path, file: RemoteFile) -> Path:
    return folder / safe_path(file.path)


def _endpoint() -> str:
    stated = os.environ.get(VARIABLE) or "www.modelscope.cn"
    return checked_base(stated if "://" in stated else f"https://{stated}", VARIABLE)


def _headers() -> dict[str, str]:
    """Return what a private repo needs. It goes to ModelScope only: both are dropped where it redirects."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        return {}
    if not re.fullmatch(r"[!-~]+", token) or ";" in token:
        raise UsageError(
            f"{TOKEN_VARIABLE} is not a token: it holds a line break or other characters that no token has",
            hint=f"set {TOKEN_VARIABLE} again, or unset it",
        )
    return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"}


def _transfer(offer: Offer, file: RemoteFile) -> Transfer:
    revision = quote(offer.revision or DEFAULT_BRANCH, safe="")
    url = f"{_endpoint()}/models/{offer.name}/resolve/{revision}/{quote(file.path)}"
    digest = Digest("sha256", file.sha256) if file.sha256 else None
    return Transfer(url, PurePosixPath(file.path).name, file.size_bytes, digest, _headers())


def _listing(ref: ModelRef, revision: str, until: float) -> Mapping[str, Any]:
    url = f"{_endpoint()}/api/v1/models/{ref.name}/repo/files?Revision={quote(revision, safe='')}&Recursive=true&Root="
    answer = ask(url, until=until, headers=_headers(), limit=MAX_LISTING_BYTES)
    if answer.status in (401, 403):
        raise _refusal(ref)
    if answer.status in (400, 404, 410):
        at = f" at {revision}" if ref.revision else ""
        raise ModelNotFound(
            f"no repo {ref.name}{at} on {host_of(url)}, or it is private",
            ref=str(ref),
            hint=f"check the spelling; for a private repo set {TOKEN_VARIABLE}",
        )
    if answer.status != 200:
        raise Damaged(f"{answer.host} does not answer like ModelScope (HTTP {answer.status})")
    stated = answer.json("a list of files")
    found = stated.get("Data") if isinstance(stated, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("Files"), list):
        raise Damaged(f"{answer.host} does not answer with a list of files, but with something else")
    return found


def _files(listing: Mapping[str, Any]) -> list[RemoteFile]:
    files = []
    for each in listing["Files"]:
        if not isinstance(each, dict) or each.get("Type") == "tree":
            continue
        path, size, sha256 = each.get("Path"), each.get("Size"), each.get("Sha256")
        if not isinstance(path, str):
            raise Damaged("ModelScope lists a file without a path")
        is_hash = isinstance(sha256, str) and re.fullmatch(r"[0-9a-fA-F]{64}", sha256)
        if path.lower().endswith(".gguf") and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
            raise Damaged(f"ModelScope lists {path!r} with a size that cannot be right")
        files.append(
            RemoteFile(
                check_repo_path(path),
                size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
                str(sha256).lower() if is_hash else None,
            )
        )
    return files


def _commit(listing: Mapping[str, Any], files: Sequence[RemoteFile]) -> str:
    """Return the commit that the listing is of; where it is not told, a hash of what the models are."""
    latest = listing.get("LatestCommitter")
    commit = latest.get("Id") if isinstance(latest, dict) else None
    if isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40}", commit):
        return commit
    models = [(file.path, file.size_bytes, file.sha256) for file in files if quants.is_model_file(file.path)]
    models.sort(key=repr)  # what is not known of one is no number and no text
    return hashlib.sha256(repr(models).encode()).hexdigest()[:40]


def _licence(ref: ModelRef, revision: str, until: float) -> str | None:
    """Ask for the licence; a listing that says nothing of it is whole without."""
    url = f"{_endpoint()}/api/v1/models/{ref.name}?Revision={quote(revision, safe='')}"
    try:
        answer = ask(url, until=min(until, time.monotonic() + 3), headers=_headers())
        stated = answer.json("a model") if answer.status == 200 else {}
    except OwmError:
        return None
    found = stated.get("Data") if isinstance(stated, dict) else None
    licence = found.get("License") if isinstance(found, dict) else None
    if not isinstance(licence, str) or not 0 < len(licence) <= 120:
        return None
    return {"apache license 2.0": "apache-2.0", "mit license": "mit"}.get(licence.lower(), licence)


def _refusal(ref: ModelRef) -> AccessDenied:
    is_known = bool(os.environ.get(TOKEN_VARIABLE))
    return AccessDenied(
        f"ModelScope refuses access to {ref.name}",
        hint="check that your token may read it" if is_known else f"set {TOKEN_VARIABLE} to a token of yours",
    )
