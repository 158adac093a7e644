"""HTTP as a transfer needs it: one request, its errors translated, what its headers say. Nothing is retried here."""

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from owm.errors import AccessDenied, ModelNotFound, SourceUnreachable, TransferFailed
from owm.store import offline, proxies
from owm.store.limits import MAX_CONNECTIONS

if TYPE_CHECKING:
    import requests


class Busy(TransferFailed):
    """The server asks for patience."""

    def __init__(self, message: str, wait_seconds: float | None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class Changed(TransferFailed):
    """The file at the source is not the one whose beginning is here."""


class NoRanges(TransferFailed):
    """The server does not give the parts that it is asked for."""


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer says of its body.

    Attributes:
        begin: position of its first byte in the file.
        length: bytes of the body, None if it is not announced.
        total: bytes of the whole file, None if that is not known.
        validator: a strong ETag or a date, by which a changed file is known.
        is_page: it is for a person to read, as a login or an error that calls itself a success.
    """

    is_part: bool
    begin: int
    length: int | None
    total: int | None
    validator: str | None
    takes_ranges: bool
    is_page: bool = False


def new_session() -> "requests.Session":
    """Return an HTTP session that honours proxies and certificate settings of the environment, but no `.netrc`.

    Raises:
        SourceUnreachable: the network is to be left alone.
        UsageError: the proxy that the environment names cannot be used.
    """
    offline.refuse("the network is left alone")
    proxies.check()
    import requests

    class _NoNetrc(requests.auth.AuthBase):
        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            return request

    class _Session(requests.Session):
        def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
            # The token goes to its own host only, and a redirect gets none from .netrc instead.
            if not is_same_host(str(response.request.url), str(prepared_request.url)):
                prepared_request.headers.pop("Authorization", None)

        def get_redirect_target(self, resp: requests.Response) -> str | None:
            try:
                target = super().get_redirect_target(resp)
            except ValueError:  # it is not UTF-8
                resp.close()
                raise
            if target and resp.url.lower().startswith("https:") and target.lower().startswith("http:"):
                resp.close()  # nobody else has it any more
                raise requests.exceptions.InvalidSchema("a redirect from https to plain http is not followed")
            return target

    from owm import __version__

    session = _Session()
    session.auth = _NoNetrc()  # otherwise a .netrc entry replaces the token that we send
    session.headers["User-Agent"] = f"owm/{__version__}"
    session.headers["Accept-Encoding"] = "identity"
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_connections=16, pool_maxsize=MAX_CONNECTIONS))
    return session


def ask(
    session: "requests.Session", url: str, headers: Mapping[str, str], label: str, timeout: tuple[float, float]
) -> "requests.Response":
    """Send a GET whose body is read later.

    Raises:
        SourceUnreachable: no answer came.
        ModelNotFound: the address leads nowhere that can be asked.
    """
    import requests

    host = host_of(url)
    # The library's errors quote the address, which may hold a token: none of them becomes a cause.
    try:
        return session.get(url, headers=dict(headers), stream=True, timeout=timeout)
    except requests.exceptions.ProxyError:
        raise SourceUnreachable(f"the proxy refuses to connect to {host}") from None
    except requests.exceptions.SSLError:
        raise SourceUnreachable(f"{host} shows no certificate that this machine trusts") from None
    except (ValueError, requests.exceptions.TooManyRedirects):  # InvalidURL and InvalidSchema among them
        raise ModelNotFound(f"cannot follow the address of {label}", ref=label) from None
    except requests.exceptions.RequestException:
        raise SourceUnreachable(f"{host} cannot be reached") from None


def read_head(response: "requests.Response", label: str, host: str) -> Head:
    """Check an answer's status and read its headers.

    Raises:
        AccessDenied, ModelNotFound, Busy, NoRanges.
    """
    status = response.status_code
    if status in (401, 403):
        raise AccessDenied(
            f"{host} refuses {label} (HTTP {status})",
            hint="the file may need a token, an accepted licence, or a fresh address",
        )
    if status in (404, 410):
        raise ModelNotFound(f"{host} has no {label} (HTTP {status})", ref=label)
    if status == 416:
        raise NoRanges(f"{host} no longer has what was begun")
    if status not in (200, 206):
        raise Busy(f"{host} answered HTTP {status}", _wait_seconds(response.headers.get("Retry-After")))
    length = _int(response.headers.get("Content-Length"))
    etag = response.headers.get("ETag")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    takes_ranges = response.headers.get("Accept-Ranges", "").strip().lower() != "none"
    if status == 200:
        is_page = response.headers.get("Content-Type", "").strip().lower().startswith("text/html")
        return Head(False, 0, length, length, validator, takes_ranges, is_page)
    begin, total = _content_range(response.headers.get("Content-Range"))
    return Head(True, begin, length, total, validator, True)


def host_of(url: str) -> str:
    """Return the host of an address, for messages."""
    return urlsplit(url).hostname or "the server"


def is_same_host(one: str, other: str) -> bool:
    """Tell whether a token for one address may go to the other: same scheme, host and port."""
    return urlsplit(one)[:2] == urlsplit(other)[:2]


def _wait_seconds(text: str | None) -> float | None:
    """Read Retry-After: seconds, or a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _content_range(text: str | None) -> tuple[int, int | None]:
    """Read `bytes 5-9/10` as (5, 10); anything else as (-1, None)."""
    unit, _, rest = (text or "").strip().partition(" ")
    span, _, total = rest.partition("/")
    begin = span.partition("-")[0]
    if unit.lower() != "bytes" or (position := _int(begin)) is None:
        return -1, None
    return position, _int(total)


def _int(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text) else None
