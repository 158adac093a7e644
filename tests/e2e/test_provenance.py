"""Where models are from: `owm verify --json` and `owm show --provenance`, up to published weights and never further."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.formats.gguf import read_header
from owm.quality import certificate
from owm.store import manifest
from owm.store.local import Store
from owm.store.manifest import MAX_NESTING
from support.hub_server import HubServer, Repo
from support.run import Output, run_here
from support.stored import put_model
from support.tiny_checkpoint import files_of, write_tiny_checkpoint
from support.tiny_gguf import tiny_gguf, write_tiny_gguf

VERIFY_KEYS = {
    "name", "status", "problem", "hint", "kind", "source", "commit", "files", "recipe", "parents", "ends", "claims",
    "is_complete",
}  # fmt: skip
NODE_KEYS = VERIFY_KEYS - {"status", "problem", "hint"}
FILE_KEYS = {"path", "size_bytes", "sha256", "role", "blanked"}
RECIPE_KEYS = {
    "action", "type", "by", "versions", "options", "imatrix", "tensor_types", "known_differences", "tailored",
    "unknown",
}  # fmt: skip
Owm = Callable[..., Output]


@pytest.fixture
def owm(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Owm:
    """Run a command in this process, in the test's folder; it has to end well."""
    monkeypatch.chdir(tmp_path)

    def called(*args: str | Path, code: int = 0) -> Output:
        said = run_here(capsys, *args)
        assert said.exit_code == code, said.stderr
        return said

    return called


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def verified(owm: Owm, *names: str | Path) -> dict[str, Any]:
    (found,) = owm("verify", "--json", "--offline", *names).json
    check_shape(found, VERIFY_KEYS)
    return found


def check_shape(found: dict[str, Any], keys: set[str]) -> None:
    assert set(found) == keys
    assert all(set(file) == FILE_KEYS for file in found["files"])
    assert found["recipe"] is None or set(found["recipe"]) == RECIPE_KEYS
    for parent in found["parents"]:
        check_shape(parent, NODE_KEYS)


def test_the_line_leads_from_a_quantized_model_to_the_sha256_of_each_published_file(
    owm: Owm, hub: HubServer, store: Store
) -> None:
    repo = hub.add(Repo("acme/tiny", files_of(n_shards=2)))
    owm("convert", "acme/tiny", "--type", "f16")
    owm("quantize", "acme/tiny:F16", "Q8_0", "--tensor-type", "attn_v=Q4_0", "--pure")
    n_requests = len(hub.requests)
    found = verified(owm, "acme/tiny:Q8_0")
    assert len(hub.requests) == n_requests
    assert (found["kind"], found["source"], found["commit"]) == ("made", "acme/tiny", repo.commit)
    (model,) = [one for one in store.models() if one.label == "Q8_0"]
    assert found["files"] == [
        {
            "path": str(model.path),
            "size_bytes": model.path.stat().st_size,
            "sha256": sha256(model.path.read_bytes()),
            "role": "model",
            "blanked": None,
        }
    ]
    recipe = found["recipe"]
    assert (recipe["action"], recipe["type"], recipe["unknown"]) == ("quantize", "Q8_0", [])
    assert recipe["options"] == {"tensor_type": ["attn_v=Q4_0"], "pure": True}
    assert recipe["tensor_types"]["blk.0.attn_v.weight"] == "Q4_0"
    assert set(recipe["versions"]) == {"owm", "llama_cpp"}
    (middle,) = found["parents"]
    assert (middle["kind"], middle["name"], middle["recipe"]["action"]) == ("made", "acme/tiny:F16", "convert")
    (weights,) = middle["parents"]
    assert (weights["kind"], weights["source"], weights["commit"]) == ("published", "acme/tiny", repo.commit)
    shards = {file["path"]: file["sha256"] for file in weights["files"] if file["path"].endswith(".safetensors")}
    assert shards == {path: sha256(content) for path, content in repo.files.items() if path.endswith(".safetensors")}
    assert found["is_complete"] is True
    owm("rm", "--yes", "acme/tiny:F16")  # the line does not depend on what it leads through
    assert verified(owm, "acme/tiny:Q8_0")["parents"] == found["parents"]


def test_the_tree_says_the_same_to_people(owm: Owm, hub: HubServer) -> None:
    repo = hub.add(Repo("acme/tiny", files_of()))
    owm("quantize", "acme/tiny", "Q8_0")
    lines = owm("show", "acme/tiny:Q8_0", "--provenance", "--offline").splitlines()
    assert lines[0] == "acme/tiny:Q8_0"
    assert lines[1].startswith("  made here: Q8_0, by owm ")
    assert "  made from acme/tiny" in lines
    assert f"    published: acme/tiny at commit {repo.commit}" in lines
    assert any(line.startswith("    file: model.safetensors  ") for line in lines)
    shown = owm("show", "acme/tiny:Q8_0", "--provenance", "--json").json
    check_shape(shown, NODE_KEYS)


def test_a_published_model_is_its_own_origin(owm: Owm, hub: HubServer) -> None:
    repo = hub.add(Repo("me/tiny", {"tiny-Q8_0.gguf": tiny_gguf(), "generation_config.json": b"{}"}))
    owm("pull", "me/tiny")
    found = verified(owm, "me/tiny")
    assert (found["kind"], found["commit"], found["parents"]) == ("published", repo.commit, [])
    assert [file["role"] for file in found["files"]] == ["model", "generation_config"]
    assert found["is_complete"] is True
    owm("quantize", "me/tiny:Q8_0", "Q4_0", "--allow-requantize")
    (parent,) = verified(owm, "me/tiny:Q4_0")["parents"]
    assert (parent["kind"], parent["source"], parent["commit"]) == ("published", "me/tiny", repo.commit)


def test_a_file_that_owm_wrote_elsewhere_is_known_by_its_content(owm: Owm, tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny", n_shards=2)
    owm("convert", "tiny", "-o", "f16.gguf", "--type", "f16")
    owm("quantize", "f16.gguf", "Q8_0", "-o", "q8.gguf")
    (tmp_path / "q8.gguf").rename(tmp_path / "anything.gguf")
    found = verified(owm, "./anything.gguf")
    assert (found["kind"], found["status"], found["recipe"]["type"]) == ("made", "whole", "Q8_0")
    (middle,) = found["parents"]
    assert middle["files"][0]["sha256"] == sha256((tmp_path / "f16.gguf").read_bytes())
    assert middle["recipe"]["action"] == "convert"
    (weights,) = middle["parents"]
    assert {file["path"]: file["sha256"] for file in weights["files"]} == {
        path.name: sha256(path.read_bytes()) for path in folder.iterdir()
    }
    assert "folder of the user's" in weights["ends"]
    assert found["is_complete"] is False


def test_a_file_of_nobody_known_says_so_with_what_it_claims(owm: Owm, tmp_path: Path) -> None:
    metadata = {"general.base_model.0.repo_url": "https://example.org/base"}
    path = write_tiny_gguf(tmp_path / "strange.gguf", metadata=metadata)
    found = verified(owm, "./strange.gguf")
    assert (found["kind"], found["parents"], found["recipe"]) == ("file", [], None)
    assert found["ends"] == "nothing on this machine says where the file is from"
    assert found["claims"]["general.base_model.0.repo_url"] == "https://example.org/base"
    assert found["files"][0]["sha256"] == sha256(path.read_bytes())
    owm("import", "--from", path)
    imported = verified(owm, "strange")
    assert (imported["kind"], imported["claims"]) == ("file", found["claims"])
    owm("quantize", "strange", "Q8_0")
    (parent,) = verified(owm, "strange:Q8_0")["parents"]
    assert "imported" in parent["ends"]


def test_a_path_into_the_store_or_to_a_copy_is_the_stored_model(owm: Owm, hub: HubServer, tmp_path: Path) -> None:
    repo = hub.add(Repo("me/tiny", {"tiny-Q8_0.gguf": tiny_gguf()}))
    owm("pull", "me/tiny")
    path = Path(owm("path", "me/tiny").strip())
    for place in (path, shutil.copy(path, tmp_path / "copy.gguf")):
        found = verified(owm, place)
        assert (found["kind"], found["source"], found["commit"]) == ("published", "me/tiny", repo.commit)


def test_an_exported_model_keeps_its_line_where_nothing_is_stored(
    owm: Owm, tmp_path: Path, clean_environment: Path
) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    owm("quantize", "tiny", "Q8_0")
    owm("export", "tiny:Q8_0", "out.gguf", "--with-manifest")
    shutil.rmtree(clean_environment / "owm")
    found = verified(owm, "./out.gguf")
    assert (found["kind"], found["recipe"]["type"]) == ("made", "Q8_0")
    assert "only a manifest beside the file says" in found["ends"]
    (tmp_path / "out.gguf").write_bytes(tiny_gguf())  # another file by that name
    assert verified(owm, "./out.gguf")["kind"] == "file"


def test_what_only_a_manifest_beside_a_file_says_is_not_believed(owm: Owm, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "strange.gguf", metadata={"general.author": "nobody"})
    files = [{"path": "model.safetensors", "size_bytes": 1, "sha256": "a" * 64}]
    made_from = {"checkpoint": "acme/tiny", "commit": "b" * 40, "files": files, "type": "Q4_K_M", "by": "owm 0.1.0"}
    record = {"name": path.name, "size_bytes": path.stat().st_size, "sha256": sha256(path.read_bytes())}
    said = {"ref": "acme/tiny", "name": "acme/tiny", "label": "Q4_K_M", "commit": None, "files": [record]}
    (tmp_path / "strange.manifest.json").write_text(json.dumps(said | {"made_from": made_from}))
    found = verified(owm, "./strange.gguf")
    assert found["is_complete"] is False
    assert found["ends"] == "only a manifest beside the file says how it was made, which nobody has checked"
    assert not any(parent["is_complete"] for parent in found["parents"])
    assert found["claims"]["general.author"] == "nobody"
    assert found["parents"][0]["source"] == "acme/tiny"
    tree = owm("show", "./strange.gguf", "--provenance")
    assert "  said to be made: Q4_K_M, by owm 0.1.0" in tree.splitlines()
    assert f"    said to be published: acme/tiny at commit {'b' * 40}" in tree.splitlines()
    assert "made here" not in tree
    owm("quantize", path, "Q8_0", "-o", "q8.gguf", "--allow-requantize")  # nor does it come in as a parent
    (parent,) = verified(owm, "./q8.gguf")["parents"]
    assert (parent["kind"], parent["recipe"]) == ("file", None)


def test_a_certificate_does_not_hide_what_the_file_is(owm: Owm, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "f32.gguf", n_embd=256)
    owm("quantize", "f32.gguf", "Q8_0", "-o", "q8.gguf")
    before = verified(owm, "./q8.gguf")
    place = certificate.place_of(read_header(tmp_path / "q8.gguf"))
    assert place is not None
    with open(tmp_path / "q8.gguf", "r+b") as file:
        file.seek(place.offset)
        file.write(b"{}")
    after = verified(owm, "./q8.gguf")
    assert after == before
    assert after["files"][0]["blanked"] == {"offset": place.offset, "size_bytes": place.size_bytes}


# -- manifests of older versions, and of strangers ---------------------------------------------------------------------


def put_made(store: Store, made_from: Any, label: str = "Q8_0") -> Path:
    folder = put_model(store, "acme/tiny", label, content=tiny_gguf(seed=len(label)))
    known = store.at(folder)
    assert known is not None
    assert known.manifest is not None
    manifest.write(replace(known.manifest, made_from=made_from), folder)
    return folder


def test_what_an_older_owm_did_not_note_is_said_to_be_unknown(owm: Owm, store: Store) -> None:
    older = {"checkpoint": "acme/tiny", "commit": "a" * 40, "files": [], "type": "Q8_0", "by": "owm 0.0.1"}
    put_made(store, older)
    found = verified(owm, "acme/tiny:Q8_0")
    assert found["status"] == "whole"
    assert found["recipe"]["unknown"] == ["action", "versions", "options", "imatrix"]
    assert "older owm" in found["parents"][0]["ends"]
    assert found["is_complete"] is False
    put_made(store, {"model": "acme/tiny:F16", "files": [{"path": "x", "size_bytes": 1, "sha256": "b" * 64}]}, "Q4_0")
    assert "did not say whether" in verified(owm, "acme/tiny:Q4_0")["parents"][0]["ends"]
    put_made(store, {"path": "/somewhere/tiny"}, "Q4_1")
    assert "nothing of it but its place" in verified(owm, "acme/tiny:Q4_1")["parents"][0]["ends"]


def _nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"model": "acme/a:F16", "files": []}
    for _ in range(depth):
        inner = {"model": "acme/a:F16", "files": [], "made_from": inner}
    return inner


@pytest.mark.parametrize(
    "made_from",
    [
        {},
        {"checkpoint": 3, "files": 3, "commit": []},
        {"model": ["x"], "files": {"a": 1}, "recipe": 3, "imatrix": "x", "options": [], "versions": 1, "type": {}},
        {"path": "\0", "files": [3, None, {"path": 3}, {"path": "x", "size_bytes": True, "sha256": 3}]},
        {"path": "x" * 10_000, "type": "\x1b[2J", "by": "y" * 10_000},
        {"checkpoint": "acme/tiny", "imatrix": {"calibration": [1], "n_chunks": float("nan")}, "options": {"a": 1e999}},
        {"model": "acme/a:F16", "files": [{"path": "x", "size_bytes": 1, "sha256": "c" * 64}] * 5_000},
        _nested(MAX_NESTING - 4),
    ],
)  # fmt: skip
def test_what_a_stranger_writes_neither_crashes_nor_is_believed(made_from: Any, owm: Owm, store: Store) -> None:
    put_made(store, made_from)
    found = verified(owm, "acme/tiny:Q8_0")
    assert found["status"] == "whole"
    assert len(owm("show", "acme/tiny:Q8_0", "--provenance")) < 5_000_000


def test_a_model_that_is_said_to_be_made_of_itself_ends_the_line(owm: Owm, store: Store) -> None:
    first, second = (put_made(store, None, label) for label in ("Q8_0", "Q4_0_4"))
    shas = [store.at(folder).manifest.files[0].sha256 for folder in (first, second)]  # type: ignore[union-attr]
    for folder, sha in zip((first, second), reversed(shas), strict=True):
        known = store.at(folder)
        assert known is not None
        assert known.manifest is not None
        made = {"model": "acme/tiny:X", "files": [{"path": "x", "size_bytes": 1, "sha256": sha}]}
        manifest.write(replace(known.manifest, made_from=made), folder)
    found = verified(owm, "acme/tiny:Q8_0")
    assert found["parents"][0]["parents"][0]["ends"] == "it is said to be made of itself"


@pytest.mark.parametrize("depth", [MAX_NESTING, 300, 5_000])
def test_a_manifest_nested_deeply_is_damaged_and_no_other_suffers(depth: int, owm: Owm, store: Store) -> None:
    folder = put_made(store, {})
    put_model(store, "acme/other", "Q8_0", content=tiny_gguf(seed=9))
    path = folder / manifest.FILE_NAME
    nested = '{"made_from": ' * depth + "{}" + "}" * depth
    path.write_text(path.read_text().replace('"made_from": {}', f'"made_from": {nested}'))
    rows = owm("verify", "--json", code=7).json
    assert {(row["name"], row["status"]) for row in rows} == {(None, "damaged"), ("acme/other:Q8_0", "whole")}
    assert all(set(row) == VERIFY_KEYS for row in rows)


@pytest.mark.parametrize(
    "record", ["", "[]", "{", '{"format": "owm.made"}', "[" * 100_000, '{"files": [{"sha256": 3}]}']
)
def test_a_damaged_record_of_a_file_is_no_record(
    record: str, owm: Owm, tmp_path: Path, clean_environment: Path
) -> None:
    write_tiny_gguf(tmp_path / "f32.gguf", n_embd=256)
    owm("quantize", "f32.gguf", "Q8_0", "-o", "q8.gguf")
    (path,) = (clean_environment / "owm" / "made").iterdir()
    assert json.loads(path.read_text())["made_from"]["type"] == "Q8_0"
    path.write_text(record)
    assert verified(owm, "./q8.gguf")["kind"] == "file"


def test_parts_and_what_is_merged_of_them_lead_to_the_whole(owm: Owm, tmp_path: Path) -> None:
    whole = write_tiny_gguf(tmp_path / "whole.gguf")
    owm("split", whole, "--max-tensors", "9", "-o", "part.gguf")
    first = next(iter(sorted(tmp_path.glob("part-00001-*.gguf"))))
    owm("merge", first, "-o", "merged.gguf")
    (tmp_path / "merged.gguf").rename(tmp_path / "renamed.gguf")
    found = verified(owm, "./renamed.gguf")
    assert (found["kind"], found["recipe"]["action"]) == ("made", "merge")
    (parts,) = found["parents"]
    assert (parts["recipe"]["action"], len(parts["files"])) == ("split", len(list(tmp_path.glob("part-*.gguf"))))
    assert parts["parents"][0]["files"][0]["sha256"] == sha256(whole.read_bytes())
    last = max(tmp_path.glob("part-*.gguf"))
    last.write_bytes(last.read_bytes()[:-1] + b"x")  # the first part alone says nothing of the others
    assert verified(owm, first)["kind"] == "file"
    assert "as it is, in other files" in owm("quantize", "--reproduce", "./renamed.gguf", code=5).stderr
