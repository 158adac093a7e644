"""The two comparisons: files byte by byte, outputs row by row."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFReader

from parity.allowed import ALLOWED, LAST_BIT

MIN_COSINE = 0.9999
N_MISSED = 1  # of 64 positions


@dataclass(frozen=True)
class Agreement:
    """How alike two outputs are at the positions that count."""

    min_cosine: float
    n_same_top: int
    n: int

    @property
    def holds(self) -> bool:
        """Whether the two models are the same."""
        return self.min_cosine >= MIN_COSINE and self.n_same_top >= self.n - N_MISSED


def agreement(ours: np.ndarray, theirs: np.ndarray, positions: np.ndarray) -> Agreement:
    """Compare the rows at some positions; another width is no agreement at all."""
    n = len(positions)
    if ours.shape != theirs.shape:
        return Agreement(-1.0, 0, n)
    a, b = ours[positions].astype(np.float64), theirs[positions].astype(np.float64)
    with np.errstate(all="ignore"):
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    worst = float(np.nan_to_num(cosines, nan=-1.0).min())
    return Agreement(worst, int((a.argmax(1) == b.argmax(1)).sum()), n)


def file_differences(ours: Path, theirs: Path, allowed: Collection[str] = ()) -> list[str]:
    """Describe every difference between two model files but those in the allowed keys, which have to differ."""
    one, other = GGUFReader(ours), GGUFReader(theirs)
    return _metadata_differences(one, other, allowed) + _tensor_differences(one, other)


def _metadata_differences(ours: GGUFReader, theirs: GGUFReader, allowed: Collection[str]) -> list[str]:
    a, b = (
        {key: (field.types, field.contents()) for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        for reader in (ours, theirs)
    )
    stale = [f"{key} is listed as allowed to differ, and does not" for key in allowed if a.get(key) == b.get(key)]
    return stale + [
        f"{key}: {_short(a.get(key))} instead of {_short(b.get(key))}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key) and key not in ALLOWED and key not in allowed
    ]


def _tensor_differences(ours: GGUFReader, theirs: GGUFReader) -> list[str]:
    a, b = ({tensor.name: tensor for tensor in reader.tensors} for reader in (ours, theirs))
    found = [f"{name}: {'missing' if name in b else 'too many'}" for name in sorted(a.keys() ^ b.keys())]
    for name in sorted(a.keys() & b.keys()):
        one, other = a[name], b[name]
        if (list(one.shape), one.tensor_type) != (list(other.shape), other.tensor_type):
            described = [f"{list(tensor.shape)} {tensor.tensor_type.name}" for tensor in (one, other)]
            found.append(f"{name}: {described[0]} instead of {described[1]}")
        elif one.data.tobytes() != other.data.tobytes() and not _nearly_equal(name, one.data, other.data):
            n = int((one.data.reshape(-1) != other.data.reshape(-1)).sum())
            found.append(f"{name}: {n} of {one.data.size} values differ")
    return found


def _nearly_equal(name: str, one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether numbers that may differ in the last bit differ in no other."""
    if one.dtype != np.float32 or not any(re.fullmatch(pattern, name) for pattern in LAST_BIT):
        return False
    steps = one.reshape(-1).view(np.int32).astype(np.int64) - other.reshape(-1).view(np.int32)
    return bool((np.abs(steps) <= 1).all())


def _short(typed: tuple[list[object], object] | None) -> str:
    if typed is None:
        return "nothing"
    text = f"{typed[1]!r} ({'/'.join(getattr(kind, 'name', '?') for kind in typed[0])})"
    return text if len(text) < 160 else f"{text[:120]}…{text[-30:]}"
