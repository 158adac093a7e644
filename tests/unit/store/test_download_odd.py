"""The download engine and its sources where the world is odder than usual: pages instead of files, proxies, names."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from owm.errors import ModelNotFound, OwmError, TransferFailed
from owm.events import Advanced, Event, Warned
from owm.store import download as engine
from owm.store import pull
from owm.store.download import Digest, Transfer, download, read_range
from owm.store.limits import Limits
from owm.store.local import Store
from owm.store.refs import parse
from support.facts import inspect, model_bytes
from support.hub_server import HubServer, Repo
from support.line_server import Line, LineServer
from support.proxy_server import ProxyServer
from support.run import run

pytestmark = pytest.mark.slow

BODY = model_bytes(1_500_000, seed=5)
SHA256 = hashlib.sha256(BODY).hexdigest()
PULL = ["-m", "support.pull_model"]
PAGE = b"<!doctype html><title>Please sign in</title>"
NO_EXCEPTIONS = {"NO_PROXY": "", "no_proxy": ""}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(engine, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 0.3)


@pytest.fixture
def server(hub: HubServer) -> HubServer:
    hub.plain["m-Q8_0.gguf"] = BODY
    return hub


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf.incomplete"


def transfer(server: HubServer, *, is_known: bool) -> Transfer:
    url = server.url("m-Q8_0.gguf")
    return Transfer(url, "m.gguf", len(BODY), Digest("sha256", SHA256)) if is_known else Transfer(url, "m.gguf")


KNOWN = pytest.mark.parametrize("is_known", [True, False])


# -- something else than the file --------------------------------------------------------------------------------------


@KNOWN
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_page_in_the_midst_costs_nothing_of_what_has_come(
    server: HubServer, partial: Path, is_known: bool, kind: str
) -> None:
    known = transfer(server, is_known=is_known)
    if kind != "text/html; charset=utf-8":  # only its length tells that it is something else
        known = Transfer(known.url, known.label, len(BODY), known.digest)
    server.fail(cut_after=1_000_000)
    page = {"body": PAGE, "ignore_range": True, "headers": {"Content-Type": kind, "ETag": '"page"'}}
    server.fail(times=2, **page)
    assert download(known, partial) == SHA256
    assert [request.range for request in server.asked("/plain/")] == [None, *["bytes=1000000-"] * 3]


def test_a_page_for_ever_is_an_error_and_the_next_command_goes_on(server: HubServer, partial: Path) -> None:
    server.fail(cut_after=1_000_000)
    server.fail(times=None, body=PAGE, ignore_range=True, headers={"ETag": '"page"'})
    with pytest.raises(TransferFailed, match=r"m.gguf could not be fetched whole: .* 1500000 bytes"):
        download(transfer(server, is_known=True), partial)
    with pytest.raises(TransferFailed):
        download(transfer(server, is_known=True), partial)
    assert partial.read_bytes() == BODY[:1_000_000]
    server.faults.clear()
    assert download(transfer(server, is_known=True), partial) == SHA256
    assert server.asked("/plain/")[-1].range == "bytes=1000000-"


@pytest.mark.parametrize("header", ["Content-Length", "Content-Range"])
def test_a_number_that_nobody_can_read_is_no_crash(server: HubServer, partial: Path, header: str) -> None:
    value = {"Content-Length": "9" * 5000, "Content-Range": f"bytes {'9' * 5000}-/{'9' * 5000}"}[header]
    server.fail(cut_after=1_000_000)
    server.fail(times=2, headers={header: value})
    try:
        assert download(transfer(server, is_known=True), partial) == SHA256
    except OwmError:
        server.faults.clear()
        assert download(transfer(server, is_known=True), partial) == SHA256


def test_a_part_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with LineServer({"m.gguf": BODY}) as line:
        line.behave = lambda asked: Line(bytes_per_second=100)
        began = time.monotonic()
        with pytest.raises(TransferFailed, match="next to nothing"):
            read_range(Transfer(line.url("m.gguf"), "m.gguf"), 0, 100_000)
        assert time.monotonic() - began < 10


def test_a_very_low_rate_is_kept_and_no_failure(partial: Path) -> None:
    with LineServer({"m.gguf": BODY[:300]}) as line:
        known = Transfer(line.url("m.gguf"), "m.gguf")
        began = time.monotonic()
        assert download(known, partial, limits=Limits(100, 1)) == hashlib.sha256(BODY[:300]).hexdigest()
        assert time.monotonic() - began > 1.5
        assert len(line.asked) == 1


# -- proxies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hub", "url"])
def test_a_pull_goes_through_a_proxy(server: HubServer, store: Store, kind: str) -> None:
    server.add(Repo("o/r", {"m-Q8_0.gguf": BODY}))
    with ProxyServer() as proxy:
        address = proxy.address.replace("//", "//me:secret@")
        env = NO_EXCEPTIONS | dict.fromkeys(("HTTP_PROXY", "http_proxy"), address)
        result = run([*PULL, "o/r" if kind == "hub" else server.url("m-Q8_0.gguf")], env)
        assert result.exit_code == 0, result + result.stderr
        assert any(line.startswith("GET http://") for line in proxy.asked)
        assert len(proxy.asked) >= len(server.requests)
        assert all(given and given.startswith("Basic ") for given in proxy.authorizations)
        assert not any("proxy-authorization" in request.headers for request in server.requests)
    assert Path(result.json["files"][0]).read_bytes() == BODY
    assert "secret" not in result + result.stderr


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:9", "http://[", "nonsense://127.0.0.1:9", "http://127.0.0.1:99999"]
)
@pytest.mark.parametrize("kind", ["hub", "url", "https"])
def test_a_proxy_that_cannot_be_used_is_named_as_what_is_wrong(server: HubServer, proxy: str, kind: str) -> None:
    env = NO_EXCEPTIONS | dict.fromkeys(("ALL_PROXY", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy"), proxy)
    ref = {"hub": "o/r", "url": server.url("m-Q8_0.gguf"), "https": "https://host.invalid/m-Q8_0.gguf"}[kind]
    result = run([*PULL, ref], env)
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert "proxy" in f"{result.json['message']} {result.json['hint']}"


# -- a Hub -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    return hub.add(Repo("o/r", {"m-Q8_0.gguf": BODY}))


def test_a_busy_hub_as_the_link_is_made_is_asked_again(hub: HubServer, repo: Repo, store: Store) -> None:
    def sink(event: Event) -> None:
        if isinstance(event, Advanced) and not hub.faults:
            hub.fail("/resolve/", method="HEAD", times=2, status=429, headers={"Retry-After": "0"})

    plan = pull.plan(parse("o/r"), store)
    assert pull.execute(plan, store, inspect=inspect, sink=sink).path.read_bytes() == BODY


def test_a_blob_that_another_tool_is_fetching_is_waited_for_with_a_word(
    hub: HubServer, repo: Repo, store: Store
) -> None:
    from huggingface_hub.utils import WeakFileLock

    locks = store.hub / ".locks" / "models--o--r"
    locks.mkdir(parents=True)
    events: list[Event] = []
    has_waited = threading.Event()

    def sink(event: Event) -> None:
        events.append(event)
        if isinstance(event, Warned):
            has_waited.set()

    done = threading.Event()

    def hold() -> None:
        with WeakFileLock(locks / f"{SHA256}.lock"):
            done.set()
            has_waited.wait(10)

    threading.Thread(target=hold, daemon=True).start()
    done.wait(10)
    plan = pull.plan(parse("o/r"), store)
    assert pull.execute(plan, store, inspect=inspect, sink=sink).path.read_bytes() == BODY
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "another program is fetching m-Q8_0.gguf into the Hub cache, waiting for it"
    ]


def test_holes_of_a_begun_file_are_not_counted_as_here(hub: HubServer, repo: Repo, store: Store) -> None:
    plan = pull.plan(parse("o/r"), store)
    blobs = store.hub / "models--o--r" / "blobs"
    blobs.mkdir(parents=True)
    with open(blobs / f"{SHA256}.owm.incomplete", "wb") as file:
        file.seek(len(BODY) - 4096)
        file.write(bytes(4096))
        os.fsync(file.fileno())
    assert plan.source.partial_bytes(plan.offer, plan.variant.files, plan.folder) < 200_000


@pytest.mark.parametrize(
    "path",
    ["a/../m.gguf", "a/./m.gguf", ".", "x\x9b2J.gguf", "x\u202efugg.gguf", "x\u2028.gguf", "x" * 300 + ".gguf"],
)
def test_more_unsafe_names_are_refused(hub: HubServer, repo: Repo, path: str) -> None:
    repo.files = {path: BODY}
    result = run([*PULL, "o/r"])
    assert result.exit_code == 1
    assert "unsafe name" in result.json["message"]
    assert result.json["message"].isprintable()


def test_names_that_differ_in_case_only_are_two_files(hub: HubServer, store: Store) -> None:
    other = model_bytes(600_000, seed=6)
    hub.add(Repo("o/r", {"m-Q8_0.gguf": BODY, "M-q8_0.gguf": other}))
    for name, body in (("m-Q8_0.gguf", BODY), ("M-q8_0.gguf", other)):
        plan = pull.plan(parse(f"o/r:{name}"), store)
        assert pull.execute(plan, store, inspect=inspect).path.read_bytes() == body
    assert len(store.models()) == 2
    for model in store.models():
        store.verify(model)


@pytest.mark.parametrize("status", [401, 403])
def test_an_address_that_is_signed_for_get_only_is_fetched(server: HubServer, store: Store, status: int) -> None:
    server.fail("/plain/", method="HEAD", times=None, status=status)
    plan = pull.plan(parse(server.url("m-Q8_0.gguf") + "?signature=x"), store)
    assert pull.execute(plan, store, inspect=inspect).path.read_bytes() == BODY


def test_an_address_of_a_page_is_said_before_the_download_and_keeps_what_was_begun(
    server: HubServer, store: Store
) -> None:
    server.fail("/plain/", method="HEAD", headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(ModelNotFound, match=r"127.0.0.1 answers with a web page, not with m-Q8_0.gguf"):
        pull.plan(parse(server.url("m-Q8_0.gguf")), store)
    assert server.transfers() == []
