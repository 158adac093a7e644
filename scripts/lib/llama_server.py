"""llama.cpp's own HTTP server with a number of slots, and as many clients that ask it at the same time."""

import json
import queue
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

START_SECONDS = 120
HOST = "127.0.0.1"


class Server:
    """A server that is running."""

    def __init__(self, port: int, n_clients: int) -> None:
        self._port = port
        self._n_clients = n_clients

    def answer(self, bodies: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Ask for chat completions, always as many at a time as there are clients; return the answers in order."""
        waiting: queue.SimpleQueue[tuple[int, Mapping[str, Any]]] = queue.SimpleQueue()
        for item in enumerate(bodies):
            waiting.put(item)
        answers: list[Any] = [None] * len(bodies)

        def client() -> None:
            connection = HTTPConnection(HOST, self._port)
            while True:
                try:
                    number, body = waiting.get_nowait()
                except queue.Empty:
                    return connection.close()
                content = json.dumps(body).encode()
                connection.request("POST", "/v1/chat/completions", content, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answers[number] = json.loads(response.read())
                if response.status != 200:
                    sys.exit(f"error: llama-server says {response.status}: {answers[number]}")

        with ThreadPoolExecutor(self._n_clients) as pool:
            for done in [pool.submit(client) for _ in range(self._n_clients)]:
                done.result()
        return answers


@contextmanager
def serving(programs: Path, file: Path, *, n_slots: int, n_ctx: int, n_threads: int) -> Iterator[Server]:
    """Run a server with `n_ctx` tokens for each slot; it has loaded its model when the block begins."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    command: list[str | Path] = [
        programs / "llama-server",
        "-m",
        file,
        "--host",
        HOST,
        "--port",
        str(port),
        "-np",
        str(n_slots),
    ]
    command += ["-c", str(n_slots * n_ctx), "-cb", "-t", str(n_threads)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            if not _is_ready(port, process):
                log.seek(0)
                tail = log.read().decode("utf-8", "replace").splitlines()[-10:]
                sys.exit("error: llama-server does not start\n" + "\n".join(tail))
            yield Server(port, n_slots)
        finally:
            process.terminate()
            process.wait()


def _is_ready(port: int, process: "subprocess.Popen[bytes]") -> bool:
    latest = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < latest:
        connection = HTTPConnection(HOST, port)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    return False
