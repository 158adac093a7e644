"""Model references: how a person names a model, one row a form.

A reference only names; whether the model exists is for the catalog, the store and the sources to say.
`str(parse(text))` names the same model as `text` in its shortest form.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from owm.errors import UsageError

Kind = Literal["catalog", "hub", "pypi", "url", "path", "ollama", "oci", "modelscope"]

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_SIZE = r"(?:\d+x)?[eE]?\d+(?:\.\d+)?[kKmMbB](?:-[aA]\d+(?:\.\d+)?[bB])?"
_QUANT = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_CATALOG = re.compile(rf"(?P<name>{_NAME})(?::(?P<size>{_SIZE}))?(?::(?P<quant>{_QUANT}))?")
_HUB = re.compile(
    rf"(?P<name>{_NAME}/{_NAME})(?:@(?P<revision>[^:@\s]+))?(?::(?:(?P<file>.+\.gguf)|(?P<quant>{_QUANT})))?",
    re.IGNORECASE,
)
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_HUB_PAGE = re.compile(
    rf"/(?P<name>{_NAME}/{_NAME})(?:/(?P<view>tree|blob|resolve|raw)/(?P<revision>[^/]+)(?:/(?P<file>.*))?)?/?"
)
_PYPI = re.compile(rf"pypi:(?P<name>{_NAME})(?:==(?P<revision>[A-Za-z0-9][A-Za-z0-9._+!-]*))?")
_OWN_SYNTAX = {"ollama": "ollama:", "oci": "oci://", "modelscope": "modelscope:"}


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A parsed reference.

    `name` is the catalog name, `owner/repo`, the package, or the whole address or path; `revision` is a Hub
    revision or a package version; `file` is a path inside a Hub repo.
    """

    kind: Kind
    name: str
    size: str | None = None
    revision: str | None = None
    quant: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        return _FORMS[self.kind].print(self)

    def with_quant(self, quant: str | None) -> "ModelRef":
        """Return the same model in another quantization type."""
        return ModelRef(self.kind, self.name, self.size, self.revision, quant, None)


@dataclass(frozen=True, slots=True)
class _Form:
    parse: Callable[[str], ModelRef | None]
    print: Callable[[ModelRef], str]


def parse(text: str) -> ModelRef:
    """Parse one reference.

    Raises:
        UsageError: no form takes `text`.
    """
    stripped = text.strip()
    if stripped and not any(ord(c) < 32 or ord(c) == 127 for c in stripped):
        for form in _FORMS.values():
            if ref := form.parse(stripped):
                return ref
    raise _refusal(text)


def _refusal(text: str) -> UsageError:
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
    address = re.match(rf"(?:https?://)?(?:{'|'.join(map(re.escape, _HUB_HOSTS))})(?=/)", text, re.IGNORECASE)
    if address is not None:
        return _parse_hub_address(text[address.end() :].split("?")[0].split("#")[0])
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


def _parse_hub_address(path: str) -> ModelRef | None:
    """Read a page of the Hub, or a reference with the Hub's host before it."""
    page = _HUB_PAGE.fullmatch(path)
    if page is None:
        return _parse_hub(unquote(path).lstrip("/"))
    revision = unquote(page["revision"] or "main")
    file = unquote(page["file"] or "") if page["view"] != "tree" else ""
    ref = ModelRef(
        "hub",
        page["name"],
        revision=None if revision == "main" else revision,
        file=file if file.lower().endswith(".gguf") else None,
    )
    if any(ord(c) < 32 or ord(c) == 127 for c in str(ref)) or _parse_hub(str(ref)) != ref:
        raise _refusal(path)
    return ref


def _print_hub(ref: ModelRef) -> str:
    tail = ref.file or ref.quant
    return ref.name + (f"@{ref.revision}" if ref.revision else "") + (f":{tail}" if tail else "")


def _parse_pypi(text: str) -> ModelRef | None:
    match = _PYPI.fullmatch(text)
    return ModelRef("pypi", match["name"].lower(), revision=match["revision"]) if match else None


def _print_pypi(ref: ModelRef) -> str:
    return f"pypi:{ref.name}" + (f"=={ref.revision}" if ref.revision else "")


def _parse_url(text: str) -> ModelRef | None:
    try:
        if not re.match(r"https?://[^/\s]+", text, re.IGNORECASE) or not urlsplit(text).hostname:
            return None
    except ValueError:
        return None
    return ModelRef("url", quote(text, safe="%/:=&?~#+!$,;'@()*[]"))


def _parse_path(text: str) -> ModelRef | None:
    is_path = (
        text.startswith((".", "/", "~", "\\"))
        or re.match(r"[A-Za-z]:[\\/]", text) is not None
        or text.lower().endswith(".gguf")
    )
    return ModelRef("path", text) if is_path else None


def _own_syntax(kind: Kind) -> _Form:
    prefix = _OWN_SYNTAX[kind]

    def parse_whole(text: str) -> ModelRef | None:
        rest = text[len(prefix) :]
        return ModelRef(kind, rest) if text.startswith(prefix) and rest else None

    return _Form(parse_whole, lambda ref: prefix + ref.name)


# Tried in this order: what has a scheme first, then the Hub, then paths, then short names.
_FORMS: dict[Kind, _Form] = {
    "pypi": _Form(_parse_pypi, _print_pypi),
    "ollama": _own_syntax("ollama"),
    "oci": _own_syntax("oci"),
    "modelscope": _own_syntax("modelscope"),
    "hub": _Form(_parse_hub, _print_hub),
    "url": _Form(_parse_url, lambda ref: ref.name),
    "path": _Form(_parse_path, lambda ref: ref.name),
    "catalog": _Form(_parse_catalog, _print_catalog),
}
