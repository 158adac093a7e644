"""Pruning: what nobody needs goes, what a model or a running process has stays; and what takes how much."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from owm.errors import StoreError
from owm.store import manifest, pruning
from owm.store.local import Store
from owm.store.manifest import FileRecord
from owm.store.pruning import Kind
from owm.store.usage import HUB_REST, INCOMPLETE, UNREFERENCED, measure
from support.facts import model_bytes
from support.run import finish, start
from support.stored import put_model

MIB = 1 << 20


def put(path: Path, n_bytes: int = 10, *, age_seconds: float = 100.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(n_bytes))
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


def found(store: Store, *kinds: Kind, older: float = 0.0) -> list[str]:
    planned = pruning.plan(store, kinds=kinds or pruning.KINDS, older_seconds=older)
    return [each.path.name for each in planned]


def prune(store: Store, *kinds: Kind) -> int:
    planned = pruning.plan(store, kinds=kinds or pruning.KINDS)
    return sum(result.freed_bytes for result in pruning.execute(planned, store))


def everything(store: Store) -> set[str]:
    return {
        path.relative_to(top).as_posix()
        for top in (store.home, store.hub)
        for path in top.rglob("*")
        if path.is_file() and ".lock" not in path.name
    }


def test_an_empty_store_has_nothing_to_prune(store: Store) -> None:
    assert pruning.plan(store) == []
    assert not store.home.exists()


def test_what_was_begun_goes_with_its_notes_and_its_empty_folders(store: Store) -> None:
    folder = store.home / "models/url/host/m/1/Q8_0"
    for name in (
        "m.gguf.incomplete", "m.gguf.incomplete.json", "m.gguf.incomplete.json.new",
        "n.gguf.incomplete", "n.gguf.incomplete.journal",
    ):  # fmt: skip
        put(folder / name)
    put(folder / "wheel.incomplete" / "tmp" / "x.whl")
    blobs = store.hub / "models--o--r" / "blobs"
    put(blobs / "abc.owm.incomplete")
    put(blobs / "abc.owm.incomplete.json")
    put(blobs / "abc.owm.incomplete.json.new")
    theirs = put(blobs / "def.1234.incomplete")
    assert found(store) == ["abc.owm.incomplete", "m.gguf.incomplete", "n.gguf.incomplete", "wheel.incomplete"]
    assert prune(store) == 90
    assert everything(store) == {theirs.relative_to(store.hub).as_posix()}
    assert not (store.home / "models/url").exists()


def test_files_of_no_model_go_and_those_of_models_stay(store: Store) -> None:
    kept = put_model(store, "o/r", "Q8_0")
    put(kept / "left-over.gguf")
    put(kept / "model-Q8_0.gguf.damaged")
    put(kept / "model-Q8_0.recipe.json")
    killed = store.home / "models/url/host/m/1/Q8_0"
    put(killed / "part-00001-of-00002.gguf")
    put(killed / "template")
    assert found(store) == ["left-over.gguf", "model-Q8_0.gguf.damaged", "part-00001-of-00002.gguf", "template"]
    prune(store)
    assert sorted(path.name for path in kept.iterdir()) == [
        "manifest.json",
        "model-Q8_0.gguf",
        "model-Q8_0.recipe.json",
    ]
    assert not killed.exists()
    store.verify(store.models()[0])


def test_files_of_a_model_that_cannot_be_read_stay(store: Store) -> None:
    newer = put_model(store, "o/newer", "Q8_0")
    text = (newer / "manifest.json").read_text().replace('"schema": 2', '"schema": 99')
    (newer / "manifest.json").write_text(text)
    broken = put_model(store, "o/broken", "Q8_0")
    (broken / "manifest.json").write_text("{")
    assert found(store) == []


def test_a_file_that_another_models_manifest_names_stays(store: Store) -> None:
    folder = put_model(store, "o/r", "Q8_0")
    known = store.models()[0].manifest
    assert known is not None
    away = put(store.home / "models" / "shared" / "blob.gguf")
    record = FileRecord("models/shared/blob.gguf", "owm", 10, "0" * 64, role="shard")
    manifest.write(replace(known, files=(*known.files, record)), folder)
    assert found(store) == []
    assert away.exists()


def test_caches_go_by_kind_and_age(store: Store) -> None:
    put(store.home / "cache/headers/a", age_seconds=10 * 86400)
    put(store.home / "cache/headers/b")
    put(store.home / "cache/snapshots/c.kv", age_seconds=10 * 86400)
    put(store.home / "work/d.gguf", age_seconds=10 * 86400)
    put(store.home / "work/trial-e.gguf", age_seconds=3600)
    put(store.home / "cache/machine.json")
    put(store.home / "sessions/x.jsonl")
    assert found(store) == ["a", "b", "d.gguf", "c.kv"]
    assert found(store, older=7 * 86400) == ["a", "d.gguf", "c.kv"]
    assert found(store, "headers") == ["a", "b"]
    prune(store)
    assert everything(store) == {"cache/machine.json", "sessions/x.jsonl", "work/trial-e.gguf"}


HOLD = """
import sys, time
from pathlib import Path
{0}
    print("held", flush=True)
    time.sleep(60)
"""
OPEN = "from owm.library import open_store\nstore = open_store()\nplace = Path(sys.argv[1])\n"


@pytest.mark.parametrize(
    ("place", "hold"),
    [
        ("models/url/host/m/1/Q8_0/m.gguf.incomplete", OPEN + "with store.lock(place.parent):"),
        ("models/url/host/m/1/Q8_0/wheel.incomplete/deep/x.whl", OPEN + "with store.lock(place.parents[2]):"),
        ("models/url/host/m/1/Q8_0/part.gguf", OPEN + "with store.lock(place.parent):"),
        ("models/oci/host/m/1/Q8_0/sub/part.gguf.incomplete", OPEN + "with store.lock(place.parents[1]):"),
        ("work/a.gguf", "import fcntl\nfile = open(sys.argv[1])\nfcntl.flock(file, fcntl.LOCK_SH)\nwhile True:"),
        ("models/local/x/1/F16/x.gguf.incomplete",
         "import fcntl\nfile = open(sys.argv[1])\nfcntl.flock(file, fcntl.LOCK_EX)\nwhile True:"),
    ],
)  # fmt: skip
def test_what_a_running_process_holds_stays_until_it_ends(store: Store, place: str, hold: str) -> None:
    path = put(store.home / place)
    process = start(["-c", HOLD.format(hold), path])
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    (result,) = pruning.execute(pruning.plan(store), store)
    assert result.is_held
    assert path.exists()
    process.kill()
    finish(process)
    (result,) = pruning.execute(pruning.plan(store), store)
    assert not result.is_held
    assert not path.exists()


def test_a_blob_that_is_being_fetched_stays(store: Store) -> None:
    partial = put(store.hub / "models--o--r" / "blobs" / "abc.owm.incomplete")
    locks = store.hub / ".locks" / "models--o--r"
    locks.mkdir(parents=True)
    with FileLock(locks / "abc.lock"):
        assert [result.is_held for result in pruning.execute(pruning.plan(store), store)] == [True]
    assert partial.exists()
    assert [result.is_held for result in pruning.execute(pruning.plan(store), store)] == [False]
    assert not partial.exists()


def test_what_a_killed_repair_put_aside_goes(store: Store) -> None:
    aside = put(store.hub / "models--o--r" / "blobs" / f"{'a' * 64}.damaged")
    assert [part.what for part in measure(store).parts] == [UNREFERENCED]
    (planned,) = pruning.plan(store)
    assert planned.kind == "unreferenced"
    locks = store.hub / ".locks" / "models--o--r"
    locks.mkdir(parents=True)
    with FileLock(locks / f"{'a' * 64}.lock"):
        assert [result.is_held for result in pruning.execute([planned], store)] == [True]
    prune(store)
    assert not aside.exists()


def test_what_has_grown_or_become_a_model_since_it_was_found_stays(store: Store) -> None:
    grown = put(store.home / "models/url/host/m/1/Q8_0/m.gguf.incomplete")
    folder = put_model(store, "o/r", "Q8_0")
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").unlink()
    planned = pruning.plan(store)
    assert [each.path.name for each in planned] == ["m.gguf.incomplete", "model-Q8_0.gguf"]
    (folder / "manifest.json").write_text(text)
    with open(grown, "ab") as file:
        file.write(b"more")
    assert [result.is_held for result in pruning.execute(planned, store)] == [True, True]
    store.verify(store.models()[0])


def test_links_are_never_followed(store: Store, tmp_path: Path) -> None:
    mine = put(tmp_path / "mine" / "m.gguf")
    (store.home / "work").mkdir(parents=True)
    (store.home / "work" / "link").symlink_to(mine.parent)
    folder = store.home / "models/url/host/m/1"
    folder.mkdir(parents=True)
    (folder / "Q8_0").symlink_to(mine.parent)
    (folder / "m.gguf.incomplete").symlink_to(mine)
    prune(store)
    assert mine.exists()


def test_a_folder_that_cannot_be_written_is_an_error(store: Store) -> None:
    put(store.home / "work" / "a.gguf")
    (store.home / "work").chmod(0o500)
    try:
        said = finish(start(["-m", "owm", "prune", "--yes"], unprivileged=True))
    finally:
        (store.home / "work").chmod(0o755)
    assert said.exit_code == 1
    assert "cannot write to" in said.stderr
    assert StoreError.__name__ not in said.stderr


# -- what takes how much -----------------------------------------------------------------------------------------------


def test_bytes_are_counted_once_and_for_their_owner(store: Store, tmp_path: Path) -> None:
    first = put_model(store, "o/a", "Q8_0", content=model_bytes(5000))
    second = put_model(store, "o/b", "Q8_0", content=model_bytes(5000))
    (second / "model-Q8_0.gguf").unlink()
    os.link(first / "model-Q8_0.gguf", second / "model-Q8_0.gguf")
    theirs = put_model(store, "o/c", "Q8_0", content=model_bytes(3000))
    known = store.models()[2].manifest
    assert known is not None
    (theirs / "model-Q8_0.gguf").rename(tmp_path / "t.gguf")
    record = replace(known.files[0], path=str(tmp_path / "t.gguf"), root="outside")
    manifest.write(replace(known, files=(record,), owner="ollama"), theirs)
    n_manifests = [(folder / "manifest.json").stat().st_size for folder in (first, second, theirs)]
    usage = measure(store)
    assert [use.size_bytes for use in usage.models] == [5000 + n_manifests[0], 5000 + n_manifests[1],
                                                        3000 + n_manifests[2]]  # fmt: skip
    assert [use.shared_bytes for use in usage.models] == [5000, 5000, 0]
    assert usage.owners == {"owm": 5000 + n_manifests[0] + n_manifests[1], "ollama": 3000 + n_manifests[2]}
    assert usage.total_bytes == usage.owners["owm"]


def test_the_rest_is_counted_by_kind(store: Store) -> None:
    put_model(store, "o/a", "Q8_0")
    put(store.home / "models/url/x/y/1/Q8_0/m.gguf.incomplete", 1000)
    put(store.hub / "models--o--r/blobs/a.owm.incomplete", 500)
    put(store.hub / "models--o--r/blobs/b", 7000)
    put(store.home / "models/url/x/y/1/Q8_0/n.gguf", 300)
    put(store.home / "cache/snapshots/a.kv", 40)
    put(store.home / "sessions/a.jsonl", 5)
    put(store.home / "aliases.json", 3)
    parts = {part.what: part for part in measure(store).parts}
    assert parts[INCOMPLETE].size_bytes == 1500
    assert parts[UNREFERENCED].size_bytes == 300
    assert parts["snapshots of conversations"].size_bytes == 40
    assert (parts[HUB_REST].size_bytes, parts[HUB_REST].is_own) == (7000, False)


def test_holes_of_a_begun_file_take_nothing(store: Store) -> None:
    path = put(store.home / "models/url/x/y/1/Q8_0/m.gguf.incomplete")
    os.truncate(path, 100 * MIB)
    (part,) = measure(store).parts
    assert part.size_bytes < MIB
    assert pruning.plan(store)[0].size_bytes < MIB


def test_a_store_that_lies_around_the_hub_cache_is_counted_once(store: Store) -> None:
    inner = Store(store.home, store.home / "hf" / "hub")
    put(inner.hub / "models--o--r/blobs/b", 7000)
    put(inner.home / "sessions" / "a", 10)
    assert [(part.what, part.size_bytes) for part in measure(inner).parts] == [("conversations", 10), (HUB_REST, 7000)]
