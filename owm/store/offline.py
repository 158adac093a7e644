"""Leaving the network alone: whether that is asked for, who refuses then, and a guard that no library gets around.

`OWM_OFFLINE=1` says it; `--offline` sets it, so that it holds for every process that owm starts as well.
"""

import os
import sys
from collections.abc import Mapping
from functools import cache

from owm.errors import SourceUnreachable

VARIABLE = "OWM_OFFLINE"
_NO = ("", "0", "false", "no", "off")
_LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
_BY_FLAG = "--offline"  # as the value of the variable, so that a process that owm starts knows it, too


def is_offline(environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether the network is to be left alone; whatever is no clear no means yes."""
    environ = os.environ if environ is None else environ
    return environ.get(VARIABLE, "").strip().lower() not in _NO


def switch_on() -> None:
    """Go offline, for this process and all that it starts."""
    if not is_offline():
        os.environ[VARIABLE] = _BY_FLAG
    guard()


def refuse(what: str) -> None:
    """Raise if the network is to be left alone.

    Args:
        what: what does not happen therefore, as the rest of the sentence.

    Raises:
        SourceUnreachable: it is.
    """
    if is_offline():
        instead = "leave out `--offline`" if os.environ[VARIABLE] == _BY_FLAG else f"unset {VARIABLE}"
        raise SourceUnreachable(
            f"offline: {what}", hint=f"`owm list` shows what is stored; {instead} to use the network"
        )


@cache
def guard() -> None:
    """Have Python itself refuse every socket for the internet from now on, whichever library asks, while offline.

    What is no network stays: pairs of sockets, and sockets of this machine's own file system.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # the Hub library then fails before it tries
    sys.addaudithook(_look)


def _look(event: str, arguments: tuple[object, ...]) -> None:
    is_new = event == "socket.__new__"
    if (is_new or event in _LOOKUPS) and is_offline() and (not is_new or arguments[1] in _internet()):
        refuse("a socket for the internet is not opened")


@cache
def _internet() -> tuple[int, ...]:
    import socket

    return (socket.AF_INET, socket.AF_INET6)
