"""`owm show`: what is said of a file, and what is left out where there is nothing to say."""

from pathlib import Path

import pytest

from support.packed_gguf import STRING, U32, key, pack
from support.run import run_here
from support.tiny_gguf import write_tiny_gguf

Capture = pytest.CaptureFixture[str]


def test_a_file_without_tensors_has_no_bits_per_weight(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(pack([key("general.architecture", STRING, "llama"), key("llama.block_count", U32, 1)], []))
    done = run_here(capsys, "show", path)
    assert done.exit_code == 0, done
    (size,) = (line for line in done.splitlines() if line.startswith("size"))
    assert size.endswith(" B")
    assert "bits per weight" not in done
    assert run_here(capsys, "show", path, "--json").json["bits_per_weight"] is None


def test_a_file_with_tensors_has_them(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "m.gguf"
    write_tiny_gguf(path)
    assert " bits per weight)" in run_here(capsys, "show", path)
