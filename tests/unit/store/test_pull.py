"""Pulling as a whole: two at once, killed anywhere, no room, no right to write, and web addresses."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from owm.errors import (
    AccessDenied,
    MalformedFile,
    ModelNotFound,
    NotEnoughDisk,
    SourceUnreachable,
    StoreError,
    TransferFailed,
    UsageError,
)
from owm.events import Event, Warned
from owm.store import download as engine
from owm.store import pull, space
from owm.store.local import Store
from owm.store.manifest import ModelFacts
from owm.store.model import StoredModel
from owm.store.refs import parse
from support.facts import inspect, model_bytes
from support.hub_server import HubServer, Repo, refused_endpoint
from support.run import Output, finish, run, start

BODY = model_bytes(4_000_000, seed=3)
SHA256 = hashlib.sha256(BODY).hexdigest()
PULL = ["-m", "support.pull_model"]
BOTH = pytest.mark.parametrize("kind", ["hub", "url"])


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def name_at(hub: HubServer) -> Callable[[str], str]:
    """Publish the model on the Hub and at a plain address; give what to call it there."""
    hub.add(Repo("o/r", {"m-Q8_0.gguf": BODY, "README.md": b""}))
    hub.plain["m-Q8_0.gguf"] = BODY
    return {"hub": "o/r", "url": hub.url("m-Q8_0.gguf")}.__getitem__


def fetch(store: Store, text: str, events: list[Event] | None = None) -> StoredModel:
    sink = (events if events is not None else []).append
    return pull.execute(pull.plan(parse(text), store, sink=sink), store, inspect=inspect, sink=sink)


def check_whole(result: Output, store: Store) -> None:
    """A pull that ended well left one model, right to the last byte, and nothing beside it."""
    assert result.exit_code == 0, result + result.stderr
    (path,) = result.json["files"]
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == SHA256
    (model,) = store.models()
    store.verify(model)
    check_nothing_half_written(store)


def check_nothing_half_written(store: Store) -> None:
    left = [path for root in (store.home, store.hub) for path in root.rglob("*") if "incomplete" in path.name]
    assert left == []


def check_nothing_visible(store: Store) -> None:
    """Whatever lies in the store, nobody could take it for a model."""
    assert store.models() == []
    found = [path for root in (store.home, store.hub) for path in root.rglob("*.gguf")]
    assert found == []
    assert [p for p in store.hub.glob("*/blobs/*") if "incomplete" not in p.name and p.stat().st_size < len(BODY)] == []


# -- two at once -------------------------------------------------------------------------------------------------------


@BOTH
def test_two_processes_make_one_download(
    hub: HubServer, store: Store, name_at: Callable[[str], str], kind: str
) -> None:
    hub.fail("/lfs/" if kind == "hub" else "/plain/", times=None, trickle_seconds=0.003)
    results = [finish(process) for process in [start([*PULL, name_at(kind)]) for _ in range(2)]]
    for result in results:
        check_whole(result, store)
    assert len(hub.transfers()) == 1
    assert sorted(result.json["warned"] for result in results) == [
        [], [f"another owm is pulling {store.shown_name(store.models()[0])}, waiting for it"]
    ]  # fmt: skip


# -- killed anywhere ---------------------------------------------------------------------------------------------------


@BOTH
def test_after_a_kill_the_same_command_goes_on(
    hub: HubServer, store: Store, name_at: Callable[[str], str], kind: str
) -> None:
    slow = hub.fail("/lfs/" if kind == "hub" else "/plain/", times=None, trickle_seconds=0.01)
    process = start([*PULL, name_at(kind)])
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first.startswith("advanced: "), first
    process.kill()
    assert finish(process).exit_code == -signal.SIGKILL
    check_nothing_visible(store)
    hub.faults.remove(slow)
    result = run([*PULL, name_at(kind)])
    check_whole(result, store)
    whole, rest = hub.transfers()
    assert whole.range is None
    assert rest.range is not None
    begin = int(rest.range.removeprefix("bytes=").removesuffix("-"))
    assert int(first.split()[1]) <= begin < len(BODY)


@BOTH
@pytest.mark.parametrize("point", ["transferred", "checked"])
def test_after_a_kill_at_the_last_moment_nothing_is_fetched_again(
    hub: HubServer, store: Store, name_at: Callable[[str], str], kind: str, point: str
) -> None:
    assert run([*PULL, name_at(kind), "--die-when", point]).exit_code == -signal.SIGKILL
    check_nothing_visible(store)
    check_whole(run([*PULL, name_at(kind)]), store)
    assert len(hub.transfers()) == 1


def test_a_model_that_fails_its_check_is_not_kept(hub: HubServer, store: Store, name_at: Callable[[str], str]) -> None:
    def refuse(path: Path) -> ModelFacts:
        assert path.read_bytes() == BODY
        raise MalformedFile(path, "impossible sizes")

    for kind in ("hub", "url"):
        with pytest.raises(
            MalformedFile, match=r"^m-Q8_0\.gguf is not a usable GGUF file: impossible sizes$"
        ) as caught:
            pull.execute(pull.plan(parse(name_at(kind)), store), store, inspect=refuse)
        assert caught.value.hint is not None
        check_nothing_visible(store)
        check_nothing_half_written(store)


def test_a_model_that_another_tool_removed_is_fetched_again(
    hub: HubServer, store: Store, name_at: Callable[[str], str]
) -> None:
    for kind in ("hub", "url"):
        model = fetch(store, name_at(kind))
        model.path.resolve().unlink()
        assert store.find(parse(name_at(kind))) is None
        assert fetch(store, name_at(kind)).path.read_bytes() == BODY
    assert len(hub.transfers()) == 4


@BOTH
def test_a_manifest_of_a_newer_owm_is_named_and_never_written_over(
    hub: HubServer, store: Store, name_at: Callable[[str], str], kind: str
) -> None:
    text = name_at(kind)
    folder = fetch(store, text).folder
    assert folder is not None
    newer = json.dumps({"schema": 99})
    (folder / "manifest.json").write_text(newer)
    for look in (lambda: store.find(parse(text)), lambda: store.find_stored(text), lambda: store.find_exactly(text)):
        with pytest.raises(StoreError, match="written by a newer owm"):
            look()
    with pytest.raises(StoreError, match="written by a newer owm"):
        fetch(store, text)
    assert (folder / "manifest.json").read_text() == newer
    assert store.find(parse("o/other")) is None


# -- no room -----------------------------------------------------------------------------------------------------------


def test_too_little_room_is_said_before_the_first_byte(hub: HubServer, store: Store) -> None:
    hub.add(Repo("o/huge", {"m-Q8_0.gguf": BODY}, sizes={"m-Q8_0.gguf": 1 << 60}))
    plan = pull.plan(parse("o/huge"), store)
    assert plan.size_bytes == 1 << 60
    with pytest.raises(NotEnoughDisk, match=r"o/huge:Q8_0 needs .* TiB .*, .* are free on the disk of") as caught:
        pull.execute(plan, store, inspect=inspect)
    assert caught.value.needed == (1 << 60) + space.RESERVE_BYTES
    assert "64.0 MiB of it to spare" in str(caught.value)
    assert 0 < caught.value.free < 1 << 60
    assert hub.transfers() == []
    assert hub.asked("/resolve/") == []
    check_nothing_visible(store)


@BOTH
def test_a_disk_that_fills_up_is_said_and_the_rest_fits_later(
    hub: HubServer, store: Store, name_at: Callable[[str], str], kind: str
) -> None:
    result = run([*PULL, name_at(kind), "--limit", "2000000"])
    assert (result.exit_code, result.json["error"]) == (1, "NotEnoughDisk")
    assert result.json["message"].startswith("the disk is full: ")
    assert "goes on from where it stopped" in result.json["hint"]
    check_nothing_visible(store)
    check_whole(run([*PULL, name_at(kind)]), store)
    assert hub.transfers()[-1].range is not None


# -- no right to write -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("variable", ["OWM_HOME", "HF_HOME"])
def test_a_store_that_cannot_be_made_is_an_error(
    hub: HubServer, name_at: Callable[[str], str], kind: str, variable: str, tmp_path: Path
) -> None:
    if (kind, variable) == ("url", "HF_HOME"):
        variable = "OWM_HOME"
    (tmp_path / "file").write_text("not a folder")
    result = run([*PULL, name_at(kind)], {variable: str(tmp_path / "file" / "home")})
    assert (result.exit_code, result.json["error"]) == (1, "StoreError"), result.stderr
    assert result.json["message"].startswith("cannot write to ")
    assert variable in result.json["hint"]
    assert hub.transfers() == []


@BOTH
def test_a_store_without_the_right_to_write_is_an_error(
    hub: HubServer, store: Store, name_at: Callable[[str], str], kind: str
) -> None:
    for folder in (store.home, store.hub):
        folder.mkdir(parents=True)
    locked = store.home if kind == "url" else store.hub
    locked.chmod(0o555)
    try:
        result = run([*PULL, name_at(kind)], unprivileged=True)
    finally:
        locked.chmod(0o755)
    assert (result.exit_code, result.json["error"]) == (1, "StoreError"), result.stderr
    assert result.json["message"].startswith("cannot write to ")
    assert "Permission denied" in result.json["message"]
    assert hub.transfers() == []


def test_a_read_only_store_still_gives_its_models(hub: HubServer, store: Store, name_at: Callable[[str], str]) -> None:
    model = fetch(store, name_at("url"))
    code = (
        "from owm.paths import *; from owm.store.local import Store; from owm.store.refs import parse; import sys\n"
        "store = Store(owm_home(), hub_cache()); model = store.find(parse(sys.argv[1])); store.touch(model)\n"
        "try: open(store.home / 'x', 'w'); print('writable')\n"
        "except PermissionError: print(model.path)"
    )
    folders = [store.home, *(path for path in store.home.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        result = run(["-c", code, name_at("url")], unprivileged=True)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert result.strip() == str(model.path), result.stderr


# -- web addresses -----------------------------------------------------------------------------------------------------


def test_a_file_at_an_address_is_stored_under_its_host(
    hub: HubServer, store: Store, name_at: Callable[[str], str]
) -> None:
    plan = pull.plan(parse(name_at("url")), store)
    assert (plan.size_bytes, plan.variant.label) == (len(BODY), "Q8_0")
    assert hub.transfers() == []
    model = fetch(store, name_at("url"))
    assert model.path.is_relative_to(store.home / "models" / "url" / "127.0.0.1")
    assert sorted(os.listdir(model.folder or "")) == ["m-Q8_0.gguf", "manifest.json"]
    assert model.manifest is not None
    assert model.manifest.files[0].sha256 == SHA256
    assert fetch(store, name_at("url")) == model
    assert len(hub.transfers()) == 1


@pytest.mark.parametrize("name", ["b%20c.gguf", "%D0%BC-Q8_0.GGUF", "a+b(1)~.gguf"])
def test_a_file_whose_name_has_to_be_cleaned_stays_a_gguf(hub: HubServer, store: Store, name: str) -> None:
    hub.plain[unquote(name)] = BODY
    model = fetch(store, hub.url(name))
    assert model.path.read_bytes() == BODY
    assert model.path.suffix == ".gguf"
    assert store.find_exactly(store.shown_name(model)) == model


def test_the_query_of_an_address_is_sent_and_never_kept(
    hub: HubServer, store: Store, name_at: Callable[[str], str]
) -> None:
    whole = name_at("url") + "?key=hunter2&x=%20"
    hub.fail("/plain/", cut_after=1_000_000)
    result = run([*PULL, whole])
    check_whole(result, store)
    assert all(request.path.endswith("?key=hunter2&x=%20") for request in hub.asked("/plain/"))
    (model,) = store.models()
    assert store.find(parse(whole)) == store.find_exactly(store.shown_name(model)) == model
    assert store.find(parse(name_at("url"))) is None
    shown = store.shown_name(model)
    kept = "".join(str(path) + path.read_text("latin-1") for path in store.home.rglob("*") if path.is_file())
    assert "hunter2" not in kept + shown + result + result.stderr
    store.remove(model, remove_hub_files=lambda paths: None)
    with pytest.raises(UsageError, match="the query of this address is not kept"):
        pull.plan(parse(shown), store)


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 404, 500])
def test_an_error_does_not_repeat_the_query(hub: HubServer, store: Store, status: int) -> None:
    hub.fail("/plain/", method=None, times=None, status=status)
    result = run([*PULL, hub.url("x.gguf") + "?key=hunter2"])
    assert result.exit_code == 1
    assert "hunter2" not in result + result.stderr


def test_a_server_that_knows_no_head_is_asked_by_the_download(
    hub: HubServer, store: Store, name_at: Callable[[str], str]
) -> None:
    hub.fail("/plain/", method="HEAD", status=405)
    assert fetch(store, name_at("url")).path.read_bytes() == BODY


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, ModelNotFound), (410, ModelNotFound), (401, AccessDenied), (403, AccessDenied), (500, TransferFailed)],
)
def test_an_address_that_answers_no(
    hub: HubServer, store: Store, name_at: Callable[[str], str], status: int, kind: type[Exception]
) -> None:
    hub.fail("/plain/", method=None, times=None, status=status)
    with pytest.raises(kind, match=f"HTTP {status}"):
        pull.plan(parse(name_at("url")), store)


def test_an_address_at_which_nobody_answers(store: Store) -> None:
    with pytest.raises(SourceUnreachable, match=r"127.0.0.1 cannot be reached"):
        pull.plan(parse(refused_endpoint() + "/m.gguf"), store)


def test_a_page_instead_of_a_model_is_not_published(hub: HubServer, store: Store) -> None:
    hub.plain["page.gguf"] = b"<!doctype html><title>Sign in</title>"
    with pytest.raises(MalformedFile):
        fetch(store, hub.url("page.gguf"))
    check_nothing_visible(store)
    check_nothing_half_written(store)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("http://example.org/m.gguf", UsageError, "plain http is not taken"),
        ("https://example.org/m.bin", ModelNotFound, "names no .gguf file"),
        ("https://example.org/", ModelNotFound, "names no .gguf file"),
    ],
)
def test_what_cannot_be_fetched_is_said_without_asking_anybody(
    store: Store, text: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        pull.plan(parse(text), store)


# -- several sources ---------------------------------------------------------------------------------------------------


def test_a_repo_that_went_away_is_said_and_the_next_source_is_taken(hub: HubServer, store: Store) -> None:
    hub.add(Repo("unsloth/Llama-3.2-1B-Instruct-GGUF", {"m-Q8_0.gguf": BODY}, licence=None))
    events: list[Event] = []
    plan = pull.plan(parse("llama3.2:1b"), store, sink=events.append)
    assert (plan.offer.name, plan.licence, plan.name) == (
        "unsloth/Llama-3.2-1B-Instruct-GGUF",
        "llama3.2",
        "llama3.2:1b:Q8_0",
    )
    (warned,) = events
    assert isinstance(warned, Warned)
    assert "no repo bartowski/Llama-3.2-1B-Instruct-GGUF" in warned.message
    assert "trying unsloth/Llama-3.2-1B-Instruct-GGUF instead" in warned.message


def test_if_every_source_fails_the_first_problem_is_raised(hub: HubServer, store: Store) -> None:
    with pytest.raises(ModelNotFound, match=r"no repo bartowski/Llama-3.2-1B-Instruct-GGUF"):
        pull.plan(parse("llama3.2:1b"), store)


def test_one_unreachable_hub_is_not_asked_for_every_source(store: Store) -> None:
    result = run([*PULL, "llama3.2", "--plan"], {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": refused_endpoint()})
    assert (result.json["error"], result.json["warned"]) == ("SourceUnreachable", [])


def test_errors_of_a_closed_store_name_the_setting() -> None:
    with pytest.raises(StoreError):
        raise engine.write_error(OSError(13, "Permission denied"), Path("/x/y"))
