"""Model files that llama.cpp does not survive, and a reader of headers that does not know so."""

from pathlib import Path

import pytest

from owm.formats import hyperparameters
from support.tiny_gguf import Value, write_tiny_gguf


def of_architecture(name: str, **values: Value) -> dict[str, Value]:
    """Return the metadata that makes a tiny model one of another architecture; `rope__x` is written `rope.x`."""
    usual: dict[str, Value] = {
        "block_count": 2,
        "context_length": 512,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": 16,
    }
    own = usual | {key.replace("__", "."): value for key, value in values.items()}
    return {"general.architecture": name, **{f"{name}.{key}": value for key, value in own.items()}}


def write_contradictory_rope(path: Path) -> Path:
    """Write a model that loads, and aborts llama.cpp when a context is made: it rotates 8 of a head's 16 values,
    which other architectures do and this one cannot."""
    return write_tiny_gguf(path, metadata=of_architecture("qwen2", rope__dimension_count=8))


def write_whole_numbers(path: Path) -> Path:
    """Write a model that crashes llama.cpp when a token is computed: a matrix says that it is of whole numbers."""
    content = bytearray(write_tiny_gguf(path).read_bytes())
    name = b"blk.0.attn_q.weight"
    place = content.index(name) + len(name) + 4 + 2 * 8  # the number of dimensions, and both
    assert content[place : place + 4] == bytes(4)  # F32
    content[place : place + 4] = (26).to_bytes(4, "little")
    path.write_bytes(content)
    return path


def blind_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the reader of headers know nothing of what numbers mean together, so that the next door has to."""
    monkeypatch.setattr(hyperparameters, "problems", lambda *_: ())


# The same for a command in a process of its own: `run(["-c", BLIND_COMMAND, "run", …])`.
BLIND_COMMAND = (
    "import sys\n"
    "from owm.formats import hyperparameters\n"
    "hyperparameters.problems = lambda *_: ()\n"
    "from owm.__main__ import main\n"
    "main()\n"
)
