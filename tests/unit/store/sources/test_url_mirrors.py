"""Web addresses with mirrors, with a sha256, and of models in several parts."""

import hashlib

import pytest

from owm.errors import ChecksumMismatch, ModelNotFound, OwmError, UsageError
from owm.store import pull
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.pull import PullPlan
from owm.store.refs import parse, with_mirrors
from support.facts import inspect, model_bytes
from support.hub_server import HubServer

GGUF = model_bytes(200_000)
SHA256 = hashlib.sha256(GGUF).hexdigest()


def fetch(store: Store, *addresses: str, sha256: str | None = None) -> StoredModel:
    plan = pull.plan(with_mirrors(parse(addresses[0]), addresses[1:], sha256), store)
    assert isinstance(plan, PullPlan)
    return pull.execute(plan, store, inspect=inspect)


def test_a_mirror_has_what_the_first_address_has_lost(store: Store, hub: HubServer) -> None:
    hub.plain["mirror-Q8_0.gguf"] = GGUF
    model = fetch(store, hub.url("gone-Q8_0.gguf"), hub.url("mirror-Q8_0.gguf"), sha256=SHA256)
    assert model.path.read_bytes() == GGUF
    assert model.path.name == "gone-Q8_0.gguf"
    assert store.find(parse(hub.url("gone-Q8_0.gguf"))) == model


def test_where_nobody_has_it_the_first_address_is_named(store: Store, hub: HubServer) -> None:
    with pytest.raises(ModelNotFound, match=r"has no a\.gguf"):
        fetch(store, hub.url("a.gguf"), hub.url("b.gguf"), sha256=SHA256)


def test_a_sha256_that_is_not_the_files_refuses_it(store: Store, hub: HubServer) -> None:
    hub.plain["a.gguf"] = GGUF
    with pytest.raises(ChecksumMismatch):
        fetch(store, hub.url("a.gguf"), sha256="0" * 64)
    assert (store.models(), list(store.home.rglob("a.gguf*"))) == ([], [])


def test_a_file_that_is_known_and_stored_is_not_fetched_again(store: Store, hub: HubServer) -> None:
    hub.plain |= {"a.gguf": GGUF, "b.gguf": GGUF}
    first = fetch(store, hub.url("a.gguf"))
    second = fetch(store, hub.url("b.gguf"), sha256=SHA256.upper())
    assert first.path.samefile(second.path)
    assert hub.transfers("b.gguf") == []


def test_an_address_of_one_part_means_all(store: Store, hub: HubServer) -> None:
    parts = [model_bytes(1000 + i, seed=i) for i in range(3)]
    for i, part in enumerate(parts, 1):
        hub.plain[f"big-Q8_0-0000{i}-of-00003.gguf"] = part
    model = fetch(store, hub.url("big-Q8_0-00002-of-00003.gguf"))
    assert [path.read_bytes() for path in model.files] == parts
    assert model.label == "Q8_0"


def test_a_part_that_is_missing_is_named(store: Store, hub: HubServer) -> None:
    hub.plain["big-00001-of-00002.gguf"] = GGUF
    with pytest.raises(ModelNotFound, match=r"has no big-00002-of-00002\.gguf"):
        fetch(store, hub.url("big-00001-of-00002.gguf"))


@pytest.mark.parametrize(
    ("ref", "mirrors", "sha256", "match"),
    [
        ("owner/repo", ["https://h/a.gguf"], None, "mirrors are for a web address"),
        ("ollama:x", [], SHA256, "a sha256 is for a web address"),
        ("https://h/a.gguf", ["owner/repo"], None, "not the web address"),
        ("https://h/a.gguf", ["http://example.org/a.gguf"], None, "plain http"),
        ("https://h/a.gguf", ["https://user:pw@h/a.gguf"], None, "user name or password"),
        ("https://h/a.gguf", [], "abc", "64 hexadecimal digits"),
    ],
)
def test_mirrors_that_cannot_be_used(ref: str, mirrors: list[str], sha256: str | None, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        with_mirrors(parse(ref), mirrors, sha256)


def test_the_query_of_a_mirror_is_not_shown(store: Store, hub: HubServer) -> None:
    ref = with_mirrors(parse("https://h/a.gguf"), ["https://m/a.gguf?sig=s3cret"])
    assert "s3cret" not in f"{ref} {ref!r}"
    with pytest.raises(OwmError) as caught:
        fetch(store, hub.url("gone.gguf"), hub.url("gone2.gguf?sig=s3cret"))
    assert "s3cret" not in f"{caught.value} {caught.value.hint} {caught.value!r}"
