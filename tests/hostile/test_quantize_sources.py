"""Damaged and malicious things to quantize: each gets one error, and nothing is written."""

import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.crafted_gguf import crafted
from support.packed_gguf import F32, STRING, U16, U32, array, key, pack, tensor
from support.run import run_here
from support.tiny_checkpoint import bf16, write_tiny_checkpoint
from support.tiny_gguf import tiny_gguf, write_tiny_gguf

# Exit codes: 2 usage, 3 not found, 5 unsupported, 7 damaged.
Spoil = Callable[[Path], object]


def quantize(capsys: pytest.CaptureFixture[str], *args: str | os.PathLike[str]) -> tuple[int, str, str]:
    done = run_here(capsys, "quantize", *args)
    return done.exit_code, done, done.stderr


def error_of(stderr: str) -> str:
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, stderr
    assert "Traceback" not in stderr
    return errors[0]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    return write_tiny_gguf(tmp_path / "m.gguf", n_embd=128)


def patched(path: Path, old: bytes, new: bytes) -> None:
    raw = path.read_bytes()
    assert raw.count(old) >= 1
    path.write_bytes(raw.replace(old, new, 1))


def number(name: str, old: int, new: int) -> Spoil:
    """Give a key of the metadata another number."""
    head = struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", 4)
    return lambda path: patched(path, head + struct.pack("<I", old), head + struct.pack("<I", new))


def not_a_number(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-400:-396] = struct.pack("<f", float("nan"))  # of output.weight
    path.write_bytes(raw)


SPOILED: dict[str, tuple[Spoil, int, str]] = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-1000]), 7, "m.gguf"),
    "only a header": (lambda path: path.write_bytes(path.read_bytes()[:3000]), 7, "m.gguf"),
    "empty": (lambda path: path.write_bytes(b""), 7, "it is empty"),
    "something else": (lambda path: path.write_bytes(b"PK\3\4" + bytes(1000)), 7, "m.gguf"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), 3, "m.gguf"),
    "an architecture that nobody knows": (lambda path: patched(path, b"llama", b"lhama"), 7, "llama.cpp"),
    "no architecture": (lambda path: path.write_bytes(pack([key("a", U32, 1)], [], b"")), 7, ""),
    "fewer layers than tensors": (number("llama.block_count", 2, 1), 7, "llama.cpp"),
    "more layers than tensors": (number("llama.block_count", 2, 3), 7, "llama.cpp"),
    "layers without end": (number("llama.block_count", 2, 0x7FFFFFFF), 7, "2147483647 layers"),
    "no heads": (number("llama.attention.head_count", 4, 0), 7, "llama.cpp"),
    "rows of another length": (number("llama.embedding_length", 128, 64), 7, "rotates 32 of 16"),
    "one of several parts": (
        lambda path: path.write_bytes(crafted({"split.no": (U16, 0), "split.count": (U16, 3)})), 7, "parts"
    ),
    "a value that is no number": (not_a_number, 7, "output.weight has values that are infinite or no numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "code", "word"), SPOILED.values(), ids=SPOILED.keys())
def test_a_damaged_model_file_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str], spoil: Spoil, code: int, word: str
) -> None:
    spoil(model)
    found, out, err = quantize(capsys, model, "Q8_0", "-o", "x.gguf")
    assert (found, out) == (code, ""), err
    assert word in error_of(err)
    assert sorted(path.name for path in model.parent.iterdir()) == ["m.gguf"]


def test_a_missing_part_is_named(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(capsys, "split", model, "--max-tensors", "8").exit_code == 0
    parts = sorted(model.parent.glob("m-0*.gguf"))
    parts[1].unlink()
    for part in (parts[0], parts[2]):
        code, out, err = quantize(capsys, part, "Q8_0", "-o", "x.gguf")
        assert (code, out) in ((7, ""), (3, "")), err
        error_of(err)
    assert not (model.parent / "x.gguf").exists()


def test_parts_of_two_models_are_not_mixed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(capsys, "split", model, "--max-tensors", "8").exit_code == 0
    other = write_tiny_gguf(model.with_name("o.gguf"), n_embd=128, n_blocks=3)
    assert run_here(capsys, "split", other, "--max-tensors", "8").exit_code == 0
    first, second = sorted(model.parent.glob("m-0*.gguf"))[:2]
    second.write_bytes(min(model.parent.glob("o-00002-*.gguf")).read_bytes())
    code, out, err = quantize(capsys, first, "Q8_0", "-o", "x.gguf")
    assert (code, out) == (7, ""), err
    assert second.name in error_of(err)


def test_a_text_in_a_file_does_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of tensors and the architecture come from the file, with whatever is in them."""
    evil = "blk.0.\x1b]0;owned\x07\x1b[2J"
    model = tmp_path / "m.gguf"
    entries = [tensor(evil, [32, 2], 0, 0)]
    model.write_bytes(pack([key("general.architecture", STRING, "ll\x1b[2Jama")], entries, bytes(256)))
    for args in (["--dry-run"], ["-o", str(tmp_path / "x.gguf")]):
        code, out, err = quantize(capsys, model, "Q8_0", *args)
        assert code != 0
        assert "\x1b" not in out + err
        assert "\x07" not in out + err


def test_raw_metadata_is_kept_whatever_it_holds(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Types and texts that owm itself would never write."""
    from owm.formats.gguf import read_header

    raw = tiny_gguf(n_embd=128)
    extra = [key("a.double", 12, 0.1), array("a.texts", STRING, ["x", b"\xff\xfe", ""]), key("a.single", F32, 0.25)]
    n_keys = struct.unpack_from("<Q", raw, 16)[0]
    header = read_header(model)
    assert n_keys == len(header.metadata)
    end = max(end for _, end in header.places.values())
    table = end + sum(8 + len(t.name.encode()) + 4 + 8 * len(t.shape) + 4 + 8 for t in header.tensors)
    made = raw[:16] + struct.pack("<Q", n_keys + len(extra)) + raw[24:end] + b"".join(extra) + raw[end:table]
    made += bytes(-len(made) % 32) + raw[header.data_offset :]
    model.write_bytes(made)
    code, _, err = quantize(capsys, model, "Q8_0", "-o", "x.gguf")
    assert code == 0, err
    source, found = read_header(model).raw_values(), read_header(model.with_name("x.gguf")).raw_values()
    for name in ("a.double", "a.texts", "a.single", "tokenizer.ggml.tokens"):
        assert found[name] == source[name]


@pytest.mark.parametrize("content", [b"", b"GGUF", b"\x01\0\0\0", b"\xff" * 64, b"PK\3\4"])
def test_a_damaged_importance_matrix_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    imatrix = model.with_name("imatrix.gguf")
    imatrix.write_bytes(content)
    code, out, err = quantize(capsys, model, "Q4_0", "-o", "x.gguf", "--imatrix", imatrix)
    assert (code, out) == (7, ""), err
    assert "imatrix.gguf" in error_of(err)
    assert not model.with_name("x.gguf").exists()


def test_a_model_file_is_no_importance_matrix(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = quantize(capsys, model, "Q4_0", "-o", "x.gguf", "--imatrix", model)
    assert code == 7, err
    assert "m.gguf" in error_of(err)


# -- values that ggml would abort the process on ----------------------------------------------------------------------

EXTREMES = {
    "huge": ((3e38, -3e38), None),
    "huge and tiny": ((1e38, -1e-40, 1.0), None),
    "just too large": ((1.1e6, -1e-45), None),
    "just within": ((1e6, -1e6, 1e-45, -1e-45, 0.0), None),
    "tiny": ((1e-45, -1e-45, 0.0), (1e-45, 0.0)),
    "a huge importance": ((1.0, -0.5, 0.25), (3e38, 1e-45)),
    "an importance below zero": ((1.0, -0.5, 0.25), (1.0, -1.0)),
    "an importance that is no number": ((1.0, -0.5, 0.25), (1.0, float("nan"))),
    "both just within": ((1e6, -1e-38, -1e6), (1e15, 1e-45, 0.0)),
}
ABORTING = """
import sys
import numpy as np
from owm.native import quants

for name in ("IQ3_S", "IQ3_XXS", "IQ4_XS", "Q2_K", "Q3_K", "Q4_K", "Q6_K", "Q4_0", "Q5_1", "Q8_0"):
    for values, weights in eval(sys.argv[1], {"nan": float("nan")}):
        block = np.resize(np.array(values, np.float32), (2, 512))
        made = np.resize(np.array(weights or (1.0,), np.float32), 512)
        try:
            quants.quantize(block, name, made if weights or quants.requires_weights(name) else None)
        except quants.OutOfRange as error:
            print(name, error)
        else:
            print(name, "made")
"""


def test_no_values_abort_a_quantizer() -> None:
    """In a process of its own: what is not refused ends it. Not the types whose tables take seconds to make."""
    cases = list(EXTREMES.values())
    done = subprocess.run([sys.executable, "-c", ABORTING, repr(cases)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    outcomes = ["values", "values", "values", "made", "made", "importances", "importances", "importances", "made"]
    assert len(lines) == 10 * len(cases)
    assert [line.split()[1] for line in lines] == outcomes * (len(lines) // len(cases))


@pytest.mark.parametrize("source", ["huge", "huge and tiny"])
def test_huge_values_are_one_error(model: Path, capsys: pytest.CaptureFixture[str], source: str) -> None:
    from owm.formats.gguf import read_header

    write_tiny_gguf(model, n_embd=256, n_blocks=1)
    header, raw = read_header(model), bytearray(model.read_bytes())
    found = next(found for found in header.tensors if found.name == "blk.0.ffn_down.weight")
    begin = header.data_offset + found.offset
    raw[begin : begin + found.n_bytes] = np.resize(np.array(EXTREMES[source][0], "<f4"), found.n_elements).tobytes()
    model.write_bytes(raw)
    code, out, err = quantize(capsys, model, "IQ3_S", "-o", "x.gguf")
    assert (code, out) == (7, ""), err
    assert "blk.0.ffn_down.weight has values beyond ±1,000,000" in error_of(err)
    assert not model.with_name("x.gguf").exists()


def test_values_that_overflow_a_scale_are_one_error_and_ggml_is_not_heard(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from owm.formats.gguf import read_header

    write_tiny_gguf(model, n_embd=256, n_blocks=1)
    header, raw = read_header(model), bytearray(model.read_bytes())
    found = next(found for found in header.tensors if found.name == "blk.0.ffn_down.weight")
    begin = header.data_offset + found.offset
    raw[begin : begin + found.n_bytes] = np.full(found.n_elements, 9e5, "<f4").tobytes()
    model.write_bytes(raw)
    code, out, err = quantize(capfd, model, "Q4_0", "--pure", "-o", "x.gguf")
    assert (code, out) == (7, ""), err
    assert "blk.0.ffn_down.weight as Q4_0 comes to values that are no numbers" in error_of(err)
    assert "ggml_validate_row_data" not in err
    assert not model.with_name("x.gguf").exists()


# -- checkpoints -------------------------------------------------------------------------------------------------------


def _truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _no_tensors(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _no_number(folder: Path) -> None:
    broken = np.ones((64, 64), np.float32)
    broken[3, 5] = np.inf
    write_tiny_checkpoint(folder, tensors={"model.layers.1.self_attn.o_proj.weight": bf16(broken)})


def _other_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))


CHECKPOINTS = [
    (_truncated, 7, "model.safetensors"),
    (_no_tensors, None, ""),
    (_no_number, 7, "blk.1.attn_output.weight has values that are infinite"),
    (_other_config, 7, "blk.2."),
]


@pytest.mark.parametrize(("spoil", "code", "word"), CHECKPOINTS, ids=[row[0].__name__[1:] for row in CHECKPOINTS])
def test_a_damaged_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Spoil, code: int | None, word: str
) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    spoil(folder)
    found, out, err = quantize(capsys, folder, "Q8_0", "-o", tmp_path / "x.gguf")
    assert found == (found if code is None else code)
    assert found not in (0, 1)
    assert out == ""
    assert word in error_of(err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


def test_values_that_are_no_numbers_pass_where_nothing_is_quantized(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tiny"
    write_tiny_checkpoint(folder)
    _no_number(folder)
    code, _, err = quantize(capsys, folder, "BF16", "-o", tmp_path / "x.gguf")
    assert code == 0
    assert "blk.1.attn_output.weight has 1 values that are infinite or not a number" in err
