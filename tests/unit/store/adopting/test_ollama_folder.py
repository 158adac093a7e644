"""Ollama's folder: manifests in both of its layouts, its blobs, and everything in them that cannot be used."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from owm.store.adopting import ollama
from owm.store.adopting.found import Found, LeftOut
from support.facts import model_bytes
from support.tool_layouts import MANIFEST_LIST, put_blob, put_ollama

MODEL = model_bytes(2000)
NAME = "registry.ollama.ai/library/qwen3/8b"


def only(top: Path) -> Found:
    (found,) = ollama.search(top)
    assert isinstance(found, Found), found
    return found


def refused(top: Path) -> LeftOut:
    (left,) = ollama.search(top)
    assert isinstance(left, LeftOut), left
    return left


@pytest.mark.parametrize(
    ("path", "ref", "label"),
    [
        (NAME, "ollama:qwen3:8b", None),
        ("registry.ollama.ai/library/qwen3/latest", "ollama:qwen3", None),
        ("registry.ollama.ai/library/qwen3/8b-q4_K_M", "ollama:qwen3:8b-q4_K_M", "Q4_K_M"),
        ("registry.ollama.ai/jmorganca/tiny/latest", "ollama:jmorganca/tiny", None),
        ("example.org/space/tiny/v1", "ollama:example.org/space/tiny:v1", None),
        ("hf.co/owner/Tiny-GGUF/Q8_0", "owner/Tiny-GGUF", "Q8_0"),
    ],
)
def test_a_model_goes_by_the_name_that_the_tool_gives_it(
    tmp_path: Path, path: str, ref: str, label: str | None
) -> None:
    put_ollama(tmp_path, path, MODEL)
    found = only(tmp_path)
    assert (str(found.ref), found.label, found.owner) == (ref, label, "Ollama")
    assert [file.sha256 for file in found.files] == [hashlib.sha256(MODEL).hexdigest()]
    assert found.path.read_bytes() == MODEL


def test_template_system_parameters_and_licence_come_along(tmp_path: Path) -> None:
    params = json.dumps({"temperature": 0.6, "repeat_penalty": 1.1, "stop": ["<|im_end|>"]}).encode()
    extras = {"template": b"{{ .Prompt }}", "system": b"Be brief.", "params": params, "license": b"MIT License"}
    put_ollama(tmp_path, NAME, MODEL, extras=extras)
    found = only(tmp_path)
    assert {extra.role: extra.content for extra in found.extras} == {
        "template": b"{{ .Prompt }}", "system": b"Be brief.", "params": params, "licence": b"MIT License",
    }  # fmt: skip
    assert json.loads(found.advice or b"") == {"temperature": 0.6, "repetition_penalty": 1.1}


def test_a_projector_is_left_out(tmp_path: Path) -> None:
    put_ollama(tmp_path, NAME, MODEL, extras={"projector": model_bytes(500, 1)})
    assert len(only(tmp_path).files) == 1


def test_newer_manifests_count_where_a_model_is_in_both_layouts(tmp_path: Path) -> None:
    put_ollama(tmp_path, NAME, model_bytes(900, 1))
    path = put_ollama(tmp_path, "ollama.com/library/qwen3/8b", MODEL, root="manifests-v2")
    blob = put_blob(tmp_path, path.read_bytes())["digest"].replace(":", "-")
    path.unlink()
    path.symlink_to(os.path.relpath(tmp_path / "blobs" / blob, path.parent))
    found = only(tmp_path)
    assert found.path.read_bytes() == MODEL
    assert str(found.ref) == "ollama:qwen3:8b"


@pytest.mark.parametrize("is_blob", [True, False])
def test_of_a_manifest_for_several_runners_the_one_with_a_gguf_is_taken(tmp_path: Path, is_blob: bool) -> None:
    inner = json.loads(put_ollama(tmp_path / "x", NAME, MODEL).read_text())
    put_ollama(tmp_path, NAME, MODEL)
    child = {"runner": "llamacpp", "format": "gguf"}
    if is_blob:
        child |= put_blob(tmp_path, json.dumps(inner).encode())
    else:
        child |= inner
    other = {"runner": "mlx", "format": "safetensors", "layers": []}
    put_ollama(tmp_path, NAME, None, change={"mediaType": MANIFEST_LIST, "manifests": [other, child]})
    assert only(tmp_path).path.read_bytes() == MODEL


@pytest.mark.parametrize(
    ("extras", "model", "said"),
    [
        ({"tensor": b"x"}, None, "safetensors"),
        ({"adapter": b"x"}, MODEL, "adapter"),
        ({}, None, "no model file"),
        ({"model": model_bytes(800, 1)}, MODEL, "2 model files"),
    ],
)
def test_what_llama_cpp_cannot_run_is_told_by_name(
    tmp_path: Path, extras: dict[str, bytes], model: bytes | None, said: str
) -> None:
    put_ollama(tmp_path, NAME, model, extras=extras)
    left = refused(tmp_path)
    assert said in str(left.problem)
    assert left.name == "qwen3:8b"
    assert not left.is_fault


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff\xfe", b'{"layers": 7}', b'{"layers": [7]}', b'{"layers": [{"mediaType": 1}]}',
     b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../etc/passwd"}]}',
     b'{"layers": [{"mediaType": "application/vnd.ollama.image.model"}]}', b"[" * 100_000, b" " * (2 << 20)],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused_and_the_others_go_on(tmp_path: Path, content: bytes) -> None:
    put_ollama(tmp_path, "registry.ollama.ai/library/good/latest", MODEL)
    path = tmp_path / "manifests" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    findings = ollama.search(tmp_path)
    assert sorted(type(each).__name__ for each in findings) == ["Found", "LeftOut"]
    (left,) = [each for each in findings if isinstance(each, LeftOut)]
    assert left.is_fault
    assert left.name == "qwen3:8b"


def test_a_blob_that_is_missing_or_cut_is_told(tmp_path: Path) -> None:
    put_ollama(tmp_path, NAME, MODEL)
    (blob,) = [each for each in (tmp_path / "blobs").iterdir() if each.read_bytes() == MODEL]
    blob.write_bytes(MODEL[:1500])
    assert "1500 bytes instead of 2000" in str(refused(tmp_path).problem)
    blob.unlink()
    assert "not there" in str(refused(tmp_path).problem)


def test_a_small_blob_that_is_damaged_is_told(tmp_path: Path) -> None:
    put_ollama(tmp_path, NAME, MODEL, extras={"system": b"Be brief."})
    (blob,) = [each for each in (tmp_path / "blobs").iterdir() if each.read_bytes() == b"Be brief."]
    blob.write_bytes(b"Be rude!!")
    assert "damaged" in str(refused(tmp_path).problem)


def test_pipes_in_place_of_a_manifest_or_a_blob_are_not_opened(tmp_path: Path) -> None:
    put_ollama(tmp_path, NAME, MODEL)
    (blob,) = [each for each in (tmp_path / "blobs").iterdir() if each.read_bytes() == MODEL]
    blob.unlink()
    os.mkfifo(blob)
    os.mkfifo(tmp_path / "manifests" / "registry.ollama.ai" / "library" / "qwen3" / "pipe")
    assert [type(each) for each in ollama.search(tmp_path)] == [LeftOut, LeftOut]


def test_the_folder_that_the_tool_is_told_to_use_is_the_only_one(tmp_path: Path) -> None:
    assert ollama.places(tmp_path, {"OLLAMA_MODELS": "/srv/models"}) == [Path("/srv/models")]
    assert ollama.places(tmp_path, {})[:2] == [tmp_path / ".ollama/models", Path("/usr/share/ollama/.ollama/models")]
