"""Links in the Hub cache, and a Hub that would have its library make some: nothing outside is written or removed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from owm.errors import OwmError, StoreError, Unsupported
from owm.store import pull, refs, removing, repairing
from owm.store.download import Transfer, download
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.sources import hub as hub_source
from support.facts import inspect, model_bytes
from support.hub_server import HubServer, Repo
from support.victim import Victim

pytestmark = pytest.mark.slow

BODY = model_bytes(40_000, seed=3)


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    made = Victim(tmp_path / "victim")
    yield made
    assert made.is_unharmed()


@pytest.fixture
def of_hub(hub: HubServer, store: Store) -> StoredModel:
    hub.add(Repo("me/m", {"m-Q8_0.gguf": BODY}))
    return pull.execute(pull.plan(refs.parse("me/m"), store), store, inspect=inspect)


def remove(model: StoredModel, store: Store) -> int:
    return removing.remove(model, store, remove_hub_files=lambda paths: hub_source.remove_files(store.hub, paths))


def test_a_blob_in_the_cache_goes_with_the_model(of_hub: StoredModel, store: Store) -> None:
    blob = of_hub.path.resolve()
    assert remove(of_hub, store) == len(BODY)
    assert not blob.exists()


def test_a_link_in_the_cache_that_leads_out_removes_nothing_there(
    of_hub: StoredModel, store: Store, victim: Victim
) -> None:
    of_hub.path.unlink()
    of_hub.path.symlink_to(victim.file)
    with pytest.raises(StoreError, match="lies outside the Hub cache"):
        remove(of_hub, store)
    of_hub.path.unlink()
    remove(of_hub, store)
    assert store.models() == []


def test_a_snapshot_that_is_a_link_removes_nothing_where_it_leads(
    of_hub: StoredModel, store: Store, victim: Victim
) -> None:
    snapshot = of_hub.path.parent
    of_hub.path.unlink()
    snapshot.rmdir()
    (victim.folder / of_hub.path.name).write_bytes(BODY)
    snapshot.symlink_to(victim.folder)
    try:
        with pytest.raises(StoreError, match="lies outside the Hub cache"):
            remove(of_hub, store)
        assert (victim.folder / of_hub.path.name).read_bytes() == BODY
    finally:
        (victim.folder / of_hub.path.name).unlink()


def test_a_repair_moves_nothing_aside_outside_the_cache(of_hub: StoredModel, store: Store, victim: Victim) -> None:
    of_hub.path.unlink()
    of_hub.path.symlink_to(victim.file)
    with pytest.raises(Unsupported, match="leads out of the Hub cache"):
        repairing.repair(of_hub, store, inspect=inspect, full=True)


def test_a_repair_does_not_write_into_a_file_that_another_tool_has_too(
    of_hub: StoredModel, store: Store, tmp_path: Path
) -> None:
    blob, theirs = of_hub.path.resolve(), tmp_path / "theirs.gguf"
    os.link(blob, theirs)
    with open(blob, "r+b") as file:
        file.write(b"GGUX")
    damaged = theirs.read_bytes()
    assert repairing.repair(of_hub, store, inspect=inspect, full=True) == [of_hub.path]
    assert blob.read_bytes() == BODY
    assert theirs.read_bytes() == damaged


def test_a_download_goes_not_on_in_a_file_that_is_another_models_too(
    store: Store, hub: HubServer, tmp_path: Path
) -> None:
    """A kill between linking a stored file and publishing the link leaves one; the source may have changed since."""
    stored = tmp_path / "stored.gguf"
    stored.write_bytes(BODY[:30_000])
    partial = tmp_path / "m.gguf.incomplete"
    os.link(stored, partial)
    hub.plain["m.gguf"] = BODY[::-1]
    download(Transfer(hub.url("m.gguf"), "m.gguf", len(BODY)), partial)
    assert partial.read_bytes() == BODY[::-1]
    assert stored.read_bytes() == BODY[:30_000]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Repo-Commit": "../../../../../victim/new"},
        {"X-Repo-Commit": "/tmp"},
        {"ETag": '"../../../../victim/precious"'},
        {"ETag": '"/tmp/precious"'},
        {"ETag": '".."'},
        {"X-Linked-Etag": '"../../../../victim/precious"'},
        {"X-Linked-Etag": '"..\\\\x"'},
    ],
    ids=str,
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_hub_that_names_a_path_for_a_hash_or_commit_is_refused(
    headers: dict[str, str], is_first: bool, hub: HubServer, store: Store, victim: Victim, tmp_path: Path
) -> None:
    """Also where it tells the truth first, and lies when the library asks once more."""
    hub.add(Repo("me/m", {"m-Q8_0.gguf": BODY}))
    plan = pull.plan(refs.parse("me/m"), store)
    if not is_first:
        hub.fail("resolve", method="HEAD", times=1)
        hub.fail("resolve", method="GET", times=1)
    hub.fail("resolve", method=None, times=None, headers=headers)
    before = {*tmp_path.rglob("*"), *tmp_path.parent.iterdir()}
    with pytest.raises(OwmError, match=r"that cannot be one|names no content hash"):
        pull.execute(plan, store, inspect=inspect)
    assert {*tmp_path.rglob("*"), *tmp_path.parent.iterdir()} == before
