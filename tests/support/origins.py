"""Web servers that answer as they are told and record what they are told: each port, name and scheme an origin."""

import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Told:
    """A request as it arrived; names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]

    def __contains__(self, text: str) -> bool:
        return text in self.path or any(text in value for value in self.headers.values())


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None  # bytes, after which the connection is closed
    reason: str | None = None


Answer = Reply | Callable[[Told], Reply]


class OriginServer:
    """One origin; use as a context manager. `answers` are by path without a query, "" for all others.

    Args:
        name: that clients are given for this machine.
        certificate: a file with a key and a certificate, for https.
    """

    def __init__(self, name: str = "127.0.0.1", *, certificate: Path | None = None) -> None:
        self.answers: dict[str, Answer] = {"": Reply(404)}
        self.told: list[Told] = []
        self._server = _Server(self)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"{name}:{self._server.server_port}"
        self.address = f"http{'s' if certificate else ''}://{self.host}"

    def __enter__(self) -> "OriginServer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def redirect(self, path: str, target: str, status: int = 302) -> None:
        """Send whoever asks for `path` elsewhere."""
        self.answers[path] = Reply(status, {"Location": target})

    def give(self, path: str, body: bytes, *, cuts: int = 0) -> None:
        """Give a file, with ranges; the first `cuts` connections break off in the middle."""
        left = [cuts]

        def answer(told: Told) -> Reply:
            begin = 0
            if told.headers.get("range", "").startswith("bytes="):
                begin = int(told.headers["range"].removeprefix("bytes=").partition("-")[0])
            span = {"Content-Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"} if "range" in told.headers else {}
            cut = None
            if left[0] and told.method == "GET":
                left[0] -= 1
                cut = (len(body) - begin) // 2
            return Reply(206 if span else 200, {"Accept-Ranges": "bytes", **span}, body[begin:], cut)

        self.answers[path] = answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, owner: OriginServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or trusts no certificate, is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: _Server

    def do_GET(self) -> None:
        told = Told(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        owner = self.server.owner
        owner.told.append(told)
        found = owner.answers.get(self.path.partition("?")[0], owner.answers[""])
        reply = found if isinstance(found, Reply) else found(told)
        self.send_response(reply.status, reply.reason)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[: reply.cut_after])
        if reply.cut_after is not None:
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815  the base class calls it so

    def log_message(self, *args: object) -> None:
        """Say nothing."""
