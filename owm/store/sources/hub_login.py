"""The Hub's token store: the token that `hf auth login` keeps too, in the files of the Hub's library, mode 0600."""

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from owm.errors import AccessDenied, SourceUnreachable, UsageError
from owm.publishing import PRIVATE, make_private, replacing
from owm.store.download import write_error
from owm.store.refs import ModelRef
from owm.store.sources.asking import within
from owm.store.sources.hub_client import host, is_offline, library, own_headers, patiently, translated

_PATIENT_SECONDS = 15.0
_ACCOUNT = ModelRef("hub", "your account")


def log_in(token: str) -> str | None:
    """Keep a token in the Hub's token store after the Hub has accepted it; return whose it is.

    Offline it is kept unchecked, and None is returned.

    Raises:
        UsageError: that cannot be a token.
        AccessDenied: the Hub does not accept it; nothing was kept.
        SourceUnreachable, TransferFailed: the Hub cannot be asked; nothing was kept.
        StoreError: it cannot be written.
    """
    token = token.strip()
    if not re.fullmatch(r"[!-~]{8,4096}", token):
        raise UsageError(
            "that is no token: one is a word of letters and digits, most often `hf_…`", hint=where_to_get()
        )
    if token.startswith("api_org"):
        raise UsageError("that is the token of an organization, which the Hub takes no more", hint=where_to_get())
    from huggingface_hub import constants

    path = Path(constants.HF_TOKEN_PATH)
    with _writing(path):
        if is_offline():
            _write_secret(path, token)
            return None
        said = _who(token)
        with translated(_ACCOUNT), _silent():
            library().login(token=token)  # it writes the same file, and keeps the token under its name in another
    return str(said["name"])


def log_out() -> bool:
    """Remove all tokens from the Hub's token store; tell whether there were any.

    Raises:
        StoreError: they cannot be removed.
    """
    library()
    from huggingface_hub import constants

    was_there = False
    for path in (Path(constants.HF_TOKEN_PATH), Path(constants.HF_STORED_TOKENS_PATH)):
        with _writing(path), contextlib.suppress(FileNotFoundError):
            path.unlink()
            was_there = True
    return was_there


def who() -> str | None:
    """Ask the Hub whose the token in use is, None without one.

    Raises:
        AccessDenied: the Hub does not accept it.
        SourceUnreachable, TransferFailed: the Hub cannot be asked.
    """
    hub = library()
    token = hub.get_token()
    return None if token is None else str(_who(token)["name"])


def token_of_environment() -> str | None:
    """Return the name of the variable that holds a token, which counts before the store's; None if none does."""
    return next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name, "").strip()), None)


def has_token() -> bool:
    """Tell whether requests to the Hub carry a token."""
    return library().get_token() is not None


def _who(token: str) -> dict[str, Any]:
    hub = library()
    until = time.monotonic() + _PATIENT_SECONDS
    message = f"{host()} did not answer within {_PATIENT_SECONDS:.0f} s"

    def ask() -> Any:
        from huggingface_hub import errors

        try:
            with translated(_ACCOUNT):
                try:
                    return hub.HfApi(headers=own_headers()).whoami(token=token)
                except errors.HfHubHTTPError as error:
                    if error.response.status_code in (401, 403):
                        raise AccessDenied(
                            f"{host()} does not accept this token",
                            hint=f"it may be misspelt, expired or revoked; {where_to_get()}",
                        ) from None  # the library's own message may say the token
                    raise
        except AccessDenied as error:
            error.__context__ = None
            raise

    said = patiently(lambda: within(until - time.monotonic(), ask, message), until=until)
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        raise SourceUnreachable(f"{host()} does not answer like a Hub")
    return said


def where_to_get() -> str:
    """Say where tokens are made."""
    library()
    from huggingface_hub import constants

    return f"make one at {constants.ENDPOINT}/settings/tokens"


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(error, path) from error


def _write_secret(path: Path, token: str) -> None:
    """Write a file that only its owner can read, in one step."""
    make_private(path.parent)
    with replacing(path, mode=PRIVATE) as file:
        file.write(token.encode("utf-8"))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the library from saying on stderr what the caller says itself."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
