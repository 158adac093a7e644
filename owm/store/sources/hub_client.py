"""Talking to the Hub through its library: settings, patience, and its errors as owm's.

With `hub` and its neighbours `hub_search` and `hub_login` the only importer of that library. `HF_ENDPOINT`, `HF_TOKEN`,
`HF_HUB_OFFLINE`, `HF_HOME` mean what they mean to it.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from owm.errors import AccessDenied, Damaged, ModelNotFound, NetworkError, SourceUnreachable, TransferFailed, UsageError
from owm.store import offline, proxies
from owm.store.refs import ModelRef
from owm.store.sources.asking import within

T = TypeVar("T")
_TRIES = 4
_ETAG = re.compile(r'(?:W/)?"?[A-Za-z0-9_-][A-Za-z0-9_.-]*"?')
FIRST_WAIT_SECONDS = 0.3  # before a busy Hub is asked again, doubled for each further time


def library() -> Any:
    """Import the Hub library, silent and without telemetry (it reads both settings at import).

    Raises:
        UsageError: its settings cannot be used; it would print them, or fail where nobody expects it.
    """
    _check_settings()
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "critical")  # it would pass on what a server wants said
    import huggingface_hub
    from huggingface_hub import constants, utils  # noqa: F401

    return huggingface_hub


def _check_settings() -> None:
    proxies.check()
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not re.fullmatch(r"[!-~]+", endpoint):
        raise UsageError(
            "HF_ENDPOINT is not a web address: it must be http(s):// and a host",
            hint="unset HF_ENDPOINT to use https://huggingface.co",
        )
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if not re.fullmatch(r"[!-~]*", os.environ.get(name, "").strip(" ")):
            raise UsageError(
                f"{name} is not a token: it holds a line break or other characters that no token has",
                hint=f"set {name} again, without quotes or line breaks, or unset it",
            )


def host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]


def is_offline() -> bool:
    """Tell whether the library is told to leave the network alone (`HF_HUB_OFFLINE`)."""
    library()
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def ask_whether_there(seconds: float) -> str:
    """Send the Hub one HEAD request; return its host and how it answered.

    Raises:
        SourceUnreachable: it did not answer, or the library is offline.
        UsageError: the settings of the library cannot be used.
    """
    offline.refuse("the Hub is not asked")
    hub = library()
    import httpx2
    from huggingface_hub import constants, errors

    def ask() -> str:
        try:
            answer = hub.get_session().head(constants.ENDPOINT, timeout=seconds, headers=own_headers())
        except errors.OfflineModeIsEnabled as error:
            raise SourceUnreachable("offline mode is on, the Hub is not asked") from error
        except httpx2.TimeoutException as error:
            raise SourceUnreachable(f"{host()} did not answer in {seconds:g} s") from error
        except httpx2.HTTPError as error:
            raise SourceUnreachable(f"{host()} cannot be reached: {str(error) or type(error).__name__}") from error
        return f"{host()} answered HTTP {answer.status_code}"

    return within(2 * seconds, ask, f"{host()} did not answer in {2 * seconds:g} s")


def own_headers() -> dict[str, str]:
    """Return what a request says of who asks: this program and its version, and not what else is installed."""
    from owm import __version__

    return {"user-agent": f"owm/{__version__}"}


def headers() -> dict[str, str]:
    """Return the headers of a request, with the token in use."""
    return dict(library().utils.build_hf_headers(headers=own_headers()))


def guarded() -> Any:
    """Return the library with its answers looked at first: it makes paths of the commit and hash that they name.

    What cannot be one of these raises `Damaged` from its calls.
    """
    hub = library()
    session = hub.get_session()
    hooks = session.event_hooks
    if _refuse_paths not in hooks["response"]:
        session.event_hooks = {**hooks, "response": [*hooks["response"], _refuse_paths]}
    return hub


def _refuse_paths(answer: Any) -> None:
    """Refuse an answer whose commit or content hash would be a path to elsewhere.

    Raises:
        Damaged: it names one.
    """
    commit = answer.headers.get("X-Repo-Commit")
    if commit is not None and not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise Damaged(f"{host()} names a commit that cannot be one: {commit[:100]!r}")
    for name in ("ETag", "X-Linked-ETag"):
        etag = answer.headers.get(name)
        if etag is not None and not _ETAG.fullmatch(etag):
            raise Damaged(f"{host()} names a content hash that cannot be one: {etag[:100]!r}")


def patiently(call: Callable[[], T], *, until: float = float("inf")) -> T:
    """Repeat a request that the server asks to repeat (429, 5xx), a few times and not beyond `until`."""
    for attempt in range(_TRIES):
        try:
            return call()
        except Busy as busy:
            wait = min(busy.wait_seconds if busy.wait_seconds is not None else FIRST_WAIT_SECONDS * 2**attempt, 30.0)
            if attempt == _TRIES - 1 or time.monotonic() + wait >= until:
                raise TransferFailed(str(busy), hint="the server is in trouble or busy, try again later") from busy
            time.sleep(wait)
    raise AssertionError("unreachable")


class Busy(NetworkError):
    def __init__(self, message: str, wait_seconds: float | None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


def page_of(repo: str) -> str:
    """Return the address of a repo's page."""
    library()
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}"


def gated_error(ref: ModelRef) -> AccessDenied:
    from huggingface_hub import constants, get_token

    page = f"{constants.ENDPOINT}/{ref.name}"
    login = "run `owm login` or set HF_TOKEN" if get_token() is None else "check that your token may read it"
    return AccessDenied(
        f"{ref.name} is gated: its licence must be accepted first", hint=f"accept it at {page}, then {login}"
    )


@contextmanager
def translated(ref: ModelRef, file: str | None = None) -> Iterator[None]:
    """Turn the Hub library's errors into owm's; offline, refuse."""
    offline.refuse("the Hub is not asked")
    import httpx2
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise gated_error(ref) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(
            f"{ref.name} has no revision {ref.revision}",
            ref=str(ref),
            hint="without `@REVISION` the main branch is taken",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"no repo {ref.name} on {host()}, or it is private",
            ref=str(ref),
            hint="check the spelling; for a private repo run `owm login` or set HF_TOKEN",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise SourceUnreachable(
            f"{host()} cannot be reached any more", hint="run the same command again, what arrived is kept"
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelNotFound(
            f"{ref.name} has no file {file}",
            ref=str(ref),
            hint="it may have been removed just now; run the same command again",
        ) from error
    except errors.HFValidationError as error:
        raise ModelNotFound(
            f"not the name of a Hub repo: {ref.name}", ref=str(ref), hint="a Hub repo is written `owner/repo`"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise SourceUnreachable(
            "offline mode is on, the Hub is not asked", hint="unset HF_HUB_OFFLINE, or name a stored model"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise AccessDenied(
                f"{host()} refuses access to {ref.name} (HTTP {status})",
                hint=f"see {constants.ENDPOINT}/{ref.name}; log in with `owm login` or set HF_TOKEN",
            ) from error
        if status == 429 or status >= 500:
            wait = error.response.headers.get("Retry-After", "")
            raise Busy(f"{host()} answered HTTP {status}", float(wait) if wait.isdigit() else None) from error
        raise TransferFailed(f"{host()} answered HTTP {status} for {ref.name}") from error
    except httpx2.TimeoutException as error:
        raise SourceUnreachable(f"{host()} did not answer in time") from error
    except httpx2.ProxyError as error:
        raise SourceUnreachable(f"the proxy refuses to connect to {host()}") from error
    except (httpx2.TransportError, errors.FileMetadataError) as error:
        raise SourceUnreachable(f"{host()} cannot be reached") from error
    except httpx2.InvalidURL as error:
        raise SourceUnreachable(f"{host()} is not an address that can be asked") from error
    except OSError as error:
        # The library wraps some answers of a proxy or a captive portal in plain OSErrors; disk errors pass through.
        if error.errno is not None:
            raise
        raise SourceUnreachable(f"{host()} does not answer like a Hub") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:  # it believes what it is sent
        raise SourceUnreachable(f"{host()} does not answer like a Hub") from error
