"""How a model was made, as its manifest says it: written where one is made, and read back as what a stranger may say.

All that changes bytes is said: the type, what was asked for beside it, the importance matrix and what that came from,
and the versions of what did it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from owm import __version__
from owm.errors import Damaged
from owm.library.made import MAX_TEXT, natural, text
from owm.quantize.quantization import Layout
from owm.quantize.recipe import Overrides
from owm.store.digest import sha256_of

if TYPE_CHECKING:  # loaded when something is made
    from owm.convert.conversion import Conversion
    from owm.formats.imatrix import Imatrix
    from owm.quality.calibration import Calibration

CONVERT, QUANTIZE, FOREIGN = "convert", "quantize", "foreign converter"
COPIES = ("split", "merge")  # the same tensors, in other files
_HINT = "`owm verify` checks what is stored"
MAX_PATTERNS = 4096
MAX_STEPS = 64**3  # ways to match one pattern at one place of a tensor's name
_LONGEST = 64  # a tensor's name, as llama.cpp takes it
_ATOM = re.compile(r"\[\^?[A-Za-z0-9_.-]+\]|\\d|\\w|\\\.|[A-Za-z0-9_.-]|[\^$]")
_DIGITS = ("\\d", "[0-9]")


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for beside the type; `pre` is the pre-tokenizer's name if one was given."""

    overrides: Overrides = field(default_factory=Overrides)
    allow_requantize: bool = False
    layout: Layout = field(default_factory=Layout)
    pre: str | None = None

    def record(self) -> dict[str, Any]:
        """Return it for a manifest; what is as it always is, is left out."""
        wanted = self.overrides
        found: dict[str, Any] = {
            "tensor_type": [f"{pattern}={type_name}" for pattern, type_name in wanted.tensor_types],
            "output_type": wanted.output_type,
            "embedding_type": wanted.embedding_type,
            "pure": wanted.is_pure,
            "prune_layers": list(wanted.pruned),
            "allow_requantize": self.allow_requantize,
            "split_max_bytes": self.layout.split_max_bytes,
            "keep_split": self.layout.keeps_split,
            "pre": self.pre,
        }
        return {name: value for name, value in found.items() if value}


def versions() -> dict[str, str]:
    """Name what makes model files here."""
    from owm.native.llama import library_build

    return {"owm": __version__, "llama_cpp": library_build()}


def about(action: str, options: Options | None = None) -> dict[str, Any]:
    """Return what every manifest says of something made here."""
    return {
        "action": action,
        "by": f"owm {__version__}",
        "versions": versions(),
        "options": (options or Options()).record(),
    }


def of_conversion(conversion: "Conversion", options: Options | None) -> dict[str, Any]:
    """Return what a manifest says of a conversion."""
    found = {"type": conversion.type_name, "known_differences": list(conversion.differences)}
    return found | about(CONVERT, options)


def imatrix_record(
    imatrix: "Imatrix", calibration: "Calibration | None" = None, n_chunks: int | None = None
) -> dict[str, Any]:
    """Return what a manifest says of an importance matrix.

    Args:
        calibration: the text that it was computed from here; None for a file that was given.
        n_chunks: of the text were read at most, None for all.
    """
    found: dict[str, Any] = {
        "file": None,
        "path": None,
        "size_bytes": None,
        "sha256": None,
        "datasets": list(imatrix.datasets),
        "n_chunks": imatrix.n_chunks,
        "chunk_size": imatrix.chunk_size,
        "calibration": None,
    }
    if imatrix.path is not None:
        found |= {
            "file": imatrix.path.name,
            "path": os.path.abspath(imatrix.path),
            "size_bytes": imatrix.path.stat().st_size,
            "sha256": sha256_of(imatrix.path),
        }
    if calibration is not None:
        from owm.quality.calibration import BUNDLED

        is_bundled = calibration.name == BUNDLED
        found["calibration"] = {
            "name": calibration.name,
            "path": None if is_bundled else os.path.abspath(calibration.name),
            "sha256": calibration.sha256,
            "max_chunks": n_chunks,
        }
    return found


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe read back.

    Attributes:
        action: `convert`, `quantize`, or what another program's converter did; None where that is not said.
        tailored: the type of each tensor where types were chosen for a size.
        options: None if the manifest does not say them: it was written by an older owm.
    """

    action: str | None
    type_name: str
    options: Options | None
    imatrix: Mapping[str, Any] | None
    tailored: Mapping[str, str] | None
    versions: Mapping[str, str] | None
    by: str | None


def read(made_from: Mapping[str, Any], name: str) -> Recipe:
    """Read how a model was made.

    Args:
        name: of the model, for the message.

    Raises:
        Damaged: it is nothing that owm writes.
    """
    versions_said, imatrix = made_from.get("versions"), made_from.get("imatrix")
    action, tailored = made_from.get("action"), made_from.get("recipe")
    if action is None:  # an older owm's
        is_ours = str(made_from.get("by")).startswith("owm ")
        action = QUANTIZE if "tensor_types" in made_from else CONVERT if is_ours else FOREIGN
    type_name = made_from.get("type")
    if (
        action not in (CONVERT, QUANTIZE, FOREIGN, *COPIES)
        or not isinstance(type_name, str)
        or not isinstance(imatrix, dict | None)
        or not _is_map_of_texts(versions_said)
    ):
        _fail(name)
    chosen: dict[str, str] | None = None
    if tailored is not None:
        found = tailored.get("types") if isinstance(tailored, dict) else None
        if not found or not _is_map_of_texts(found):
            _fail(name)
        chosen = dict(found)
    if chosen is None and action in (CONVERT, QUANTIZE) and not _is_type(action, type_name):
        _fail(name)
    options = made_from.get("options")
    return Recipe(
        action,
        type_name,
        None if options is None else _options(options, name),
        imatrix,
        chosen,
        versions_said,
        text(made_from.get("by")),
    )


def _is_type(action: str, type_name: str) -> bool:
    from owm.convert.conversion import TYPES
    from owm.quantize.types import FILE_TYPE_IDS

    return type_name in (TYPES if action == CONVERT else FILE_TYPE_IDS)


def _options(found: object, name: str) -> Options:
    from owm.errors import UsageError
    from owm.quantize.recipe import parse_tensor_type
    from owm.quantize.types import tensor_type

    if not isinstance(found, dict):
        _fail(name)
    lines, layers = found.get("tensor_type", []), found.get("prune_layers", [])
    flags = [found.get(key, False) for key in ("pure", "allow_requantize", "keep_split")]
    texts = [found.get(key) for key in ("output_type", "embedding_type", "pre")]
    size = found.get("split_max_bytes")
    if (
        not isinstance(lines, list)
        or not isinstance(layers, list)
        or not all(isinstance(each, str) and len(each) <= MAX_TEXT for each in lines)
        or not all(natural(each) is not None for each in layers)
        or not all(isinstance(each, bool) for each in flags)
        or not all(each is None or (isinstance(each, str) and len(each) <= MAX_TEXT) for each in texts)
        or (size is not None and not natural(size))
    ):
        _fail(name)
    output, embedding, pre = texts
    try:
        overrides = Overrides(
            tuple(parse_tensor_type(line) for line in lines),
            None if output is None else tensor_type(output),
            None if embedding is None else tensor_type(embedding),
            is_pure=flags[0],
            pruned=tuple(layers),
        )
    except UsageError as error:
        raise Damaged(f"the manifest of {name} cannot be right: {error}", hint=_HINT) from error
    return Options(overrides, flags[1], Layout(size, flags[2]), pre)


def check_patterns(recipe: Recipe, name: str) -> None:
    """Refuse regular expressions of a stranger's that could take without end: matching goes back and forth.

    Raises:
        Damaged: one is more than tensors' names, classes, groups of alternatives and a few `*`, `+` and `?`.
    """
    patterns = recipe.options.overrides.tensor_types if recipe.options is not None else ()
    steps = [_n_steps(pattern) for pattern, _ in patterns]
    for (pattern, _), n_steps in zip(patterns, steps, strict=True):
        if n_steps is None or n_steps > MAX_STEPS:
            raise Damaged(
                f"the manifest of {name} has a regular expression for tensors that is not plain: {pattern[:200]}",
                hint="only the manifest beside the file says so: what you trust, make with `--tensor-type` yourself",
            )
    if len(patterns) > MAX_PATTERNS or sum(each or 0 for each in steps) > 16 * MAX_STEPS:
        raise Damaged(
            f"the manifest of {name} has too many regular expressions for tensors: {len(patterns)}",
            hint="only the manifest beside the file says so: what you trust, make with `--tensor-type` yourself",
        )


def _n_steps(pattern: str) -> int | None:
    """Return at most how many ways a pattern can be tried at one place; None for what is not plain."""
    n_steps, at, open_groups = 1, 0, [1]
    while at < len(pattern):
        char = pattern[at]
        if atom := _ATOM.match(pattern, at):
            at = atom.end()
            if pattern[at : at + 1] in ("*", "+", "?"):
                n_steps *= 2 if pattern[at] == "?" else 8 if atom[0] in _DIGITS else _LONGEST
                at += 1
        elif char == "(":
            open_groups.append(1)
            at += 1
        elif char == "|":
            open_groups[-1] += 1
            at += 1
        elif char == ")" and len(open_groups) > 1:
            n_steps *= open_groups.pop()
            at += 1
            if pattern[at : at + 1] == "?":
                n_steps *= 2
                at += 1
        else:
            return None
        if len(open_groups) > 16 or n_steps > MAX_STEPS:
            return None
    return n_steps * open_groups[0] if len(open_groups) == 1 else None


def _is_map_of_texts(value: object) -> bool:
    return value is None or (
        isinstance(value, dict) and all(isinstance(each, str) and len(each) <= MAX_TEXT for each in value.values())
    )


def _fail(name: str) -> NoReturn:
    raise Damaged(f"the manifest of {name} does not say in a way that owm writes how it was made", hint=_HINT)
