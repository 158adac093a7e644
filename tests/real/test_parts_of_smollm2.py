"""The real SmolLM2 in parts: byte for byte what llama.cpp's own llama-gguf-split makes of it."""

import filecmp
import os
import subprocess
from pathlib import Path

import pytest

from owm.formats.gguf import read_header
from owm.pipeline.model_file import open_model_file
from owm.pipeline.parts import copy, file_names, plan_parts
from owm.store.digest import sha256_of

pytestmark = pytest.mark.real
REFERENCE = os.environ.get("OWM_REFERENCE")  # taken out of the environment before a test begins

# Of what llama-gguf-split (llama.cpp 0c1e57098) writes with --split-max-tensors 100.
SHA256 = (
    "5d7783b09193c99f8c0d5de487430a75b2d89decfa54aa55fcdfafcef8aa0aeb",
    "c0a0cd044665ed2568fd6f32c24b62ada9667f46c4c823d08a0470c1e89f518e",
    "5d705b914de8d237db555cb19bd2fe478b5a64c8e6fb8f58702aa813381a2f9d",
)


def _split(source: Path, folder: Path, **options: int) -> list[Path]:
    plan = plan_parts(open_model_file([source]), **options)
    paths = [folder / name for name in file_names("m.gguf", len(plan.files))]
    copy(plan, paths, stage="split", digest=False)
    return paths


def test_parts_are_those_of_llama_cpp_and_make_the_same_file(smollm2_path: Path, tmp_path: Path) -> None:
    paths = _split(smollm2_path, tmp_path, max_tensors=100)
    assert tuple(sha256_of(path) for path in paths) == SHA256
    copy(open_model_file(paths), [tmp_path / "again.gguf"], stage="merge", digest=False)
    assert filecmp.cmp(tmp_path / "again.gguf", smollm2_path, shallow=False)


@pytest.mark.skipif(not REFERENCE, reason="needs llama.cpp's own programs")
@pytest.mark.parametrize("limit", ["tensors", "size"])
def test_the_reference_tool_agrees(smollm2_path: Path, tmp_path: Path, limit: str) -> None:
    tool = Path(str(REFERENCE), "bin", "llama-gguf-split")
    option = ["--split-max-tensors", "37"] if limit == "tensors" else ["--split-max-size", "60M"]
    (tmp_path / "reference").mkdir()
    subprocess.run([tool, *option, smollm2_path, tmp_path / "reference" / "m"], check=True, stdout=subprocess.DEVNULL)
    theirs = sorted((tmp_path / "reference").iterdir())
    # The tool's sizes are of tensors alone, owm's of whole files: the same cut is asked for by the largest file.
    largest = max(path.stat().st_size for path in theirs)
    ours = _split(smollm2_path, tmp_path, **{"max_tensors": 37} if limit == "tensors" else {"max_bytes": largest})
    assert [path.name for path in ours] == [path.name for path in theirs]
    assert all(filecmp.cmp(*pair, shallow=False) for pair in zip(ours, theirs, strict=True))
    # It merges what owm has split; the keys of parts that it leaves in are gone after a copy.
    merged = tmp_path / "merged.gguf"
    subprocess.run([tool, "--merge", ours[0], merged], check=True, stderr=subprocess.DEVNULL)
    assert read_header(merged).metadata["split.count"] == 0
    copy(open_model_file([merged]), [tmp_path / "again.gguf"], stage="merge", digest=False)
    assert filecmp.cmp(tmp_path / "again.gguf", smollm2_path, shallow=False)
