"""A local server that speaks as much of ModelScope's routes as a download needs; it redirects files to another host."""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee00" * 5


class ModelScopeServer:
    """Repos by name, each a mapping of paths to contents; use as a context manager."""

    def __init__(self, repos: Mapping[str, Mapping[str, bytes]]) -> None:
        self.repos = {name: dict(files) for name, files in repos.items()}
        self.revisions = ("master",)
        self.token: str | None = None
        self.licence: str | None = "Apache License 2.0"
        self.listed: list[dict[str, Any]] = []  # on top of the true listing
        self.sha256: dict[str, str] = {}  # lies
        self.commit: str | None = COMMIT
        self.answer: bytes | None = None  # instead of a listing
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self._site = _Server(("127.0.0.1", 0), _Site, self)
        self._cdn = _Server(("127.0.0.1", 0), _Cdn, self)
        self.base = f"http://127.0.0.1:{self._site.server_port}"
        self.cdn = f"http://localhost:{self._cdn.server_port}"

    def __enter__(self) -> "ModelScopeServer":
        for server in (self._site, self._cdn):
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for server in (self._site, self._cdn):
            server.shutdown()
            server.server_close()

    def asked(self, server: str) -> list[dict[str, str]]:
        """Return the headers of the requests so far to `site` or `cdn`."""
        return [headers for name, _, headers in list(self.seen) if name == server]

    def listing(self, repo: str) -> bytes:
        """Return what the API says of a repo's files."""
        files = [
            {
                "Name": path.rpartition("/")[2],
                "Path": path,
                "Size": len(content),
                "Sha256": self.sha256.get(path, hashlib.sha256(content).hexdigest()),
                "Type": "blob",
                "IsLFS": True,
                "Revision": COMMIT,
            }
            for path, content in self.repos[repo].items()
        ]
        folders = {path.rpartition("/")[0] for path in self.repos[repo] if "/" in path}
        files += [{"Name": folder, "Path": folder, "Size": 0, "Sha256": "", "Type": "tree"} for folder in folders]
        latest = {"LatestCommitter": {"Id": self.commit}} if self.commit else {}
        stated = {"Code": 200, "Success": True, "Message": "success", "Data": {"Files": files + self.listed} | latest}
        return json.dumps(stated).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type["_Handler"], owner: ModelScopeServer) -> None:
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
        self.server.owner.seen.append((self.name, self.path, headers))
        self.say(*self.answer(self.server.owner, headers))

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, owner: ModelScopeServer, headers: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]]:
        raise NotImplementedError

    def say(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Site(_Handler):
    name = "site"

    def answer(self, owner: ModelScopeServer, headers: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]]:
        if owner.token and headers.get("authorization") != f"Bearer {owner.token}":
            return 403, b'{"Code":403,"Success":false}', {}
        parts = urlsplit(self.path)
        if match := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)(/repo/files)?", parts.path):
            revision = parse_qs(parts.query).get("Revision", ["master"])[0]
            if match[1] not in owner.repos or revision not in owner.revisions:
                return 404, b'{"Code":10010205001,"Message":"not found","Success":false}', {}
            if match[2]:
                return 200, owner.listing(match[1]) if owner.answer is None else owner.answer, {}
            return 200, json.dumps({"Code": 200, "Data": {"License": owner.licence}}).encode(), {}
        match = re.fullmatch(r"/models/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", parts.path)
        if match and unquote(match[3]) in owner.repos.get(match[1], {}) and unquote(match[2]) in owner.revisions:
            return 302, b"", {"Location": f"{owner.cdn}/{match[1]}/{match[3]}"}
        return 404, b"", {}


class _Cdn(_Handler):
    name = "cdn"

    def answer(self, owner: ModelScopeServer, headers: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]]:
        _, space, name, path = self.path.split("/", 3)
        body = owner.repos[f"{space}/{name}"][unquote(path)]
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            begin, end = int(span[1]), min(int(span[2] or len(body) - 1), len(body) - 1)
            return 206, body[begin : end + 1], {"Content-Range": f"bytes {begin}-{end}/{len(body)}"}
        return 200, body, {"Accept-Ranges": "bytes"}
