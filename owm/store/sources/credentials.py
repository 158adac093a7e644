"""Names and passwords for registries, as `docker login` and `podman login` leave them in `~/.docker/config.json`.

Only what lies in the file itself is used. Programs that keep credentials elsewhere are named, never run.
"""

import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is known for one registry: a name and a password, or only which program would know them."""

    user: str = ""
    password: str = field(default="", repr=False)
    helper: str | None = None

    @property
    def basic(self) -> str | None:
        """The value of an `Authorization` header, None without a password."""
        if not self.password:
            return None
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode("utf-8", "surrogatepass")).decode()


def config_path() -> Path:
    """Return where Docker keeps its settings."""
    return Path(os.path.expanduser(os.environ.get("DOCKER_CONFIG") or "~/.docker")) / "config.json"


def credentials_for(host: str) -> Credentials:
    """Return what the config file says of a registry; one that cannot be read says nothing."""
    try:
        with config_path().open("rb") as file:
            stated = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return Credentials()
    if not isinstance(stated, dict):
        return Credentials()
    auths = stated.get("auths")
    for key, entry in auths.items() if isinstance(auths, dict) else ():
        if _host_of(key) == host and isinstance(entry, dict) and (found := _read(entry)):
            return found
    return Credentials(helper=_helper(stated, host))


def _read(entry: dict[str, Any]) -> Credentials | None:
    packed = entry.get("auth")
    if isinstance(packed, str) and packed:
        try:
            user, mark, password = base64.b64decode(packed, validate=True).decode().partition(":")
        except ValueError:  # not base64, not ASCII, or not UTF-8 within
            return None
        return Credentials(user, password) if mark and password else None
    name, secret = entry.get("username"), entry.get("password")
    return Credentials(name, secret) if isinstance(name, str) and isinstance(secret, str) and secret else None


def _helper(stated: dict[str, Any], host: str) -> str | None:
    helpers = stated.get("credHelpers")
    for key, name in helpers.items() if isinstance(helpers, dict) else ():
        if _host_of(key) == host and isinstance(name, str):
            return name
    store = stated.get("credsStore")
    return store if isinstance(store, str) and store else None


def _host_of(key: str) -> str:
    """Return the registry that a key of the file stands for: `https://index.docker.io/v1/` is Docker's own."""
    host = key.partition("://")[2] or key
    host = host.partition("/")[0].lower()
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host
