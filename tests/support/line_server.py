"""A file server with lines as they are: so many bytes a second on each connection, so long until an answer, and worse.

Also `python -m support.line_server FILE…` for benchmarks and proofs: a process of its own that prints its address.
"""

import argparse
import hashlib
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import unquote

STEP_BYTES = 1 << 14


@dataclass(slots=True)
class Line:
    """How one request is answered."""

    status: int | None = None  # this, with no body
    headers: dict[str, str] = field(default_factory=dict)
    bytes_per_second: float | None = None
    silent_after: int | None = None  # bytes, after which nothing more comes
    cut_after: int | None = None  # bytes, after which the connection is closed
    has_ranges: bool = True
    damage_at: int | None = None  # position in the file of a byte that is turned over
    length_off_by: int = 0  # of the announced length
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came, and how far its body got."""

    number: int
    path: str
    begin: int
    end: int | None
    headers: dict[str, str]
    connection: int
    is_head: bool = False


Behaviour = Callable[[Asked], Line]


class LineServer:
    """Files at `/NAME`; use as a context manager. `behave` says how each request goes."""

    def __init__(
        self,
        files: dict[str, bytes | Path],
        *,
        behave: Behaviour | None = None,
        latency: float = 0.0,
        bytes_per_second: float | None = None,
    ) -> None:
        self.files = files
        self.behave = behave or (lambda asked: Line())
        self.latency = latency
        self.bytes_per_second = bytes_per_second
        self.asked: list[Asked] = []
        self.n_open = self.n_open_most = self.n_sent = 0
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self._server = _Server(self)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.etags: dict[str, str] = {}

    def __enter__(self) -> "LineServer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return f"{self.address}/{name}"

    def etag(self, name: str) -> str:
        """Return the ETag of a file as it is now."""
        content = self.files[name]
        if isinstance(content, Path):
            return f'"{content.stat().st_size:x}-{content.stat().st_mtime_ns:x}"'
        return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, owner: LineServer) -> None:
        self.owner = owner
        self.n_connections = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.n_connections += 1
        self.number = self.server.n_connections

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        owner = self.server.owner
        name = unquote(self.path.lstrip("/").partition("?")[0])
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin = int(found[1]) if found else 0
        end = int(found[2]) + 1 if found and found[2] else None
        with owner.lock:
            asked = Asked(
                len(owner.asked),
                self.path,
                begin,
                end,
                {k.lower(): v for k, v in self.headers.items()},
                self.number,
                self.command == "HEAD",
            )
            owner.asked.append(asked)
            owner.n_open += 1
            owner.n_open_most = max(owner.n_open_most, owner.n_open)
        try:
            if owner.latency:
                owner.closing.wait(owner.latency)
            self._answer(owner, name, owner.behave(asked), begin, end)
        finally:
            with owner.lock:
                owner.n_open -= 1

    def _answer(self, owner: LineServer, name: str, line: Line, begin: int, end: int | None) -> None:
        content = owner.files.get(name)
        status = line.status or (404 if content is None else 200)
        if content is None or status != 200:
            self.send_response(status)
            for field_name, value in line.headers.items():
                self.send_header(field_name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        etag = line.etag or owner.etag(name)
        is_ranged = "Range" in self.headers and line.has_ranges and self.headers.get("If-Range") in (None, etag)
        if not is_ranged:
            begin, end = 0, None
        end = size if end is None else min(end, size)
        if is_ranged and begin >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if is_ranged else 200)
        headers = {"ETag": etag, "Content-Length": str(end - begin + line.length_off_by)}
        if line.has_ranges:
            headers["Accept-Ranges"] = "bytes"
        if is_ranged:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        for field_name, value in (headers | line.headers).items():
            self.send_header(field_name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(content, Path):
            with open(content, "rb") as file:
                self._send(owner, line, file, None, begin, end)
        else:
            self._send(owner, line, None, content, begin, end)

    def _send(
        self, owner: LineServer, line: Line, file: BinaryIO | None, content: bytes | None, begin: int, end: int
    ) -> None:
        rate = line.bytes_per_second or owner.bytes_per_second
        step = STEP_BYTES if rate is None or rate < 4e6 else 1 << 17
        if rate is not None and rate < 1e5:
            step = max(1, int(rate / 10))
        if rate is not None and owner.bytes_per_second:
            with suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        began = time.monotonic()
        position = begin
        while position < end:
            stop = min(end, position + step)
            for limit in (line.cut_after, line.silent_after):
                if limit is not None:
                    stop = min(stop, begin + limit)
            if file is not None:
                file.seek(position)
                part = file.read(stop - position)
            else:
                assert content is not None
                part = content[position:stop]
            if line.damage_at is not None and position <= line.damage_at < stop:
                turned = bytearray(part)
                turned[line.damage_at - position] ^= 1
                part = bytes(turned)
            self.wfile.write(part)
            with owner.lock:
                owner.n_sent += len(part)
            position = stop
            if line.cut_after is not None and position - begin >= line.cut_after:
                self.close_connection = True
                return
            if line.silent_after is not None and position - begin >= line.silent_after:
                owner.closing.wait(60)
                self.close_connection = True
                return
            if rate is not None:
                ahead = (position - begin) / rate - (time.monotonic() - began)
                if ahead > 0 and owner.closing.wait(ahead):
                    self.close_connection = True
                    return
        if line.length_off_by:
            self.close_connection = True


def random_cuts(seed: int, size: int) -> Behaviour:
    """Return a behaviour that cuts each connection at a random byte, mostly."""
    dice = random.Random(seed)
    lock = threading.Lock()

    def behave(asked: Asked) -> Line:
        with lock:
            return Line(cut_after=dice.randrange(size)) if dice.random() < 0.7 else Line()

    return behave


def main() -> None:
    """Serve files until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--rate", type=float, help="bytes per second on each connection")
    asked = parser.parse_args()
    with LineServer(
        {path.name: path for path in asked.files}, latency=asked.latency, bytes_per_second=asked.rate
    ) as server:
        print(server.address, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
