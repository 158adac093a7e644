"""A client of registries that speak the OCI distribution protocol: manifests, small blobs, and transfers of large ones.

Knows how to be let in (anonymous tokens, or a password from Docker's own config file) and nothing of what models are.
A token goes to the registry that it is for; whoever the registry redirects to gets none.
"""

import hashlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from owm.errors import AccessDenied, ChecksumMismatch, Damaged, ModelNotFound, NetworkError, UsageError
from owm.store.download import Digest, Transfer, read_range
from owm.store.registry_refs import DOCKER_HOST
from owm.store.sources.asking import MAX_BYTES, Answer, ask, host_of, is_loopback, within
from owm.store.sources.credentials import Credentials, credentials_for

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MAX_LAYERS = 10_000
MAX_SIZE = 1 << 50
_TOKEN_SECONDS = 60.0  # for which a token holds that says nothing of it
_ASK_SECONDS = 10.0  # for a new token while a download is under way


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob of a manifest, or one manifest of an index."""

    media_type: str
    digest: str
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hex(self) -> str:
        """The digest without its algorithm."""
        return self.digest.partition(":")[2]


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """A manifest or an index, checked as far as it is used. `digest` is the sha256 of its bytes."""

    digest: str
    media_type: str
    config: Layer | None
    layers: tuple[Layer, ...]
    manifests: tuple[Layer, ...]
    annotations: Mapping[str, str]


class Registry:
    """One repository at one registry.

    Args:
        base: scheme and host.
        name: what people call the registry, for messages and credentials.
    """

    def __init__(self, base: str, name: str, repository: str) -> None:
        self.base = base
        self.name = name
        self.repository = repository
        self._entry = _Entry(base, name, repository)
        self._is_known = False  # what it asks of those who want in

    def manifest(self, reference: str, accept: tuple[str, ...], *, until: float) -> RemoteManifest:
        """Ask for the manifest of a tag or of a digest.

        Raises:
            ModelNotFound, AccessDenied, SourceUnreachable, TransferFailed.
            Damaged, ChecksumMismatch: what came is no manifest, or another than was asked for.
        """
        answer = self._ask(f"manifests/{reference}", until, {"Accept": ", ".join(accept)})
        actual = hashlib.sha256(answer.body).hexdigest()
        announced = answer.headers.get("docker-content-digest", "")
        wanted = reference if ":" in reference else announced if announced.startswith("sha256:") else ""
        if wanted and wanted != f"sha256:{actual}":
            raise ChecksumMismatch(
                f"{self.name} sent another manifest of {self.repository} than it announced",
                expected=wanted.partition(":")[2],
                actual=actual,
                hint="try again; if it happens again the registry or a proxy is at fault",
            )
        return read_manifest(answer.json("a manifest"), actual, answer.headers.get("content-type", ""), self.name)

    def blob(self, layer: Layer, *, until: float, limit: int = MAX_BYTES) -> bytes:
        """Return a small blob, verified.

        Raises:
            As `manifest` does.
        """
        if layer.size_bytes > limit:
            raise Damaged(f"{self.name} has {layer.size_bytes} bytes where few are to be expected")
        body = self._ask(f"blobs/{layer.digest}", until, {}, limit=max(limit, 1)).body
        if (actual := hashlib.sha256(body).hexdigest()) != layer.hex:
            raise ChecksumMismatch(
                f"a part of {self.repository} at {self.name} is damaged", expected=layer.hex, actual=actual
            )
        return body

    def transfer(self, layer: Layer, label: str) -> Transfer:
        """Return how to bring a blob. Its headers are made anew for each request: tokens hold for minutes only."""
        url = self._url(f"blobs/{layer.digest}")
        if not self._is_known:
            until = time.monotonic() + _ASK_SECONDS
            answer = ask(url, until=until, method="HEAD")
            if answer.status == 401 and answer.host == host_of(url):
                self._entry.learn(answer, until)
            self._is_known = True
        return Transfer(url, label, layer.size_bytes, Digest("sha256", layer.hex), _Headers(self._entry))

    def part(self, layer: Layer, begin: int, n_bytes: int, *, until: float) -> bytes:
        """Read a part of a blob where it is, in time.

        Raises:
            As `read_range` does.
        """
        transfer = self.transfer(layer, self.repository)
        return within(
            until - time.monotonic(),
            lambda: read_range(transfer, begin, n_bytes),
            f"{self.name} did not answer in time",
        )

    def tags(self, *, until: float) -> list[str]:
        """Return the tags of the repository; none if the registry does not tell."""
        try:
            listed = self._ask("tags/list?n=200", until, {}, limit=1 << 20).json("a list of tags")
        except (NetworkError, ModelNotFound, Damaged):
            return []
        names = listed.get("tags") if isinstance(listed, dict) else None
        return (
            [name for name in names if isinstance(name, str) and re.fullmatch(r"[\w.-]{1,128}", name)][:200]
            if (isinstance(names, list))
            else []
        )

    def _url(self, rest: str) -> str:
        return f"{self.base}/v2/{self.repository}/{rest}"

    def _ask(self, rest: str, until: float, headers: Mapping[str, str], *, limit: int = MAX_BYTES) -> Answer:
        url = self._url(rest)
        answer = ask(url, until=until, headers={**headers, **self._entry.headers()}, limit=limit)
        self._is_known = True
        if answer.status == 401 and answer.host == host_of(url) and self._entry.learn(answer, until):
            answer = ask(url, until=until, headers={**headers, **self._entry.headers()}, limit=limit)
        if answer.status in (401, 403):
            raise self._entry.refusal(answer.status)
        if answer.status in (400, 404, 410):
            raise ModelNotFound(f"{self.name} has no {self.repository} of that name", ref=self.repository)
        if answer.status != 200:
            raise Damaged(f"{self.name} does not answer like a registry (HTTP {answer.status})")
        return answer


def registry_at(host: str, repository: str) -> Registry:
    """Return a repository at the registry of a name in a reference: by https, on this machine by http."""
    if host == DOCKER_HOST:
        return Registry("https://registry-1.docker.io", DOCKER_HOST, repository)
    return Registry(f"{'http' if is_loopback(f'http://{host}') else 'https'}://{host}", host, repository)


def checked_base(text: str, variable: str) -> str:
    """Return the address of a registry from a variable of the environment.

    Raises:
        UsageError: it is none, or plain http to another machine.
    """
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not re.fullmatch(r"[!-~]+", text) or "@" in text:
        raise UsageError(f"{variable} is not a web address: it must be http(s):// and a host", hint=f"unset {variable}")
    if text.lower().startswith("http:") and not is_loopback(text):
        raise UsageError(f"{variable} is plain http, which is taken from this machine only", hint="use https")
    return text.rstrip("/")


def read_manifest(stated: Any, digest: str, content_type: str, where: str) -> RemoteManifest:
    """Check what a registry calls a manifest.

    Raises:
        Damaged: it is none.
    """
    if not isinstance(stated, dict) or not {"layers", "manifests"} & set(stated):
        raise Damaged(f"{where} does not answer with a manifest, but with something else")
    media_type = stated.get("mediaType") or content_type.partition(";")[0].strip()
    return RemoteManifest(
        digest,
        media_type if isinstance(media_type, str) else "",
        _layer(stated["config"], where) if isinstance(stated.get("config"), dict) else None,
        _layers(stated.get("layers"), where),
        _layers(stated.get("manifests"), where),
        _texts(stated.get("annotations")),
    )


def _layers(stated: Any, where: str) -> tuple[Layer, ...]:
    if stated is None:
        return ()
    if not isinstance(stated, list) or len(stated) > MAX_LAYERS:
        raise Damaged(f"the manifest from {where} is not to be understood: its layers are no list, or too many")
    return tuple(_layer(each, where) for each in stated)


def _layer(stated: Any, where: str) -> Layer:
    if not isinstance(stated, dict):
        raise Damaged(f"the manifest from {where} is not to be understood: a layer is no object")
    digest, size = stated.get("digest"), stated.get("size")
    if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise Damaged(f"the manifest from {where} names a layer by something that is no sha256")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        raise Damaged(f"the manifest from {where} gives a layer a size that cannot be right")
    media_type, platform = stated.get("mediaType"), stated.get("platform")
    return Layer(
        media_type.lower() if isinstance(media_type, str) else "",
        digest,
        size,
        _texts(stated.get("annotations")),
        platform if isinstance(platform, dict) else {},
    )


def _texts(stated: Any) -> dict[str, str]:
    if not isinstance(stated, dict):
        return {}
    return {key: value for key, value in stated.items() if isinstance(value, str)}


class _Entry:
    """What lets one in: nothing, a password, or a token that is asked for where the registry says."""

    def __init__(self, base: str, name: str, repository: str) -> None:
        self.base = base
        self.name = name
        self.repository = repository
        self._credentials: Credentials | None = None
        self._stranger: str | None = None  # who would have had to be told the password
        self._value: str | None = None
        self._token_url: str | None = None
        self._stale_at = float("inf")
        self._lock = threading.Lock()

    def headers(self) -> dict[str, str]:
        """Return the headers that a request needs, with a token that still holds."""
        with self._lock:
            if self._token_url is not None and time.monotonic() >= self._stale_at:
                try:
                    self._fetch_token(time.monotonic() + _ASK_SECONDS)
                except NetworkError:  # the old one may hold yet, else the registry says what is wrong
                    self._stale_at = time.monotonic() + 1
            return {} if self._value is None else {"Authorization": self._value}

    def learn(self, answer: Answer, until: float) -> bool:
        """Do what a registry asks for that refused a request; False if there is nothing more to do."""
        challenge = answer.headers.get("www-authenticate", "")
        scheme = challenge.partition(" ")[0].lower()
        with self._lock:
            if self._value is not None and self._token_url is None:
                return False
            if self._credentials is None:
                self._credentials = credentials_for(
                    DOCKER_HOST if self.name == DOCKER_HOST else urlsplit(self.base).netloc
                )
            if scheme == "basic" and self._credentials.basic:
                self._value = self._credentials.basic
                return True
            if scheme != "bearer":
                return False
            asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
            self._token_url = self._token_address(asked)
            self._fetch_token(until)
            return True

    def refusal(self, status: int) -> AccessDenied:
        """Return the error for a registry that does not let one in."""
        host = self.name
        known = self._credentials or Credentials()
        if self._stranger is not None:
            hint = f"it asks for the password at {self._stranger}, which is not told that of {host}"
        elif known.helper:
            hint = f"its password is kept by docker-credential-{known.helper}, which owm does not run"
        elif known.password:
            hint = f"check that {known.user or 'the user'} of `docker login {host}` may read it"
        else:
            hint = f"check the name; if it is private, `docker login {host}` (or podman's, into ~/.docker/config.json)"
        return AccessDenied(f"{host} refuses {self.repository}, or has none of that name (HTTP {status})", hint=hint)

    def _token_address(self, asked: Mapping[str, str]) -> str:
        realm = asked.get("realm", "")
        is_safe = realm.lower().startswith("https://") or (is_loopback(realm) and is_loopback(self.base))
        try:
            is_safe = is_safe and bool(urlsplit(realm).hostname) and "@" not in realm
        except ValueError:
            is_safe = False
        if not is_safe:
            raise Damaged(f"{self.name} sends those who want in to a place that is not safe", hint="check the name")
        scope = asked.get("scope") or f"repository:{self.repository}:pull"
        query = {key: value for key, value in (("service", asked.get("service", "")), ("scope", scope)) if value}
        return f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"

    def _fetch_token(self, until: float) -> None:
        assert self._token_url is not None
        basic = self._password_for(self._token_url)
        headers = {"Authorization": basic} if basic else {}
        answer = ask(self._token_url, until=until, headers=headers, limit=1 << 18)
        if answer.status != 200:
            raise self.refusal(answer.status)
        stated = answer.json("a token")
        token = (stated.get("token") or stated.get("access_token")) if isinstance(stated, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise Damaged(f"{answer.host} does not answer with a token, but with something else")
        seconds = stated.get("expires_in")
        holds = float(seconds) if isinstance(seconds, int | float) and 0 < seconds < 1e6 else _TOKEN_SECONDS
        self._value = f"Bearer {token}"
        self._stale_at = time.monotonic() + 0.7 * holds

    def _password_for(self, url: str) -> str | None:
        """Return what a place for tokens may be told: at the registry's own host and in its domain its password."""
        host = host_of(url)
        if _is_of_domain(host, DOCKER_HOST if self.name == DOCKER_HOST else host_of(self.base)):
            return self._credentials.basic if self._credentials else None
        basic = credentials_for(urlsplit(url).netloc).basic  # where the user has logged in there, too
        self._stranger = host if basic is None and self._credentials and self._credentials.basic else None
        return basic


def _is_of_domain(host: str, registry: str) -> bool:
    """Tell whether one of two hosts is the other, or above it: `auth.docker.io` of `docker.io`."""
    shorter, longer = sorted((host, registry), key=len)
    return longer == shorter or ("." in shorter and longer.endswith(f".{shorter}"))


class _Headers(Mapping[str, str]):
    """The headers of the moment; a token in them is never shown."""

    def __init__(self, entry: _Entry) -> None:
        self._entry = entry

    def __getitem__(self, name: str) -> str:
        return self._entry.headers()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entry.headers())

    def __len__(self) -> int:
        return len(self._entry.headers())

    def __repr__(self) -> str:
        return "<headers>"
