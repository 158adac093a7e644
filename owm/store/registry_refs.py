"""How models at registries and at ModelScope are named, and what such a name is in its shortest form.

ollama:[[host/]namespace/]name[:tag][@sha256:…][:QUANT]
oci://host[:port]/repository[:tag][@sha256:…][:QUANT]
modelscope:owner/name[@revision][:QUANT | :file.gguf]
"""

import re
from typing import TypedDict

from owm.errors import UsageError

OLLAMA_HOST = "registry.ollama.ai"
DOCKER_HOST = "docker.io"
LATEST = "latest"

_QUANT = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_PORT = r"(?::[0-9]{1,5})?"
_TAIL = rf"(?::(?P<tag>{_TAG}))?(?:@sha256:(?P<digest>[0-9a-f]{{7,64}}))?(?::(?P<quant>{_QUANT}))?"
_OLLAMA_PART = r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*"
_HOST = r"[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)*"
_OLLAMA = re.compile(rf"(?:(?:(?P<host>{_HOST}{_PORT})/)?(?P<space>{_OLLAMA_PART})/)?(?P<model>{_OLLAMA_PART}){_TAIL}")
_OLLAMA_PAGE = re.compile(
    rf"https?://(?:www\.)?ollama\.com/(?:library/(?P<library>{_OLLAMA_PART})|(?P<name>{_OLLAMA_PART}/{_OLLAMA_PART}))"
    rf"(?::(?P<tag>{_TAG}))?(?:/tags)?/?(?:[?#].*)?",
    re.IGNORECASE,
)
_OCI_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_OCI = re.compile(rf"(?P<host>(?:{_HOST}|\[[0-9A-Fa-f:]+\]){_PORT})/(?P<path>{_OCI_PART}(?:/{_OCI_PART})*){_TAIL}")
_DOCKER_HOSTS = (DOCKER_HOST, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
_MODELSCOPE_PAGE = re.compile(
    r"https?://(?:www\.)?modelscope\.cn/models/(?P<name>[^/?#@:]+/[^/?#@:]+)(?:/(?:summary|files|quickstart)?)?(?:[?#].*)?",
    re.IGNORECASE,
)


class Named(TypedDict, total=False):
    """The fields of a `ModelRef` that a name gives."""

    name: str
    revision: str | None
    digest: str | None
    quant: str | None


def parse_ollama(text: str) -> Named | None:
    """Read a name as Ollama's own tool takes it, or the page of a model; None if it is neither.

    Raises:
        UsageError: it begins as such a name and is none.
    """
    if page := _OLLAMA_PAGE.fullmatch(text):
        return {"name": page["library"] or page["name"], "revision": _tag(page["tag"])}
    if not text.startswith("ollama:"):
        return None
    match = _OLLAMA.fullmatch(text[len("ollama:") :])
    if match is None or not _is_port(match["host"]):
        raise UsageError(
            f"not a model name of Ollama's: {text!r}", hint="it is written `ollama:[NAMESPACE/]NAME[:TAG]`"
        )
    host, space, model = (match["host"] or "").lower(), match["space"], match["model"]
    parts = [part for part in ("" if host == OLLAMA_HOST else host, space or "", model) if part]
    if parts[:-1] == ["library"]:
        parts = [model]
    return {
        "name": "/".join(parts),
        "revision": _tag(match["tag"]),
        "digest": match["digest"],
        "quant": match["quant"],
    }


def parse_oci(text: str) -> Named | None:
    """Read the name of something in an OCI registry; None if it is none.

    Raises:
        UsageError: it begins as such a name and is none.
    """
    if not text.startswith("oci://"):
        return None
    match = _OCI.fullmatch(text[len("oci://") :])
    if match is None or not _is_port(match["host"]):
        hint = "it is written `oci://HOST[:PORT]/REPOSITORY[:TAG]`"
        if match is None and _OCI.fullmatch(text[len("oci://") :].lower()):
            hint += ", the repository in lower case"
        raise UsageError(f"not a model name in an OCI registry: {text!r}", hint=hint)
    host, path = match["host"].lower(), match["path"]
    if host in _DOCKER_HOSTS:
        host, path = DOCKER_HOST, path if "/" in path else f"library/{path}"
    return {
        "name": f"{host}/{path}",
        "revision": _tag(match["tag"]),
        "digest": match["digest"],
        "quant": match["quant"],
    }


def parse_modelscope_page(text: str) -> str | None:
    """Return `owner/name` for the page of a model at ModelScope."""
    page = _MODELSCOPE_PAGE.fullmatch(text)
    return page["name"] if page else None


def print_tagged(prefix: str, name: str, tag: str | None, digest: str | None, quant: str | None) -> str:
    """Write a name with tag, digest and quant so that it is read as it was."""
    if quant and not tag and not digest:
        tag = LATEST
    return (
        prefix
        + name
        + (f":{tag}" if tag else "")
        + (f"@sha256:{digest}" if digest else "")
        + (f":{quant}" if quant else "")
    )


def place_of(name: str, tag: str | None, digest: str | None) -> str:
    """Return under which name something of a registry lies in the store."""
    return f"{name}/{tag or (f'sha256-{digest[:12]}' if digest else LATEST)}"


def _tag(text: str | None) -> str | None:
    return None if text == LATEST else text


def _is_port(host: str | None) -> bool:
    port = (host or "").rpartition("]")[2].partition(":")[2]
    return not port or 0 < int(port) < 65536
