"""A checkpoint: a folder with config.json, weights in safetensors (one file or shards) and a tokenizer.

Only safetensors are read. Pickles can run any code when they are opened, so they never are.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from owm import __version__
from owm.errors import Damaged, MalformedFile, NotFound, Unsupported
from owm.formats import safetensors
from owm.pipeline.rows import DType, FileRows, Rows

INDEX = "model.safetensors.index.json"
MAX_JSON_BYTES = 64 << 20
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_OTHER_WEIGHTS = ("consolidated", "adapter_")  # in other layouts, or no whole model


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An opened checkpoint: its config as it is, its tensors by name, and the files that hold them."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Rows]
    files: tuple[Path, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of the weights' files."""
        return sum(path.stat().st_size for path in self.files)

    def identity(self) -> str:
        """Name the files as they are now: a write that was interrupted goes on only from the same ones."""
        sha = hashlib.sha256(f"owm {__version__}\n{json.dumps(self.config, sort_keys=True)}\n".encode())
        for path in self.files:
            found = path.stat()
            sha.update(os.fsencode(path.resolve()) + f"\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        return sha.hexdigest()


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint; only headers are read.

    Raises:
        NotFound: there is no such folder, or no config.json in it.
        MalformedFile, Damaged: a file is not what it should be, or the shards contradict the index.
        Unsupported: the weights are no safetensors.
    """
    if not folder.is_dir():
        raise NotFound(f"no such folder: {folder}", hint="`owm convert` takes a checkpoint's folder or a Hub repo")
    if not (folder / "config.json").is_file():
        raise NotFound(
            f"{folder} is no checkpoint: it has no config.json",
            hint="a checkpoint is a folder with config.json, a tokenizer and *.safetensors",
        )
    config = read_json(folder / "config.json")
    index = read_json(folder / INDEX).get("weight_map") if (folder / INDEX).is_file() else None
    names = weight_files([path.name for path in sorted(folder.iterdir())], index, str(folder))
    tensors: dict[str, Rows] = {}
    for name in names:
        path = folder / name
        if path.is_symlink() and not path.exists():
            raise Damaged(f"the checkpoint lacks a shard: {name} is a link to nothing", hint="fetch it again")
        header = safetensors.read_header(path)
        for entry in header.tensors.values():
            if entry.name in tensors:
                raise Damaged(f"the tensor {entry.name} is in two files, the second is {name}")
            if entry.dtype not in get_args(DType):
                raise Unsupported(f"{name} has a tensor of type {entry.dtype}, which owm cannot convert: {entry.name}")
            dtype: DType = entry.dtype  # type: ignore[assignment]
            tensors[entry.name] = FileRows(path, entry.offset, entry.shape or (1,), dtype)
    if index is not None:
        _compare(index, tensors)
    return Checkpoint(folder, config, tensors, tuple(folder / name for name in names))


def weight_files(names: list[str], index: Any, where: str) -> list[str]:
    """Choose the files that hold the weights among `names`, given the index's `weight_map` if there is one.

    Raises:
        Damaged: a shard is missing, or the index is no index.
        Unsupported: there are weights, but none that may be opened.
    """
    if index is not None:
        if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
            raise Damaged(f"{INDEX} has no weight_map")
        if not index:
            raise Damaged(f"{INDEX} names no weights")
        wanted = sorted(set(index.values()))
        for name in wanted:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise Damaged(f"{INDEX} names a file outside the checkpoint: {ascii(name)[:80]}")
        if missing := [name for name in wanted if name not in names]:
            raise Damaged(f"the checkpoint lacks a shard: {', '.join(missing[:5])}", hint="fetch it again")
        return wanted
    found = [name for name in names if name.endswith(".safetensors") and not name.startswith(_OTHER_WEIGHTS)]
    whole = [name for name in found if name.startswith("model")]
    if "model.safetensors" in whole:
        return ["model.safetensors"]
    if whole or len(found) == 1:
        _refuse_gaps(whole or found)
        return whole or found
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        raise Unsupported(
            f"{where} has its weights as pickles, which can run code and are never opened: {pickles[0]}",
            hint="many repos have a branch with safetensors, `@refs/pr/1`; transformers can save them so",
        )
    raise Unsupported(f"{where} has no safetensors", hint="a checkpoint's weights are in model*.safetensors")


def _refuse_gaps(names: list[str]) -> None:
    """Refuse shards without an index of which some are missing: `model-00001-of-00003.safetensors`."""
    for name in names:
        stem, _, count = name.removesuffix(".safetensors").rpartition("-of-")
        if stem and count.isdecimal() and len(names) != int(count):
            raise Damaged(f"the checkpoint has {len(names)} of {int(count)} shards", hint="fetch it again")


def _compare(index: dict[str, str], tensors: dict[str, Rows]) -> None:
    if missing := sorted(index.keys() - tensors.keys()):
        raise Damaged(f"the shards lack {len(missing)} tensors that {INDEX} names: {', '.join(missing[:3])}")
    if more := sorted(tensors.keys() - index.keys()):
        raise Damaged(f"the shards have {len(more)} tensors that {INDEX} does not name: {', '.join(more[:3])}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of bounded size.

    Raises:
        MalformedFile: it is something else.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise MalformedFile(path, "it is larger than such a file can be", kind="JSON")
        found = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MalformedFile(path, str(error) or "it is nested too deeply", kind="JSON") from error
    if not isinstance(found, dict):
        raise MalformedFile(path, "it is no object", kind="JSON")
    return found
