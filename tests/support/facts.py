"""A stand-in for reading a model file's header, for tests that are about bytes and not about models."""

from pathlib import Path

from owm.errors import MalformedFile
from owm.store.manifest import ModelFacts

MAGIC = b"GGUF"


def inspect(path: Path) -> ModelFacts:
    """Accept whatever begins like a GGUF."""
    with open(path, "rb") as file:
        if file.read(4) != MAGIC:
            raise MalformedFile(path, "it does not begin with GGUF")
    return ModelFacts("llama", n_params=1000)


def model_bytes(n_bytes: int, seed: int = 0) -> bytes:
    """Return bytes that begin like a GGUF and are otherwise random."""
    import random

    return MAGIC + random.Random(seed).randbytes(n_bytes - len(MAGIC))
