"""`owm embed`: where texts come from, what comes out, and what is refused."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import owm
from owm.convert.conversion import convert_folder
from owm.engine import embedding as embedding_module
from owm.errors import Unsupported
from support.run import Output, environment, run_here
from support.tiny_adapter import factors, write_adapter
from support.tiny_bert import N_EMBD, write_tiny_bert
from support.tiny_checkpoint import write_tiny_checkpoint
from support.tiny_gguf import write_tiny_gguf

Embed = Callable[..., Output]
ROW_KEYS = ["index", "tokens", "embedding"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_bert(tmp_path / "bert.gguf")


@pytest.fixture
def embed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Embed:
    """Run the command on the tiny BERT, in the test's folder, with bytes in its pipe."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str, pipe: bytes | None = None, of: Path = model) -> Output:
        monkeypatch.setattr(sys, "stdin", None if pipe is None else io.TextIOWrapper(io.BytesIO(pipe)))
        return run_here(capsys, "embed", of, "--threads", "1", *args)

    return run


def rows(output: Output) -> list[dict[str, Any]]:
    assert output.exit_code == 0, output.stderr
    return [json.loads(line) for line in output.splitlines()]


def test_a_text_becomes_one_line_of_json(embed: Embed) -> None:
    done = embed("the cat sat on the mat")
    (row,) = rows(done)
    assert list(row) == ROW_KEYS
    assert (row["index"], row["tokens"], len(row["embedding"])) == (0, 8, N_EMBD)
    assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-6)
    assert done.stderr == ""


def test_a_pipe_and_a_file_are_the_text_that_an_argument_is(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"the cat\r\n")
    (expected,) = rows(embed("the cat"))
    assert rows(embed(pipe=b"the cat\n")) == [expected]
    assert rows(embed("-f", "a.txt")) == [{"index": 0, "file": "a.txt"} | expected]


def test_files_the_pipe_and_the_argument_come_in_their_order(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fish swims")
    (tmp_path / "b.txt").write_text("a dog")
    found = rows(embed("the cat", "-f", "b.txt", "-f", "-", "-f", "a.txt", pipe=b"the mat"))
    alone = [rows(embed(text))[0]["embedding"] for text in ("the cat", "a dog", "the mat", "fish swims")]
    np.testing.assert_allclose([row["embedding"] for row in found], alone, atol=1e-5)
    assert [row.get("file") for row in found] == [None, "b.txt", None, "a.txt"]
    assert [row["index"] for row in found] == [0, 1, 2, 3]


def test_an_argument_leaves_the_pipe_alone(embed: Embed) -> None:
    assert rows(embed("the cat", pipe=b"\xff")) == rows(embed("the cat"))


def test_lines_are_texts(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes("the cat\r\nfish swims\nZüge".encode())
    found = rows(embed("--lines", "-f", "lines.txt"))
    assert len(found) == 3
    (dog,) = rows(embed("--lines", pipe=b"fish swims\n"))
    np.testing.assert_allclose(found[1]["embedding"], dog["embedding"], atol=1e-5)


def test_rows_keep_their_ids(embed: Embed) -> None:
    pipe = b'{"id": "a", "text": "the cat", "more": 1}\n\n{"id": {"n": 2}, "input": "a dog"}\n{"text": "the cat"}\n'
    found = rows(embed("--jsonl", pipe=pipe))
    assert [row.get("id") for row in found] == ["a", {"n": 2}, None]
    assert "id" not in found[2]
    assert found[0]["embedding"] == pytest.approx(found[2]["embedding"], abs=1e-5)
    assert set(found[0]) == {"id", *ROW_KEYS}


def test_no_rows_are_no_vectors(embed: Embed) -> None:
    done = embed("--jsonl", pipe=b"\n")
    assert (done, done.exit_code) == ("", 0)


def test_one_json_object_holds_all(embed: Embed) -> None:
    pipe = b"the cat\na dog\n"
    done = embed("--lines", "--json", pipe=pipe)
    assert set(done.json) == {
        "model", "quant", "pooling", "normalized", "texts", "dimensions", "usage", "embeddings",
    }  # fmt: skip
    assert done.json["embeddings"] == rows(embed("--lines", pipe=pipe))
    assert done.json["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    assert (done.json["pooling"], done.json["normalized"], done.json["texts"]) == ("mean", True, 2)
    assert embed("--jsonl", "--json", pipe=b"").json["embeddings"] == []


def test_a_matrix_is_written_and_its_name_printed(embed: Embed, tmp_path: Path) -> None:
    pipe = b"the cat\na dog\nfish swims\n"
    done = embed("--lines", "-o", "out.npy", pipe=pipe)
    assert (done, done.exit_code, done.stderr) == ("out.npy\n", 0, "")
    matrix = np.load(tmp_path / "out.npy")
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(
        matrix, np.array([row["embedding"] for row in rows(embed("--lines", pipe=pipe))], np.float32)
    )
    said = embed("--lines", "-o", "out.npy", "--json", pipe=pipe).json
    assert (said["file"], said["texts"], said["dimensions"]) == ("out.npy", 3, N_EMBD)
    assert "embeddings" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert.gguf", "out.npy"]


def test_a_failure_leaves_the_old_matrix(embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_module, "WINDOW_TEXTS", 1)
    (tmp_path / "out.npy").write_bytes(b"old")
    done = embed("--lines", "-o", "out.npy", pipe=b"the cat\n\na dog\n")
    assert done.exit_code == 2
    assert "line 2 of stdin is empty" in done.stderr
    assert (tmp_path / "out.npy").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert.gguf", "out.npy"]


def test_options_of_the_vectors(embed: Embed) -> None:
    def vector(*args: str) -> np.ndarray:
        return np.array(rows(embed(*args))[0]["embedding"])

    plain = vector("the cat")
    raw = vector("the cat", "--no-normalize")
    assert np.linalg.norm(raw) > 1.1
    np.testing.assert_allclose(raw / np.linalg.norm(raw), plain, atol=1e-6)
    assert np.abs(vector("the cat", "--pooling", "cls") - plain).max() > 1e-3
    np.testing.assert_array_equal(vector("the cat", "--pooling", "MEAN"), plain)
    np.testing.assert_array_equal(vector("cat", "--prefix", "query : "), vector("query : cat"))


def test_an_adapter_changes_the_vectors(embed: Embed, tmp_path: Path) -> None:
    name = "blk.0.attn_q.weight"
    a, b = factors(name, N_EMBD, N_EMBD)
    write_adapter(tmp_path / "a.gguf", {f"{name}.lora_a": a, f"{name}.lora_b": b}, architecture="bert")
    plain, adapted, without = (
        np.array(rows(embed("the cat sat on a mat", *args))[0]["embedding"])
        for args in ([], ["--lora", "a.gguf"], ["--lora", "a.gguf=0"])
    )
    assert np.abs(adapted - plain).max() > 1e-3
    np.testing.assert_array_equal(without, plain)


def test_a_generator_is_embedded_when_asked(embed: Embed, tmp_path: Path) -> None:
    generator = write_tiny_gguf(tmp_path / "llama.gguf")
    refused = embed("the tin", of=generator)
    assert refused.exit_code == 2
    assert "llama.gguf is no embedding model, it writes text" in refused.stderr
    assert "--pooling mean" in refused.stderr
    (row,) = rows(embed("the tin", "--pooling", "mean", of=generator))
    assert len(row["embedding"]) == 64


def test_an_embedding_model_does_not_run(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    done = run_here(capsys, "run", model, "hi", "--threads", "1")
    assert (done, done.exit_code) == ("", 5), done.stderr
    assert "makes no text, it is an embedding model (bert)" in done.stderr
    assert "hint: `owm embed` makes vectors with it" in done.stderr


@pytest.mark.parametrize(
    ("args", "pipe", "code", "word"),
    [
        ([], None, 2, "nothing to embed"),
        ([], b"", 2, "stdin is empty"),
        (["  "], None, 2, "the text is empty"),
        ([], b"\xff\xfecat", 2, "stdin is not UTF-8"),
        ([], b"\x89PNG\0\0", 2, "a PNG image"),
        (["--lines"], b"the cat\n\nx\n", 2, "line 2 of stdin is empty"),
        (["--lines"], b"the cat\n\xff\n", 2, "line 2 of stdin is not UTF-8"),
        (["--jsonl"], b'{"text": "x"}\n{"text"\n', 2, "line 2 of stdin is no JSON"),
        (["--jsonl"], b'["x"]\n', 2, "line 1 of stdin is no JSON object"),
        (["--jsonl"], b'{"id": 1}\n', 2, "line 1 of stdin has no `text`"),
        (["--jsonl"], b'{"text": 5}\n', 2, "line 1 of stdin has no `text`"),
        (["--jsonl"], b'{"text": "\\ud800"}\n', 2, "line 1 of stdin is no text"),
        (["--jsonl"], b"[" * 100_000, 2, "line 1 of stdin is no JSON"),
        (["--jsonl", "--lines"], b"", 2, "--lines and --jsonl"),
        (["x", "--lines"], None, 2, "--lines is about a pipe"),
        (["x", "--pooling", "max"], None, 2, "unknown pooling: max"),
        (["x", "-o", "out.json"], None, 2, "ends in .npy"),
        (["x", "-o", "nowhere/out.npy"], None, 2, "no such folder: nowhere"),
        (["-f", "nowhere.txt"], None, 3, "no such file: nowhere.txt"),
        (["--lines", "-f", "nowhere.txt"], None, 3, "no such file: nowhere.txt"),
        (["x", "--lora", "nowhere.gguf"], None, 3, "no such adapter: nowhere.gguf"),
        (["x", "--lora", "bert.gguf"], None, 5, "is no adapter"),
        (["x", "--lora", "bert.gguf=nan"], None, 2, "finite"),
        (["the " * 200], None, 2, "the text has 202 tokens, the model reads 128"),
    ],
)
def test_what_cannot_be_embedded_is_said(
    embed: Embed, args: list[str], pipe: bytes | None, code: int, word: str
) -> None:
    done = embed(*args, pipe=pipe)
    assert (done, done.exit_code) == ("", code), done.stderr
    assert word in done.stderr


def test_a_reader_that_leaves_ends_it_quietly(model: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "owm", "embed", str(model), "--lines", "--threads", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write(b"the cat\n" * 200)
    process.stdin.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), said) in ((0, b""), (141, b""))


def test_the_library_gives_the_same_vectors(model: Path, embed: Embed) -> None:
    texts = ["the cat", "a dog"]
    with owm.load(str(model)) as opened:
        matrix = owm.embed(opened, iter(texts), n_threads=1)
        one = owm.embed(opened, "the cat", n_threads=1)
        assert owm.embed(opened, []).shape == (0, N_EMBD)
        with pytest.raises(Unsupported):
            next(owm.answer(opened, "hi"))
    found = rows(embed("--lines", pipe="\n".join(texts).encode()))
    np.testing.assert_array_equal(matrix, np.array([row["embedding"] for row in found], np.float32))
    assert one.shape == (N_EMBD,)
    np.testing.assert_allclose(one, matrix[0], atol=1e-5)


def test_a_pooling_of_the_file_is_used(embed: Embed, tmp_path: Path) -> None:
    other = write_tiny_bert(tmp_path / "cls.gguf", pooling=gguf.PoolingType.CLS)
    assert rows(embed("a dog", of=other)) == rows(embed("a dog", "--pooling", "cls"))


def test_an_argument_of_another_encoding_is_refused(model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "owm", "embed", os.fsencode(model), b"caf\xe9"], env=environment(), capture_output=True
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"not UTF-8" in done.stderr


def test_a_decoder_that_was_trained_for_embeddings_is_converted_as_one(embed: Embed, tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    (checkpoint / "modules.json").write_text('[{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]')
    (checkpoint / "1_Pooling").mkdir()
    (checkpoint / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    convert_folder(checkpoint, tmp_path / "converted.gguf", type="f32", check=False)
    assert embed("the tin", "--json", of=tmp_path / "converted.gguf").json["pooling"] == "last"
