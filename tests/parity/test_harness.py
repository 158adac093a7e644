"""The proofs can fail: on a file that is right but for one thing."""

import shutil
from pathlib import Path

import pytest
from gguf import GGUFReader

from parity.cases.llama import CASES
from parity.checkpoints import make
from parity.comparing import file_differences
from parity.converting import ReferenceConverter
from parity.gguf_edit import Edited
from parity.proof import Proof, Row
from parity.vocabularies import Shelf
from parity.worker import RefusedError, Worker

CASE = next(case for case in CASES if case.id == "llama-gqa")


@pytest.fixture(scope="module")
def right(
    shelf: Shelf, llama: Worker, reference: ReferenceConverter, tmp_path_factory: pytest.TempPathFactory
) -> Proof:
    """A file of the reference converter."""
    return Proof(CASE, reference, llama, shelf, tmp_path_factory.mktemp("right"), Row(CASE.id, CASE.hf))


def test_a_right_file_passes(right: Proof) -> None:
    assert right.agreement_of(right.gguf).holds


def test_a_doubled_rope_base_is_noticed(right: Proof, tmp_path: Path) -> None:
    edited = Edited(right.gguf)
    edited.write("llama.rope.freq_base", edited.values["llama.rope.freq_base"] * 2, tmp_path / "doubled.gguf")
    assert not right.agreement_of(tmp_path / "doubled.gguf").holds


def test_an_unpermuted_query_is_noticed(right: Proof, tmp_path: Path) -> None:
    wrong = tmp_path / "unpermuted.gguf"
    shutil.copy(right.gguf, wrong)
    for tensor in GGUFReader(wrong, "r+").tensors:
        if tensor.name == "blk.0.attn_q.weight":
            n_heads, (n_rows, n_cols) = 4, tensor.data.shape
            pairs = tensor.data.reshape(n_heads, n_rows // n_heads // 2, 2, n_cols)
            tensor.data[:] = pairs.swapaxes(1, 2).reshape(n_rows, n_cols).copy()
            tensor.data.base.flush()
    assert [each.split(":")[0] for each in file_differences(wrong, right.gguf)] == ["blk.0.attn_q.weight"]
    assert not right.agreement_of(wrong).holds


def test_other_metadata_is_named(right: Proof, tmp_path: Path) -> None:
    Edited(right.gguf).write("tokenizer.ggml.add_bos_token", False, tmp_path / "other.gguf")
    found = file_differences(tmp_path / "other.gguf", right.gguf)
    assert found == ["tokenizer.ggml.add_bos_token: False (BOOL) instead of True (BOOL)"]


def test_an_edit_that_keeps_the_value_keeps_the_file(right: Proof, tmp_path: Path) -> None:
    edited = Edited(right.gguf)
    for key, value in edited.values.items():
        edited.write(key, value, tmp_path / "same.gguf")
        assert (tmp_path / "same.gguf").read_bytes() == right.gguf.read_bytes(), key


def test_a_file_that_is_none_is_refused(right: Proof, tmp_path: Path) -> None:
    (tmp_path / "none.gguf").write_bytes(b"GGUF" + b"\xff" * 60)
    assert right.notices(tmp_path / "none.gguf")
    assert right.agreement_of(right.gguf).holds


def test_a_worker_that_dies_is_started_again(tmp_path: Path) -> None:
    worker = Worker("llama_worker")
    with pytest.raises(RefusedError, match="KeyError"):
        worker.ask({"gguf": "/none"})
    assert worker._process is not None
    worker._process.kill()
    with pytest.raises(RefusedError, match="ended with -9"):
        worker.ask({"gguf": "/none"})
    with pytest.raises(RefusedError, match="KeyError"):
        worker.ask({"gguf": "/none"})
    worker.close()


def test_a_checkpoint_is_the_same_twice(right: Proof, shelf: Shelf, tmp_path: Path) -> None:
    again = make(CASE, shelf, tmp_path / right.checkpoint.folder.name)
    assert again.tokens == right.checkpoint.tokens
    for file in right.checkpoint.folder.iterdir():
        assert (again.folder / file.name).read_bytes() == file.read_bytes(), file.name
