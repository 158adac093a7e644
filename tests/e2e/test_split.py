"""`owm split` and `owm merge`: there and back byte for byte, and what happens with files that are none of theirs."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from owm.formats.gguf import read_header
from support.run import Output, run_here
from support.tiny_gguf import write_tiny_gguf


@pytest.fixture
def owm(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Output]:
    """Run a command in this process, in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))

    def called(*args: str | os.PathLike[str]) -> Output:
        return run_here(capsys, *args)

    return called


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


def refused(done: Output, code: int, *words: str) -> None:
    assert done.exit_code == code, done.stderr
    assert done == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    for word in words:
        assert word in errors[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_model_in_parts_answers_as_before_and_is_merged_byte_for_byte(
    owm: Callable[..., Output], model: Path, tmp_path: Path
) -> None:
    done = owm("split", model, "--max-size", "200KiB")
    assert done.exit_code == 0, done.stderr
    made = [Path(line) for line in done.splitlines()]
    assert [path.name for path in made] == [f"tiny-{i + 1:05}-of-{len(made):05}.gguf" for i in range(len(made))]
    assert len(made) > 1
    assert all(path.stat().st_size <= 200 << 10 for path in made)
    assert "parts" in done.stderr
    question = ["hi", "--temp", "0", "--max-tokens", "8"]
    answers = [owm("run", path, *question) for path in (model, made[0])]
    assert answers[0].exit_code == answers[1].exit_code == 0, answers[1].stderr
    assert answers[0] == answers[1]
    merged = owm("merge", made[1], "-o", "again.gguf")
    assert merged.exit_code == 0, merged.stderr
    assert merged == "again.gguf\n"
    assert Path("again.gguf").read_bytes() == model.read_bytes()
    assert names(tmp_path) == sorted(["again.gguf", "tiny.gguf", *(path.name for path in made)])


def test_json_names_every_file(owm: Callable[..., Output], model: Path) -> None:
    planned = owm("split", model, "--max-tensors", "8", "--dry-run", "--json").json
    assert not list(Path().glob("*-of-*"))
    done = owm("split", model, "--max-tensors", "8", "--json").json
    assert set(done) == {"n_tensors", "size_bytes", "files"}
    assert done["n_tensors"] == len(read_header(model).tensors) == sum(file["n_tensors"] for file in done["files"])
    assert max(file["n_tensors"] for file in done["files"]) == 8
    assert done["size_bytes"] == sum(file["size_bytes"] for file in done["files"])
    for file in done["files"]:
        assert set(file) == {"path", "size_bytes", "n_tensors", "sha256"}
        assert file["sha256"] == hashlib.sha256(Path(file["path"]).read_bytes()).hexdigest()
    for file in done["files"]:
        del file["sha256"]
    assert planned == done
    merged = owm("merge", done["files"][0]["path"], "-o", "again.gguf", "--json").json
    assert merged["files"][0]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()


def test_a_dry_run_writes_nothing(owm: Callable[..., Output], model: Path, tmp_path: Path) -> None:
    done = owm("split", model, "--max-tensors", "8", "--dry-run")
    assert done.splitlines()[0].split() == ["FILE", "TENSORS", "SIZE"]
    assert "would write" in done.stderr
    assert names(tmp_path) == ["tiny.gguf"]


def test_the_same_command_again_keeps_what_is_there(owm: Callable[..., Output], model: Path) -> None:
    first = owm("split", model, "--max-tensors", "8")
    Path(first.splitlines()[1]).unlink()
    again = owm("split", model, "--max-tensors", "8")
    assert again.exit_code == 0, again.stderr
    assert again == first


def test_split_refuses(owm: Callable[..., Output], model: Path, tmp_path: Path) -> None:
    refused(owm("split", model), 2, "how large")
    refused(owm("split", model, "--max-size", "1M", "--max-tensors", "3"), 2, "--max-tensors")
    refused(owm("split", model, "--max-size", "much"), 2, "much")
    refused(owm("split", model, "--max-size", "0"), 2, "positive")
    refused(owm("split", model, "--max-size", "1GiB"), 2, "nothing to split")
    refused(owm("split", model, "--max-size", "4KiB"), 2, "the part with token_embd.weight needs")
    refused(owm("split", model, "--max-tensors", "8", "-o", "parts.bin"), 2, ".gguf")
    refused(owm("split", model, "--max-tensors", "8", "-o", "nowhere/m.gguf"), 2, "nowhere")
    refused(owm("split", "nothing.gguf", "--max-tensors", "8"), 3, "nothing.gguf")
    assert names(tmp_path) == ["tiny.gguf"]
    (tmp_path / "tiny-00001-of-00003.gguf").write_bytes(b"precious")
    refused(owm("split", model, "--max-tensors", "8"), 2, "tiny-00001-of-00003.gguf is there already")
    assert (tmp_path / "tiny-00001-of-00003.gguf").read_bytes() == b"precious"


def test_merge_refuses(owm: Callable[..., Output], model: Path, tmp_path: Path) -> None:
    refused(owm("merge", model), 2, "whole model already")
    made = [Path(line) for line in owm("split", model, "--max-tensors", "8").splitlines()]
    refused(owm("split", made[0], "--max-tensors", "2"), 2, "one of 3 parts already")
    refused(owm("merge", made[0], "-o", made[1]), 2, "there already")
    (tmp_path / "other").mkdir()
    other = write_tiny_gguf(tmp_path / "other" / "tiny.gguf", n_blocks=3)
    assert owm("split", other, "--max-tensors", "10", "-o", "other/tiny.gguf").exit_code == 0
    second = made[1].read_bytes()
    made[1].write_bytes((tmp_path / "other" / made[1].name).read_bytes())
    refused(owm("merge", made[0], "-o", "x.gguf"), 7, made[1].name)
    made[1].write_bytes(second[:-1])
    refused(owm("merge", made[0], "-o", "x.gguf"), 7, made[1].name, "truncated")
    made[1].unlink()
    refused(owm("merge", made[0], "-o", "x.gguf"), 7, f"{made[1].name} is missing")
    made[0].rename("single.gguf")
    refused(owm("merge", "single.gguf", "-o", "x.gguf"), 7, "one of 3 parts")
    assert not Path("x.gguf").exists()
