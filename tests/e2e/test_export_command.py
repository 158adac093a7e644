"""`owm export`: whole, checked, under readable names, and over nothing of yours."""

import hashlib
import os
import signal
import time
from pathlib import Path

import pytest

from owm.store import manifest
from owm.store.local import Store
from owm.store.manifest import FileRecord, Manifest, ModelFacts
from support.run import run, run_here, start
from support.stored import put_model
from support.tiny_gguf import tiny_gguf, write_tiny_gguf

KEYS = {"name", "files", "manifest", "link", "size_bytes", "is_written"}
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(store: Store) -> Path:
    return put_model(store, "me/tiny", "Q8_0", content=tiny_gguf())


def _put_shards(store: Store, names: tuple[str, ...]) -> list[bytes]:
    folder = store.folder_of("hub", "me/big", "a" * 40, "Q4_K_M")
    folder.mkdir(parents=True)
    contents = [name.encode() * 1000 for name in names]
    records = []
    for index, (name, content) in enumerate(zip(names, contents, strict=True)):
        (folder / name).write_bytes(content)
        where = (folder / name).relative_to(store.home).as_posix()
        role: manifest.Role = "shard" if index else "model"
        records.append(FileRecord(where, "owm", len(content), hashlib.sha256(content).hexdigest(), role))
    facts = ModelFacts("llama")
    made = Manifest(
        "me/big", "hub", "me/big", "Q4_K_M", "main", "a" * 40, tuple(records), "mit", facts, "2025-01-01T00:00:00+00:00"
    )
    manifest.write(made, folder)
    return contents


def test_a_model_is_exported_into_a_folder_under_its_own_name(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    done = run_here(capsys, "export", "me/tiny", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert done == f"{tmp_path / 'model-Q8_0.gguf'}\n"
    assert (tmp_path / "model-Q8_0.gguf").read_bytes() == tiny_gguf()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model-Q8_0.gguf"]


def test_a_model_is_exported_under_the_name_that_is_given(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run_here(capsys, "export", "me/tiny", tmp_path / "mine.gguf").exit_code == 0
    assert (tmp_path / "mine.gguf").read_bytes() == tiny_gguf()
    assert run_here(capsys, "export", "me/tiny", f"{tmp_path}/new/").exit_code == 0
    assert (tmp_path / "new" / "model-Q8_0.gguf").exists()


def test_the_json_says_what_was_written_and_the_manifest_what_it_is(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    done = run_here(capsys, "export", "me/tiny", tmp_path / "mine.gguf", "--with-manifest", "--json").json
    assert set(done) == KEYS
    assert done["manifest"] == str(tmp_path / "mine.manifest.json")
    import json

    known = json.loads((tmp_path / "mine.manifest.json").read_text())
    assert known["files"][0]["name"] == "mine.gguf"
    assert known["files"][0]["sha256"] == hashlib.sha256((tmp_path / "mine.gguf").read_bytes()).hexdigest()
    assert known["licence"] == "mit"
    assert known["ref"] == "me/tiny"
    assert str(folder) not in json.dumps(known)


def test_parts_keep_the_names_by_which_llama_cpp_finds_them(store: Store, tmp_path: Path, capsys: Capture) -> None:
    names = ("big-Q4_K_M-00001-of-00002.gguf", "big-Q4_K_M-00002-of-00002.gguf")
    contents = _put_shards(store, names)
    assert run_here(capsys, "export", "me/big", tmp_path).exit_code == 0
    assert [(tmp_path / name).read_bytes() for name in names] == contents
    assert run_here(capsys, "export", "me/big", tmp_path / "mine.gguf").exit_code == 0
    assert [(tmp_path / f"mine-0000{i}-of-00002.gguf").read_bytes() for i in (1, 2)] == contents
    again = run_here(capsys, "export", "me/big", tmp_path / "mine-00001-of-00002.gguf")
    assert again.exit_code == 2
    assert "mine-00001-of-00002.gguf is there already" in again.stderr


def test_a_file_without_a_readable_name_is_named_after_its_model(store: Store, tmp_path: Path, capsys: Capture) -> None:
    blob = tmp_path / "sha256-0123"
    blob.write_bytes(tiny_gguf())
    where = store.folder_of("ollama", "library/qwen3", "8b", "Q4_K_M")
    where.mkdir(parents=True)
    record = FileRecord(blob.as_posix(), "outside", len(tiny_gguf()), hashlib.sha256(tiny_gguf()).hexdigest())
    made = Manifest(
        "me/qwen3", "hub", "me/qwen3", "Q4_K_M", "main", "a" * 40, (record,), None, ModelFacts("llama"),
        "2025-01-01T00:00:00+00:00", owner="ollama",
    )  # fmt: skip
    manifest.write(made, where)
    (tmp_path / "out").mkdir()
    done = run_here(capsys, "export", "me/qwen3", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["qwen3-Q4_K_M.gguf"]


def test_nothing_is_written_over_unless_that_is_said(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mine.gguf").write_text("mine")
    done = run_here(capsys, "export", "me/tiny", tmp_path / "mine.gguf")
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    assert "`--force`" in done.stderr
    assert (tmp_path / "mine.gguf").read_text() == "mine"
    assert run_here(capsys, "export", "me/tiny", tmp_path / "mine.gguf", "--force").exit_code == 0
    assert (tmp_path / "mine.gguf").read_bytes() == tiny_gguf()


@pytest.mark.parametrize("link", ["copy", "hard"])
@pytest.mark.parametrize("force", [False, True])
def test_the_models_own_file_is_never_written_over(
    folder: Path, tmp_path: Path, capsys: Capture, link: str, force: bool
) -> None:
    assert run_here(capsys, "export", "me/tiny", tmp_path / "m.gguf", "--link", "hard").exit_code == 0
    flags = ["--force"] if force else []
    assert run_here(capsys, "export", "me/tiny", tmp_path / "m.gguf", "--link", link, *flags).exit_code == 2
    assert run_here(capsys, "export", "me/tiny", folder, "--link", link, *flags).exit_code == 2
    assert (folder / "model-Q8_0.gguf").read_bytes() == tiny_gguf()


@pytest.mark.parametrize("destination", ["-", "", "/dev/stdout", "/dev/null", "nowhere/mine.gguf", "mine.bin", "a/b/"])
def test_what_is_no_place_for_a_model_is_refused(
    folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, destination: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_here(capsys, "export", "me/tiny", "--", destination)
    assert done.exit_code == 2
    assert done == ""
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_damaged_model_is_not_exported(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    with open(folder / "model-Q8_0.gguf", "r+b") as file:
        file.seek(5000)
        file.write(b"wrong")
    done = run_here(capsys, "export", "me/tiny", tmp_path)
    assert done.exit_code == 7
    assert "damaged" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_gone_is_not_found(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    (folder / "model-Q8_0.gguf").unlink()
    assert run_here(capsys, "export", "me/tiny:Q8_0", tmp_path).exit_code == 3


def test_a_hard_link_is_the_same_file(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run_here(capsys, "export", "me/tiny", tmp_path, "--link", "hard").exit_code == 0
    assert (tmp_path / "model-Q8_0.gguf").samefile(folder / "model-Q8_0.gguf")


def test_a_link_to_another_disk_says_what_to_do_instead(folder: Path, capsys: Capture) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        done = run_here(capsys, "export", "me/tiny", other, "--link", "hard")
        assert done.exit_code == 5
        assert "another disk" in done.stderr
        assert "`--link copy`" in done.stderr
        assert not os.listdir(other)
        assert run_here(capsys, "export", "me/tiny", other).exit_code == 0


def test_a_model_at_a_path_is_exported_too(tmp_path: Path, capsys: Capture) -> None:
    path = write_tiny_gguf(tmp_path / "tiny-Q8_0.gguf")
    assert run_here(capsys, "export", path, f"{tmp_path}/out/").exit_code == 0
    assert (tmp_path / "out" / "tiny-Q8_0.gguf").read_bytes() == path.read_bytes()


def test_a_dry_run_names_the_files_and_writes_none(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    done = run_here(capsys, "export", "me/tiny", tmp_path, "--dry-run")
    assert done == f"would write {tmp_path / 'model-Q8_0.gguf'}\n"
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_and_the_copy_goes_on_later(store: Store, tmp_path: Path) -> None:
    put_model(store, "me/larger", "Q8_0", content=tiny_gguf(n_blocks=8))
    script = (
        "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from owm.cli.app import main\nsys.exit(main(sys.argv[1:]))"
    )
    done = run(["-c", script, "export", "me/larger", tmp_path])
    assert done.exit_code == 6, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model-Q8_0.gguf.incomplete"]
    assert run(["-m", "owm", "export", "me/larger", tmp_path]).exit_code == 0
    assert (tmp_path / "model-Q8_0.gguf").read_bytes() == tiny_gguf(n_blocks=8)


@pytest.mark.slow
def test_killed_at_any_moment_there_is_a_whole_file_or_none(store: Store, tmp_path: Path) -> None:
    content = tiny_gguf() + b"\0" * 60_000_000
    put_model(store, "me/large", "Q8_0", content=content)
    target = tmp_path / "out.gguf"
    for number in range(6):
        process = start(["-m", "owm", "export", "me/large", target])
        time.sleep(0.15 + 0.07 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if target.exists():
            assert target.read_bytes() == content
            target.unlink()
    assert run(["-m", "owm", "export", "me/large", target]).exit_code == 0
    assert target.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
