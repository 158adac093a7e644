"""Registries for tests: Debian's real docker-registry as a process, and a server of our own that asks for tokens.

Where docker-registry is not to be had, the server of our own stands in for it; one test tells so by being skipped.

`push` publishes to either with plain requests. The server of our own redirects blobs to another host (`localhost`,
while it is `127.0.0.1` itself), records every request, and misbehaves on request.
"""

import base64
import hashlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from support.run import ROOT

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OLLAMA = "application/vnd.ollama.image"
PASSWORD_HASH = "$2y$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8."  # bcrypt of hunter2


@dataclass(frozen=True, slots=True)
class Blob:
    """Content with a media type, as a layer of a manifest."""

    media_type: str
    content: bytes = field(repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """How a manifest names it."""
        return digest_of(self.content)

    @property
    def descriptor(self) -> dict[str, Any]:
        """How a manifest lists it."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content)}
        return found | ({"annotations": dict(self.annotations)} if self.annotations else {})


def digest_of(content: bytes) -> str:
    """Return the digest of a blob or a manifest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def manifest_of(
    layers: Sequence[Blob], config: Blob, *, media_type: str = OCI_MANIFEST, **more: Any
) -> tuple[str, bytes]:
    """Return the media type and the bytes of a manifest."""
    stated = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config.descriptor,
        "layers": [layer.descriptor for layer in layers],
    }
    return media_type, json.dumps(stated | more).encode()


def json_blob(media_type: str, stated: Any) -> Blob:
    """Return JSON as a blob."""
    return Blob(media_type, json.dumps(stated).encode())


def ollama_model(gguf: bytes, *layers: Blob, **config: Any) -> tuple[tuple[str, bytes], list[Blob]]:
    """Return the manifest of a model as Ollama publishes it, and its blobs."""
    stated = {"model_format": "gguf", "model_family": "llama", "model_type": "1M", "file_type": "Q8_0"} | config
    config_blob = json_blob("application/vnd.docker.container.image.v1+json", stated)
    every = [Blob(f"{OLLAMA}.model", gguf), *layers] if gguf else list(layers)
    return manifest_of(every, config_blob, media_type=DOCKER_MANIFEST), [config_blob, *every]


def push(
    base: str,
    repository: str,
    tag: str,
    manifest: tuple[str, bytes],
    blobs: Sequence[Blob],
    auth: tuple[str, str] | None = None,
) -> str:
    """Publish a manifest and its blobs with plain requests; return the manifest's digest."""
    with requests.Session() as session:
        session.auth = auth
        for blob in blobs:
            begun = session.post(f"{base}/v2/{repository}/blobs/uploads/")
            begun.raise_for_status()
            mark = "&" if "?" in begun.headers["Location"] else "?"
            session.put(
                f"{begun.headers['Location']}{mark}digest={blob.digest}",
                data=blob.content,
                headers={"Content-Type": "application/octet-stream"},
            ).raise_for_status()
        media_type, body = manifest
        done = session.put(f"{base}/v2/{repository}/manifests/{tag}", data=body, headers={"Content-Type": media_type})
        done.raise_for_status()
        return done.headers["Docker-Content-Digest"]


@cache
def registry_program() -> str | None:
    """Return the path of docker-registry, None if it is not to be had; see scripts/lib/registry."""
    try:
        found = subprocess.run(
            [str(ROOT / "scripts/lib/registry")], check=True, stdout=subprocess.PIPE, text=True, timeout=60
        )
    except subprocess.SubprocessError:
        return None
    return found.stdout.strip()


@contextmanager
def docker_registry(folder: Path, *, password: bool = False) -> Iterator[str]:
    """Run the real docker-registry, or what stands in for it; give its address.

    With `password` only user `me`, `hunter2` is let in.
    """
    program = registry_program()
    if program is None:
        with RegistryServer(password=("me", "hunter2") if password else None) as server:
            yield server.base
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(f"me:{PASSWORD_HASH}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    auth = f"auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}\n" if password else ""
    (folder / "config.yml").write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n{auth}"
    )
    process = subprocess.Popen(
        [program, "serve", str(folder / "config.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "OTEL_TRACES_EXPORTER": "none"},
    )
    base = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 20
        while True:
            try:
                requests.get(f"{base}/v2/", timeout=1).close()
                break
            except requests.exceptions.ConnectionError:
                assert process.poll() is None, "docker-registry did not start"
                assert time.monotonic() < until, "docker-registry does not answer"
                time.sleep(0.02)
        yield base
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived; `server` is registry, token or cdn."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]


class RegistryServer:
    """A registry of our own; use as a context manager. What it holds and how it errs may be changed while it runs."""

    def __init__(
        self,
        *,
        needs_token: bool = False,
        user: tuple[str, str] | None = None,
        password: tuple[str, str] | None = None,
    ) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.needs_token = needs_token
        self.user = user  # only who gives this name and password gets a token
        self.basic = f"Basic {base64.b64encode(':'.join(password).encode()).decode()}" if password else None
        self.token_seconds = 300
        self.valid_uses: int | None = None  # requests for which a token is good
        self.realm: str | None = None  # sends elsewhere for tokens
        self.announced: dict[str, str] = {}  # digest headers of manifests by tag, instead of the true ones
        self.damaged: dict[str, bytes] = {}  # content of blobs, instead of the true one
        self.cut_after: int | None = None  # closes the connection of the next blob after so many bytes
        self.busy = 0  # requests to be answered with 429
        self.seen: list[Seen] = []
        self.tokens: dict[str, int] = {}
        self._lock = threading.Lock()
        self._servers = {
            name: _Server(("127.0.0.1", 0), handler, self)
            for name, handler in (("registry", _Registry), ("token", _Token), ("cdn", _Cdn))
        }
        self.base = f"http://127.0.0.1:{self._servers['registry'].server_port}"
        self.host = self.base.removeprefix("http://")
        self.token_url = f"http://127.0.0.1:{self._servers['token'].server_port}/token"
        self.cdn = f"http://localhost:{self._servers['cdn'].server_port}"

    def __enter__(self) -> "RegistryServer":
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def put(self, repository: str, tag: str, manifest: tuple[str, bytes], blobs: Sequence[Blob]) -> str:
        """Publish; return the manifest's digest."""
        for blob in blobs:
            self.blobs[blob.digest] = blob.content
        digest = digest_of(manifest[1])
        self.manifests[repository, tag] = self.manifests[repository, digest] = manifest
        return digest

    def asked(self, server: str, path: str = "") -> list[Seen]:
        """Return the requests so far to one of the servers."""
        with self._lock:
            return [each for each in self.seen if each.server == server and path in each.path]

    def note(self, seen: Seen) -> None:
        """Record a request."""
        with self._lock:
            self.seen.append(seen)

    def is_let_in(self, authorization: str) -> bool:
        """Tell whether a request shows a token that is good, and count its use."""
        with self._lock:
            token = authorization.removeprefix("Bearer ")
            if token not in self.tokens:
                return False
            self.tokens[token] += 1
            return self.valid_uses is None or self.tokens[token] <= self.valid_uses

    def new_token(self) -> str:
        """Make a token."""
        with self._lock:
            token = f"token-{len(self.tokens)}-s3cret"
            self.tokens[token] = 0
            return token


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type["_Handler"], owner: RegistryServer) -> None:
        self.owner = owner
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away is no error of ours


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = ""
    server: _Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.owner.note(Seen(self.name, self.command, self.path, headers))
        self.answer(self.server.owner, headers)

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, owner: RegistryServer, headers: Mapping[str, str]) -> None:
        raise NotImplementedError

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Registry(_Handler):
    name = "registry"

    def do_POST(self) -> None:
        """Begin an upload."""
        if self.is_entered():
            self.say(202, Location=f"{self.server.owner.base}/v2/upload")

    def do_PUT(self) -> None:
        """Take a blob or a manifest; what it says it is has to be true."""
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if not self.is_entered():
            return None
        digest, parts = digest_of(content), urlsplit(self.path)
        if asked := parse_qs(parts.query).get("digest"):
            if asked != [digest]:
                return self.say(400)
            self.server.owner.blobs[digest] = content
        else:
            repository, _, tag = parts.path.removeprefix("/v2/").partition("/manifests/")
            self.server.owner.put(repository, tag, (self.headers["Content-Type"], content), [])
        return self.say(201, Docker_Content_Digest=digest)

    def is_entered(self) -> bool:
        """Tell whether whoever asks is let in by password, and say so if not."""
        wanted = self.server.owner.basic
        if wanted in (None, self.headers["Authorization"]):
            return True
        self.say(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', WWW_Authenticate='Basic realm="tests"')
        return False

    def answer(self, owner: RegistryServer, headers: Mapping[str, str]) -> None:
        if not self.is_entered():
            return None
        if owner.busy:
            owner.busy -= 1
            return self.say(429, Retry_After="0")
        match = re.fullmatch(r"/v2/(?P<repo>.+)/(?P<what>manifests|blobs|tags)/(?P<name>[^/?]+)(?:\?.*)?", self.path)
        if match is None:
            return self.say(404)
        if owner.needs_token and not owner.is_let_in(headers.get("authorization", "")):
            realm, scope = owner.realm or owner.token_url, f"repository:{match['repo']}:pull"
            challenge = f'Bearer realm="{realm}",service="tests",scope="{scope}"'
            return self.say(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', WWW_Authenticate=challenge)
        if match["what"] == "tags":
            tags = [tag for repo, tag in owner.manifests if repo == match["repo"] and ":" not in tag]
            return self.say(200, json.dumps({"name": match["repo"], "tags": tags}).encode())
        if match["what"] == "blobs":
            if match["name"] not in owner.blobs:
                return self.say(404)
            return self.say(307, Location=f"{owner.cdn}/{match['name']}?signature=s1gned")
        found = owner.manifests.get((match["repo"], match["name"]))
        if found is None:
            return self.say(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        digest = owner.announced.get(match["name"], digest_of(found[1]))
        return self.say(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest)


class _Token(_Handler):
    name = "token"

    def answer(self, owner: RegistryServer, headers: Mapping[str, str]) -> None:
        if owner.user is not None:
            wanted = "Basic " + base64.b64encode(":".join(owner.user).encode()).decode()
            if headers.get("authorization") != wanted:
                return self.say(401)
        query = parse_qs(urlsplit(self.path).query)
        if query.get("service") != ["tests"] or not query.get("scope"):
            return self.say(400)
        said = {"token": owner.new_token(), "expires_in": owner.token_seconds}
        return self.say(200, json.dumps(said).encode())


class _Cdn(_Handler):
    name = "cdn"

    def answer(self, owner: RegistryServer, headers: Mapping[str, str]) -> None:
        digest = self.path[1:].partition("?")[0]
        body = owner.damaged.get(digest, owner.blobs.get(digest))
        if body is None:
            return self.say(404)
        status, more, total = 200, {}, len(body)
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            begin, end = int(span[1]), min(int(span[2] or total - 1), total - 1)
            if begin >= total:
                return self.say(416)
            status, more = 206, {"Content_Range": f"bytes {begin}-{end}/{total}"}
            body = body[begin : end + 1]
        if owner.cut_after is not None and len(body) > owner.cut_after:
            cut, owner.cut_after = owner.cut_after, None
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for key, value in more.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body[:cut])
            self.close_connection = True
            return None
        return self.say(status, body, Accept_Ranges="bytes", **more)
