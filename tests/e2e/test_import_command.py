"""`owm import`: real tiny models in the folders of other tools, registered where they lie, linked, run and removed."""

import hashlib
import json
import os
import random
import re
import time
from pathlib import Path

import pytest

from owm.events import Event, Warned
from owm.library import importing
from owm.store import refs
from owm.store.local import Store
from support.hub_server import HubServer, Repo
from support.run import Output, finish, run, run_here, start
from support.tiny_gguf import tiny_gguf
from support.tool_layouts import COMMIT, put_file, put_in_hub_cache, put_ollama

A, B = tiny_gguf(seed=1), tiny_gguf(seed=2)
CUT = A[: len(A) // 2]
PROJECTOR = tiny_gguf(metadata=(("general.type", "mmproj"),))
KEYS = {"name", "status", "owner", "quant", "size_bytes", "path", "same_as", "is_imported", "problem", "hint"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every tool an empty home."""
    for name in ("OLLAMA_MODELS", "LLAMA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "me").mkdir()
    return tmp_path / "me"


@pytest.fixture
def owm(capsys: pytest.CaptureFixture[str]):
    """Run a command in this process."""

    def call(*args: str | os.PathLike[str]) -> Output:
        return run_here(capsys, *args)

    return call


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def statuses(output: Output) -> dict[str, str]:
    return {row["name"]: row["status"] for row in output.json}


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(folder.rglob("*"))}


# -- in place ----------------------------------------------------------------------------------------------------------


def test_a_model_of_ollama_is_run_where_it_lies(home: Path, store: Store, owm) -> None:
    models = home / ".ollama/models"
    params = b'{"temperature": 0, "repeat_penalty": 1.3}'
    extras = {"params": params, "system": b"Be brief.", "license": b"Apache License\nVersion 2.0, January 2004"}
    put_ollama(models, "registry.ollama.ai/library/tiny/1b", A, extras=extras)
    before = snapshot(models)
    done = owm("import", "--from", "ollama", "--json")
    assert done.exit_code == 0, done.stderr
    (row,) = done.json
    assert set(row) == KEYS
    assert (row["name"], row["status"], row["owner"], row["is_imported"]) == ("ollama:tiny:1b", "new", "Ollama", True)
    (model,) = store.models()
    manifest = model.manifest
    assert manifest is not None
    assert manifest.owner == "Ollama"
    assert manifest.files[0].root == "outside"
    assert manifest.files[0].sha256 == sha256(A)
    assert manifest.files[0].mtime_ns is None  # only the tool's word for it
    assert {record.role for record in manifest.extras} == {"params", "system", "licence"}
    assert manifest.generation_config is not None
    said = json.loads(store.file_path(manifest.generation_config).read_text())
    assert said == {"temperature": 0, "repetition_penalty": 1.3}
    answer = run(["-m", "owm", "run", "ollama:tiny:1b", "--max-tokens", "4", "hello"])
    assert answer.exit_code == 0, answer.stderr
    assert snapshot(models) == before
    assert owm("verify").exit_code == 0
    assert statuses(owm("import", "--from", "ollama", "--json")) == {"ollama:tiny:1b": "unchanged"}


def test_a_model_of_lm_studio_goes_by_the_name_of_its_repo(home: Path, store: Store, owm) -> None:
    path = put_file(home / ".lmstudio/models/owner/Tiny-GGUF/Tiny-Q4_K_M.gguf", A)
    assert owm("import", "--from", "lmstudio", "--json").json[0]["name"] == "owner/Tiny-GGUF:Q4_K_M"
    assert store.find(refs.parse("owner/Tiny-GGUF")).path == path
    assert store.find(refs.parse("owner/tiny-gguf:q4_k_m")).path == path
    assert store.find(refs.parse("owner/Tiny-GGUF:Tiny-Q4_K_M.gguf")).path == path
    assert owm("path", "owner/Tiny-GGUF").strip() == str(path)


def test_two_files_of_one_repo_with_the_same_quant_are_both_there(home: Path, store: Store, owm) -> None:
    put_file(home / ".lmstudio/models/owner/repo/a-Q8_0.gguf", A)
    put_file(home / ".lmstudio/models/owner/repo/b-Q8_0.gguf", B)
    assert owm("import", "--from", "lmstudio").exit_code == 0
    assert {model.path.read_bytes() for model in store.models()} == {A, B}
    assert {owm("path", row["name"]).strip() for row in owm("list", "--json").json} == {
        str(model.path) for model in store.models()
    }


def test_a_folder_of_the_users_is_registered_under_the_names_of_its_files(tmp_path: Path, store: Store, owm) -> None:
    put_file(tmp_path / "mine/My Model-Q8_0.gguf", A)
    put_file(tmp_path / "mine/old/my-model-q8_0.gguf", B)
    done = owm("import", "--from", tmp_path / "mine", "--json")
    assert done.exit_code == 0, done.stderr
    names = [row["name"] for row in done.json]
    assert names[0] == "my-model:Q8_0"
    assert names[1].startswith("my-model-")
    assert names[1].endswith(":Q8_0")
    assert {store.find(refs.parse(f"local:{name}")).path.read_bytes() for name in names} == {A, B}
    assert {model.manifest.owner for model in store.models() if model.manifest} == {"user"}


def test_a_file_gets_the_name_that_is_asked_for(tmp_path: Path, store: Store, owm) -> None:
    path = put_file(tmp_path / "x.gguf", A)
    done = owm("import", "--from", path, "--name", "Pet", "--json")
    assert done.json[0]["name"] == "pet:F32"
    assert store.find(refs.parse("pet")).path == path
    refused = owm("import", "--from", put_file(tmp_path / "y.gguf", B), "--name", "pet")
    assert refused.exit_code == 2
    assert "pet:F32 is stored already" in refused.stderr
    for bad in ("a/b", "", "../x", "a b", "x.gguf", "a:b"):
        assert owm("import", "--from", path, "--name", bad).exit_code == 2


def test_a_name_for_several_models_is_refused_before_anything_is_done(tmp_path: Path, store: Store, owm) -> None:
    put_file(tmp_path / "m/a.gguf", A)
    put_file(tmp_path / "m/b.gguf", B)
    assert owm("import", "--from", tmp_path / "m", "--name", "x").exit_code == 2
    assert store.models() == []


def test_only_those_that_are_named_are_taken(home: Path, owm) -> None:
    for name, content in (("tiny/1b", A), ("large/70b", B)):
        put_ollama(home / ".ollama/models", f"registry.ollama.ai/library/{name}", content)
    assert set(statuses(owm("import", "--from", "ollama", "tiny*", "--json"))) == {"ollama:tiny:1b"}
    assert set(statuses(owm("import", "--from", "ollama", "large:70b", "--json"))) == {"ollama:large:70b"}
    missing = owm("import", "--from", "ollama", "small")
    assert missing.exit_code == 3
    assert "ollama:large:70b" in missing.stderr


def test_parts_are_one_model(tmp_path: Path, store: Store, owm) -> None:
    path = put_file(tmp_path / "whole.gguf", tiny_gguf(n_blocks=4))
    done = run(["-m", "owm", "split", path, "--max-size", "200KiB", "-o", tmp_path / "parts.gguf"])
    assert done.exit_code == 0, done.stderr
    parts = sorted(tmp_path.rglob("*-of-*.gguf"))
    assert len(parts) > 1
    path.unlink()
    done = owm("import", "--from", tmp_path, "--json")
    assert done.exit_code == 0, done.stderr
    (model,) = store.models()
    assert list(model.files) == parts
    assert run(["-m", "owm", "run", model.full_name, "--max-tokens", "2", "x"]).exit_code == 0
    parts[0].write_bytes(parts[1].read_bytes())
    (refused,) = owm("import", "--from", tmp_path, "--json").json
    assert refused["status"] == "refused"
    assert "part" in refused["problem"]


# -- what is damaged, hostile or no model ------------------------------------------------------------------------------


def test_what_is_damaged_is_told_one_by_one_and_the_others_go_on(tmp_path: Path, store: Store, owm) -> None:
    folder = tmp_path / "m"
    for name, content in {"good.gguf": A, "cut.gguf": CUT, "empty.gguf": b"", "text.gguf": b"hello" * 100}.items():
        put_file(folder / name, content)
    put_file(folder / "quiet-projector.gguf", PROJECTOR)
    os.mkfifo(folder / "pipe.gguf")
    done = owm("import", "--from", folder, "--json")
    assert done.exit_code == 7
    assert {Path(row["path"]).name: row["status"] for row in done.json} == {
        "good.gguf": "new", "cut.gguf": "refused", "empty.gguf": "refused", "text.gguf": "refused",
        "pipe.gguf": "refused", "quiet-projector.gguf": "left out",
    }  # fmt: skip
    assert all(row["problem"] for row in done.json if row["status"] in ("refused", "left out"))
    assert [model.path.name for model in store.models()] == ["good.gguf"]
    said = owm("import", "--from", folder)
    assert said.stderr.count("warning:") == 4


def test_what_is_no_model_is_said_once_after_the_models(home: Path, owm) -> None:
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/a/latest", None, extras={"tensor": b"x"})
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/b/latest", A)
    done = owm("import", "--from", "ollama")
    assert done.exit_code == 0
    assert done.index("ollama:b") < done.index("a:latest")
    assert done.stderr.count("a:latest") == 1


def test_only_things_that_are_no_models_are_unsupported(tmp_path: Path, owm) -> None:
    assert owm("import", "--from", put_file(tmp_path / "p.gguf", PROJECTOR)).exit_code == 5


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    put_file(tmp_path / "m/good.gguf", A)
    put_file(tmp_path / "m/locked.gguf", B).chmod(0)
    put_file(tmp_path / "m/sealed/x.gguf", B)
    (tmp_path / "m/sealed").chmod(0)
    done = run(["-m", "owm", "import", "--from", tmp_path / "m", "--json"], unprivileged=True)
    (tmp_path / "m/sealed").chmod(0o700)
    assert done.exit_code == 1
    assert sorted(row["status"] for row in done.json) == ["new", "refused", "refused"]


@pytest.mark.parametrize("closed", [".ollama", ".ollama/models/manifests", ".ollama/models/blobs"])
def test_a_tool_whose_folder_belongs_to_another_user_is_told(home: Path, closed: str) -> None:
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/1b", A)
    (home / closed).chmod(0)
    try:
        done = run(["-m", "owm", "import", "--from", "ollama"], unprivileged=True)
        listed = run(["-m", "owm", "import"], unprivileged=True)
    finally:
        (home / closed).chmod(0o700)
    assert done.exit_code == 1
    assert "cannot read" in done.stderr
    assert "Traceback" not in done.stderr
    assert listed.exit_code == 0
    assert "Traceback" not in listed.stderr


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path, clean_environment: Path) -> None:
    put_file(tmp_path / "m/good.gguf", A)
    (clean_environment / "owm").mkdir()
    (clean_environment / "owm").chmod(0o500)
    done = run(["-m", "owm", "import", "--from", tmp_path / "m"], unprivileged=True)
    assert done.exit_code == 1
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr


def test_names_that_would_steer_a_terminal_or_leave_the_store_do_not(tmp_path: Path, home: Path, owm) -> None:
    put_file(tmp_path / "m/..\u202egguf.gguf", A)
    put_file(home / ".ollama/models/manifests/registry.ollama.ai/library/..%2f..%2fetc/latest", b"{}")
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/$(touch x)/;rm", B)
    assert owm("import", "--from", tmp_path / "m").exit_code == 0
    done = owm("import", "--from", "ollama")
    assert "Traceback" not in done.stderr
    stored = list(Path(os.environ["OWM_HOME"]).rglob("manifest.json"))
    assert len(stored) == 2


# -- the same model twice, changes, and models that are gone -----------------------------------------------------------


def test_the_same_model_of_two_tools_is_one_entry(home: Path, store: Store, owm) -> None:
    extras = {"system": b"Be brief."}
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/1b", A, extras=extras)
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/latest", A, extras=extras)
    put_file(home / ".lmstudio/models/owner/repo/m-Q8_0.gguf", A)
    first = owm("import", "--from", "ollama", "--json")
    assert statuses(first) == {"ollama:tiny:1b": "new", "ollama:tiny": "known"}
    assert [row["same_as"] for row in first.json] == [None, "ollama:tiny:1b"]
    (row,) = owm("import", "--from", "lmstudio", "--json").json
    assert (row["status"], row["same_as"]) == ("known", "ollama:tiny:1b")
    assert len(store.models()) == 1
    assert "known as ollama:tiny:1b" in owm("import", "--from", "lmstudio")


def test_one_file_with_two_sets_of_instructions_is_two_models(home: Path, store: Store, owm) -> None:
    for name in ("a", "b"):
        put_ollama(
            home / ".ollama/models", f"registry.ollama.ai/library/{name}/latest", A, extras={"system": name.encode()}
        )
    owm("import", "--from", "ollama")
    assert len(store.models()) == 2
    assert set(statuses(owm("import", "--from", "ollama", "--json")).values()) == {"unchanged"}


def test_a_tag_that_moved_is_registered_anew(home: Path, store: Store, owm) -> None:
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/latest", A)
    owm("import", "--from", "ollama")
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/latest", B)
    assert statuses(owm("import", "--from", "ollama", "--json")) == {"ollama:tiny": "changed"}
    (model,) = store.models()
    assert model.path.read_bytes() == B


def test_a_file_that_was_changed_is_found_out(tmp_path: Path, store: Store, owm) -> None:
    path = put_file(tmp_path / "m/x.gguf", A)
    owm("import", "--from", path)
    path.write_bytes(B)
    assert owm("verify").exit_code == 7
    assert owm("import", "--from", path, "--json").json[0]["status"] == "changed"
    assert owm("verify").exit_code == 0
    assert len(store.models()) == 1


def test_a_model_that_its_tool_removed_is_gone_and_can_be_forgotten(home: Path, store: Store, owm) -> None:
    path = put_file(home / ".lmstudio/models/owner/repo/m-Q8_0.gguf", A)
    owm("import", "--from", "lmstudio")
    path.unlink()
    assert "gone" in owm("list")
    assert store.find(refs.parse("owner/repo")) is None
    put_file(path, A)
    assert owm("import", "--from", "lmstudio").exit_code == 0
    assert store.find(refs.parse("owner/repo")) is not None


def test_removing_forgets_the_model_and_leaves_the_bytes(home: Path, store: Store, owm) -> None:
    path = put_file(home / ".lmstudio/models/owner/repo/m-Q8_0.gguf", A)
    owm("import", "--from", "lmstudio")
    done = owm("rm", "--yes", "owner/repo:Q8_0")
    assert done.exit_code == 0, done.stderr
    assert path.read_bytes() == A
    assert store.models() == []


# -- links and copies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["hard", "sym", "copy"])
def test_the_bytes_come_into_owms_own_folder_if_asked(home: Path, store: Store, owm, link: str) -> None:
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/1b", A)
    owm("import", "--from", "ollama")
    done = owm("import", "--from", "ollama", "--link", link, "--json")
    assert done.exit_code == 0, done.stderr
    assert statuses(done) == {"ollama:tiny:1b": "changed"}
    (model,) = store.models()
    assert model.manifest is not None
    assert model.path.is_relative_to(store.home)
    assert model.path.name.endswith(".gguf")
    assert model.path.is_symlink() is (link == "sym")
    assert model.manifest.owner == ("Ollama" if link == "sym" else None)
    assert owm("verify").exit_code == 0
    assert statuses(owm("import", "--from", "ollama", "--json"))["ollama:tiny:1b"] in ("known", "unchanged")
    source = next(path for path in (home / ".ollama/models/blobs").iterdir() if path.stat().st_size == len(A))
    assert owm("rm", "--yes", "ollama:tiny:1b").exit_code == 0
    assert source.read_bytes() == A


def test_a_blob_that_is_damaged_is_not_copied(home: Path, store: Store, owm) -> None:
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/1b", A)
    blob = next(path for path in (home / ".ollama/models/blobs").iterdir() if path.stat().st_size == len(A))
    blob.write_bytes(A[:-1] + bytes([A[-1] ^ 1]))
    done = owm("import", "--from", "ollama", "--link", "copy", "--json")
    assert done.exit_code == 7
    assert store.models() == []
    assert not list(store.home.rglob("*.gguf"))


def test_a_link_of_no_kind_is_refused(tmp_path: Path, owm) -> None:
    assert owm("import", "--from", put_file(tmp_path / "a.gguf", A), "--link", "soft").exit_code == 2


# -- before it is done -------------------------------------------------------------------------------------------------


def test_a_dry_run_says_all_and_writes_nothing(home: Path, tmp_path: Path, owm) -> None:
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/1b", A)
    put_file(tmp_path / "m/cut.gguf", CUT)
    done = owm("import", "--from", "ollama", "--dry-run", "--json")
    assert done.json[0]["status"] == "new"
    assert not done.json[0]["is_imported"]
    assert "would be new" in owm("import", "--from", "ollama", "--dry-run")
    assert owm("import", "--from", tmp_path / "m", "--dry-run").exit_code == 7
    assert not Path(os.environ["OWM_HOME"]).exists()


def test_without_a_source_the_tools_that_are_here_are_listed(home: Path, owm) -> None:
    assert "no tool's models" in owm("import").stderr
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/1b", A)
    rows = owm("import", "--json").json
    assert [(row["source"], row["n_models"], row["size_bytes"]) for row in rows] == [("ollama", 1, len(A))]
    assert owm("import", "tiny").exit_code == 2


def test_a_tool_that_is_not_here_and_a_source_that_is_none(owm) -> None:
    nothing = owm("import", "--from", "ollama")
    assert nothing.exit_code == 3
    assert "no models of Ollama here" in nothing.stderr
    assert owm("import", "--from", "olama").exit_code == 2
    assert owm("import", "--from", "./no/such/folder").exit_code == 3


def test_two_imports_at_once_are_one(home: Path, store: Store) -> None:
    for number in range(4):
        put_file(home / f".lmstudio/models/owner/repo{number}/m-Q8_0.gguf", tiny_gguf(seed=10 + number))
    args = ["-m", "owm", "import", "--from", "lmstudio", "--json", "--link", "hard"]
    at_once = [start(args) for _ in range(4)]
    for process in at_once:
        assert finish(process).exit_code == 0
    assert len(store.models()) == 4
    assert run(["-m", "owm", "verify"]).exit_code == 0


# -- the Hugging Face cache --------------------------------------------------------------------------------------------


def heard(ref: str, store: Store) -> tuple[object, list[str]]:
    said: list[str] = []

    def sink(event: Event) -> None:
        if isinstance(event, Warned):
            said.append(event.message)

    return importing.adopt_cached(refs.parse(ref), store, sink=sink), said


def test_what_another_program_has_put_into_the_hugging_face_cache_is_used(store: Store, owm) -> None:
    advice = b'{"temperature": 0.5}'
    put_in_hub_cache(store.hub, "owner/repo", {"m-Q8_0.gguf": A, "m-Q4_K_M.gguf": B, "generation_config.json": advice})
    assert heard("owner/other", store) == (None, [])
    assert heard("owner/repo:Q2_K", store) == (None, [])
    model, said = heard("owner/repo", store)
    assert said == []
    assert model is not None
    assert model.label == "Q4_K_M"
    assert model.manifest.commit == COMMIT
    assert {record.root for record in model.manifest.kept_files} == {"hub"}
    assert model.manifest.owner == "Hugging Face cache"
    assert model.manifest.files[0].mtime_ns is not None
    assert heard("owner/repo:q8_0", store)[0].label == "Q8_0"
    assert len(store.models()) == 2
    assert owm("verify").exit_code == 0


def test_what_the_hubs_own_library_downloads_is_used_without_a_network(
    store: Store, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, hf_hub_download

    repo = Repo("owner/repo", {"sub/m-Q8_0.gguf": A, "m-Q4_K_M.gguf": B, "generation_config.json": b"{}"})
    hub.add(repo)
    for name in ("sub/m-Q8_0.gguf", "generation_config.json"):
        hf_hub_download("owner/repo", name, cache_dir=store.hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    model, said = heard("owner/repo", store)
    assert model is not None, said
    assert (model.label, model.manifest.commit, model.manifest.revision) == ("Q8_0", repo.commit, "main")
    assert model.manifest.generation_config is not None
    assert heard("owner/repo:Q4_K_M", store) == (None, [])
    assert list(hub.requests) == []


def test_a_damaged_blob_in_the_cache_is_told_and_not_used(store: Store) -> None:
    bad = A[:-1] + bytes([A[-1] ^ 1])
    put_in_hub_cache(store.hub, "owner/repo", {"m-Q8_0.gguf": bad}, blob_names={"m-Q8_0.gguf": sha256(A)})
    model, (said,) = heard("owner/repo", store)
    assert model is None
    assert "damaged" in said
    assert store.models() == []


def test_the_whole_cache_can_be_imported_and_is_then_run_by_name(store: Store, owm) -> None:
    put_in_hub_cache(store.hub, "owner/repo", {"sub/m-Q8_0.gguf": A})
    done = owm("import", "--from", "huggingface", "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json[0]["name"] == "owner/repo:Q8_0"
    answer = run(["-m", "owm", "run", "owner/repo", "--max-tokens", "2", "x"])
    assert answer.exit_code == 0, answer.stderr
    (model,) = store.models()
    assert store.find(refs.parse("owner/repo:sub/m-Q8_0.gguf")).path == model.path


def test_a_model_from_the_cache_is_forgotten_and_its_bytes_stay(store: Store, owm) -> None:
    put_in_hub_cache(store.hub, "owner/repo", {"m-Q8_0.gguf": A})
    model, _ = heard("owner/repo", store)
    assert model is not None
    done = owm("rm", "owner/repo:Q8_0")
    assert done.exit_code == 0, done.stderr
    assert store.models() == []
    assert model.path.read_bytes() == A


def test_commands_find_what_is_in_the_cache_without_a_socket(store: Store, owm) -> None:
    put_in_hub_cache(store.hub, "owner/repo", {"m-Q8_0.gguf": A})
    plan = owm("pull", "owner/repo", "--dry-run", "--offline")
    assert plan == "would take owner/repo:Q8_0 from the Hugging Face cache, as it lies there\n", plan.stderr
    (row,) = owm("pull", "OWNER/repo", "--dry-run", "--json", "--offline").json
    assert (row["name"], row["is_stored"], row["files"][0]["sha256"]) == ("owner/repo:Q8_0", False, sha256(A))
    assert store.models() == []
    pulled = owm("pull", "owner/repo", "--offline")
    assert pulled.exit_code == 0, pulled.stderr
    assert "owner/repo:Q8_0 was in the Hugging Face cache already" in pulled.stderr
    assert re.search(r"(?m)^owner +Hugging Face cache$", owm("show", "owner/repo"))


def test_the_same_bytes_in_two_repos_are_two_models_each_read_once(store: Store) -> None:
    for repo in ("owner/repo", "other/copy"):
        put_in_hub_cache(store.hub, repo, {"m-Q8_0.gguf": A})
        model, _ = heard(repo, store)
        assert store.shown_name(model) == f"{repo}:Q8_0"
        assert store.find(refs.parse(repo)).path == model.path


def test_owms_own_models_are_left_alone_wherever_they_were_moved(tmp_path: Path, owm) -> None:
    put_file(tmp_path / "all/mine-Q8_0.gguf", A)
    assert owm("import", "--from", tmp_path / "all", "--link", "copy").exit_code == 0
    assert owm("store", "move", tmp_path / "all/disk").exit_code == 0
    assert [row["path"] for row in owm("import", "--from", tmp_path / "all", "--json").json] == [
        str(tmp_path / "all/mine-Q8_0.gguf")
    ]


# -- what is gone ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [None, "sym"])
def test_a_file_of_the_users_that_is_gone_gets_a_hint_that_can_work(tmp_path: Path, owm, link: str | None) -> None:
    put_file(tmp_path / "mine-Q8_0.gguf", A)
    owm("import", "--from", tmp_path / "mine-Q8_0.gguf", *(["--link", link] if link else []))
    (tmp_path / "mine-Q8_0.gguf").unlink()
    for command in (
        ("pull", "mine"),
        ("pull", "local:mine", "--offline"),
        ("show", "mine"),
        ("path", "mine:Q8_0"),
        ("export", "mine", tmp_path / "to"),
    ):
        done = owm(*command)
        assert done.exit_code == 3, (command, done.stderr)
        assert f"mine:Q8_0 is gone: another program removed {tmp_path / 'mine-Q8_0.gguf'}\n" in done.stderr
        assert "hint: put the file back, or `owm rm mine:Q8_0` forgets it" in done.stderr
    repaired = owm("verify", "--repair")
    assert "cannot be repaired by owm: its file is yours" in repaired
    assert "hint: put a whole one in its place and import it again" in repaired.stderr
    none = owm("pull", "local:nobody")
    assert (none.exit_code, none.stderr) == (3, "error: local:nobody is not stored\nhint: `owm list` shows what is\n")
    assert "owm pull" not in owm("show", "local:nobody").stderr
    assert owm("rm", "mine:Q8_0").exit_code == 0


def test_a_file_of_the_users_that_was_damaged_gets_a_hint_that_can_work(tmp_path: Path, owm) -> None:
    path = put_file(tmp_path / "mine-Q8_0.gguf", A)
    owm("import", "--from", path)
    path.write_bytes(b"GGUF" + bytes(len(A) - 4))
    done = owm("show", "mine")
    assert done.exit_code == 7
    assert "hint: the file is yours: put a whole one in its place and import it again, or `owm rm" in done.stderr


def test_what_was_taken_in_place_from_the_cache_can_be_linked_later(store: Store, owm) -> None:
    put_in_hub_cache(store.hub, "owner/repo", {"m-Q8_0.gguf": A})
    assert owm("pull", "owner/repo", "--offline").exit_code == 0
    statuses_in_turn = [owm("import", "--from", "hf", "--link", "hard", "--json").json[0] for _ in range(2)]
    assert [(row["status"], row["same_as"]) for row in statuses_in_turn] == [("changed", None), ("unchanged", None)]
    (model,) = store.models()
    assert (model.manifest.owner, model.path.is_relative_to(store.home)) == (None, True)


@pytest.mark.parametrize(
    ("source", "code", "said"), [("", 2, "no source is named"), ("pipe.gguf", 3, "neither a folder nor a file: ")]
)
def test_a_source_that_is_nothing_to_look_into(tmp_path: Path, owm, source: str, code: int, said: str) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    done = owm("import", "--from", source and tmp_path / source)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr


# -- what is elsewhere -------------------------------------------------------------------------------------------------


def test_models_that_are_not_in_the_store_are_listed_with_their_owners(home: Path, owm) -> None:
    put_ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/1b", A)
    put_file(home / ".lmstudio/models/owner/repo/m-Q8_0.gguf", B)

    def owners() -> dict[str, str]:
        return {row["name"]: row["owner"] for row in owm("list", "--all", "--json").json}

    assert owners() == {"ollama:tiny:1b": "Ollama", "owner/repo:Q8_0": "LM Studio"}
    owm("import", "--from", "lmstudio")
    assert owners() == {"ollama:tiny:1b": "Ollama", "owner/repo:Q8_0": "LM Studio"}
    assert [row["owner"] for row in owm("list", "--json").json] == ["LM Studio"]


def test_notes_of_other_tools_that_are_damaged_stop_nothing(home: Path, owm) -> None:
    put_file(home / ".ollama/models/manifests/registry.ollama.ai/library/x/latest", b"{")
    put_file(home / ".ollama/models/blobs/x", b"")
    put_file(home / ".lmstudio-home-pointer", b"\xff\xff")
    put_file(home / ".lmstudio/settings.json", b'{"downloadsFolder": 7}')
    put_file(home / ".cache/llama.cpp", b"a file")
    assert owm("list", "--all").exit_code == 0
    assert owm("import").exit_code == 0
    for source, code in (("ollama", 7), ("lmstudio", 3), ("llama.cpp", 3), ("huggingface", 3)):
        assert owm("import", "--from", source).exit_code == code


# -- kill -9 -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_import_is_finished_by_the_same_command(home: Path, store: Store) -> None:
    """Killed at random moments while it copies: nothing wrong is ever a model, and the last one is whole."""
    moments = random.Random(9)
    for number in range(3):
        content = tiny_gguf(n_blocks=6, n_embd=256, seed=20 + number)
        put_file(home / f".lmstudio/models/owner/repo{number}/m-Q8_0.gguf", content)
    args = ["-m", "owm", "import", "--from", "lmstudio", "--link", "copy"]
    for _ in range(8):
        process = start(args)
        time.sleep(moments.uniform(0.3, 1.2))
        process.kill()
        process.communicate()
        for model in store.models():
            store.verify(model)
    done = run(args)
    assert done.exit_code == 0, done.stderr
    assert len(store.models()) == 3
    assert run(["-m", "owm", "verify", "--full"]).exit_code == 0
    assert not list(store.home.rglob("*.incomplete"))
