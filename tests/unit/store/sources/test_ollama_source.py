"""Ollama's registry, spoken to by the real docker-registry and by a server of our own."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from owm.errors import (
    AccessDenied,
    ChecksumMismatch,
    Damaged,
    ModelNotFound,
    SourceUnreachable,
    Unsupported,
    UsageError,
)
from owm.settings import generation_config
from owm.store import extras, pull
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.pull import PullPlan
from owm.store.refs import parse
from support.facts import inspect, model_bytes
from support.hub_server import silent_listener
from support.registry_server import OLLAMA, Blob, RegistryServer, docker_registry, ollama_model, push
from support.run import finish, run, start

GGUF = model_bytes(300_000)
TEMPLATE = Blob(f"{OLLAMA}.template", b"{{ .Prompt }}")
SYSTEM = Blob(f"{OLLAMA}.system", b"You are a test.")
PARAMS = Blob(
    f"{OLLAMA}.params", b'{"temperature":0.6,"top_k":20,"repeat_penalty":1.1,"stop":["<|x|>"],"num_ctx":4096}'
)
APACHE = Blob(f"{OLLAMA}.license", b"                 Apache License\n           Version 2.0, January 2004\n")
PROJECTOR = Blob(f"{OLLAMA}.projector", model_bytes(5000, seed=7))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as base:
        manifest, blobs = ollama_model(GGUF, TEMPLATE, SYSTEM, PARAMS, APACHE, PROJECTOR)
        for tag in ("8b", "latest"):
            push(base, "library/tiny", tag, manifest, blobs)
        yield base


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryServer]:
    with RegistryServer(needs_token=True) as server:
        monkeypatch.setenv("OWM_OLLAMA_REGISTRY", server.base)
        yield server


def planned(store: Store, ref: str) -> PullPlan:
    plan = pull.plan(parse(ref), store)
    assert isinstance(plan, PullPlan)
    return plan


def fetch(store: Store, ref: str) -> StoredModel:
    return pull.execute(planned(store, ref), store, inspect=inspect)


def test_a_model_comes_from_a_real_registry(store: Store, real: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWM_OLLAMA_REGISTRY", real)
    model = fetch(store, "ollama:tiny:8b")
    assert model.path.read_bytes() == GGUF
    assert model.path.name == "tiny-8b-Q8_0.gguf"
    assert (model.name, model.label) == ("ollama:tiny:8b", "Q8_0")
    assert model.manifest is not None
    assert model.manifest.licence == "apache-2.0"
    assert model.manifest.commit is not None
    assert model.path.relative_to(store.home).parts[:4] == ("models", "ollama", "tiny", "8b")
    assert store.find(parse("ollama:tiny:8b")) == store.find(parse("ollama:library/tiny:8b")) == model
    assert store.find(parse("ollama:tiny")) is None
    assert store.shown_name(model) == "ollama:tiny:8b"
    assert store.find(parse(f"ollama:tiny@sha256:{model.manifest.commit}")) == model
    store.verify(model)


def test_its_small_layers_are_extras(store: Store, real: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWM_OLLAMA_REGISTRY", real)
    plan = planned(store, "ollama:tiny:8b")
    plan.folder.mkdir(parents=True)
    records = {record.role: record for record in extras.fetch(plan.source, plan.offer, plan.folder, store)}
    contents = {role: store.file_path(record).read_bytes() for role, record in records.items()}
    advice = contents.pop("generation_config")
    assert contents == {
        "template": TEMPLATE.content,
        "system": SYSTEM.content,
        "params": PARAMS.content,
        "licence": APACHE.content,
    }
    assert json.loads(advice) == {"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1}
    assert generation_config.read(store.file_path(records["generation_config"])) == {
        "temp": 0.6,
        "top_k": 20,
        "repeat_penalty": 1.1,
    }
    for record in records.values():
        assert hashlib.sha256(store.file_path(record).read_bytes()).hexdigest() == record.sha256


def test_a_projector_is_listed_but_not_taken_for_the_model(
    store: Store, real: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWM_OLLAMA_REGISTRY", real)
    plan = planned(store, "ollama:tiny:8b")
    assert [file.path for file in plan.variant.files] == ["tiny-8b-Q8_0.gguf"]
    assert [file.path for file in plan.offer.files] == ["tiny-8b-Q8_0.gguf", "mmproj-1.gguf"]


def test_the_same_bytes_under_two_tags_lie_on_the_disk_once(
    store: Store, real: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWM_OLLAMA_REGISTRY", real)
    first = fetch(store, "ollama:tiny:8b")
    plan = planned(store, "ollama:tiny")
    assert plan.source.partial_bytes(plan.offer, plan.variant.files, plan.folder) == len(GGUF)
    second = pull.execute(plan, store, inspect=inspect)
    assert first.path != second.path
    assert os.path.samefile(first.path, second.path)
    store.remove(first, remove_hub_files=lambda paths: None)
    assert second.path.read_bytes() == GGUF


def test_a_stored_file_that_is_damaged_is_not_linked(store: Store, server: RegistryServer) -> None:
    for tag in ("a", "b"):
        server.put("library/tiny", tag, *ollama_model(GGUF))
    first = fetch(store, "ollama:tiny:a")
    first.path.write_bytes(GGUF[:-1] + b"x")
    assert fetch(store, "ollama:tiny:b").path.read_bytes() == GGUF


def test_what_is_stored_as_latest_is_found_by_its_full_name(store: Store, server: RegistryServer) -> None:
    server.put("library/tiny", "latest", *ollama_model(GGUF))
    model = fetch(store, "ollama:tiny")
    assert model.full_name == "ollama:tiny:Q8_0"
    assert store.find(parse(model.full_name)) == model
    server.put("library/tiny", "Q8_0", *ollama_model(model_bytes(1000)))
    tagged = fetch(store, "ollama:tiny:Q8_0")
    assert store.find(parse("ollama:tiny:Q8_0")) == tagged
    assert store.find(parse("ollama:tiny")) == model
    assert [store.find_exactly(store.shown_name(each)).folder for each in (model, tagged)] == [
        model.folder,
        tagged.folder,
    ]


def test_a_registry_that_takes_the_request_and_is_silent_is_given_up_in_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "PATIENT_SECONDS", 0.5)
    with silent_listener(accepts=True) as address:
        monkeypatch.setenv("OWM_OLLAMA_REGISTRY", address)
        began = time.monotonic()
        with pytest.raises(SourceUnreachable):
            planned(store, "ollama:tiny")
        assert time.monotonic() - began < 3


def test_after_a_kill_the_same_command_goes_on(store: Store, server: RegistryServer) -> None:
    big = model_bytes(20_000_000)
    server.put("library/tiny", "latest", *ollama_model(big))
    process = start(["-m", "support.pull_model", "ollama:tiny"])
    assert process.stderr is not None
    assert process.stderr.readline().startswith("advanced: ")
    process.kill()
    assert finish(process).exit_code == -signal.SIGKILL
    assert store.models() == []
    result = run(["-m", "support.pull_model", "ollama:tiny"])
    assert result.exit_code == 0, result + result.stderr
    (model,) = store.models()
    assert model.path.read_bytes() == big
    assert [path for path in store.home.rglob("*") if "incomplete" in path.name] == []


def test_parts_are_read_where_they_are(store: Store, server: RegistryServer) -> None:
    server.put("library/tiny", "latest", *ollama_model(GGUF))
    plan = planned(store, "ollama:tiny")
    file = plan.variant.files[0]
    assert plan.source.read(plan.offer, file, 0, 100) == GGUF[:100]
    assert plan.source.read(plan.offer, file, len(GGUF) - 10, 100) == GGUF[-10:]
    assert plan.source.read(plan.offer, file, len(GGUF) + 10, 100) == b""


def test_a_cut_connection_is_taken_up_again(store: Store, server: RegistryServer) -> None:
    server.put("library/tiny", "latest", *ollama_model(GGUF))
    plan = planned(store, "ollama:tiny")
    server.cut_after = 100_000
    assert pull.execute(plan, store, inspect=inspect).path.read_bytes() == GGUF


def test_a_token_that_has_run_out_is_asked_for_anew(store: Store, server: RegistryServer) -> None:
    server.put("library/tiny", "latest", *ollama_model(GGUF))
    server.token_seconds = 1
    plan = planned(store, "ollama:tiny")
    server.tokens.clear()  # none is good any more
    time.sleep(0.8)
    assert pull.execute(plan, store, inspect=inspect).path.read_bytes() == GGUF


def test_the_token_does_not_follow_a_redirect(
    store: Store, server: RegistryServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.put("library/tiny", "latest", *ollama_model(GGUF, PARAMS))
    fetch(store, "ollama:tiny")
    assert server.asked("registry")[-1].headers["authorization"].startswith("Bearer token-")
    assert server.asked("cdn")
    assert all("authorization" not in seen.headers for seen in server.asked("cdn"))
    written = b"".join(path.read_bytes() for path in store.home.rglob("*") if path.is_file())
    assert b"s3cret" not in written
    assert b"s1gned" not in written
    assert "s3cret" not in caplog.text


def test_wrong_bytes_are_found_out_and_not_kept(store: Store, server: RegistryServer) -> None:
    server.put("library/tiny", "latest", *ollama_model(GGUF))
    plan = planned(store, "ollama:tiny")
    server.damaged[f"sha256:{hashlib.sha256(GGUF).hexdigest()}"] = GGUF[:-1] + bytes([GGUF[-1] ^ 1])
    with pytest.raises(ChecksumMismatch, match="is damaged"):
        pull.execute(plan, store, inspect=inspect)
    assert store.models() == []
    assert list(store.home.rglob("*.gguf*")) == []


def test_a_manifest_that_is_not_the_announced_one_is_refused(store: Store, server: RegistryServer) -> None:
    server.put("library/tiny", "latest", *ollama_model(GGUF))
    server.announced["latest"] = "sha256:" + "0" * 64
    with pytest.raises(ChecksumMismatch, match="another manifest"):
        planned(store, "ollama:tiny")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"{" + b" " * (100 << 20), "more than 4"),
        (b"<html>", "a manifest, but with something else"),
        (b"[" * 100_000, "something else"),
        (b"[]", "something else"),
        (b'{"layers": 3}', "no list"),
        (b'{"layers": [3]}', "no object"),
        (b'{"layers": [{"digest": "sha256:../../x", "size": 1}]}', "no sha256"),
        (b'{"layers": [{"digest": "sha256:' + b"a" * 64 + b'", "size": -1}]}', "size that cannot be right"),
        (b'{"layers": [{"digest": "sha256:' + b"a" * 64 + b'", "size": true}]}', "size that cannot be right"),
        (b'{"layers": [' + b",".join([b"{}"] * 10_001) + b"]}", "no list, or too many"),
    ],
)
def test_what_is_no_manifest_is_refused(store: Store, server: RegistryServer, body: bytes, match: str) -> None:
    server.manifests["library/tiny", "latest"] = ("application/json", body)
    with pytest.raises(Damaged, match=match):
        planned(store, "ollama:tiny")


@pytest.mark.parametrize(
    ("gguf", "layers", "config", "match"),
    [
        (GGUF, [Blob(f"{OLLAMA}.adapter", b"GGUF")], {}, "a model with an adapter"),
        (b"", [Blob(f"{OLLAMA}.tensor", b"x")], {"model_format": "safetensors"}, "safetensors"),
        (b"", [TEMPLATE], {"remote_host": "https://ollama.com"}, "runs on a server of its maker"),
        (b"", [TEMPLATE], {}, "has no model"),
        (GGUF, [Blob(f"{OLLAMA}.model", b"GGUF2")], {}, "2 model files"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(
    store: Store, server: RegistryServer, gguf: bytes, layers: list[Blob], config: dict[str, str], match: str
) -> None:
    server.put("library/tiny", "latest", *ollama_model(gguf, *layers, **config))
    with pytest.raises(Unsupported, match=match) as caught:
        planned(store, "ollama:tiny")
    assert caught.value.hint


@pytest.mark.parametrize("tag", ["mmproj", "lora", "x-00001-of-00002", "imatrix", "a.b_c-D"])
def test_a_tag_that_looks_like_something_else_does_no_harm(store: Store, server: RegistryServer, tag: str) -> None:
    server.put("me/lora", tag, *ollama_model(GGUF))
    assert fetch(store, f"ollama:me/lora:{tag}").label == "Q8_0"


def test_a_moved_tag_is_another_model_and_both_have_names(store: Store, server: RegistryServer) -> None:
    server.put("library/tiny", "latest", *ollama_model(GGUF))
    old = fetch(store, "ollama:tiny")
    server.put("library/tiny", "latest", *ollama_model(model_bytes(1000)))
    new = fetch(store, "ollama:tiny")
    assert new.path != old.path
    names = [store.shown_name(model) for model in (old, new)]
    assert len(set(names)) == 2
    assert [store.find_exactly(name).folder for name in names] == [old.folder, new.folder]


def test_names_and_tags_that_are_not_there(store: Store, server: RegistryServer) -> None:
    with pytest.raises(ModelNotFound, match="has no tiny with the tag 8b") as caught:
        planned(store, "ollama:tiny:8b")
    assert caught.value.hint == "https://ollama.com/library/tiny/tags shows which there are"


def test_who_is_not_let_in_is_told_so(store: Store, server: RegistryServer) -> None:
    server.user = ("me", "hunter2")
    with pytest.raises(AccessDenied, match="refuses library/tiny"):
        planned(store, "ollama:tiny")


def test_another_registry_is_named_with_its_host(store: Store, server: RegistryServer) -> None:
    server.put("me/tiny", "x", *ollama_model(GGUF))
    model = fetch(store, f"ollama:{server.host}/me/tiny:x")
    assert model.name == f"ollama:{server.host}/me/tiny:x"
    assert store.find(parse(model.name)) == model


def test_a_busy_registry_is_asked_again(store: Store, server: RegistryServer) -> None:
    server.put("library/tiny", "latest", *ollama_model(GGUF))
    server.busy = 2
    assert fetch(store, "ollama:tiny").path.read_bytes() == GGUF


def test_a_registry_that_is_not_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWM_OLLAMA_REGISTRY", "http://127.0.0.1:9")
    with pytest.raises(SourceUnreachable, match="cannot be reached"):
        planned(store, "ollama:tiny")


@pytest.mark.parametrize("address", ["http://example.org", "ftp://127.0.0.1", "127.0.0.1:5000", "https://u:p@h"])
def test_plain_http_is_for_this_machine(store: Store, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("OWM_OLLAMA_REGISTRY", address)
    with pytest.raises(UsageError, match="OWM_OLLAMA_REGISTRY"):
        planned(store, "ollama:tiny")


def test_after_a_kill_between_file_and_manifest_nothing_is_fetched_again(
    store: Store, server: RegistryServer, tmp_path: Path
) -> None:
    server.put("library/tiny", "latest", *ollama_model(GGUF))
    model = fetch(store, "ollama:tiny")
    assert model.folder is not None
    (model.folder / "manifest.json").unlink()
    before = len(server.asked("cdn"))
    assert fetch(store, "ollama:tiny").path.read_bytes() == GGUF
    digest = hashlib.sha256(GGUF).hexdigest()
    assert [seen for seen in server.asked("cdn")[before:] if digest in seen.path] == []


def test_a_digest_must_be_whole_to_be_pulled(store: Store, server: RegistryServer) -> None:
    digest = server.put("library/tiny", "latest", *ollama_model(GGUF))
    with pytest.raises(UsageError, match="64 digits"):
        planned(store, f"ollama:tiny@{digest[:30]}")
    model = fetch(store, f"ollama:tiny@{digest}")
    assert store.find(parse(f"ollama:tiny@{digest}")) == model
