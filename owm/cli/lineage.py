"""Where a model is from, as an indented tree: every file by content, every step by its recipe."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from owm.library.provenance import BESIDE
from owm.units import format_bytes

if TYPE_CHECKING:
    from owm.library.provenance import Provenance

INDENT = "  "
_UNKNOWN = "not known"


def lines(found: "Provenance", name: str | None = None) -> Iterator[str]:
    """Yield the tree, what was made above what it was made of."""
    yield name or found.name
    yield from (INDENT + line for line in _body(found, is_unchecked=found.is_unchecked))


def _body(found: "Provenance", *, is_unchecked: bool, is_parent: bool = False) -> Iterator[str]:
    if found.kind == "published":
        how = "said to be published" if is_unchecked else "published"
        yield f"{how}: {found.source} at commit {found.commit or _UNKNOWN}"
    elif found.kind == "made" and found.recipe is not None:
        yield from _recipe(found.recipe, "said to be made" if is_unchecked else "made here")
    for file in found.files:
        size = format_bytes(file.size_bytes) if file.size_bytes is not None else f"size {_UNKNOWN}"
        yield f"file: {file.path}  {size}  sha256 {file.sha256 or _UNKNOWN}"
    for key, value in found.claims.items():
        yield f"it says of itself, unchecked: {key} = {value}"
    if found.ends is not None and not (is_parent and found.ends == BESIDE):  # which was said once
        yield f"ends here: {found.ends}"
    for parent in found.parents:
        yield f"{'said to be made from' if is_unchecked else 'made from'} {parent.name}"
        yield from (INDENT + line for line in _body(parent, is_unchecked=is_unchecked, is_parent=True))


def _recipe(recipe: Mapping[str, Any], how: str) -> Iterator[str]:
    versions = recipe["versions"] or {}
    tools = ", ".join(str(each) for each in (recipe["by"], versions.get("llama_cpp")) if each)
    yield f"{how}: {recipe['type'] or _UNKNOWN}, by {tools or _UNKNOWN}"
    if recipe["options"]:
        yield f"options: {', '.join(f'{key} {_shown(value)}' for key, value in recipe['options'].items())}"
    if recipe["tailored"]:
        yield f"types chosen for {recipe['tailored'].get('target_bytes')} bytes"
    if (imatrix := recipe["imatrix"]) is not None:
        yield f"importance matrix: {imatrix.get('file') or _UNKNOWN}  sha256 {imatrix.get('sha256') or _UNKNOWN}"
        if isinstance(text := imatrix.get("calibration"), dict):
            n_chunks = imatrix.get("n_chunks")
            yield f"{INDENT}computed from {n_chunks} chunks of {text.get('name')}  sha256 {text.get('sha256')}"
    if recipe["unknown"]:
        yield f"not known: {', '.join(recipe['unknown'])}"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "yes" if value is True else str(value)
