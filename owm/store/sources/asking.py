"""Small requests to a source, for what is known before a download: bounded in time and bytes, errors translated.

Files come through `owm.store.download`; this is for listings, manifests and headers. A name lookup has no timeout of
its own, so a request runs in a thread that is given up when its time is over.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from owm.errors import Damaged, SourceUnreachable, TransferFailed
from owm.store.download import new_session
from owm.units import format_bytes

T = TypeVar("T")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BYTES = 4 << 20  # of an answer; registries take no larger manifests
TRIES = 4
FIRST_WAIT_SECONDS = 0.3  # before a busy server is asked again, doubled for each further time


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said. Header names are in lower case; `host` is where a redirect may have led."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    host: str

    def json(self, what: str) -> Any:
        """Return the body as JSON.

        Raises:
            Damaged: it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise Damaged(f"{self.host} does not answer with {what}, but with something else") from error


def ask(
    url: str,
    *,
    until: float,
    headers: Mapping[str, str] | None = None,
    method: Literal["GET", "HEAD"] = "GET",
    limit: int = MAX_BYTES,
    wants_body: bool = True,
    accepts: tuple[int, ...] = (),
) -> Answer:
    """Ask until there is an answer; a busy server is asked again while there is time.

    Args:
        until: on the monotonic clock.
        limit: of the body in bytes.
        wants_body: otherwise the headers are enough.
        accepts: statuses beside 2xx and 4xx that are an answer.

    Raises:
        SourceUnreachable: no answer came in time.
        TransferFailed: the server is in trouble, or asked for patience that nobody has.
        Damaged: the answer is larger than it can rightly be.
    """
    host = host_of(url)
    for attempt in range(TRIES):
        answer = within(
            until - time.monotonic(),
            lambda: _once(until, url, dict(headers or {}), method, limit if wants_body else None),
            f"{host} did not answer in time",
        )
        if answer.status in accepts or (answer.status < 500 and answer.status != 429):
            return answer
        wait = _patience(answer, FIRST_WAIT_SECONDS * 2**attempt)
        if attempt == TRIES - 1 or time.monotonic() + wait >= until:
            break
        time.sleep(wait)
    raise TransferFailed(
        f"{host} answered HTTP {answer.status}", hint="the server is in trouble or busy, try again later"
    )


def host_of(url: str) -> str:
    """Return the host of an address, for messages."""
    return urlsplit(url).hostname or "the server"


def is_loopback(url: str) -> bool:
    """Tell whether an address is of this machine."""
    return urlsplit(url).hostname in LOOPBACK


def _patience(answer: Answer, usual: float) -> float:
    text = answer.headers.get("retry-after", "").strip()
    return float(text) if text.isdigit() and len(text) < 10 else usual


def within(seconds: float, call: Callable[[], T], message: str) -> T:
    """Make a call that may hang where no timeout reaches (a name lookup); give it up after `seconds`.

    Raises:
        SourceUnreachable: it took too long, in the words of `message`.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="owm-ask", daemon=True).start()
    try:
        return future.result(timeout=max(seconds, 0.05))
    except TimeoutError:
        if future.done():
            raise
        raise SourceUnreachable(message, hint="check the network") from None


def _once(until: float, url: str, headers: dict[str, str], method: str, limit: int | None) -> Answer:
    import requests
    import urllib3

    host = host_of(url)
    left = max(until - time.monotonic(), 0.05)
    try:
        with new_session() as session, session.request(method, url, headers=headers, stream=True, timeout=left) as said:
            body = bytearray()
            for chunk in said.iter_content(1 << 16) if limit is not None else ():
                body += chunk
                if limit is not None and len(body) > limit:
                    raise Damaged(f"{host} answers with more than {format_bytes(limit)}, which cannot be right")
                if time.monotonic() > until:
                    raise SourceUnreachable(f"{host} did not answer in time", hint="check the network")
            return Answer(
                said.status_code,
                {name.lower(): value for name, value in said.headers.items()},
                bytes(body),
                host_of(said.url),
            )
    # The library's errors quote the address, which may hold a token: none of them becomes a cause.
    except requests.exceptions.ProxyError:
        raise SourceUnreachable(f"the proxy refuses to connect to {host}", hint="check the proxy") from None
    except requests.exceptions.SSLError:
        raise SourceUnreachable(
            f"{host} does not show a certificate that can be trusted", hint="check the address and the network"
        ) from None
    except (requests.exceptions.InvalidSchema, requests.exceptions.TooManyRedirects):
        raise TransferFailed(
            f"{host} leads elsewhere, and not to where one would follow", hint="check the address"
        ) from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, ValueError, OSError):
        raise SourceUnreachable(f"{host} cannot be reached", hint="check the address and the network") from None
