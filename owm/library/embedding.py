"""Texts to vectors: the library's side of `owm embed`, and files of them that numpy reads."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from owm.engine.embedding import Embedder, Embedding, Passage, Pooling, Vector
from owm.engine.model import Model
from owm.errors import UsageError
from owm.events import Sink, ignore
from owm.publishing import create_anew, sync_folder
from owm.store.download import write_error

SUFFIX = ".npy"


def embed(
    model: Model,
    texts: str | Iterable[str],
    *,
    pooling: str | None = None,
    prefix: str = "",
    is_normalized: bool = True,
    n_threads: int | None = None,
    sink: Sink = ignore,
) -> Vector:
    """Return the vectors of texts, a row each, or of one text its vector (float32).

    Args:
        model: an open one (`owm.load`).
        pooling: `mean`, `cls` or `last`, instead of what the model's file says.
        prefix: put before every text, as some models want it.
        is_normalized: scale vectors to length 1.

    Raises:
        UsageError, PromptTooLong, Unsupported, NotEnoughMemory, EngineError: as `Embedder` does.
    """
    listed = [texts] if isinstance(texts, str) else texts
    passages = (Passage(text, f"text {number}") for number, text in enumerate(listed, 1))
    how = read_pooling(pooling)
    with Embedder(model, pooling=how, prefix=prefix, is_normalized=is_normalized, n_threads=n_threads) as embedder:
        rows = [embedding.vector for embedding in embedder.embed(passages, sink=sink)]
        if isinstance(texts, str):
            return rows[0]
        return np.stack(rows) if rows else np.zeros((0, embedder.n_dims), np.float32)


def read_pooling(text: str | None) -> Pooling | None:
    """Read the name of a way to pool.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    try:
        return Pooling(text.lower())
    except ValueError:
        raise UsageError(f"unknown pooling: {text}", hint=f"it is one of {', '.join(Pooling)}") from None


def write_vectors(embeddings: Iterable[Embedding], n_dims: int, path: Path) -> Iterator[Embedding]:
    """Write vectors as the rows of a float32 matrix (`.npy`), and pass each on; memory holds one at a time.

    The file gets its name when it is whole and on disk; if the iteration is left before its end, there is none.

    Raises:
        NotEnoughDisk, StoreError: it cannot be written.
    """
    incomplete = path.with_name(f"{path.name}.incomplete")
    try:
        with open(create_anew(incomplete), "wb") as file:
            n_rows = 0
            _write_header(file, n_rows, n_dims)
            for embedding in embeddings:
                file.write(embedding.vector.astype("<f4").tobytes())
                n_rows += 1
                yield embedding
            _write_header(file, n_rows, n_dims)
            file.flush()
            os.fsync(file.fileno())
        os.replace(incomplete, path)
        sync_folder(path.parent)
    except OSError as error:
        problem = write_error(error, path)
        problem.hint = "`-o` takes another place"
        raise problem from error
    finally:
        incomplete.unlink(missing_ok=True)


def _write_header(file: BinaryIO, n_rows: int, n_dims: int) -> None:
    """Write the header at the beginning; numpy makes it long enough for any number of rows."""
    file.seek(0)
    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (n_rows, n_dims)})
