"""`owm quality` from end to end: figures, and where they are kept."""

import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from owm.cli.app import main
from owm.errors import ChecksumMismatch
from owm.formats import gguf
from owm.quality import certificate
from owm.store import manifest
from owm.store.local import Store
from support.run import Output, run
from support.stored import put_model
from support.tiny_checkpoint import write_tiny_checkpoint
from support.tiny_gguf import tiny_gguf, write_tiny_gguf

ROOM = ((certificate.KEY, certificate.blank()),)
FIGURES = ("kld_mean", "kld_median", "kld_p99", "perplexity_reference", "perplexity", "top1_agreement")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    words = np.random.default_rng(5).choice(["the", "inner", "ton", "at", "on", "thread"], 1500)
    path.write_text(" ".join(words), encoding="utf-8")
    return path


def _owm(*args: str | Path) -> Output:
    """Run a command in this process: loading llama.cpp anew for each takes seconds."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        code = main([*map(os.fspath, args)])
    output = Output(stdout.getvalue())
    output.stderr, output.exit_code = stderr.getvalue(), code
    return output


def _quality(reference: Path | str, model: Path | str, text: Path, *more: str) -> Output:
    return _owm("quality", reference, model, "--text", text, "-c", "32", "-t", "1", *more)


def _put(store: Store, label: str, *, seed: int, is_made: bool) -> Path:
    folder = put_model(store, "acme/tiny", label, content=tiny_gguf(1, seed=seed, metadata=ROOM))
    if is_made:
        known = manifest.parse((folder / manifest.FILE_NAME).read_text(), folder)
        manifest.write(replace(known, made_from={"checkpoint": "hub:acme/tiny"}), folder)
    return folder


def test_figures_are_data_and_are_kept_in_the_file_that_owm_made(tmp_path: Path, text: Path) -> None:
    reference = write_tiny_gguf(tmp_path / "reference.gguf", n_blocks=1)
    path = write_tiny_gguf(tmp_path / "made.gguf", n_blocks=1, seed=1, metadata=dict(ROOM))
    size = path.stat().st_size
    said = _quality(reference, path, text, "--json")
    assert said.exit_code == 0, said.stderr
    found = said.json
    assert set(found) == {
        *FIGURES, "text_name", "text_sha256", "n_ctx", "n_chunks", "n_chunks_total", "n_tokens", "seconds",
        "reference", "model", "is_recorded",
    }  # fmt: skip
    assert found["is_recorded"]
    assert found["n_chunks"] <= found["n_chunks_total"]
    for name in FIGURES:
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    kept = certificate.of_header(gguf.read_header(path))
    assert kept is not None
    assert kept.kld_mean.value == pytest.approx(found["kld_mean"]["value"], rel=1e-5)
    assert path.stat().st_size == size
    shown = run(["-m", "owm", "show", path])  # a process of its own once: what it imports is all it has
    assert "by its own account" in shown
    assert "against " in shown


def test_it_says_the_figures_to_people(tmp_path: Path, text: Path) -> None:
    reference = write_tiny_gguf(tmp_path / "reference.gguf", n_blocks=1)
    other = write_tiny_gguf(tmp_path / "other.gguf", n_blocks=1, seed=1)
    before = other.read_bytes()
    said = _quality(reference, other, text, "--full")
    assert said.exit_code == 0, said.stderr
    lines = said.splitlines()
    assert [line[:18].strip() for line in lines] == [
        "KLD mean", "KLD median", "KLD 99 %", "perplexity", "of the reference", "top-1 agreement", "read", "time",
    ]  # fmt: skip
    assert "±" not in said
    assert "recorded" not in said.stderr
    assert other.read_bytes() == before


def test_a_stored_model_is_still_whole_afterwards(store: Store, tmp_path: Path, text: Path) -> None:
    reference = write_tiny_gguf(tmp_path / "reference.gguf", n_blocks=1)
    made = _put(store, "Q8_0", seed=1, is_made=True)
    theirs = _put(store, "Q4_0", seed=2, is_made=False)
    untouched = next(theirs.glob("*.gguf")).read_bytes()
    assert all(_owm("list", "--json").json[i]["quality"] is None for i in range(2))
    assert "KLD" not in _owm("list")
    for label in ("Q8_0", "Q4_0"):
        said = _quality(reference, f"acme/tiny:{label}", text, "--chunks", "8")
        assert said.exit_code == 0, said.stderr
        assert "recorded" in said.stderr
    assert next(theirs.glob("*.gguf")).read_bytes() == untouched
    kept = certificate.of_header(gguf.read_header(next(made.glob("*.gguf"))))
    assert kept is not None
    listed = {model["quant"]: model["quality"] for model in _owm("list", "--json").json}
    assert listed["Q8_0"] == json.loads(json.dumps(kept.record()))
    assert listed["Q4_0"]["n_chunks"] == 8
    assert "KLD" in _owm("list")
    shown = _owm("show", "acme/tiny:Q8_0")
    assert "top-1" in shown
    assert "by its own account" not in shown
    for model in store.models():
        store.verify(model)
    # One byte outside the certificate is still found.
    file = next(made.glob("*.gguf"))
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ChecksumMismatch):
        store.verify(store.find_stored("acme/tiny:Q8_0"))


def test_a_kill_between_manifest_and_file_leaves_a_whole_model(store: Store, tmp_path: Path) -> None:
    folder = _put(store, "Q8_0", seed=1, is_made=True)
    file = next(folder.glob("*.gguf"))
    place = certificate.place_of(gguf.read_header(file))
    known = manifest.parse((folder / manifest.FILE_NAME).read_text(), folder)
    entry = {"certificate": None, "blanked": {"offset": place.offset, "size_bytes": place.size_bytes}} if place else {}
    manifest.write(replace(known, quality=entry), folder)
    store.verify(store.find_stored("acme/tiny:Q8_0"))
    assert _owm("list", "--json").json[0]["quality"] is None


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--chunks", "1"), 2, "--chunks must be at least 4"),
        (("-t", "0"), 2, "--threads must be between"),
        (("-c", "4"), 2, "--ctx-size must be at least 8"),
        (("-c", "100000"), 2, "too short"),
    ],
)
def test_bad_requests_say_why(tmp_path: Path, text: Path, more: tuple[str, ...], code: int, message: str) -> None:
    reference = write_tiny_gguf(tmp_path / "reference.gguf", n_blocks=1)
    other = write_tiny_gguf(tmp_path / "other.gguf", n_blocks=1, seed=1)
    said = _quality(reference, other, text, *more)
    assert (said.exit_code, said) == (code, "")
    assert message in said.stderr


def test_bad_requests_are_refused_before_a_checkpoint_is_converted(tmp_path: Path, text: Path) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    for more in (("--chunks", "1"), ("-c", "4")):
        said = _quality(tmp_path / "tiny", tmp_path / "nothing.gguf", text, *more)
        assert (said.exit_code, said) == (2, "")
        assert "converting" not in said.stderr


def test_what_cannot_be_recorded_is_said_all_the_same(tmp_path: Path, text: Path) -> None:
    plain = write_tiny_gguf(tmp_path / "plain.gguf", n_blocks=1)
    made = tmp_path / "made.gguf"
    assert _owm("quantize", plain, "Q8_0", "-o", made).exit_code == 0
    made.chmod(0o444)
    args = ["-m", "owm", "quality", plain, made, "--text", text, "--chunks", "4", "--json"]
    said = run(args, unprivileged=True)
    assert said.exit_code == 0, said.stderr
    assert not said.json["is_recorded"]
    assert "warning: not recorded: cannot write" in said.stderr


def test_bad_models_and_texts_say_why(tmp_path: Path, text: Path) -> None:
    reference = write_tiny_gguf(tmp_path / "reference.gguf", n_blocks=1)
    other = write_tiny_gguf(tmp_path / "bos.gguf", n_blocks=1, metadata={"tokenizer.ggml.add_bos_token": True})
    (tmp_path / "cut.gguf").write_bytes(reference.read_bytes()[:-100])
    for model, where, code, message in (
        (other, text, 2, "reads the text as other tokens"),
        (tmp_path / "cut.gguf", text, 7, "truncated"),
        (reference, text, 2, "is the reference itself"),
        (other, tmp_path / "missing", 3, "no such file"),
    ):
        said = _quality(reference, model, where)
        assert (said.exit_code, said) == (code, ""), said.stderr
        assert message in said.stderr


def test_what_quantize_makes_has_room_and_is_no_reference_to_certify_by(tmp_path: Path, text: Path) -> None:
    plain = write_tiny_gguf(tmp_path / "plain.gguf", n_blocks=1)
    made = tmp_path / "made.gguf"
    assert _owm("quantize", plain, "Q8_0", "-o", made).exit_code == 0
    assert _quality(plain, made, text, "--chunks", "4", "--json").json["is_recorded"]
    kept = certificate.of_header(gguf.read_header(made))
    assert kept is not None
    assert kept.kld_mean.value < 0.1
    other = write_tiny_gguf(tmp_path / "other.gguf", n_blocks=1, seed=1, metadata=dict(ROOM))
    before = other.read_bytes()
    said = _quality(made, other, text, "--chunks", "4", "--json")
    assert "made.gguf is quantized itself" in said.stderr
    assert not said.json["is_recorded"]
    assert other.read_bytes() == before
