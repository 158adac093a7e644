"""Model references: how a person names a model, one row a form.

A reference only names; whether the model exists is for the catalog, the store and the sources to say.
`str(parse(text))` names the same model as `text` in its shortest form.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from owm.errors import UsageError
from owm.store import registry_refs
from owm.store.quants import label_of

Kind = Literal["catalog", "hub", "pypi", "url", "path", "local", "ollama", "oci", "modelscope"]

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_SIZE = r"(?:\d+x)?[eE]?\d+(?:\.\d+)?[kKmMbB](?:-[aA]\d+(?:\.\d+)?[bB])?"
_QUANT = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_CATALOG = re.compile(rf"(?P<name>{_NAME})(?::(?P<size>{_SIZE}))?(?::(?P<quant>{_QUANT}))?")
_HUB = re.compile(
    rf"(?P<name>{_NAME}/{_NAME})(?:@(?P<revision>[^:@\s]+))?(?::(?:(?P<file>.+\.gguf)|(?P<quant>{_QUANT})))?",
    re.IGNORECASE,
)
_HUB_HOST = re.compile(r"(?:https?://)?(?:huggingface\.co|www\.huggingface\.co|hf\.co)(?=/)", re.IGNORECASE)
_HUB_REVISION = r"(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+)"
_HUB_PAGE = re.compile(
    rf"/(?P<name>{_NAME}/{_NAME})(?:/(?P<view>tree|blob|resolve|raw)/{_HUB_REVISION}(?:/(?P<file>.*))?)?/?"
)
_HF = re.compile(rf"(?P<name>{_NAME}/{_NAME})(?:@{_HUB_REVISION})?(?:/(?P<file>.*))?")
_HUB_OTHER = ("datasets", "spaces", "collections", "papers", "docs", "blog", "api", "models")
_USERINFO = re.compile(r"[a-z][a-z0-9+.-]+:[/\\]+[^/\\?#]*@", re.IGNORECASE)
_PYPI = re.compile(rf"pypi:(?P<name>{_NAME})(?:==(?P<revision>[A-Za-z0-9][A-Za-z0-9._+!-]*))?")
_LOCAL = re.compile(rf"local:(?P<name>{_NAME})(?::(?P<quant>{_QUANT}))?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A parsed reference.

    `name` is the catalog name, `owner/repo`, the package, the address without its query, the path, what a registry has
    (with its host, unless that is the usual one), or (`local`) the name under which owm keeps what it has made of files
    of the user's; `revision` is a revision of a repo, a tag (None for `latest`), a package version, or the hash of an
    address with a query; `file` is a path inside a repo; `digest` the hex digits, or their beginning, of the sha256 of
    a registry's manifest.
    `query` may hold a secret: it is kept for the request alone, never printed, stored or compared; so are `mirrors`,
    other addresses of the same file, and the `sha256` that it must have.
    """

    kind: Kind
    name: str
    size: str | None = None
    revision: str | None = None
    quant: str | None = None
    file: str | None = None
    query: str | None = field(default=None, repr=False, compare=False)
    digest: str | None = None
    mirrors: tuple[str, ...] = field(default=(), repr=False, compare=False)
    sha256: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return _FORMS[self.kind].print(self)

    def with_quant(self, quant: str | None) -> "ModelRef":
        """Return the same model in another quantization type."""
        return replace(self, quant=quant, file=None)


@dataclass(frozen=True, slots=True)
class _Form:
    parse: Callable[[str], ModelRef | None]
    print: Callable[[ModelRef], str]


@functools.lru_cache(maxsize=4096)  # a store of many models asks for the same again and again
def parse(text: str) -> ModelRef:
    """Parse one reference.

    Raises:
        UsageError: no form takes `text`.
    """
    stripped = text.strip()
    if _USERINFO.match(stripped):
        raise UsageError(
            "an address with a user name or password in it is not taken",
            hint="give the address without the part before `@`",
        )
    if stripped and not _CONTROL.search(stripped):
        for form in _FORMS.values():
            if ref := form.parse(stripped):
                return ref
    raise _refusal(text)


def _refusal(text: str) -> UsageError:
    if "://" in text:
        text = text.partition("?")[0]  # a query may hold a secret
    return UsageError(
        f"not a model name: {text!r}",
        hint="a model is a short name (`smollm2`), `owner/repo[:QUANT]`, a path or an address; see `owm pull --help`",
    )


def _parse_catalog(text: str) -> ModelRef | None:
    match = _CATALOG.fullmatch(text)
    if match is None or text.lower().endswith(".gguf"):
        return None
    size = match["size"]
    return ModelRef("catalog", match["name"].lower(), size=size.lower() if size else None, quant=match["quant"])


def _print_catalog(ref: ModelRef) -> str:
    return ":".join(part for part in (ref.name, ref.size, ref.quant) if part)


def _parse_hub(text: str) -> ModelRef | None:
    address = _HUB_HOST.match(text)
    if address is not None:
        return _parse_hub_address(text[address.end() :].partition("#")[0])
    if text.lower().startswith("hf://"):
        return _parse_hf(text[len("hf://") :])
    if text.startswith(("./", "../", "~", "/")) or "://" in text:
        return None
    match = _HUB.fullmatch(text)
    if match is None or (text.lower().endswith(".gguf") and not match["file"]):
        return None
    revision = match["revision"]
    return ModelRef(
        "hub",
        match["name"],
        revision=None if revision == "main" else revision,
        quant=match["quant"],
        file=match["file"],
    )


def _parse_hub_address(address: str) -> ModelRef:
    """Read a page of the Hub, or a reference with the Hub's host before it."""
    path, _, query = address.partition("?")
    page = _HUB_PAGE.fullmatch(path)
    if path.split("/")[1] in _HUB_OTHER:
        raise _not_a_repo(path)
    if page is None:
        if ref := _parse_hub(unquote(path).lstrip("/")):
            return ref
        raise _not_a_repo(path)
    if shown := parse_qs(query).get("show_file_info"):
        return _hub_file(page["name"], page["revision"], shown[0], path)
    file = unquote(page["file"] or "")
    if page["view"] not in (None, "tree"):
        return _hub_file(page["name"], page["revision"], file, path)
    folder = file.rstrip("/").rpartition("/")[2]
    quant = label_of(f"{folder}.gguf")
    if folder and quant is None:
        raise UsageError(
            f"the folder {folder} of {page['name']} names no quant", hint=f"name a file: `{page['name']}:FILE.gguf`"
        )
    return _checked(ModelRef("hub", page["name"], revision=_revision(page["revision"]), quant=quant), path)


def _parse_hf(text: str) -> ModelRef:
    """Read what follows `hf://`: `owner/repo[@revision][/path.gguf]`, or any other name of a Hub repo."""
    match = _HF.fullmatch(text)
    if text.split("/")[0] in _HUB_OTHER:
        raise _not_a_repo(text)
    if match is not None and match["file"]:
        return _hub_file(match["name"], match["revision"], match["file"], text)
    if ref := _parse_hub(unquote(text).rstrip("/")):
        return ref
    raise _refusal(f"hf://{text}")


def _hub_file(name: str, revision: str | None, file: str, where: str) -> ModelRef:
    if not file.lower().endswith(".gguf"):
        raise UsageError(f"the address names no .gguf file: {file or where}", hint=f"`owm pull {name}` takes the repo")
    return _checked(ModelRef("hub", name, revision=_revision(revision), file=file), where)


def _revision(text: str | None) -> str | None:
    revision = unquote(text or "main")
    return None if revision == "main" else revision


def _checked(ref: ModelRef, text: str) -> ModelRef:
    """Refuse what an address hides behind `%` if it could not be typed."""
    if _CONTROL.search(str(ref)) or _parse_hub(str(ref)) != ref:
        raise _refusal(text)
    return ref


def _not_a_repo(path: str) -> UsageError:
    return UsageError(
        f"not the page of a model on the Hub: {path.strip('/')}", hint="a Hub repo is written `owner/repo[:QUANT]`"
    )


def _print_hub(ref: ModelRef) -> str:
    tail = ref.file or ref.quant
    return ref.name + (f"@{ref.revision}" if ref.revision else "") + (f":{tail}" if tail else "")


def _parse_pypi(text: str) -> ModelRef | None:
    match = _PYPI.fullmatch(text)
    return ModelRef("pypi", match["name"].lower(), revision=match["revision"]) if match else None


def _print_pypi(ref: ModelRef) -> str:
    return f"pypi:{ref.name}" + (f"=={ref.revision}" if ref.revision else "")


def _parse_local(text: str) -> ModelRef | None:
    match = _LOCAL.fullmatch(text)
    return ModelRef("local", match["name"].lower(), quant=match["quant"]) if match else None


def _print_local(ref: ModelRef) -> str:
    return f"local:{ref.name}" + (f":{ref.quant}" if ref.quant else "")


def _parse_url(text: str) -> ModelRef | None:
    try:
        if not re.match(r"https?://[^/\s]+", text, re.IGNORECASE) or not urlsplit(text).hostname:
            return None
    except ValueError:
        return None
    try:
        urlsplit(text).port  # noqa: B018
    except ValueError as error:
        raise UsageError("the address has no valid port", hint="a port is a number up to 65535") from error
    whole, _, fragment = text.partition("#")
    whole = quote(whole, safe="%/:=&?~+!$,;'@()*[]")
    address, mark, query = whole.partition("?")
    if mark:
        return ModelRef("url", address, revision=hash_of(whole), query=query)
    return ModelRef("url", address, revision=fragment if re.fullmatch("[0-9a-f]{12}", fragment) else None)


def with_mirrors(ref: ModelRef, mirrors: Sequence[str] = (), sha256: str | None = None) -> ModelRef:
    """Return a web address with other addresses of the same file and the sha256 that it must have.

    Raises:
        UsageError: it is no web address, or what is given is no address or no sha256.
    """
    if not mirrors and sha256 is None:
        return ref
    if ref.kind != "url":
        what = "mirrors are" if mirrors else "a sha256 is"
        raise UsageError(f"{what} for a web address, not for {ref}", hint="other sources publish what their files are")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UsageError("a sha256 has 64 hexadecimal digits", hint="`sha256sum FILE` prints it")
    addresses = []
    for text in mirrors:
        mirror = parse(text)
        host = urlsplit(mirror.name).hostname
        if mirror.kind != "url":
            raise UsageError(f"not the web address of a file: {mirror}", hint="give `https://…/FILE.gguf`")
        if mirror.name.lower().startswith("http:") and host not in _LOOPBACK:
            raise UsageError(f"plain http is not taken: {mirror.name}", hint="use the https address")
        addresses.append(mirror.name if mirror.query is None else f"{mirror.name}?{mirror.query}")
    return replace(ref, mirrors=tuple(addresses), sha256=sha256.lower() if sha256 else None)


def told(text: str) -> str:
    """Return the name of a model as it may be kept and said: a web address without its query, which may be a secret."""
    return str(parse(text)) if "://" in text and "?" in text else text


def hash_of(address: str) -> str:
    """Return what tells an address with a query from others, without telling the query."""
    return hashlib.sha256(address.encode()).hexdigest()[:12]


def _print_url(ref: ModelRef) -> str:
    return ref.name + (f"#{ref.revision}" if ref.revision else "")


def _parse_path(text: str) -> ModelRef | None:
    is_path = (
        text.startswith((".", "/", "~", "\\"))
        or re.match(r"[A-Za-z]:[\\/]", text) is not None
        or text.lower().endswith(".gguf")
    )
    return ModelRef("path", text) if is_path else None


def _parse_ollama(text: str) -> ModelRef | None:
    named = registry_refs.parse_ollama(text)
    return ModelRef("ollama", **named) if named else None


def _parse_oci(text: str) -> ModelRef | None:
    named = registry_refs.parse_oci(text)
    return ModelRef("oci", **named) if named else None


def _print_tagged(ref: ModelRef) -> str:
    prefix = "oci://" if ref.kind == "oci" else "ollama:"
    return registry_refs.print_tagged(prefix, ref.name, ref.revision, ref.digest, ref.quant)


def _parse_modelscope(text: str) -> ModelRef | None:
    if page := registry_refs.parse_modelscope_page(text):
        text = f"modelscope:{page}"
    if not text.startswith("modelscope:"):
        return None
    match = _HUB.fullmatch(text[len("modelscope:") :])
    if match is None:
        raise UsageError(
            f"not a model name at ModelScope: {text!r}", hint="it is written `modelscope:OWNER/NAME[:QUANT]`"
        )
    revision = match["revision"]
    return ModelRef(
        "modelscope",
        match["name"],
        revision=None if revision == "master" else revision,
        quant=match["quant"],
        file=match["file"],
    )


# Tried in this order: what has a scheme first, then the Hub, then paths, then short names.
_FORMS: dict[Kind, _Form] = {
    "pypi": _Form(_parse_pypi, _print_pypi),
    "local": _Form(_parse_local, _print_local),
    "ollama": _Form(_parse_ollama, _print_tagged),
    "oci": _Form(_parse_oci, _print_tagged),
    "modelscope": _Form(_parse_modelscope, lambda ref: f"modelscope:{_print_hub(ref)}"),
    "hub": _Form(_parse_hub, _print_hub),
    "url": _Form(_parse_url, _print_url),
    "path": _Form(_parse_path, lambda ref: ref.name),
    "catalog": _Form(_parse_catalog, _print_catalog),
}
