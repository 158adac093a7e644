"""A repo's generation_config.json comes along with its model, and never keeps the model from coming."""

import hashlib
import json
from pathlib import Path

import pytest

from owm.errors import ChecksumMismatch
from owm.events import Event, Warned
from owm.store import download as engine
from owm.store import pull, sources
from owm.store.local import Store
from owm.store.manifest import FileRecord
from owm.store.model import StoredModel
from owm.store.refs import parse
from owm.store.sources.hub import remove_files
from support.facts import inspect, model_bytes
from support.hub_server import MAIN_COMMIT, HubServer, Repo

CONFIG = json.dumps({"temperature": 0.6, "top_p": 0.95}).encode()
NAME = "generation_config.json"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(sources.hub_client, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    models = {"m-Q4_K_M.gguf": model_bytes(20_000, seed=4), "m-Q8_0.gguf": model_bytes(30_000, seed=8)}
    return hub.add(Repo("o/r", {**models, NAME: CONFIG, f"other/{NAME}": b"{}"}))


def fetch(store: Store, text: str, events: list[Event] | None = None) -> StoredModel:
    sink = (events if events is not None else []).append
    return pull.execute(pull.plan(parse(text), store, sink=sink), store, inspect=inspect, sink=sink)


def config_path(store: Store) -> Path:
    return store.hub / "models--o--r" / "snapshots" / MAIN_COMMIT / NAME


def remove(store: Store, model: StoredModel) -> int:
    return store.remove(model, remove_hub_files=lambda paths: remove_files(store.hub, paths))


def test_it_lies_in_the_snapshot_and_the_manifest_names_it(hub: HubServer, repo: Repo, store: Store) -> None:
    events: list[Event] = []
    model = fetch(store, "o/r", events)
    assert config_path(store).read_bytes() == CONFIG
    assert model.manifest is not None
    assert model.manifest.generation_config == FileRecord(
        f"models--o--r/snapshots/{MAIN_COMMIT}/{NAME}",
        "hub",
        len(CONFIG),
        hashlib.sha256(CONFIG).hexdigest(),
        role="generation_config",
    )
    assert [path.name for path in model.files] == ["m-Q4_K_M.gguf"]
    assert model.size_bytes == 20_000
    assert not hub.asked(f"other/{NAME}")
    assert not [event for event in events if isinstance(event, Warned)]
    assert not [event for event in events if getattr(event, "stage", "") == NAME]
    store.verify(model)


def test_it_is_fetched_once_for_several_quants(hub: HubServer, repo: Repo, store: Store) -> None:
    first = fetch(store, "o/r:Q4_K_M")
    second = fetch(store, "o/r:Q8_0")
    assert first.manifest is not None
    assert second.manifest is not None
    assert first.manifest.generation_config == second.manifest.generation_config
    assert len(hub.asked(f"/{NAME}", "GET")) == 1


def test_it_goes_with_the_last_model_that_it_came_with(hub: HubServer, repo: Repo, store: Store) -> None:
    first, second = fetch(store, "o/r:Q4_K_M"), fetch(store, "o/r:Q8_0")
    assert remove(store, first) == 20_000
    assert config_path(store).exists()
    assert remove(store, second) == 30_000
    assert not config_path(store).exists()


def test_a_repo_without_one_has_none(hub: HubServer, repo: Repo, store: Store) -> None:
    del repo.files[NAME]
    model = fetch(store, "o/r")
    assert model.manifest is not None
    assert model.manifest.generation_config is None
    assert not hub.asked(NAME)


@pytest.mark.parametrize("fault", ["missing", "forbidden", "trouble", "cut", "wrong", "large"])
def test_whatever_is_wrong_with_it_the_model_comes(fault: str, hub: HubServer, repo: Repo, store: Store) -> None:
    if fault == "large":
        repo.files[NAME] = b" " * (pull.MAX_CONFIG_BYTES + 1)
    elif fault == "wrong":
        hub.fail(f"/{NAME}", body=b"x" * len(CONFIG), times=None)
    elif fault == "cut":
        hub.fail(f"/{NAME}", cut_after=5, times=None, ignore_range=True)
    else:
        hub.fail(f"/{NAME}", method=None, times=None, status={"missing": 404, "forbidden": 403, "trouble": 503}[fault])
    events: list[Event] = []
    model = fetch(store, "o/r", events)
    assert model.manifest is not None
    assert model.manifest.generation_config is None
    (warned,) = [event.message for event in events if isinstance(event, Warned) and event.stage == "pull"]
    assert warned.startswith(f"{NAME} of o/r is left out: ")
    assert model.path.exists()
    if fault == "large":
        assert not hub.asked(f"/{NAME}")


def test_a_model_whose_file_another_program_removed_is_whole(hub: HubServer, repo: Repo, store: Store) -> None:
    model = fetch(store, "o/r")
    config_path(store).unlink()
    assert not model.is_gone
    store.verify(model)
    assert remove(store, model) == 20_000


def test_a_changed_file_is_noticed(hub: HubServer, repo: Repo, store: Store) -> None:
    model = fetch(store, "o/r")
    config_path(store).write_bytes(CONFIG.replace(b"0.6", b"9.6"))
    with pytest.raises(ChecksumMismatch, match=r"generation_config.json is damaged"):
        store.verify(model)
