"""`owm quantize --reproduce`: made again from the manifest, byte for byte, or the first difference said."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from owm.formats.gguf import read_header
from owm.formats.imatrix import Entry, Imatrix, write_imatrix
from owm.library import reproducing, retrieving
from owm.native.guard import Child
from owm.quality import certificate
from owm.store import manifest
from owm.store.local import Store
from support.hub_server import HubServer, Repo
from support.run import Output, finish, start
from support.tiny_checkpoint import files_of, write_tiny_checkpoint
from support.tiny_gguf import tiny_gguf, write_tiny_gguf

pytestmark = pytest.mark.slow

KEYS = {"name", "is_identical", "difference", "sha256", "size_bytes", "versions", "notes"}
DIFFERENCE_KEYS = {"kind", "name", "number", "offset", "recorded", "built", "sentence"}
Owm = Callable[..., Output]


@pytest.fixture
def work(clean_environment: Path) -> Path:
    """The folder of working files, which has to be empty in the end."""
    return clean_environment / "owm" / "work"


def left(work: Path) -> list[str]:
    return [path.name for path in work.rglob("*") if path.is_file()] if work.exists() else []


def change(store: Store, label: str, **changes: Any) -> None:
    """Change what the manifest of the model with that label says it was made from; None removes a key."""
    (model,) = [one for one in store.models() if one.label == label]
    assert model.manifest is not None
    assert model.folder is not None
    made_from = {**(model.manifest.made_from or {}), **changes}
    made_from = {key: value for key, value in made_from.items() if value is not None}
    manifest.write(replace(model.manifest, made_from=made_from), model.folder)


def calibration(path: Path) -> Path:
    path.write_text("the tin is in the tin and the tin is tiny. " * 60)
    return path


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--pure", "--output-type", "F16", "--embedding-type", "Q5_0"),
        ("--tensor-type", "attn_v=Q8_0", "--tensor-type", "ffn_.*=Q5_1"),
        ("--prune-layers", "1"),
        ("--split-max-size", "60KB"),
        ("--max-memory", "300MiB", "--threads", "1"),
    ],
)
def test_straight_from_safetensors_it_comes_out_the_same(
    options: tuple[str, ...], owm: Owm, tmp_path: Path, store: Store, work: Path
) -> None:
    write_tiny_checkpoint(tmp_path / "tiny", n_shards=2)
    owm("quantize", "tiny", "Q4_0", *options)
    said = owm("quantize", "--reproduce", "tiny:Q4_0", "--json")
    assert set(said.json) == KEYS
    assert said.json["is_identical"] is True
    assert said.json["sha256"]["recorded"] == said.json["sha256"]["built"]
    assert len(said.json["sha256"]["built"]) == len(store.models()[0].files)
    assert said.json["notes"] == []
    assert left(work) == []


def test_files_elsewhere_and_conversions_come_out_the_same(owm: Owm, tmp_path: Path, work: Path) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    owm("convert", "tiny", "-o", "f16.gguf", "--type", "f16", "--split-max-size", "150KB")
    first = tmp_path / "f16-00001-of-00002.gguf"
    owm("quantize", first, "Q5_1", "-o", "q5.gguf", "--keep-split")
    for path in (first, tmp_path / "q5-00001-of-00002.gguf"):
        before = path.read_bytes()
        assert owm("quantize", "--reproduce", path) == "identical\n"
        assert path.read_bytes() == before
    assert left(work) == []


def test_a_source_that_is_not_here_is_fetched_at_its_commit(
    owm: Owm, hub: HubServer, store: Store, clean_environment: Path
) -> None:
    repo = hub.add(Repo("acme/tiny", files_of(n_shards=2)))
    owm("convert", "acme/tiny", "--type", "bf16")
    owm("quantize", "acme/tiny", "Q8_0")
    n_requests = len(hub.requests)
    for label in ("BF16", "Q8_0"):
        assert owm("quantize", "--reproduce", f"acme/tiny:{label}", "--offline") == "identical\n"
    assert len(hub.requests) == n_requests
    shutil.rmtree(clean_environment / "hf")
    owm("quantize", "--reproduce", "acme/tiny:Q8_0", "--offline", code=4)
    assert owm("quantize", "--reproduce", "acme/tiny:Q8_0") == "identical\n"
    asked = [each.path for each in hub.requests[n_requests:]]
    assert any(repo.commit in path for path in asked)
    assert not [path for path in asked if "/main" in path]
    # A stored source that is gone is no published file.
    owm("quantize", "acme/tiny:BF16", "Q4_0")
    owm("rm", "--yes", "acme/tiny:BF16")
    said = owm("quantize", "--reproduce", "acme/tiny:Q4_0", code=3)
    assert "is not stored any more" in said.stderr


def test_of_a_published_file_that_is_gone_the_same_is_fetched(
    owm: Owm, hub: HubServer, clean_environment: Path, store: Store
) -> None:
    repo = hub.add(Repo("me/tiny", {"tiny-F32.gguf": tiny_gguf(n_embd=256)}))
    owm("pull", "me/tiny:F32")
    owm("quantize", "me/tiny:F32", "Q8_0")
    owm("rm", "--yes", "me/tiny:F32")
    assert owm("quantize", "--reproduce", "me/tiny:Q8_0") == "identical\n"
    repo.files["tiny-F32.gguf"] = tiny_gguf(n_embd=256, seed=7)
    owm("rm", "--yes", f"me/tiny@{repo.commit}:F32")
    said = owm("quantize", "--reproduce", "me/tiny:Q8_0", code=7)
    assert "is not the file any more" in said.stderr


def test_with_an_importance_matrix_that_is_here_or_computed_again(
    owm: Owm, tmp_path: Path, clean_environment: Path, work: Path
) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    text = calibration(tmp_path / "text.txt")
    owm("quantize", "tiny", "Q4_0", "--calibration", text)
    recipe = owm("verify", "tiny:Q4_0", "--json").json[0]["recipe"]
    assert recipe["imatrix"]["calibration"]["name"] == str(text)
    assert recipe["imatrix"]["sha256"]
    assert owm("quantize", "--reproduce", "tiny:Q4_0") == "identical\n"
    shutil.rmtree(clean_environment / "owm" / "imatrix")
    said = owm("quantize", "--reproduce", "tiny:Q4_0", "--json").json
    assert said["is_identical"] is True
    assert said["notes"] == ["the importance matrix was computed again"]
    assert not list((clean_environment / "owm" / "imatrix").iterdir())
    assert left(work) == []
    text.write_text(text.read_text() + "more")
    said = owm("quantize", "--reproduce", "tiny:Q4_0", code=7)
    assert "not the text any more" in said.stderr


def test_an_importance_matrix_of_the_users_has_to_be_the_same(owm: Owm, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "f32.gguf", n_embd=256)
    random = np.random.default_rng(0)
    entries = {
        tensor.name: Entry(random.random((1, tensor.shape[0])).astype(np.float32), np.array([512], np.int64))
        for tensor in read_header(path).tensors
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1
    }
    matrix = tmp_path / "m.gguf"
    write_imatrix(Imatrix(entries, ("prose.txt",), 1, 512), matrix)
    owm("quantize", path, "IQ4_XS", "-o", "out.gguf", "--imatrix", matrix)
    assert owm("quantize", "--reproduce", "./out.gguf") == "identical\n"
    matrix.write_bytes(matrix.read_bytes()[:-1] + b"x")
    said = owm("quantize", "--reproduce", "./out.gguf", code=3)
    assert "importance matrix m.gguf" in said.stderr


def test_types_that_were_chosen_come_from_the_recipe(owm: Owm, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "f32.gguf", n_embd=256)
    types = {
        tensor.name: "Q5_K" if "ffn" in tensor.name else "Q8_0"
        for tensor in read_header(path).tensors
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1
    }
    (tmp_path / "r.json").write_text(json.dumps({"format": "owm.recipe", "version": 1, "types": types}))
    owm("quantize", path, "--recipe", "r.json")
    (row,) = owm("list", "--json").json
    (tmp_path / "r.json").unlink()
    assert owm("quantize", "--reproduce", row["name"]) == "identical\n"


def test_a_certificate_is_left_out_of_the_comparison(owm: Owm, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "f32.gguf", n_embd=256)
    owm("quantize", "f32.gguf", "Q8_0", "-o", "q8.gguf")
    place = certificate.place_of(read_header(tmp_path / "q8.gguf"))
    assert place is not None
    with open(tmp_path / "q8.gguf", "r+b") as file:
        file.seek(place.offset)
        file.write(b'{"anything": 1}')
    assert owm("quantize", "--reproduce", "./q8.gguf") == "identical\n"


# -- what is different -------------------------------------------------------------------------------------------------


def test_the_first_different_tensor_and_the_first_different_key_are_named(
    owm: Owm, tmp_path: Path, store: Store, work: Path
) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    owm("quantize", "tiny", "Q4_0", "Q8_0")
    change(store, "Q4_0", options={"tensor_type": ["blk.1.attn_v=Q8_0"]})
    found = owm("quantize", "--reproduce", "tiny:Q4_0", "--json", code=7).json
    assert found["is_identical"] is False
    assert set(found["difference"]) == DIFFERENCE_KEYS
    assert (found["difference"]["kind"], found["difference"]["name"]) == ("tensor", "blk.1.attn_v.weight")
    assert found["difference"]["built"].startswith("Q8_0")
    assert owm("quantize", "--reproduce", "tiny:Q4_0", code=7).startswith("different: the tensor blk.1.attn_v.weight")
    change(store, "Q8_0", type="Q4_1")
    difference = owm("quantize", "--reproduce", "tiny:Q8_0", "--json", code=7).json["difference"]
    assert (difference["kind"], difference["name"]) == ("key", "general.file_type")
    change(store, "Q8_0", type="Q8_0", options={"split_max_bytes": 60_000})
    assert "files instead of 1" in owm("quantize", "--reproduce", "tiny:Q8_0", code=7)
    assert left(work) == []


def test_a_damaged_file_is_told_from_a_different_one(owm: Owm, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    owm("quantize", "tiny", "Q8_0")
    path = Path(owm("path", "tiny:Q8_0").strip())
    header = read_header(path)
    last = header.tensors[-1]
    content = bytearray(path.read_bytes())
    content[header.data_offset + last.offset] ^= 1
    path.write_bytes(content)
    said = owm("quantize", "--reproduce", "tiny:Q8_0", code=7)
    assert said.startswith("identical to what is recorded, but the file here is damaged: the tensor ")
    assert last.name in said


def test_without_its_file_the_recorded_sha256_decides(owm: Owm, tmp_path: Path, store: Store) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    owm("quantize", "tiny", "Q8_0")
    model = store.models()[0]
    target = reproducing.find_target("tiny:Q8_0", store)
    model.path.unlink()
    gone = replace(target, model=replace(model))
    assert gone.model.is_gone

    def none(_: object) -> Any:
        raise AssertionError("nothing is fetched")

    with Child() as child:
        source = retrieving.find_source(gone, store, fetch=none, pull=none)
        verdict = reproducing.execute(reproducing.plan(gone, source, child, store), child, store)
    assert verdict.is_identical
    assert verdict.difference is None


def test_a_source_that_has_changed_or_gone_is_refused(owm: Owm, tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    owm("quantize", "tiny", "Q8_0")
    card = (folder / "README.md").read_bytes()
    (folder / "README.md").write_bytes(card + b"x")
    assert "README.md is not what it was" in owm("quantize", "--reproduce", "tiny:Q8_0", code=7).stderr
    (folder / "README.md").write_bytes(card)
    assert owm("quantize", "--reproduce", "tiny:Q8_0") == "identical\n"
    shutil.rmtree(folder)
    assert "is gone" in owm("quantize", "--reproduce", "tiny:Q8_0", code=3).stderr


def test_other_versions_are_said_before_anything_is_made(owm: Owm, tmp_path: Path, store: Store) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    owm("quantize", "tiny", "Q8_0")
    change(store, "Q8_0", versions={"owm": "0.0.1", "llama_cpp": "llama-cpp-python 0.0.2"})
    said = owm("quantize", "--reproduce", "tiny:Q8_0")
    assert said == "identical\n"
    lines = said.stderr.splitlines()
    assert "made by owm 0.0.1" in lines[0]
    assert "made by llama-cpp-python 0.0.2" in lines[1]


def test_a_manifest_of_an_older_owm_is_tried_and_said(owm: Owm, tmp_path: Path, store: Store) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    owm("quantize", "tiny", "Q8_0")
    change(store, "Q8_0", versions=None, options=None, action=None, files=None)
    said = owm("quantize", "--reproduce", "tiny:Q8_0", "--json").json
    assert said["is_identical"] is True
    assert len(said["notes"]) == 2
    assert said["versions"]["recorded"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"type": 3},
        {"type": "Q99"},
        {"action": "format the disk"},
        {"options": {"prune_layers": "all"}},
        {"options": {"tensor_type": ["attn_v=NONE"]}},
        {"options": {"split_max_bytes": True}},
        {"imatrix": {"file": "../../x", "sha256": "a" * 64}},
        {"imatrix": []},
        {"recipe": {"types": {"blk.0.attn_q.weight": 3}}},
        {"recipe": 7},
        {"versions": ["x"]},
        {"path": "\0"},
        {"path": 3},
        {"files": [{"path": "../../../etc/passwd", "size_bytes": 1, "sha256": "a" * 64}]},
        {"files": "x"},
        {"path": None, "checkpoint": "acme/tiny", "commit": "../../../.."},
    ],
)
def test_what_a_stranger_writes_into_a_manifest_is_refused(
    changes: dict[str, Any], owm: Owm, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    owm("quantize", "tiny", "Q8_0")
    change(store, "Q8_0", **changes)
    monkeypatch.setenv("OWM_OFFLINE", "1")
    said = owm("quantize", "--reproduce", "tiny:Q8_0", code=None)
    assert said.exit_code in (2, 4, 7)
    assert said == ""
    assert len([line for line in said.stderr.splitlines() if line.startswith("error: ")]) == 1


def test_what_was_not_made_here_cannot_be_made_again(owm: Owm, hub: HubServer, tmp_path: Path) -> None:
    hub.add(Repo("me/tiny", {"tiny-Q8_0.gguf": tiny_gguf()}))
    owm("pull", "me/tiny")
    assert "as it was published" in owm("quantize", "--reproduce", "me/tiny", code=3).stderr
    write_tiny_gguf(tmp_path / "strange.gguf", seed=5)
    assert "nothing on this machine says" in owm("quantize", "--reproduce", "./strange.gguf", code=3).stderr


def test_the_manifest_alone_says_how(owm: Owm, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    owm("quantize", "tiny", "Q8_0")
    for flags in (("Q4_0",), ("-o", "x.gguf"), ("--pure",), ("--bpw", "4"), ("--pre", "gpt-2")):
        assert "--reproduce" in owm("quantize", "--reproduce", "tiny:Q8_0", *flags, code=2).stderr
    said = owm("quantize", "--reproduce", "tiny:Q8_0", "--dry-run", "--json")
    assert set(said.json) == KEYS
    assert said.json["is_identical"] is None
    assert owm("quantize", "--reproduce", "tiny:Q8_0", "--dry-run").startswith("would make tiny:Q8_0 again")


def test_killed_the_same_command_ends_it_and_nothing_is_left(owm: Owm, tmp_path: Path, work: Path) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    owm("quantize", "tiny", "Q8_0")
    process = start(["-m", "owm", "quantize", "--reproduce", "tiny:Q8_0"])
    while not left(work) and process.poll() is None:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    owm("verify", "--full")
    assert owm("quantize", "--reproduce", "tiny:Q8_0") == "identical\n"
    assert left(work) == []
