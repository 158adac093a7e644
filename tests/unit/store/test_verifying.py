"""Verification by size and time, by every byte, in parallel; and the repair of what is damaged."""

import hashlib
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from owm.errors import (
    ChecksumMismatch,
    Damaged,
    MalformedFile,
    ModelNotFound,
    NetworkError,
    OwmError,
    StoreError,
    Unsupported,
)
from owm.events import Advanced, Event, Finished, Started
from owm.store import digest, manifest, pull
from owm.store import download as engine
from owm.store.digest import Hashing, sha256_of, sha256_of_all
from owm.store.local import Store
from owm.store.manifest import FileRecord
from owm.store.model import StoredModel
from owm.store.refs import parse
from owm.store.repairing import repair
from owm.store.verifying import Verdict, verify
from support.facts import inspect, model_bytes
from support.hub_server import Fault, HubServer, Repo
from support.stored import put_model

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FIRST_WAIT_SECONDS", 0.01)


def only(store: Store) -> StoredModel:
    (model,) = store.models()
    return model


def check(store: Store, *, full: bool = False) -> Verdict:
    return verify([only(store)], store, full=full, inspect=inspect)[0]


def put_verified(store: Store, content: bytes | None = None) -> Path:
    """Store a model whose time is noted; return its file."""
    folder = put_model(store, "o/r", "Q8_0", content=content)
    assert check(store).status == "whole"
    return folder / "model-Q8_0.gguf"


def flip(path: Path, *, keeps_time: bool = False) -> None:
    """Change the last byte of a file."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    time.sleep(0.02)
    path.write_bytes(content)
    if keeps_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


# -- by size and time --------------------------------------------------------------------------------------------------


def test_a_file_of_which_no_time_is_noted_is_read_once(store: Store) -> None:
    put_model(store, "o/r", "Q8_0")
    events: list[Event] = []
    for _ in range(2):
        assert verify(store.models(), store, inspect=inspect, sink=events.append)[0].status == "whole"
    assert [type(event) for event in events] == [Started, Advanced, Finished]  # of the first time alone
    noted = only(store).manifest
    assert noted is not None
    assert noted.files[0].mtime_ns == only(store).path.stat().st_mtime_ns


def test_noting_a_time_does_not_count_as_using_the_model(store: Store) -> None:
    folder = put_model(store, "o/r", "Q8_0")
    os.utime(folder / "manifest.json", (1000, 1000))
    assert check(store).status == "whole"
    used = only(store).last_used
    assert used is not None
    assert used.timestamp() == 1000


def test_a_changed_byte_is_seen_by_the_time(store: Store) -> None:
    flip(put_verified(store))
    verdict = check(store)
    assert verdict.status == "damaged"
    assert isinstance(verdict.problem, ChecksumMismatch)
    assert verdict.problem.hint == "`owm rm o/r:Q8_0`, then `owm pull o/r:Q8_0`"


def test_a_changed_byte_under_an_old_time_is_found_by_reading_all(store: Store) -> None:
    flip(put_verified(store), keeps_time=True)
    assert check(store).status == "whole"
    assert check(store, full=True).status == "damaged"
    assert check(store).status == "whole"  # nothing was noted of it either way


def test_another_time_alone_is_no_damage_and_is_noted(store: Store) -> None:
    file = put_verified(store)
    os.utime(file, (5, 5))
    assert check(store).status == "whole"
    known = only(store).manifest
    assert known is not None
    assert known.files[0].mtime_ns == 5_000_000_000


def test_damage_is_never_noted_as_whole(store: Store) -> None:
    flip(put_verified(store))
    assert [check(store).status for _ in range(3)] == ["damaged"] * 3


def test_a_header_that_cannot_be_used_is_damage_even_if_the_bytes_are_the_recorded_ones(store: Store) -> None:
    put_model(store, "o/r", "Q8_0", content=b"no model at all")
    for _ in range(2):
        verdict = check(store)
        assert isinstance(verdict.problem, MalformedFile)


def test_a_cut_off_file_is_not_read(store: Store) -> None:
    file = put_verified(store)
    file.write_bytes(file.read_bytes()[:-1])
    events: list[Event] = []
    verdict = verify(store.models(), store, full=True, sink=events.append)[0]
    assert "it has 63 bytes instead of 64" in str(verdict.problem)
    assert events == []


def test_a_missing_file_is_gone_and_a_missing_advice_is_nothing(store: Store) -> None:
    file = put_verified(store)
    known = only(store).manifest
    assert known is not None
    advice = FileRecord("models/none.json", "owm", 3, "0" * 64, role="generation_config")
    manifest.write(replace(known, generation_config=advice), file.parent)
    assert check(store).status == "whole"
    file.unlink()
    verdict = check(store)
    assert verdict.status == "gone"
    assert verdict.problem is not None
    assert verdict.problem.hint == "`owm pull o/r:Q8_0` fetches it again"


def test_a_missing_template_is_a_fault(store: Store) -> None:
    file = put_verified(store)
    known = only(store).manifest
    assert known is not None
    template = FileRecord("models/template", "owm", 3, "0" * 64, role="template")
    manifest.write(replace(known, extras=(template,)), file.parent)
    assert check(store).status == "gone"


def test_files_that_several_models_share_are_read_once(store: Store) -> None:
    folders = [put_model(store, "o/r", "Q8_0", commit=c * 40) for c in "abc"]
    first = folders[0] / "model-Q8_0.gguf"
    for folder in folders[1:]:
        (folder / "model-Q8_0.gguf").unlink()
        os.link(first, folder / "model-Q8_0.gguf")
    events: list[Event] = []
    verdicts = verify(store.models(), store, sink=events.append)
    assert [verdict.status for verdict in verdicts] == ["whole"] * 3
    assert len([event for event in events if isinstance(event, Advanced)]) == 1
    flip(first)
    assert [verdict.status for verdict in verify(store.models(), store)] == ["damaged"] * 3


def test_a_model_that_another_process_changes_is_verified_and_nothing_is_noted(store: Store) -> None:
    folder = put_model(store, "o/r", "Q8_0")
    with store.lock(folder):
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(check(store).status))
        thread.start()
        thread.join(10)
        assert found == ["whole"]
    known = only(store).manifest
    assert known is not None
    assert known.files[0].mtime_ns is None


def test_an_unreadable_file_is_told_apart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put_model(store, "o/r", "Q8_0")

    def fail(*_: object) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(digest, "_hash", fail)
    verdict = check(store)
    assert verdict.status == "unreadable"
    assert type(verdict.problem) is StoreError
    assert "Input/output error" in str(verdict.problem)


# -- many files at once ------------------------------------------------------------------------------------------------


def test_many_files_are_hashed_with_one_progress_that_never_goes_back(tmp_path: Path) -> None:
    files = []
    for number in range(20):
        path = tmp_path / f"f{number}"
        path.write_bytes(os.urandom(number * 150_000))
        files.append(Hashing(path, number * 150_000, (10, 20) if number % 3 == 0 else None))
    events: list[Event] = []
    found = sha256_of_all(files, n_threads=4, sink=events.append)
    assert found == [sha256_of(file.path, blanked=file.blanked) for file in files]
    done = [event.done for event in events if isinstance(event, Advanced)]
    assert done == sorted(done)
    assert isinstance(events[0], Started)
    assert done[-1] == events[0].total == sum(file.size_bytes for file in files)


def test_one_that_cannot_be_read_does_not_end_the_others(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"b")
    found = sha256_of_all([Hashing(tmp_path / "a", 5), Hashing(tmp_path / "b", 1)])
    assert isinstance(found[0], FileNotFoundError)
    assert found[1] == hashlib.sha256(b"b").hexdigest()


def test_an_interrupt_ends_it_soon(tmp_path: Path) -> None:
    for number in range(4):
        with open(tmp_path / f"f{number}", "wb") as file:
            file.truncate(3 << 30)  # sparse: seconds to hash

    def interrupt(event: Event) -> None:
        if isinstance(event, Advanced):
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sha256_of_all([Hashing(tmp_path / f"f{number}", 3 << 30) for number in range(4)], n_threads=2, sink=interrupt)
    assert time.monotonic() - began < 2


# -- repairing ---------------------------------------------------------------------------------------------------------

PARTS = {f"m-Q4_K_M-{i:05d}-of-00003.gguf": model_bytes(300_000 + i, seed=i) for i in (1, 2, 3)}


@pytest.fixture
def parts(hub: HubServer, store: Store) -> StoredModel:
    """A model in three parts, pulled."""
    hub.add(Repo("o/r", {**PARTS, "m-Q8_0.gguf": model_bytes(1000)}))
    model = pull.execute(pull.plan(parse("o/r:Q4_K_M"), store), store, inspect=inspect)
    hub.requests.clear()
    return model


def blob_of(address: str) -> str:
    return address.rpartition("/")[2].partition("?")[0]


def content_of(model: StoredModel) -> list[bytes]:
    return [path.read_bytes() for path in model.files]


def test_only_the_damaged_part_is_fetched(hub: HubServer, store: Store, parts: StoredModel) -> None:
    flip(parts.files[1].resolve())
    assert check(store).status == "damaged"
    assert repair(parts, store, inspect=inspect) == [parts.files[1]]
    assert content_of(parts) == list(PARTS.values())
    assert {blob_of(request.path) for request in hub.transfers()} == {parts.files[1].resolve().name}
    events: list[Event] = []
    assert verify(store.models(), store, sink=events.append)[0].status == "whole"
    assert events == []  # its time was noted
    assert not list(store.hub.rglob("*.damaged"))
    assert repair(parts, store) == []


def test_a_damage_that_keeps_the_time_is_repaired_too(hub: HubServer, store: Store, parts: StoredModel) -> None:
    flip(parts.files[2].resolve(), keeps_time=True)
    assert repair(parts, store, inspect=inspect) == []
    assert repair(parts, store, inspect=inspect, full=True) == [parts.files[2]]
    assert content_of(parts) == list(PARTS.values())


def test_of_a_cut_off_file_only_the_rest_is_fetched(hub: HubServer, store: Store, parts: StoredModel) -> None:
    os.truncate(parts.files[0].resolve(), 290_000)
    assert repair(parts, store, inspect=inspect) == [parts.files[0]]
    assert content_of(parts) == list(PARTS.values())
    (transfer,) = hub.transfers()
    assert str(transfer.range).startswith("bytes=290000-")


def test_a_cut_off_file_with_wrong_bytes_is_fetched_whole(hub: HubServer, store: Store, parts: StoredModel) -> None:
    os.truncate(parts.files[0].resolve(), 290_000)
    flip(parts.files[0].resolve())
    assert repair(parts, store, inspect=inspect) == [parts.files[0]]
    assert content_of(parts) == list(PARTS.values())


def test_what_is_gone_is_fetched(hub: HubServer, store: Store, parts: StoredModel) -> None:
    parts.files[0].resolve().unlink()
    parts.files[2].unlink()
    assert only(store).is_gone
    assert repair(parts, store, inspect=inspect) == [parts.files[0], parts.files[2]]
    assert content_of(parts) == list(PARTS.values())


def test_a_repair_takes_the_stored_commit_and_leaves_the_branch_alone(
    hub: HubServer, store: Store, parts: StoredModel
) -> None:
    ref = next(store.hub.glob("models--*/refs/main"))
    ref.write_text("f" * 40)
    flip(parts.files[1].resolve())
    repair(parts, store, inspect=inspect)
    assert ref.read_text() == "f" * 40


def test_a_repair_that_cannot_reach_the_source_leaves_what_was_there(
    hub: HubServer, store: Store, parts: StoredModel
) -> None:
    flip(parts.files[1].resolve())
    before = content_of(parts)
    hub.faults.append(Fault(server="cdn", times=None, status=500))
    with pytest.raises(NetworkError):
        repair(parts, store, inspect=inspect)
    assert content_of(parts) == before
    assert check(store).status == "damaged"
    hub.faults.clear()
    assert repair(parts, store, inspect=inspect) == [parts.files[1]]
    assert content_of(parts) == list(PARTS.values())


def test_what_was_made_here_and_what_others_own_is_not_fetched(store: Store, tmp_path: Path) -> None:
    file = put_verified(store)
    known = only(store).manifest
    assert known is not None
    manifest.write(replace(known, made_from={"path": "x"}), file.parent)
    flip(file)
    with pytest.raises(Unsupported, match="was made here"):
        repair(only(store), store)
    theirs = tmp_path / "theirs.gguf"
    theirs.write_bytes(b"GGUF, but another")
    record = FileRecord(str(theirs), "outside", 3, "0" * 64)
    manifest.write(replace(known, files=(record,), owner="ollama"), file.parent)
    with pytest.raises(Unsupported, match="belongs to ollama"):
        repair(only(store), store)
    assert theirs.read_bytes() == b"GGUF, but another"


def test_a_link_into_another_tools_folder_is_never_written_through(store: Store, tmp_path: Path) -> None:
    file = put_verified(store)
    theirs = tmp_path / "theirs.gguf"
    theirs.write_bytes(model_bytes(64, seed=9))
    file.unlink()
    file.symlink_to(theirs)
    with pytest.raises(Unsupported):
        repair(only(store), store)
    assert theirs.read_bytes() == model_bytes(64, seed=9)


def test_a_source_that_has_another_file_now_is_refused(hub: HubServer, store: Store) -> None:
    content = model_bytes(50_000, seed=1)
    repo = hub.add(Repo("o/r", {"m-Q8_0.gguf": content}))
    model = pull.execute(pull.plan(parse("o/r:Q8_0"), store), store, inspect=inspect)
    flip(model.path.resolve())
    before = model.path.read_bytes()
    repo.files["m-Q8_0.gguf"] = model_bytes(50_000, seed=2)
    with pytest.raises((ModelNotFound, Damaged)):
        repair(model, store, inspect=inspect)
    assert model.path.read_bytes() == before
    del hub.repos["o/r"]
    with pytest.raises(OwmError):
        repair(model, store, inspect=inspect)
    assert model.path.read_bytes() == before


def test_a_removed_model_is_not_brought_back(hub: HubServer, store: Store, parts: StoredModel) -> None:
    assert parts.folder is not None
    (parts.folder / "manifest.json").unlink()
    with pytest.raises(ModelNotFound, match="removed meanwhile"):
        repair(parts, store)


# -- what a manifest notes ---------------------------------------------------------------------------------------------


def test_a_pull_notes_the_times_of_its_files(store: Store, parts: StoredModel) -> None:
    assert parts.manifest is not None
    assert [file.mtime_ns for file in parts.manifest.files] == [path.stat().st_mtime_ns for path in parts.files]
    events: list[Event] = []
    assert verify([parts], store, sink=events.append)[0].status == "whole"
    assert events == []


def test_a_record_names_the_inner_root_and_refuses_what_lies_outside(store: Store, tmp_path: Path) -> None:
    inner = Store(store.home, store.home / "hf" / "hub")
    for path, root in ((inner.home / "a", "owm"), (inner.hub / "models--x" / "b", "hub")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"xyz")
        record = inner.record_of(path, "0" * 64)
        assert (record.root, record.size_bytes, record.mtime_ns) == (root, 3, path.stat().st_mtime_ns)
        assert inner.file_path(record) == path
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(b"x")
    with pytest.raises(Damaged, match="lies outside the store"):
        store.record_of(mine, "0" * 64)
    record = store.record_of(mine, "0" * 64, may_be_outside=True)
    assert (record.root, store.file_path(record)) == ("outside", mine)


def test_a_change_right_after_a_record_was_made_has_another_time(store: Store) -> None:
    file = store.home / "models" / "f"
    file.parent.mkdir(parents=True)
    for _ in range(5):
        file.write_bytes(b"one")
        record = store.record_of(file, "0" * 64)
        file.write_bytes(b"two")
        assert file.stat().st_mtime_ns != record.mtime_ns
