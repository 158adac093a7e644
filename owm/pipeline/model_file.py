"""A model file (GGUF), whole or in parts, as the source of a plan: its metadata byte for byte, its tensors lazy."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from owm import __version__
from owm.errors import MalformedFile
from owm.formats.gguf import Header, read_header
from owm.formats.gguf_writer import RawValue, Value
from owm.pipeline.plan import Plan, PlannedTensor, make_plan
from owm.pipeline.rows import DType, FileRows

PART_KEYS = ("split.no", "split.count", "split.tensors.count")  # ref: llama.cpp tools/gguf-split
REASON = "as it is"
_HINT = "all parts must be of one model, and lie in one folder; fetch them again"


def open_model_file(paths: Sequence[Path]) -> Plan:
    """Plan a model as it lies in one file or in several parts: every tensor in its own type, all in one file.

    Only headers are read. What makes a file a part is left out of the metadata; all else is kept as a `RawValue`. Rows
    of a quantized type are the bytes of its quant blocks.

    Args:
        paths: the file, or all parts in their order.

    Raises:
        MalformedFile: a file is damaged, no such part, or of another model.
        Unsupported: a tensor type that this version of owm does not know.
        StoreError: a file cannot be read.
    """
    headers = [read_header(path) for path in paths]
    _check_parts(headers)
    metadata: dict[str, Value] = {}
    tensors: dict[str, PlannedTensor] = {}
    for header in headers:
        for key, raw in header.raw_values().items():
            known = metadata.setdefault(key, RawValue(raw, header.metadata[key]))
            if key not in PART_KEYS and cast(RawValue, known).raw != raw:
                raise MalformedFile(header.path, f"its {key!a} is not that of {paths[0].name}", hint=_HINT)
        for entry in header.tensors:
            if entry.name in tensors:
                raise MalformedFile(header.path, f"another part has its tensor {entry.name!a} too", hint=_HINT)
            offset, shape = header.data_offset + entry.offset, tuple(reversed(entry.shape))
            rows = FileRows(header.path, offset, shape, cast(DType, entry.type_name))
            tensors[entry.name] = PlannedTensor(entry.name, rows, entry.type_name, REASON)
    for key in PART_KEYS:
        metadata.pop(key, None)
    return make_plan(metadata, list(tensors.values()), origin=identity(paths))


def is_part(header: Header) -> bool:
    """Tell whether a file is one of several; a merged one may still say that it is one of none."""
    count = header.metadata.get("split.count", 0)
    return isinstance(count, int) and count > 1


def _check_parts(headers: Sequence[Header]) -> None:
    """Check that files are all parts of one model, in their order."""
    if len(headers) == 1:
        if is_part(headers[0]):
            cause = f"it is one of {headers[0].metadata['split.count']} parts"
            raise MalformedFile(headers[0].path, cause, hint=_HINT)
        return
    for number, header in enumerate(headers):
        found = tuple(header.metadata.get(key) for key in ("split.no", "split.count"))
        if found != (number, len(headers)):
            if found == (None, None):
                cause = "it is no part of a model"
            elif all(isinstance(item, int) for item in found):
                cause = f"it says it is part {int(cast(int, found[0])) + 1} of {found[1]}"
            else:
                cause = "it does not say which part it is"
            raise MalformedFile(header.path, f"{cause}, not {number + 1} of {len(headers)}", hint=_HINT)
    told = [header.metadata.get("split.tensors.count") for header in headers]
    for header, count in zip(headers, told, strict=True):
        if count != told[0]:
            raise MalformedFile(header.path, f"it is of another model than {headers[0].path.name}", hint=_HINT)
    n_tensors = sum(len(header.tensors) for header in headers)
    if told[0] not in (None, n_tensors):
        cause = f"all parts together have {n_tensors} tensors, not as many as it says"
        raise MalformedFile(headers[0].path, cause, hint=_HINT)


def identity(paths: Sequence[Path]) -> str:
    """Name the files as they are now: a write that was interrupted goes on only from the same ones."""
    sha = hashlib.sha256(f"owm {__version__}\n".encode())
    for path in paths:
        found = path.stat()
        sha.update(os.fsencode(path.resolve()) + f"\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return sha.hexdigest()
