"""A tailored recipe as a file: JSON with the type of every quantized tensor, readable, and used again on its model."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from owm.errors import MalformedFile, ModelNotFound, StoreError
from owm.quantize import types

FORMAT, VERSION = "owm.recipe", 1
MAX_BYTES = 64 << 20
_HINT = "a recipe is written by `owm quantize --target-size` or `--bpw`"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table of choices: all tensors of one kind (`attn_q.weight`), and how many got which type.

    `loss` is their part of the predicted divergence, `slope` what an error of 1 % of their outputs' energy adds to it.
    """

    kind: str
    n_tensors: int
    n_bytes: int
    bpw: float
    types: Mapping[str, int]
    loss: float
    slope: float


@dataclass(frozen=True, slots=True)
class Tailored:
    """The chosen type of each tensor that is quantized; all others stay as they are.

    `predicted_kld` and `measured_kld` are mean divergences on the text of the trials, in nats a token; `target_bytes`
    and `n_bytes` are of the file with its header.
    """

    types: Mapping[str, str]
    target_bytes: int
    n_bytes: int
    predicted_kld: float | None = None
    measured_kld: float | None = None
    table: tuple[Row, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def document(self) -> dict[str, Any]:
        """Return it as JSON's values."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def write_recipe(recipe: Tailored, path: Path) -> None:
    """Write a recipe.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        path.write_text(json.dumps(recipe.document(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def read_recipe(path: Path) -> Tailored:
    """Read a recipe, as hostile input. Only `format`, `version` and `types` are needed: one can be written by hand.

    Raises:
        ModelNotFound, StoreError: it cannot be read.
        MalformedFile: it is no recipe, of a newer version, or names a type that is none.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ModelNotFound(f"no such file: {path}", ref=str(path)) from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        _fail(path, "it is far too large")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        _fail(path, "it is no JSON")
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        _fail(path, f'it does not say `"format": "{FORMAT}"`')
    if document.get("version") != VERSION:
        _fail(path, f"it is of version {str(document.get('version'))[:20]!a}, and this owm reads {VERSION}")
    chosen = document.get("types")
    if not isinstance(chosen, dict) or not chosen:
        _fail(path, "it has no types")
    for name, type_name in chosen.items():
        if type_name not in types.tensor_types():
            _fail(path, f"it gives {name[:80]!a} the unknown type {str(type_name)[:20]!a}")
    return Tailored(
        chosen,
        _natural(document, "target_bytes"),
        _natural(document, "n_bytes"),
        _number(document, "predicted_kld"),
        _number(document, "measured_kld"),
    )


def _natural(document: Mapping[str, Any], key: str) -> int:
    found = document.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else 0


def _number(document: Mapping[str, Any], key: str) -> float | None:
    found = document.get(key)
    return found if isinstance(found, float) and math.isfinite(found) else None


def _fail(path: Path, cause: str) -> NoReturn:
    raise MalformedFile(path, cause, kind="recipe", hint=_HINT)
