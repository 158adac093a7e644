"""`owm imatrix`: a model in, an importance matrix out, its figures, and what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from owm.formats.imatrix import read_imatrix
from support.run import Output, run, run_here
from support.tiny_gguf import write_tiny_gguf
from support.tiny_moe import write_tiny_moe

TEXT = "the rain in Spain, and then another one: there is no end to it. " * 20


@pytest.fixture
def imatrix(capsys: pytest.CaptureFixture[str]) -> Callable[..., Output]:
    def called(*args: str | os.PathLike[str]) -> Output:
        return run_here(capsys, "imatrix", *args)

    return called


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


def refused(done: Output, code: int, *words: str) -> None:
    assert (done.exit_code, done) == (code, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    for word in words:
        assert word in errors[0]


def test_a_model_and_the_bundled_text(model: Path, tmp_path: Path) -> None:
    done = run(["-m", "owm", "imatrix", model, "--chunks", "2", "-o", tmp_path])
    assert done.exit_code == 0, done.stderr
    path = tmp_path / "tiny.imatrix.gguf"
    assert done == f"{path}\n"
    assert "from owm calibration text, version 1" in done.stderr
    assert "read 2 chunks of 512 tokens; 14 tensors" in done.stderr
    found = read_imatrix(path)
    assert found.datasets == ("owm calibration text, version 1",)


def test_figures_for_programs_and_for_people(imatrix: Callable[..., Output], model: Path, text: Path) -> None:
    path = text.with_name("made.gguf")
    made = imatrix(model, "--calibration", text, "--ctx-size", "64", "-o", path, "--json")
    assert made.exit_code == 0, made.stderr
    record = made.json
    assert sorted(record) == ["chunk_size", "chunks", "datasets", "path", "tensors", "unhit_experts"]
    assert sorted(record["tensors"][0]) == [
        "active", "deviation", "entropy", "evenness", "maximum", "mean", "minimum", "n_unhit", "n_values", "name",
        "similarity", "total", "z_share",
    ]  # fmt: skip
    assert (record["path"], record["chunk_size"], len(record["tensors"])) == (str(path), 64, 14)
    assert imatrix(path, "--json").json == record
    shown = imatrix(path)
    assert shown.splitlines()[0].split() == [
        "TENSOR", "COLUMNS", "SUM", "MIN", "MAX", "MEAN", "SD", "ACTIVE", "ENTROPY", "EVEN", "ZD", "COSINE",
    ]  # fmt: skip
    assert len(shown.splitlines()) == 15


def test_experts_that_were_never_used(imatrix: Callable[..., Output], text: Path, tmp_path: Path) -> None:
    model = write_tiny_moe(tmp_path / "moe.gguf", n_experts=32)
    path = tmp_path / "moe.imatrix.gguf"
    made = imatrix(model, "--calibration", text, "-c", "16", "--chunks", "1", "-o", path, "--json")
    assert made.json["unhit_experts"] > 0
    assert "were never used by this text; they get the mean of the others" in made.stderr
    written = read_imatrix(path)
    assert written.unhit() == {}
    weights = written.weights("blk.0.ffn_down_exps.weight")
    assert weights is not None
    assert weights.shape == (32, 64)
    assert np.isfinite(weights).all()


def test_conversations(imatrix: Callable[..., Output], model: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "Why? " * 20}, {"role": "assistant", "content": "Because. " * 20}]
    file.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    made = imatrix(model, "--calibration", file, "-c", "32", "-o", tmp_path / "out.gguf")
    assert made.exit_code == 0, made.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["MODEL", "--calibration", "TEXT", "-c", "9999"], 2, ["tokens, a chunk has 9999"]),
        (["MODEL", "--chunks", "0"], 2, ["--chunks must be positive: 0"]),
        (["MODEL", "-c", "4"], 2, ["--ctx-size must be at least 16: 4"]),
        (["MODEL", "-t", "0"], 2, ["--threads must be between 1 and"]),
        (["MODEL", "--calibration", "MISSING"], 1, ["cannot read"]),
        (["MODEL", "-o", "MISSING/x.gguf"], 2, ["no such folder"]),
        (["MODEL", "--calibration", "TEXT", "-c", "64", "-o", "MODEL"], 2, ["is there and is no importance matrix"]),
        (["MISSING"], 3, ["no such file"]),
    ],
)
def test_what_is_refused(
    imatrix: Callable[..., Output], model: Path, text: Path, tmp_path: Path, arguments: list[str], code: int,
    words: list[str],
) -> None:  # fmt: skip
    before = model.read_bytes()
    places = {"MODEL": str(model), "TEXT": str(text), "MISSING": str(tmp_path / "missing.gguf")}
    given = [next((word.replace(name, path) for name, path in places.items() if name in word), word)
             for word in arguments]  # fmt: skip
    refused(imatrix(*given), code, *words)
    assert model.read_bytes() == before


def test_an_importance_matrix_is_no_model(imatrix: Callable[..., Output], model: Path, text: Path) -> None:
    path = text.with_name("made.gguf")
    assert imatrix(model, "--calibration", text, "-c", "64", "-o", path).exit_code == 0
    refused(imatrix(path, "--chunks", "3"), 2, "is an importance matrix already")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(model: Path, text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    args = ["-m", "owm", "imatrix", model, "--calibration", text, "-o", folder / "x.gguf", "-c", "64"]
    said = run(args, unprivileged=True)
    assert (said.exit_code, said) == (1, "")
    assert "no right to write" in said.stderr
    assert "computing" not in said.stderr
