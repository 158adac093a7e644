"""A local HTTP server that speaks the Hub's routes to the real huggingface_hub client, and misbehaves on request.

Two servers run on threads: the "Hub" as `127.0.0.1` and the "CDN" that it redirects large files to as `localhost`,
so that they are different hosts to every client. Each request is recorded; `faults` says what shall go wrong.
"""

import hashlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

MAIN_COMMIT = "a1b2c3d4" * 5


@dataclass(slots=True)
class Repo:
    """A model repo. Every `.gguf` is an LFS file served by the CDN; the rest is answered directly.

    `tokens` are those that may read it if it is gated or private; `sha256` and `sizes` tell lies about files. `card` is
    added to what the model card says, `facts` to what the Hub itself says of the repo.
    """

    name: str
    files: dict[str, bytes]
    licence: str | None = "apache-2.0"
    gated: bool = False
    private: bool = False
    tokens: tuple[str, ...] = ()
    commit: str = MAIN_COMMIT
    branches: tuple[str, ...] = ("main",)
    sha256: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def oid(self, path: str) -> str:
        """Return the name of a file's content: sha256 for LFS files, git's blob hash for others."""
        content = self.files[path]
        if is_lfs(path):
            return self.sha256.get(path) or hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def size(self, path: str) -> int:
        """Return the published size of a file."""
        return self.sizes.get(path, len(self.files[path]))


@dataclass(slots=True)
class Fault:
    """Something that goes wrong with requests whose path contains `path`, `times` times (None: always).

    The first fault that fits a request is used, and only that one.
    """

    path: str = ""
    method: str | None = "GET"
    server: Literal["hub", "cdn"] | None = None
    times: int | None = 1
    status: int | None = None  # answer this instead
    headers: Mapping[str, str] = field(default_factory=dict)  # on top of the usual ones
    without: tuple[str, ...] = ()  # headers to leave out
    cut_after: int | None = None  # close the connection after this many bytes of the body
    ignore_range: bool = False  # answer with everything
    status_of_body: int | None = None  # say this status over a body that is served as usual
    body: bytes | None = None  # serve this content instead of the file's
    announce: int | None = None  # say this Content-Length, whatever is sent
    chunked: bool = False  # send without a length
    trickle_seconds: float = 0.0  # pause after every 16 KiB
    hang: bool = False  # take the request and never answer


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.headers.get("range")


class HubServer:
    """The Hub and its CDN; use as a context manager. Repos, files and faults may be changed while it runs."""

    def __init__(self, *repos: Repo) -> None:
        self.repos = {repo.name: repo for repo in repos}
        self.renamed: dict[str, str] = {}
        self.accounts: dict[str, str] = {}  # token -> whose it is
        self.plain: dict[str, bytes] = {}  # served at `/plain/NAME` without anything of the Hub
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._hub = _Server(("127.0.0.1", 0), _HubHandler, self)
        self._cdn = _Server(("127.0.0.1", 0), _CdnHandler, self)
        self.endpoint = f"http://127.0.0.1:{self._hub.server_port}"
        self.cdn = f"http://localhost:{self._cdn.server_port}"

    def __enter__(self) -> "HubServer":
        for server in (self._hub, self._cdn):
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    def add(self, repo: Repo) -> Repo:
        """Publish a repo."""
        self.repos[repo.name] = repo
        return repo

    def fail(self, path: str = "", **fault: Any) -> Fault:
        """Let requests to `path` go wrong; see `Fault`."""
        self.faults.append(Fault(path, **fault))
        return self.faults[-1]

    def url(self, name: str) -> str:
        """Return the address of a plain file."""
        return f"{self.endpoint}/plain/{name}"

    def asked(self, path: str = "", method: str | None = None, server: str | None = None) -> list[Request]:
        """Return the requests so far whose path contains `path`."""
        with self._lock:
            seen = list(self.requests)
        return [r for r in seen if path in r.path and method in (None, r.method) and server in (None, r.server)]

    def transfers(self, path: str = "") -> list[Request]:
        """Return the requests for content: GETs at the CDN and of plain files."""
        return [r for r in self.asked(path, "GET") if r.server == "cdn" or r.path.startswith("/plain/")]

    def note(self, request: Request) -> Fault:
        """Record a request; return its fault, one without effect if nothing shall go wrong."""
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if (
                    fault.path in request.path
                    and fault.method in (None, request.method)
                    and fault.server in (None, request.server)
                    and fault.times != 0
                ):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return Fault(times=None)

    def content(self, oid: str) -> bytes | None:
        """Return the content of an LFS file."""
        for repo in list(self.repos.values()):
            for path in repo.files:
                if repo.oid(path) == oid:
                    return repo.files[path]
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type["_Handler"], hub: HubServer) -> None:
        self.hub = hub
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is no error of ours
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """What both servers have in common: recording, faults, and bodies with ranges."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30
    server: _Server
    name: str

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def answer(self, path: str) -> None:
        raise NotImplementedError

    def _serve(self) -> None:
        self.hub = self.server.hub
        self.fault = self.hub.note(
            Request(self.name, self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        )
        if self.fault.hang:
            self.hub.closing.wait(60)
            self.close_connection = True
        elif self.fault.status is not None:
            self.send_bytes(self.fault.body or b"", status=self.fault.status, kind="application/json", ranges=False)
        else:
            self.answer(urlsplit(self.path).path)

    def send_json(self, value: object, status: int = 200, **headers: str) -> None:
        self.send_bytes(json.dumps(value).encode(), status=status, kind="application/json", ranges=False, **headers)

    def refuse(self, status: int, code: str, text: str) -> None:
        self.send_json({"error": text}, status, X_Error_Code=code, X_Error_Message=text)

    def redirect(self, status: int, location: str, **headers: str) -> None:
        self.send_bytes(b"", status=status, ranges=False, Location=location, **headers)

    def send_bytes(
        self,
        body: bytes,
        *,
        status: int = 200,
        kind: str = "application/octet-stream",
        ranges: bool = True,
        **headers: str,
    ) -> None:
        fault = self.fault
        body = body if fault.body is None or not ranges else fault.body
        fields = {name.replace("_", "-"): value for name, value in headers.items()} | {"Content-Type": kind}
        if ranges:
            fields["Accept-Ranges"] = "bytes"
            status, body = self._take_range(body, fields, fields.get("ETag"))
        status = fault.status_of_body or status
        if fault.chunked:
            fields["Transfer-Encoding"] = "chunked"
        else:
            fields["Content-Length"] = str(len(body) if fault.announce is None else fault.announce)
        fields |= fault.headers
        self.send_response(status)
        for name, value in fields.items():
            if name not in fault.without:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(body)

    def _take_range(self, body: bytes, fields: dict[str, str], etag: str | None) -> tuple[int, bytes]:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if asked is None or self.fault.ignore_range or (condition is not None and condition != etag):
            return 200, body
        begin, end = int(asked[1]), int(asked[2]) + 1 if asked[2] else len(body)
        if begin >= len(body):
            fields["Content-Range"] = f"bytes */{len(body)}"
            return 416, b""
        part = body[begin:end]
        fields["Content-Range"] = f"bytes {begin}-{begin + len(part) - 1}/{len(body)}"
        return 206, part

    def _send_body(self, body: bytes) -> None:
        fault = self.fault
        is_cut = fault.cut_after is not None
        sent = body[: fault.cut_after] if is_cut else body
        step = 16384 if fault.trickle_seconds or fault.chunked else max(len(sent), 1)
        for start in range(0, len(sent), step):
            part = sent[start : start + step]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if fault.chunked else part)
            if fault.trickle_seconds and self.hub.closing.wait(fault.trickle_seconds):
                is_cut = True
                break
        if fault.chunked and not is_cut:
            self.wfile.write(b"0\r\n\r\n")
        if is_cut or fault.announce is not None:
            self.close_connection = True


class _HubHandler(_Handler):
    name = "hub"

    def answer(self, path: str) -> None:
        if path.startswith("/plain/"):
            body = self.hub.plain.get(unquote(path.removeprefix("/plain/")))
            if body is None:
                self.send_bytes(b"", status=404, ranges=False)
            else:
                self.send_bytes(body, ETag=f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        elif path == "/api/whoami-v2":
            self._who()
        elif path == "/api/models":
            self._search()
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+))?", path):
            self._api(found[1], found[2], unquote(found[3] or "main"))
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], unquote(found[2]), unquote(found[3]))
        else:
            self.refuse(404, "", "no such page")  # /api/agent-harnesses among them

    def do_POST(self) -> None:
        self.posted = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._serve()

    def _repo(self, name: str, revision: str, *, content: bool) -> Repo | None:
        """Find a repo that the asker may see at a revision, else refuse."""
        repo = self.hub.repos.get(name)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repo is None and (new := self.hub.renamed.get(name)):
            self.redirect(307, self.path.replace(name, new, 1))
        elif repo is None or (repo.private and token not in repo.tokens):
            self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif content and repo.gated and token not in repo.tokens:
            self.refuse(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted")
        elif revision not in (*repo.branches, repo.commit):
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repo
        return None

    def _api(self, name: str, view: str | None, revision: str) -> None:
        repo = self._repo(name, revision, content=False)
        if repo is None:
            return
        if view == "tree":
            self.send_json([self._entry(repo, path) for path in sorted(repo.files)])
        elif view == "paths-info":
            wanted = [p for value in parse_qs(self.posted.decode()).values() for p in value]
            self.send_json([self._entry(repo, path) for path in wanted if path in repo.files])
        else:
            with_blobs = "blobs=true" in urlsplit(self.path).query.lower()
            siblings = [self._sibling(repo, path, with_blobs) for path in sorted(repo.files)]
            self.send_json(_said_of(repo) | {"siblings": siblings})

    def _who(self) -> None:
        name = self.hub.accounts.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if name is None:
            self.send_json({"error": "Invalid username or password."}, 401)
        else:
            token = {"displayName": "a laptop", "role": "read"}
            self.send_json({"type": "user", "name": name, "auth": {"type": "access_token", "accessToken": token}})

    def _search(self) -> None:
        """Answer a search as the Hub does, by words of the name and by tags; bounds of size are ignored."""
        asked = parse_qs(urlsplit(self.path).query)
        words = (asked.get("search") or [""])[0].lower().split()
        found = [
            said
            for repo in list(self.hub.repos.values())
            if not repo.private and all(word in repo.name.lower() for word in words)
            for said in [_said_of(repo)]
            if set(asked.get("filter", ())) <= set(said["tags"])
        ]
        key = (asked.get("sort") or ["downloads"])[0]
        found.sort(key=lambda said: said.get(key) or 0, reverse=True)
        self.send_json(found[: int((asked.get("limit") or ["1000"])[0])])

    def _sibling(self, repo: Repo, path: str, with_blobs: bool) -> dict[str, object]:
        sibling: dict[str, object] = {"rfilename": path}
        if with_blobs:
            size = repo.size(path)
            sibling |= {"size": size, "blobId": hashlib.sha1(path.encode()).hexdigest()}
            if is_lfs(path):
                sibling["lfs"] = {"sha256": repo.oid(path), "size": size, "pointerSize": 134}
        return sibling

    def _entry(self, repo: Repo, path: str) -> dict[str, object]:
        size = repo.size(path)
        entry: dict[str, object] = {
            "type": "file",
            "path": path,
            "size": size,
            "oid": hashlib.sha1(path.encode()).hexdigest(),
        }
        if is_lfs(path):
            entry["lfs"] = {"oid": repo.oid(path), "size": size, "pointerSize": 134}
        return entry

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name, revision, content=True)
        if repo is None:
            return
        if path not in repo.files:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        oid = repo.oid(path)
        headers = {"X_Repo_Commit": repo.commit, "ETag": f'"{oid}"'}
        if is_lfs(path):
            headers |= {"X_Linked_Etag": f'"{oid}"', "X_Linked_Size": str(repo.size(path))}
            self.redirect(302, f"{self.hub.cdn}/lfs/{oid}?Signature=none", **headers)
        else:
            self.send_bytes(repo.files[path], **headers)


class _CdnHandler(_Handler):
    name = "cdn"

    def answer(self, path: str) -> None:
        body = self.hub.content(path.removeprefix("/lfs/"))
        if body is None:
            self.send_bytes(b"", status=404, ranges=False)
        else:
            self.send_bytes(body, ETag=f'"{path.removeprefix("/lfs/")}"')


def _said_of(repo: Repo) -> dict[str, Any]:
    """Return what the Hub's interface says of a repo, without its files."""
    card = ({"license": repo.licence} if repo.licence else {}) | repo.card
    kinds = {kind for kind in ("gguf", "safetensors") for path in repo.files if path.lower().endswith(kind)}
    return {
        "id": repo.name,
        "modelId": repo.name,
        "author": repo.name.partition("/")[0],
        "sha": repo.commit,
        "private": repo.private,
        "gated": "auto" if repo.gated else False,
        "tags": [*sorted(kinds), *([f"license:{card['license']}"] if "license" in card else [])],
        "cardData": card or None,
    } | repo.facts


def is_lfs(path: str) -> bool:
    """Tell whether the Hub keeps a file in LFS: here, every GGUF and every safetensors file."""
    return path.lower().endswith((".gguf", ".safetensors"))


@contextmanager
def silent_listener(*, accepts: bool) -> Iterator[str]:
    """Give the address of a host from which no answer ever comes.

    With `accepts` the kernel takes the connection and nobody reads it; without, the queue of connections is full, so
    that even the first packet is dropped, as behind a firewall.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64 if accepts else 0)
        fillers = [socket.socket() for _ in range(0 if accepts else 4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for filler in fillers:
                filler.close()


@contextmanager
def refusing_proxy() -> Iterator[tuple[str, list[str]]]:
    """Run a proxy that answers 403 to everything; give its address and the list of first lines that it was sent."""
    lines: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        closing = threading.Event()

        def serve() -> None:
            while not closing.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(5)
                    lines.append(connection.recv(65536).decode("latin-1").partition("\r\n")[0])
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", lines
        finally:
            closing.set()
            thread.join(5)


def refused_endpoint() -> str:
    """Return an address on this machine at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
