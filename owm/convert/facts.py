"""What a model file says about itself under `general.*`: name, author, licence, languages, from the model card.

gguf-py reads the card and guesses sizes and versions from the name; that work is its own.
"""

import logging
from datetime import date
from pathlib import Path
from typing import Any

from owm.formats.gguf_writer import U64, Value
from owm.temporary import temporary_folder


class CardProblem(Exception):
    """The model card cannot be read; the model can be converted without."""


def read_facts(
    folder: Path,
    name: str | None,
    n_params: tuple[int, int, int, int],
    architecture: str,
    *,
    kind: str = "model",
) -> tuple[dict[str, Value], str | None]:
    """Return the `general.*` keys but those of sampling, and what was wrong with the card if something was.

    Args:
        name: the model's name, where the folder's is none (without a slash).
        n_params: all weights, those outside experts, those of one expert's worth, number of experts (gguf-py's count;
            the first is negative for an adapter).
        kind: `model` or `adapter`.

    Raises:
        CardProblem: the README.md, or another file that gguf-py reads, is malformed.
    """
    import gguf

    logging.getLogger("gguf").setLevel(logging.CRITICAL)
    total, shared, expert, count = n_params
    writer = gguf.GGUFWriter(path=None, arch=architecture)
    try:
        with temporary_folder() as temporary:
            # The folder's name is one of the things that gguf-py reads; a commit's hash says nothing.
            named = folder.resolve() if name is None else Path(temporary, name)
            if name is not None:
                named.symlink_to(folder.resolve())
            metadata = gguf.Metadata.load(None, named, None, total)
        if metadata.name is None:
            metadata.name = named.name
        if metadata.size_label is None and total > 0:
            metadata.size_label = gguf.size_label(total, shared, expert, count)
        writer.add_type(kind)
        metadata.set_gguf_meta_model(writer)
    except Exception as error:  # a stranger's file in another's parser: any failure is the file's
        raise CardProblem(f"{type(error).__name__}: {error}") from error
    found: dict[str, Value] = {}
    wrong = None
    for key, entry in writer.kv_data[0].items():
        if key.startswith("general.sampling."):  # read elsewhere, and checked there
            continue
        value = _value(entry)
        if value is None:
            wrong = f"{key} is of the wrong kind"
        else:
            found[key] = value
    return found, wrong


def plain_facts(folder: Path, name: str | None, architecture: str, *, kind: str = "model") -> dict[str, Value]:
    """Return the least that a model file should say, for a checkpoint whose card cannot be read."""
    return {"general.architecture": architecture, "general.type": kind, "general.name": name or folder.name}


def _value(entry: Any) -> Value | None:
    """Return what gguf-py made of a stranger's text, None if it is not what a model file can hold."""
    value = entry.value
    if isinstance(value, str):
        return value if _is_text(value) else None
    if isinstance(value, list | tuple):
        texts = [str(item) if isinstance(item, int | float | date) else item for item in value]
        return texts if all(_is_text(item) for item in texts) else None
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value) if isinstance(value, date) else value if isinstance(value, bool) else None
    return value if 0 <= value < 1 << 32 else U64(value) if 0 <= value < 1 << 64 else None


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode("utf-8") or True)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
