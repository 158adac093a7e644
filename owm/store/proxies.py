"""The proxies that the environment names, looked at before a library stumbles over them in words of its own."""

import urllib.request
from importlib.util import find_spec
from urllib.parse import urlsplit

from owm.errors import UsageError

_KINDS = ("http", "https", "all")
_SOCKS = ("socks", "socksio")  # what the HTTP libraries need for proxies of that kind


def check() -> None:
    """Refuse proxies that cannot be asked; their addresses may hold passwords and are not shown.

    Raises:
        UsageError: one of them is no address, or of a kind that is not known.
    """
    for kind, address in urllib.request.getproxies().items():
        if kind not in _KINDS:
            continue
        what = f"the proxy of {kind.upper()}_PROXY cannot be used"
        try:
            parts = urlsplit(address if "://" in address else f"http://{address}")
            is_address = bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address:
            raise UsageError(f"{what}: it is not an address", hint="a proxy is written `http://HOST:PORT`")
        if parts.scheme.startswith("socks"):
            if not all(map(find_spec, _SOCKS)):
                raise UsageError(f"{what}: it is a SOCKS proxy", hint="use an http proxy, or none")
        elif parts.scheme not in ("http", "https"):
            raise UsageError(f"{what}: its kind is not known", hint="a proxy is written `http://HOST:PORT`")
