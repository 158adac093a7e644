"""ModelScope, by a local server that speaks its routes."""

import hashlib
import json
from collections.abc import Iterator

import pytest

from owm.errors import (
    AccessDenied,
    ChecksumMismatch,
    Damaged,
    ModelNotFound,
    QuantNotFound,
    SourceUnreachable,
    Unsupported,
    UsageError,
)
from owm.store import extras, pull
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.pull import PullPlan
from owm.store.refs import parse
from support.facts import inspect, model_bytes
from support.modelscope_server import COMMIT, ModelScopeServer

Q4, Q8 = model_bytes(120_000), model_bytes(90_000, seed=1)
FILES = {
    "README.md": b"# Tiny",
    "config.json": b"{}",
    "generation_config.json": b'{"temperature": 0.7}',
    "tiny-Q4_K_M.gguf": Q4,
    "Q8_0/tiny Q8-00001-of-00002.gguf": Q8,
    "Q8_0/tiny Q8-00002-of-00002.gguf": model_bytes(500, seed=2),
    "mmproj-F16.gguf": model_bytes(300),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelScopeServer]:
    monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
    with ModelScopeServer({"Owner/Tiny-GGUF": FILES}) as server:
        monkeypatch.setenv("MODELSCOPE_DOMAIN", server.base)
        yield server


def planned(store: Store, ref: str) -> PullPlan:
    plan = pull.plan(parse(ref), store)
    assert isinstance(plan, PullPlan)
    return plan


def fetch(store: Store, ref: str) -> StoredModel:
    return pull.execute(planned(store, ref), store, inspect=inspect)


def test_a_model_is_found_fetched_and_found_again(store: Store, server: ModelScopeServer) -> None:
    model = fetch(store, "modelscope:Owner/Tiny-GGUF")
    assert model.path.read_bytes() == Q4
    assert model.manifest is not None
    assert (model.label, model.manifest.commit, model.manifest.licence) == ("Q4_K_M", COMMIT, "apache-2.0")
    assert store.find(parse("modelscope:owner/tiny-gguf:q4_k_m")) == model
    assert store.find(parse("modelscope:Owner/Tiny-GGUF:tiny-Q4_K_M.gguf")) == model
    assert store.find(parse("modelscope:Owner/Tiny-GGUF:other.gguf")) is None
    assert store.find_exactly(store.shown_name(model)).folder == model.folder
    store.verify(model)


def test_parts_in_folders_with_odd_names(store: Store, server: ModelScopeServer) -> None:
    model = fetch(store, "modelscope:Owner/Tiny-GGUF:Q8_0")
    assert [path.stat().st_size for path in model.files] == [len(Q8), 500]
    assert all(path.is_relative_to(store.home) and " " not in str(path) for path in model.files)
    file = "Q8_0/tiny Q8-00001-of-00002.gguf"
    assert store.find(parse(f"modelscope:Owner/Tiny-GGUF:{file}")) == model


def test_advice_on_sampling_comes_along(store: Store, server: ModelScopeServer) -> None:
    plan = planned(store, "modelscope:Owner/Tiny-GGUF")
    plan.folder.mkdir(parents=True)
    (record,) = extras.fetch(plan.source, plan.offer, plan.folder, store)
    assert record.role == "generation_config"
    assert store.file_path(record).read_bytes() == FILES["generation_config.json"]


def test_parts_are_read_where_they_are(store: Store, server: ModelScopeServer) -> None:
    plan = planned(store, "modelscope:Owner/Tiny-GGUF")
    assert plan.source.read(plan.offer, plan.variant.files[0], 100, 50) == Q4[100:150]


def test_a_token_goes_to_modelscope_alone(
    store: Store, server: ModelScopeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "ms-s3cret"
    with pytest.raises(AccessDenied, match="refuses access") as caught:
        planned(store, "modelscope:Owner/Tiny-GGUF")
    assert "MODELSCOPE_API_TOKEN" in (caught.value.hint or "")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-s3cret")
    assert fetch(store, "modelscope:Owner/Tiny-GGUF").path.read_bytes() == Q4
    assert server.asked("cdn")
    assert "s3cret" not in str(server.asked("cdn"))
    assert b"s3cret" not in b"".join(path.read_bytes() for path in store.home.rglob("*") if path.is_file())


def test_a_lie_about_content_is_found_out(store: Store, server: ModelScopeServer) -> None:
    server.sha256["tiny-Q4_K_M.gguf"] = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(ChecksumMismatch):
        fetch(store, "modelscope:Owner/Tiny-GGUF")
    assert (store.models(), list(store.home.rglob("*.gguf*"))) == ([], [])


def test_without_a_commit_the_content_tells_versions_apart(store: Store, server: ModelScopeServer) -> None:
    server.commit = None
    first = planned(store, "modelscope:Owner/Tiny-GGUF").offer.commit
    assert planned(store, "modelscope:Owner/Tiny-GGUF").offer.commit == first
    server.repos["Owner/Tiny-GGUF"]["tiny-Q4_K_M.gguf"] = model_bytes(120_000, seed=9)
    assert planned(store, "modelscope:Owner/Tiny-GGUF").offer.commit != first


@pytest.mark.parametrize(
    ("ref", "error", "match"),
    [
        ("modelscope:Owner/Other", ModelNotFound, "no repo Owner/Other"),
        ("modelscope:Owner/Tiny-GGUF@dev", ModelNotFound, "at dev"),
        ("modelscope:Owner/Tiny-GGUF:Q2_K", QuantNotFound, "no quant Q2_K"),
        ("modelscope:Owner/Tiny-GGUF:mmproj-F16.gguf", Exception, "a projector"),
    ],
)
def test_what_is_not_there(
    store: Store, server: ModelScopeServer, ref: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        planned(store, ref)


def test_original_weights_are_for_the_hub(store: Store, server: ModelScopeServer) -> None:
    server.repos["Owner/Raw"] = {"config.json": b"{}", "model.safetensors": b"x"}
    with pytest.raises(Unsupported, match="original weights only") as caught:
        planned(store, "modelscope:Owner/Raw")
    assert caught.value.hint == "`owm pull Owner/Raw` looks for the same repo there"


@pytest.mark.parametrize(
    "path", ["../evil.gguf", "/etc/evil.gguf", "a\x07.gguf", "x/" + "y" * 300 + ".gguf", "a\\b.gguf"]
)
def test_unsafe_names_are_refused(store: Store, server: ModelScopeServer, path: str) -> None:
    server.listed.append({"Path": path, "Size": 5, "Sha256": "", "Type": "blob"})
    with pytest.raises(Damaged, match="unsafe name"):
        planned(store, "modelscope:Owner/Tiny-GGUF")


@pytest.mark.parametrize(
    "answer",
    [b"<html>", b"[]", b"{}", b'{"Data": null}', b'{"Data": {"Files": 3}}', b'{"Data": {"Files": [{"Path": 3}]}}',
     json.dumps({"Data": {"Files": [{"Path": "x.gguf", "Size": "big"}]}}).encode(), b"[" * 200_000],
)  # fmt: skip
def test_what_is_no_listing_is_refused(store: Store, server: ModelScopeServer, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(Damaged):
        planned(store, "modelscope:Owner/Tiny-GGUF")


@pytest.mark.parametrize("domain", ["http://example.org", "user:pw@host", "ftp://x"])
def test_a_domain_that_cannot_be_used_is_said(store: Store, monkeypatch: pytest.MonkeyPatch, domain: str) -> None:
    monkeypatch.setenv("MODELSCOPE_DOMAIN", domain)
    with pytest.raises(UsageError, match="MODELSCOPE_DOMAIN"):
        planned(store, "modelscope:Owner/Tiny-GGUF")


def test_a_site_that_is_not_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "http://127.0.0.1:9")
    with pytest.raises(SourceUnreachable):
        planned(store, "modelscope:Owner/Tiny-GGUF")
