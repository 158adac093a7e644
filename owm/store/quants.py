"""Quantization types in file names: which files of a repo make one model, and which of them was meant.

Repos name quants in many ways: `model-Q4_K_M.gguf`, `Q4_K_M/model-00001-of-00003.gguf`, `model.i1-IQ3_XS.gguf`,
`model-UD-Q4_K_XL.gguf`, `model-q4_k_m.gguf`. A `Variant` is one choice a person has: a label and its files.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Generic, Protocol, TypeVar

from owm.errors import QuantNotFound

_TYPE = (
    r"IQ[1-5]_(?:XXS|XS|NL(?:_XL)?|S|M|K[A-Z]*)"
    r"|Q\d_K(?:_(?:XXL|XL|XS|S|M|L|P))?"
    r"|Q\d_[01](?:_\d+_\d+)?"
    r"|\d+\.\d{2,6}BPW|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32"
)
_LABEL = re.compile(rf"(?:^|[-_.])(?P<prefix>UD-|i1-)?(?P<type>{_TYPE})(?=$|[-_.])", re.IGNORECASE)
_SHARD = re.compile(r"-(?P<index>\d{5})-of-(?P<count>\d{5})$")
_KINDS = "mmproj|imatrix|vocab-only|lora"
_NOT_A_MODEL = re.compile(
    rf"^(?P<first>{_KINDS})(?=$|[-_.])|(?:^|[-_.])(?P<last>{_KINDS})(?:[-_.](?:{_TYPE}))?$", re.IGNORECASE
)
_WORDS = {
    "mmproj": "a projector",
    "imatrix": "an importance matrix",
    "vocab-only": "a vocabulary",
    "lora": "an adapter",
}

# What llama.cpp takes when nothing is named is Q4_K_M, then Q8_0; the rest is the nearest to Q4_K_M first.
DEFAULT_ORDER = (
    "Q4_K_M", "Q8_0", "Q4_K_S", "Q4_K_L", "Q4_K_XL", "MXFP4", "MXFP4_MOE", "Q5_K_M", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS",
    "Q5_K_S", "Q5_K_L", "Q5_1", "Q5_0", "Q6_K", "Q3_K_L", "Q3_K_M", "BF16", "F16", "F32",
)  # fmt: skip


class RepoFile(Protocol):
    """What this module needs to know of a file."""

    @property
    def path(self) -> str: ...
    @property
    def size_bytes(self) -> int | None: ...


F = TypeVar("F", bound=RepoFile)


@dataclass(frozen=True, slots=True)
class Variant(Generic[F]):
    """One model of a repo: `label` as people type it, its files in shard order."""

    label: str
    files: tuple[F, ...]

    @property
    def size_bytes(self) -> int | None:
        """Bytes of all files together, None when the source does not tell."""
        sizes = [file.size_bytes for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


def label_of(path: str) -> str | None:
    """Return the quant label in a file's name or, failing that, in its nearest folder: `UD-Q4_K_XL`, None."""
    pure = PurePosixPath(path)
    for part in (_SHARD.sub("", pure.stem), *reversed(pure.parts[:-1])):
        if found := list(_LABEL.finditer(part)):
            match = found[-1]
            prefix = {"ud-": "UD-", "i1-": "i1-"}.get((match["prefix"] or "").lower(), "")
            return prefix + re.sub(r"^FP", "F", match["type"].upper())
    return None


def is_model_file(path: str) -> bool:
    """Tell whether a path is a GGUF with weights to run (no projector, imatrix or adapter)."""
    return path.lower().endswith(".gguf") and part_of_a_model(path) is None


def part_of_a_model(path: str) -> str | None:
    """Tell what a GGUF is that is no model to run, by its name: `a projector`, None."""
    found = _NOT_A_MODEL.search(PurePosixPath(path).stem)
    return _WORDS[(found["first"] or found["last"]).lower()] if found else None


def variants(files: Iterable[F]) -> list[Variant[F]]:
    """Group a repo's files into the models a person can choose from; labels are unique.

    An incomplete set of shards is left out: it could never be run.
    """
    groups = _groups(files)
    whole = {key: tuple(file for _, _, file in parts) for key, parts in groups.items() if not _missing(parts)}
    labels = {key: label_of(key + ".gguf") or PurePosixPath(key).name for key in whole}
    taken = list(labels.values())
    return [
        Variant(labels[key] if taken.count(labels[key]) == 1 else PurePosixPath(key).as_posix(), members)
        for key, members in whole.items()
    ]


def missing_parts(files: Iterable[F]) -> list[str]:
    """Return the paths of the parts that incomplete sets of shards lack."""
    return [
        f"{key}-{index:05d}-of-{parts[0][1]:05d}.gguf"
        for key, parts in _groups(files).items()
        for index in _missing(parts)
    ]


def _groups(files: Iterable[F]) -> dict[str, list[tuple[int, int, F]]]:
    """Group model files by what they are parts of: path without the shard's number -> (number, count, file)."""
    groups: dict[str, list[tuple[int, int, F]]] = {}
    for file in sorted(files, key=lambda f: f.path):
        if not is_model_file(file.path):
            continue
        stem = file.path[: -len(".gguf")]
        shard = _SHARD.search(stem)
        key = _SHARD.sub("", stem)
        index, count = (int(shard["index"]), int(shard["count"])) if shard else (1, 1)
        groups.setdefault(key, []).append((index, count, file))
    return {key: sorted(parts, key=lambda part: part[:2]) for key, parts in groups.items()}


def _missing(parts: list[tuple[int, int, F]]) -> list[int]:
    """Return the numbers of the shards that are not there; a set that contradicts itself lacks its last."""
    count = parts[0][1]
    there = [index for index, _, _ in parts]
    absent = [index for index in range(1, min(count, 10_000) + 1) if index not in there]
    return absent or ([] if len(there) == count else [count])


def choose(choices: Sequence[Variant[F]], quant: str | None, *, where: str) -> Variant[F]:
    """Return the variant that `quant` names, or the default one when it is None.

    Raises:
        QuantNotFound: there is no such quant, or several that the word could mean.
    """
    if quant is None:
        return min(choices, key=lambda v: (_rank(v.label), v.size_bytes or 0, v.label))
    wanted = quant.lower()
    for fits in (
        [v for v in choices if v.label.lower() == wanted],
        [v for v in choices if _plain(v.label).lower() == _plain(quant).lower()],
    ):
        if len(fits) == 1:
            return fits[0]
    available = tuple(v.label for v in sorted(choices, key=lambda v: v.size_bytes or 0))
    near = difflib.get_close_matches(wanted, [label.lower() for label in available], n=1, cutoff=0.5)
    suggestion = next((label for label in available if label.lower() in near), None)
    listing = ", ".join(available[:24]) + (", …" if len(available) > 24 else "")
    raise QuantNotFound(
        f"no quant {quant} in {where}",
        quant=quant,
        available=available,
        hint=(f"did you mean `{suggestion}`? " if suggestion else "") + f"it has: {listing}",
    )


def _plain(label: str) -> str:
    return re.sub(r"^(?:UD-|i1-)", "", label, flags=re.IGNORECASE).replace("-", "_")


def _rank(label: str) -> tuple[int, int]:
    plain = _plain(label)
    order = DEFAULT_ORDER.index(plain) if plain in DEFAULT_ORDER else len(DEFAULT_ORDER)
    return order, int(plain != label)
