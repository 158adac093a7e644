"""A proxy on this machine that works: it passes plain requests on, and joins connections for `CONNECT`."""

import select
import socket
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit


class ProxyServer:
    """Use as a context manager. Every host is found on this machine; `asked` holds the first line of each request."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        self._server = _Server(self)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "ProxyServer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, owner: ProxyServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30
    server: _Server

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self._note()
        parts = urlsplit(self.path)
        behind = HTTPConnection("127.0.0.1", parts.port or 80, timeout=30)
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        behind.request(self.command, parts._replace(scheme="", netloc="").geturl(), headers=headers)
        answer = behind.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        while chunk := answer.read1(1 << 16):
            self.wfile.write(chunk)
        behind.close()

    def do_CONNECT(self) -> None:
        self._note()
        port = int(self.path.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as behind:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: behind, behind: self.connection}
            while True:
                ready, _, _ = select.select(list(ends), [], [], 30)
                for end in ready:
                    chunk = end.recv(1 << 16)
                    if not chunk:
                        self.close_connection = True
                        return
                    ends[end].sendall(chunk)

    def _note(self) -> None:
        self.server.owner.asked.append(self.requestline)
        self.server.owner.authorizations.append(self.headers.get("Proxy-Authorization"))
