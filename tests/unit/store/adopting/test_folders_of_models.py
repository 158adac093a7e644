"""Folders of the user's, LM Studio's, llama.cpp's and the Hugging Face cache: what is found and how it is called."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from owm.errors import ModelNotFound, NotFound, Unsupported, UsageError
from owm.store import refs
from owm.store.adopting import folder, huggingface, llamacpp, lmstudio, tools
from owm.store.adopting.found import Finding, Found, LeftOut
from support.facts import model_bytes
from support.tool_layouts import COMMIT, put_file, put_in_hub_cache, put_ollama

MODEL = model_bytes(1500)


def found(findings: list[Finding]) -> list[Found]:
    return [each for each in findings if isinstance(each, Found)]


def left_out(findings: list[Finding]) -> list[LeftOut]:
    return [each for each in findings if isinstance(each, LeftOut)]


def test_a_folder_is_searched_to_its_depths(tmp_path: Path) -> None:
    for name in ("a-Q4_K_M.gguf", "x/b.GGUF", "x/y/Q8_0/c.gguf", "x/readme.md", "x/b.gguf.part"):
        put_file(tmp_path / name, MODEL)
    shown = {(each.path.name, each.label, each.ref) for each in found(folder.search(tmp_path))}
    assert shown == {("a-Q4_K_M.gguf", "Q4_K_M", None), ("b.GGUF", None, None), ("c.gguf", "Q8_0", None)}


def test_parts_are_one_model_and_a_missing_one_is_named_once(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        put_file(tmp_path / f"whole-0000{number}-of-00003.gguf", MODEL)
    for number in (1, 3):
        put_file(tmp_path / f"cut-0000{number}-of-00003.gguf", MODEL)
    findings = folder.search(tmp_path)
    (whole,) = found(findings)
    assert [file.path.name for file in whole.files] == [f"whole-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    (cut,) = left_out(findings)
    assert "cut-00002-of-00003.gguf is missing" in str(cut.problem)
    assert cut.is_fault


def test_what_is_no_model_is_left_out_and_what_is_no_file_is_refused(tmp_path: Path) -> None:
    put_file(tmp_path / "mmproj-F16.gguf", MODEL)
    put_file(tmp_path / "fine.gguf", MODEL)
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "dangling.gguf").symlink_to("nowhere.gguf")
    (tmp_path / "device.gguf").symlink_to("/dev/zero")
    findings = folder.search(tmp_path)
    assert [each.path.name for each in found(findings)] == ["fine.gguf"]
    assert {each.name: each.is_fault for each in left_out(findings)} == {
        "mmproj-F16.gguf": False, "pipe.gguf": True, "dangling.gguf": True, "device.gguf": True,
    }  # fmt: skip


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad-\xff.gguf")).write_bytes(MODEL)
    put_file(tmp_path / "line\nbreak.gguf", MODEL)
    put_file(tmp_path / "esc\x1b[31m.gguf", MODEL)
    findings = folder.search(tmp_path)
    assert len(left_out(findings)) == 3
    assert all("\n" not in str(each.problem) and "\x1b" not in str(each.problem) for each in left_out(findings))


def test_links_between_folders_do_not_go_round_in_circles(tmp_path: Path) -> None:
    put_file(tmp_path / "a" / "m.gguf", MODEL)
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert len(found(folder.search(tmp_path))) == 1


def test_a_search_is_bounded_in_depth_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path.joinpath(*["d"] * (folder.MAX_DEPTH + 2))
    put_file(deep / "m.gguf", MODEL)
    assert folder.search(tmp_path) == []
    monkeypatch.setattr(folder, "MAX_ENTRIES", 3)
    for number in range(5):
        put_file(tmp_path / "wide" / f"{number}.txt", b"")
    (left,) = folder.search(tmp_path / "wide")
    assert isinstance(left, LeftOut)
    assert "too much" in str(left.problem)


def test_the_stores_of_other_tools_within_a_folder_are_understood(tmp_path: Path) -> None:
    put_ollama(tmp_path / "backup" / "ollama", "registry.ollama.ai/library/qwen3/8b", MODEL)
    put_in_hub_cache(tmp_path / "backup" / "hub", "owner/repo", {"m-Q8_0.gguf": MODEL})
    put_file(tmp_path / "skipped" / "n.gguf", MODEL)
    findings = folder.search(tmp_path, skip=[tmp_path / "skipped"])
    assert sorted((str(each.ref), str(each.owner)) for each in found(findings)) == [
        ("ollama:qwen3:8b", "Ollama"), ("owner/repo", "Hugging Face cache"),
    ]  # fmt: skip


def test_lm_studio_keeps_the_names_of_repos(tmp_path: Path) -> None:
    put_file(tmp_path / "bartowski/Tiny-GGUF/Tiny-Q4_K_M.gguf", MODEL)
    put_file(tmp_path / "some one/odd name/m.gguf", MODEL)
    put_file(tmp_path / "alone.gguf", MODEL)
    put_file(tmp_path / "bartowski/Tiny-GGUF/mmproj-Tiny-F16.gguf", MODEL)
    names = {each.path.name: str(each.ref) for each in found(lmstudio.search(tmp_path))}
    assert names == {"Tiny-Q4_K_M.gguf": "bartowski/Tiny-GGUF", "m.gguf": "None", "alone.gguf": "None"}


def test_lm_studio_lies_where_it_says(tmp_path: Path) -> None:
    assert lmstudio.places(tmp_path, {}) == [tmp_path / ".lmstudio/models", tmp_path / ".cache/lm-studio/models"]
    put_file(tmp_path / "moved/settings.json", json.dumps({"downloadsFolder": "/big/models"}).encode())
    put_file(tmp_path / ".lmstudio-home-pointer", f"{tmp_path / 'moved'}\n".encode())
    assert lmstudio.places(tmp_path, {})[:2] == [Path("/big/models"), tmp_path / "moved/models"]


def test_flat_files_of_llama_cpp_are_told_apart_by_the_notes_beside_them(tmp_path: Path) -> None:
    put_file(tmp_path / "ggml-org_tiny_models_Q8_0_tiny-Q8_0.gguf", MODEL)
    put_file(tmp_path / "manifest=ggml-org=tiny_models=latest.json", b"{}")
    put_file(tmp_path / "manifest=ggml-org=tiny=latest.json", b"{}")
    put_file(tmp_path / "early.gguf", MODEL)
    url = "https://huggingface.co/owner/repo/resolve/main/early.gguf"
    put_file(tmp_path / "early.gguf.json", json.dumps({"url": url, "etag": "x"}).encode())
    put_file(tmp_path / "unknown_owner_m.gguf", MODEL)
    names = {each.path.name: str(each.ref) for each in found(llamacpp.search(tmp_path))}
    assert names == {
        "ggml-org_tiny_models_Q8_0_tiny-Q8_0.gguf": "ggml-org/tiny_models",
        "early.gguf": "owner/repo",
        "unknown_owner_m.gguf": "None",
    }


def test_newer_llama_cpp_has_the_hubs_layout_in_its_own_cache(tmp_path: Path) -> None:
    put_in_hub_cache(tmp_path, "owner/repo", {"sub/m-Q8_0.gguf": MODEL})
    (each,) = found(llamacpp.search(tmp_path))
    assert (str(each.ref), each.owner, each.commit, each.must_hash) == ("owner/repo", "llama.cpp", COMMIT, True)


def test_a_repo_of_the_hugging_face_cache_is_found_with_commit_and_sha256(tmp_path: Path) -> None:
    advice = b'{"temperature": 0.5}'
    files = {"m-Q8_0.gguf": MODEL, "mmproj-F16.gguf": model_bytes(300, 2), "generation_config.json": advice}
    put_in_hub_cache(tmp_path, "owner/repo", files)
    findings = huggingface.search(tmp_path)
    (each,) = found(findings)
    assert (str(each.ref), each.label, each.revision, each.commit) == ("owner/repo", "Q8_0", "main", COMMIT)
    assert each.files[0].sha256 == hashlib.sha256(MODEL).hexdigest()
    assert isinstance(each.advice, Path)
    assert [left.is_fault for left in left_out(findings)] == [False]


def test_what_is_in_two_snapshots_is_found_once_by_the_branch(tmp_path: Path) -> None:
    put_in_hub_cache(tmp_path, "owner/repo", {"m-Q8_0.gguf": MODEL}, commit="1" * 40, branch="old")
    put_in_hub_cache(tmp_path, "owner/repo", {"m-Q8_0.gguf": MODEL})
    put_in_hub_cache(tmp_path, "owner/repo", {"m-Q8_0.gguf": model_bytes(700, 3)}, commit="2" * 40, branch=None)
    assert [each.commit for each in found(huggingface.search(tmp_path))] == [COMMIT, "2" * 40]


@pytest.mark.parametrize(
    ("wanted", "is_there"),
    [
        ("owner/repo", True),
        ("OWNER/Repo", True),
        ("owner/repo@main", True),
        (f"owner/repo@{COMMIT[:10]}", True),
        ("owner/repo@other", False),
        ("owner/repo:sub/m-Q8_0.gguf", True),
        ("owner/repo:m-Q8_0.gguf", False),
        ("owner/another", False),
    ],
)
def test_the_cache_is_asked_for_a_repo_revision_or_file(tmp_path: Path, wanted: str, is_there: bool) -> None:
    put_in_hub_cache(tmp_path, "owner/repo", {"sub/m-Q8_0.gguf": MODEL})
    assert bool(huggingface.cached(tmp_path, refs.parse(wanted))) is is_there


def test_a_blob_whose_name_states_no_sha256_is_not_taken_unasked(tmp_path: Path) -> None:
    put_in_hub_cache(tmp_path, "owner/repo", {"m-Q8_0.gguf": MODEL}, blob_names={"m-Q8_0.gguf": "a" * 40})
    assert huggingface.cached(tmp_path, refs.parse("owner/repo")) == []


def test_a_download_that_is_under_way_is_no_model(tmp_path: Path) -> None:
    snapshot = put_in_hub_cache(tmp_path, "owner/repo", {"m-00001-of-00002.gguf": MODEL})
    (snapshot / "n.gguf").symlink_to("../../blobs/" + "b" * 64)
    findings = huggingface.search(tmp_path)
    assert found(findings) == []
    assert len(left_out(findings)) == 2


def test_a_source_is_a_tool_a_folder_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "LLAMA_CACHE": str(tmp_path / "ll")}
    file = put_file(tmp_path / ".lmstudio/models/owner/repo/m-Q8_0.gguf", MODEL)
    assert len(tools.search("LMStudio", environ)) == 1
    assert len(tools.search(str(file), environ)) == 1
    assert len(tools.search(str(tmp_path / ".lmstudio"), environ)) == 1
    for source in ("llama.cpp", "huggingface", str(tmp_path / "nothing.gguf"), str(tmp_path / "no/such")):
        with pytest.raises(NotFound):
            tools.search(source, environ)
    with pytest.raises(ModelNotFound, match="no GGUF"):
        tools.search(str(put_file(tmp_path / "empty/readme", b"").parent), environ)
    with pytest.raises(UsageError, match="olama"):
        tools.search("olama", environ)
    with pytest.raises(Unsupported, match="projector"):
        tools.search(str(put_file(tmp_path / "mmproj-F16.gguf", MODEL)), environ)


def test_any_part_names_the_whole_model(tmp_path: Path) -> None:
    for number in (1, 2):
        put_file(tmp_path / f"m-0000{number}-of-00002.gguf", MODEL)
    (each,) = found(tools.search(str(tmp_path / "m-00002-of-00002.gguf")))
    assert [file.path.name for file in each.files] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]


def test_a_path_within_a_tools_own_folder_goes_by_the_tools_names(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "LLAMA_CACHE": str(tmp_path / "ll")}
    models = tmp_path / ".ollama/models"
    put_ollama(models, "registry.ollama.ai/library/qwen3/8b", MODEL)
    put_ollama(models, "registry.ollama.ai/library/other/latest", model_bytes(900, 5))
    put_file(tmp_path / ".lmstudio/models/owner/repo/m-Q8_0.gguf", MODEL)
    snapshot = put_in_hub_cache(tmp_path / "hub", "owner/cached", {"m-Q8_0.gguf": MODEL})
    blob = models / "blobs" / f"sha256-{hashlib.sha256(MODEL).hexdigest()}"
    for path, name in (
        (blob, "ollama:qwen3:8b"),
        (models / "manifests/registry.ollama.ai/library/qwen3", "None"),
        (tmp_path / ".lmstudio/models/owner", "owner/repo"),
        (snapshot / "m-Q8_0.gguf", "owner/cached"),
    ):
        try:
            findings = tools.search(str(path), environ)
        except ModelNotFound:
            findings = []
        assert [str(each.ref) for each in found(findings)] == ([name] if name != "None" else [])
    assert len(tools.search(str(models), environ)) == 2
