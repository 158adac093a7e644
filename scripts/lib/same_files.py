"""Two model files held against each other: every tensor byte for byte, every metadata key as it lies in the file."""

import mmap
from pathlib import Path

from owm.formats.gguf import Header, read_header

# What owm writes and llama.cpp's quantizer does not, and the name of a file that each side was given in its own way.
OWN_KEYS = ("owm.quality.certificate", "quantize.imatrix.file")


def differences(ours: Path, theirs: Path, *, ignored: tuple[str, ...] = ()) -> list[str]:
    """Return what differs, a line each; nothing if tensors (in any order) and metadata are the same."""
    a, b = read_header(ours), read_header(theirs)
    found = []
    ours_by_name, theirs_by_name = ({tensor.name: tensor for tensor in header.tensors} for header in (a, b))
    if ours_by_name.keys() != theirs_by_name.keys():
        return [f"other tensors: {sorted(ours_by_name.keys() ^ theirs_by_name.keys())[:3]}"]
    with _mapped(ours) as left, _mapped(theirs) as right:
        for name, mine in ours_by_name.items():
            other = theirs_by_name[name]
            if (mine.type_name, mine.shape) != (other.type_name, other.shape):
                found.append(f"{name}: {mine.type_name} {mine.shape} instead of {other.type_name} {other.shape}")
                continue
            begin, end = a.data_offset + mine.offset, b.data_offset + other.offset
            if left[begin : begin + mine.n_bytes] != right[end : end + other.n_bytes]:
                found.append(f"{name}: other bytes ({mine.type_name})")
    return found + _keys(a, b, (*OWN_KEYS, *ignored))


def _keys(ours: Header, theirs: Header, ignored: tuple[str, ...]) -> list[str]:
    a, b = ours.raw_values(), theirs.raw_values()
    return [
        f"metadata: {key}" for key in sorted(a.keys() | b.keys()) if key not in ignored and a.get(key) != b.get(key)
    ]


def _mapped(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
