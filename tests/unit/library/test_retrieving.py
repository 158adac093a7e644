"""What a model was made of, found again: on the word of a manifest beside a file, anybody's, only what is safe."""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.library import recipes
from owm.store import manifest
from owm.store.local import Store
from support.hub_server import HubServer, Repo
from support.run import Output
from support.tiny_checkpoint import files_of, write_tiny_checkpoint
from support.tiny_gguf import write_tiny_gguf

Owm = Callable[..., Output]


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """End a test that waits for something for ever."""

    def over(*_: object) -> None:
        raise TimeoutError("it goes on without end")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def put(folder: Path, changes: Mapping[str, Any], outer: Mapping[str, Any] | None = None) -> Path:
    """Write a model of a stranger's, what it is said to be made of, a pipe, and a manifest; "" removes a key."""
    model, source = write_tiny_gguf(folder / "q8.gguf", seed=1), write_tiny_gguf(folder / "f32.gguf")
    files = [
        {"name": path.name, "path": path.name, "size_bytes": path.stat().st_size}
        | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in (model, source)
    ]
    about = {"path": f"/elsewhere/{source.name}", "files": files[1:], "type": "Q8_0", **recipes.about(recipes.QUANTIZE)}
    made_from = {key: value for key, value in {**about, **changes}.items() if value != ""}
    said = {"ref": "local:f32", "name": "f32:Q8_0", "label": "Q8_0", "commit": None, "files": files[:1]}
    (folder / "q8.manifest.json").write_text(json.dumps(said | {"made_from": made_from} | dict(outer or {})))
    os.mkfifo(folder / "pipe")
    return model


@pytest.mark.parametrize("kind", ["file", "hub"])
def test_a_model_with_its_manifest_beside_it_is_made_again_where_nothing_is_stored(
    kind: str, owm: Owm, hub: HubServer, tmp_path: Path, clean_environment: Path
) -> None:
    (tmp_path / "came").mkdir()
    name = "acme/tiny"
    hub.add(Repo(name, files_of()))
    if kind == "file":
        name = str(write_tiny_gguf(tmp_path / "f32.gguf", n_embd=256))
    owm("quantize", name, "Q8_0", "--tensor-type", r"blk\.(0|[1-9][0-9]?)\.ffn_.*=Q8_0")
    (row,) = owm("list", "--json").json
    owm("export", row["name"], "came/q8.gguf", "--with-manifest")
    said = owm("quantize", "--reproduce", "came/q8.gguf")
    assert "nobody" not in said.stderr  # the store knows these bytes
    shutil.rmtree(clean_environment / "owm")
    shutil.rmtree(clean_environment / "hf", ignore_errors=True)
    if kind == "file":
        said = owm("quantize", "--reproduce", "came/q8.gguf", code=5)
        assert "from the same folder" in said.stderr
        Path(name).rename(tmp_path / "came" / "f32.gguf")
    said = owm("quantize", "--reproduce", "came/q8.gguf")
    assert said == "identical\n"
    assert "which nobody has checked" in said.stderr


IMATRIX = {"file": "m.gguf", "path": "{folder}/pipe", "size_bytes": 3, "sha256": "a" * 64}
TEXT = {"name": "{folder}/pipe", "path": "{folder}/pipe", "sha256": "a" * 64}


@pytest.mark.parametrize(
    ("changes", "code", "cause"),
    [
        ({"options": {"tensor_type": ["(([a-z_0-9.]+)+)+X=Q8_0"]}}, 7, "not plain"),
        ({"options": {"tensor_type": ["(.|.)(.|.)" * 20 + "X=Q8_0"]}}, 7, "not plain"),
        ({"path": "", "model": "{address}"}, 5, "not asked"),
        ({"path": "", "model": "oci://127.0.0.1:5000/a/b"}, 5, "not asked"),
        ({"path": "", "model": "ollama:localhost:11434/a/b"}, 5, "not asked"),
        ({"path": "", "model": "./f32.gguf"}, 5, "not asked"),
        ({"path": "", "model": "a/b", "commit": "x/../../f32.gguf"}, 5, "not asked"),
        ({"path": "", "checkpoint": "{address}"}, 5, "not asked"),
        ({"path": "{folder}/pipe"}, 5, "only a file is taken"),
        ({"path": "/dev/zero"}, 5, "only a file is taken"),
        ({"path": "{folder}"}, 5, "only a file is taken"),
        ({"files": []}, 5, "only a file is taken"),
        ({"files": 5}, 7, "does not say in a way that owm writes"),
        ({"files": {"path": "f32.gguf"}}, 7, "does not say in a way that owm writes"),
        ({"files": [{"path": "pipe", "size_bytes": 0, "sha256": "a" * 64}]}, 7, "pipe is not what it was"),
        ({"model": 3, "files": [{"path": "/dev/zero", "size_bytes": 0, "sha256": "a" * 64}]}, 7, "unsafe name"),
        ({"imatrix": IMATRIX}, 3, "importance matrix m.gguf"),
        ({"imatrix": IMATRIX | {"calibration": TEXT}}, 2, "pipe is no file"),
        ({"imatrix": IMATRIX | {"calibration": TEXT | {"path": "/etc/passwd"}}}, 1, "cannot read {folder}/passwd"),
        ({"imatrix": IMATRIX | {"calibration": TEXT | {"name": "a\0b"}}}, 7, "does not name the text"),
    ],
)
def test_on_the_word_of_a_manifest_beside_a_file_nothing_else_is_opened_or_asked(
    changes: dict[str, Any], code: int, cause: str, owm: Owm, tmp_path: Path, hub: HubServer
) -> None:
    places = {"{folder}": str(tmp_path), "{address}": hub.url("x.gguf")}
    text = json.dumps(changes)
    for name, place in places.items():
        text = text.replace(name, place)
    said = owm("quantize", "--reproduce", put(tmp_path, json.loads(text)), code=None)
    assert cause.replace("{folder}", str(tmp_path)) in said.stderr
    assert said.exit_code == code
    assert said == ""
    assert len([line for line in said.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert hub.requests == []


@pytest.mark.parametrize("key", ["name", "ref", "label", "commit"])
def test_a_manifest_with_nul_in_it_is_none(key: str, owm: Owm, tmp_path: Path) -> None:
    said = owm("quantize", "--reproduce", put(tmp_path, {}, {key: "a\0b"}), code=3)
    assert "nothing on this machine says" in said.stderr


def change(store: Store, **changes: Any) -> None:
    (model,) = store.models()
    assert model.manifest is not None
    assert model.folder is not None
    made_from = {**(model.manifest.made_from or {}), **changes}
    manifest.write(replace(model.manifest, made_from=made_from), model.folder)


def test_pipes_are_not_waited_for(owm: Owm, tmp_path: Path, store: Store) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    os.mkfifo(tmp_path / "pipe")
    said = owm("quantize", "tiny", "Q4_0", "--calibration", "pipe", code=2)
    assert "pipe is no file" in said.stderr
    owm("quantize", "tiny", "Q8_0")
    change(store, path=str(tmp_path / "pipe"))
    assert "pipe is no file" in owm("quantize", "--reproduce", "tiny:Q8_0", code=7).stderr
    change(store, path=str(folder))
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    assert "README.md is not what it was" in owm("quantize", "--reproduce", "tiny:Q8_0", code=7).stderr
