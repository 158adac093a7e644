"""The download engine against a server that does all that servers and networks do."""

import hashlib
import json
import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from owm.errors import (
    AccessDenied,
    ChecksumMismatch,
    Damaged,
    ModelNotFound,
    OwmError,
    SourceUnreachable,
    StoreError,
    TransferFailed,
)
from owm.events import Advanced, Event, Finished, Started, Warned
from owm.store import download as engine
from owm.store.download import Digest, Transfer, download, state_path
from support.facts import model_bytes
from support.hub_server import HubServer, Repo, refused_endpoint, silent_listener
from support.run import run

BODY = model_bytes(1_500_000, seed=1)
OTHER = model_bytes(1_500_000, seed=2)
SHA256 = hashlib.sha256(BODY).hexdigest()
DIGEST = Digest("sha256", SHA256)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(engine, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 0.3)


@pytest.fixture
def server(hub: HubServer) -> HubServer:
    hub.plain["m.gguf"] = BODY
    return hub


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf.incomplete"


def known(hub: HubServer) -> Transfer:
    """A transfer of which size and content are known beforehand."""
    return Transfer(hub.url("m.gguf"), "m.gguf", len(BODY), DIGEST)


def unknown(hub: HubServer) -> Transfer:
    """A transfer of which nothing is known beforehand."""
    return Transfer(hub.url("m.gguf"), "m.gguf")


def check_progress(events: list[Event]) -> None:
    """Within one start, progress only grows; it ends at the size, once."""
    done = 0
    for event in events:
        if isinstance(event, Advanced):
            assert event.done > done
            done = event.done
        elif isinstance(event, Warned):
            done = 0
    assert done == len(BODY)
    assert [type(event) for event in events].count(Finished) == 1
    assert isinstance(events[-1], Finished)


# -- whole -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_known", [True, False])
def test_a_file_arrives_whole_with_its_hash(server: HubServer, partial: Path, is_known: bool) -> None:
    events: list[Event] = []
    assert download(known(server) if is_known else unknown(server), partial, sink=events.append) == SHA256
    assert partial.read_bytes() == BODY
    engine.publish(partial, partial.with_name("m.gguf"))
    assert os.listdir(partial.parent) == ["m.gguf"]
    assert events[0] == Started("m.gguf", len(BODY) if is_known else None, "bytes")
    check_progress(events)
    (request,) = server.asked("/plain/")
    assert request.range is None
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"].startswith("owm/")


def test_an_empty_file_arrives(server: HubServer, partial: Path) -> None:
    server.plain["m.gguf"] = b""
    assert download(unknown(server), partial) == hashlib.sha256(b"").hexdigest()
    assert partial.read_bytes() == b""


def test_a_file_without_length_arrives_in_chunks(server: HubServer, partial: Path) -> None:
    server.fail(chunked=True)
    assert download(unknown(server), partial) == SHA256


def test_a_git_hash_is_verified(server: HubServer, partial: Path) -> None:
    oid = hashlib.sha1(b"blob %d\0" % len(BODY) + BODY).hexdigest()
    transfer = Transfer(server.url("m.gguf"), "m.gguf", len(BODY), Digest("git-sha1", oid))
    server.fail(cut_after=500_000)
    assert download(transfer, partial) == SHA256
    server.plain["m.gguf"] = OTHER
    partial.unlink()
    with pytest.raises(ChecksumMismatch):
        download(transfer, partial)


# -- cut connections and resuming --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(
    "position", [0, 1, 4095, 65_536, 777_777, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, len(BODY) - 1]
)
def test_a_cut_connection_goes_on_where_it_broke(
    server: HubServer, partial: Path, position: int, is_known: bool
) -> None:
    server.fail(cut_after=position)
    events: list[Event] = []
    assert download(known(server) if is_known else unknown(server), partial, sink=events.append) == SHA256
    first, second = server.asked("/plain/")
    assert first.range is None
    assert second.range == (f"bytes={position}-" if position else None)
    check_progress(events)


def test_a_line_that_breaks_again_and_again_still_ends(server: HubServer, partial: Path) -> None:
    server.fail(times=None, cut_after=100_000)
    events: list[Event] = []
    assert download(known(server), partial, sink=events.append) == SHA256
    assert len(server.asked("/plain/")) == 15
    check_progress(events)


def test_a_cut_body_without_length_is_not_taken_for_whole(server: HubServer, partial: Path) -> None:
    server.fail(chunked=True, cut_after=400_000)
    assert download(unknown(server), partial) == SHA256


def test_a_line_that_brings_nothing_is_given_up_and_what_came_is_kept(server: HubServer, partial: Path) -> None:
    server.fail(cut_after=600_000)
    server.fail(times=None, cut_after=0)
    with pytest.raises(
        TransferFailed, match=r"could not be fetched whole: the connection to 127.0.0.1 broke off"
    ) as caught:
        download(known(server), partial)
    assert "586 KiB are kept" in (caught.value.hint or "")
    assert len(server.asked("/plain/")) == engine.MAX_TRIES
    assert partial.read_bytes() == BODY[:600_000]
    server.faults.clear()
    assert download(known(server), partial) == SHA256
    assert server.asked("/plain/")[-1].range == "bytes=600000-"


@pytest.mark.parametrize("is_known", [True, False])
def test_the_next_process_goes_on_where_the_last_one_died(server: HubServer, partial: Path, is_known: bool) -> None:
    transfer = known(server) if is_known else unknown(server)
    server.fail(cut_after=900_000)
    server.fail(times=None, status=503)
    with pytest.raises(TransferFailed):
        download(transfer, partial)
    server.faults.clear()
    events: list[Event] = []
    assert download(transfer, partial, sink=events.append) == SHA256
    last = server.asked("/plain/")[-1]
    assert last.range == "bytes=900000-"
    assert ("if-range" in last.headers) is not is_known
    check_progress(events)


def test_what_was_left_without_a_way_to_check_it_is_not_built_upon(server: HubServer, partial: Path) -> None:
    partial.write_bytes(OTHER[:1000])
    assert download(unknown(server), partial) == SHA256
    assert [request.range for request in server.asked("/plain/")] == [None]


@pytest.mark.parametrize("state", ["", "{", "[]", '{"validator": 5}', '{"validator": null}', '"x"'])
def test_a_damaged_note_beside_the_partial_file_is_no_failure(server: HubServer, partial: Path, state: str) -> None:
    partial.write_bytes(OTHER[:1000])
    state_path(partial).write_text(state)
    assert download(unknown(server), partial) == SHA256


def test_a_partial_file_that_is_already_whole_is_only_verified(server: HubServer, partial: Path) -> None:
    partial.write_bytes(BODY)
    events: list[Event] = []
    assert download(known(server), partial, sink=events.append) == SHA256
    assert server.requests == []
    check_progress(events)


def test_a_partial_file_longer_than_the_file_starts_again(server: HubServer, partial: Path) -> None:
    partial.write_bytes(BODY + b"x")
    assert download(known(server), partial) == SHA256
    assert [request.range for request in server.asked("/plain/")] == [None]


def test_a_damaged_partial_file_is_thrown_away_once_with_a_word(server: HubServer, partial: Path) -> None:
    partial.write_bytes(OTHER[:700_000])
    events: list[Event] = []
    assert download(known(server), partial, sink=events.append) == SHA256
    assert [request.range for request in server.asked("/plain/")] == ["bytes=700000-", None]
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "what an earlier download left of m.gguf was damaged, starting again"
    ]
    check_progress(events)


# -- servers with manners of their own ---------------------------------------------------------------------------------


def test_a_server_without_ranges_starts_again_and_progress_does_not_go_back(server: HubServer, partial: Path) -> None:
    server.fail(cut_after=1_200_000)
    server.fail(times=None, ignore_range=True)
    events: list[Event] = []
    assert download(known(server), partial, sink=events.append) == SHA256
    assert [request.range for request in server.asked("/plain/")] == [None, "bytes=1200000-"]
    check_progress(events)


def test_416_starts_again(server: HubServer, partial: Path) -> None:
    server.fail(cut_after=800_000)
    server.fail(status=416)
    assert download(known(server), partial) == SHA256
    assert [request.range for request in server.asked("/plain/")] == [None, "bytes=800000-", None]


def test_a_wrong_content_range_starts_again(server: HubServer, partial: Path) -> None:
    server.fail(cut_after=800_000)
    server.fail(headers={"Content-Range": f"bytes 5-{len(BODY) - 1}/{len(BODY)}"})
    assert download(known(server), partial) == SHA256
    assert [request.range for request in server.asked("/plain/")] == [None, "bytes=800000-", None]


@pytest.mark.parametrize("honours_if_range", [True, False])
@pytest.mark.parametrize("in_one_process", [True, False])
def test_a_file_that_changed_is_never_mixed_with_the_old_one(
    server: HubServer, partial: Path, honours_if_range: bool, in_one_process: bool
) -> None:
    server.fail(cut_after=800_000)
    if in_one_process:

        def sink(event: Event) -> None:
            if isinstance(event, Advanced) and event.done >= 800_000:
                server.plain["m.gguf"] = OTHER
    else:
        server.fail(times=None, status=500)
        with pytest.raises(TransferFailed):
            download(unknown(server), partial)
        server.plain["m.gguf"] = OTHER
        server.faults.clear()

        def sink(event: Event) -> None: ...

    if not honours_if_range:
        etag = f'"{hashlib.sha256(OTHER).hexdigest()[:16]}"'
        content_range = f"bytes 800000-{len(BODY) - 1}/{len(BODY)}"
        server.fail(
            headers={"Content-Range": content_range, "ETag": etag},
            body=OTHER[800_000:],
            ignore_range=True,
            status_of_body=206,
        )
    assert download(unknown(server), partial, sink=sink) == hashlib.sha256(OTHER).hexdigest()
    assert partial.read_bytes() == OTHER


@pytest.mark.parametrize("date", ["Wed, 21 Oct 2015 07:28:00 GMT", None])
def test_without_an_etag_the_date_must_vouch_for_the_rest_or_all_is_fetched_again(
    server: HubServer, partial: Path, date: str | None
) -> None:
    headers = {"Last-Modified": date} if date else {}
    server.fail(cut_after=800_000, without=("ETag",), headers=headers)
    server.fail(times=None, without=("ETag",), headers=headers)
    assert download(unknown(server), partial) == SHA256
    second = server.asked("/plain/")[1]
    assert (second.range, second.headers.get("if-range")) == (("bytes=800000-", date) if date else (None, None))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: HubServer, partial: Path, status: int) -> None:
    server.fail(times=3, status=status)
    assert download(known(server), partial) == SHA256
    assert len(server.asked("/plain/")) == 4


def test_retry_after_is_waited_for(server: HubServer, partial: Path) -> None:
    server.fail(status=429, headers={"Retry-After": "1"})
    began = time.monotonic()
    assert download(known(server), partial) == SHA256
    assert 1 <= time.monotonic() - began < 10


@pytest.mark.parametrize("value", ["nonsense", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", ""])
def test_a_strange_retry_after_does_no_harm(server: HubServer, partial: Path, value: str) -> None:
    server.fail(status=503, headers={"Retry-After": value})
    assert download(known(server), partial) == SHA256


def test_a_server_that_stays_in_trouble_is_given_up(server: HubServer, partial: Path) -> None:
    server.fail(times=None, status=500)
    with pytest.raises(TransferFailed, match="answered HTTP 500"):
        download(known(server), partial)
    assert len(server.asked("/plain/")) == engine.MAX_TRIES


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AccessDenied), (403, AccessDenied), (404, ModelNotFound), (410, ModelNotFound)]
)
def test_a_no_is_taken_at_once(server: HubServer, partial: Path, status: int, kind: type[OwmError]) -> None:
    server.fail(times=None, status=status)
    with pytest.raises(kind, match=f"HTTP {status}"):
        download(known(server), partial)
    assert len(server.asked("/plain/")) == 1


def test_a_slow_line_is_no_broken_line(server: HubServer, partial: Path) -> None:
    server.fail(trickle_seconds=0.005)
    assert download(known(server), partial) == SHA256
    assert len(server.asked("/plain/")) == 1


def test_a_line_that_falls_silent_is_tried_again(server: HubServer, partial: Path) -> None:
    server.fail(hang=True)
    assert download(known(server), partial) == SHA256
    assert len(server.asked("/plain/")) == 2


# -- wrong content -----------------------------------------------------------------------------------------------------


def test_wrong_bytes_of_the_right_length_are_refused_and_not_kept(server: HubServer, partial: Path) -> None:
    wrong = bytearray(BODY)
    wrong[-1] ^= 1
    server.plain["m.gguf"] = bytes(wrong)
    with pytest.raises(ChecksumMismatch, match=r"m.gguf is damaged: its sha256 is not the published one") as caught:
        download(known(server), partial)
    assert caught.value.expected == SHA256
    assert caught.value.actual == hashlib.sha256(wrong).hexdigest()
    assert os.listdir(partial.parent) == []


@pytest.mark.parametrize("length", [len(BODY) - 1, len(BODY) + 1, 0])
def test_another_length_than_published_is_refused(server: HubServer, partial: Path, length: int) -> None:
    server.plain["m.gguf"] = (BODY + BODY)[:length]
    with pytest.raises(Damaged, match=f"should be {len(BODY)} bytes, the server has {length}"):
        download(known(server), partial)
    assert os.listdir(partial.parent) == []


def test_a_server_that_announces_more_than_it_sends_is_not_believed(server: HubServer, partial: Path) -> None:
    server.fail(times=None, announce=len(BODY) + 10)
    with pytest.raises(TransferFailed, match="could not be fetched whole"):
        download(unknown(server), partial)


def test_more_bytes_than_published_are_refused(server: HubServer, partial: Path) -> None:
    server.fail(times=None, chunked=True, body=BODY + b"more", ignore_range=True)
    with pytest.raises(Damaged, match=r"more bytes of m.gguf than it announced"):
        download(known(server), partial)
    assert os.listdir(partial.parent) == []


def test_fewer_bytes_than_published_are_not_taken_for_all(server: HubServer, partial: Path) -> None:
    server.fail(times=None, chunked=True, body=BODY[:-5], ignore_range=True)
    with pytest.raises(TransferFailed, match="could not be fetched whole"):
        download(known(server), partial)


# -- the machine's own troubles ----------------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_the_rest_fits_later(server: HubServer, partial: Path) -> None:
    code = (
        "import json, resource, sys; from pathlib import Path; from owm.errors import NotEnoughDisk\n"
        "from owm.store.download import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000))\n"
        "transfer = Transfer(sys.argv[1], 'm.gguf', int(sys.argv[2]), Digest('sha256', sys.argv[3]))\n"
        "try: download(transfer, Path(sys.argv[4]))\n"
        "except NotEnoughDisk as error: print(json.dumps([str(error), error.hint, error.needed, error.free]))"
    )
    result = run(["-c", code, server.url("m.gguf"), str(len(BODY)), SHA256, partial])
    assert result.exit_code == 0, result.stderr
    message, hint, needed, free = result.json
    assert message.startswith(f"the disk is full: {partial.parent}")
    assert "run the same command again" in hint
    assert needed > free > 0
    kept = partial.stat().st_size
    assert 0 < kept <= 700_000
    assert partial.read_bytes() == BODY[:kept]
    assert download(known(server), partial) == SHA256
    assert server.asked("/plain/")[-1].range == f"bytes={kept}-"


def test_a_place_that_cannot_be_written_is_a_store_error(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write to") as caught:
        download(known(server), tmp_path / "file" / "m.incomplete")
    assert "OWM_HOME" in (caught.value.hint or "")


def test_nobody_there(hub: HubServer, partial: Path) -> None:
    with pytest.raises(TransferFailed, match=r"127.0.0.1 cannot be reached") as caught:
        download(Transfer(refused_endpoint() + "/m.gguf", "m.gguf", 5), partial)
    assert isinstance(caught.value.__cause__, SourceUnreachable)


def test_packets_dropped_in_silence(partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_TRIES", 2)
    with silent_listener(accepts=False) as address, pytest.raises(TransferFailed, match=r"127.0.0.1 cannot be reached"):
        download(Transfer(address + "/m.gguf", "m.gguf", 5), partial)


def test_a_loop_of_redirects_ends(server: HubServer, partial: Path) -> None:
    server.fail(times=None, status=302, headers={"Location": server.url("m.gguf")})
    with pytest.raises(ModelNotFound, match="cannot follow the address"):
        download(known(server), partial)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/m.gguf", "http://[", "http://"])
def test_a_redirect_to_something_else_is_not_followed(server: HubServer, partial: Path, location: str) -> None:
    server.fail(times=None, status=302, headers={"Location": location})
    with pytest.raises(ModelNotFound, match="cannot follow the address"):
        download(known(server), partial)


# -- secrets -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lfs(hub: HubServer) -> Transfer:
    hub.add(Repo("o/r", {"m.gguf": BODY}))
    url = f"{hub.endpoint}/o/r/resolve/main/m.gguf"
    return Transfer(url, "m.gguf", len(BODY), DIGEST, {"Authorization": "Bearer hf_secret"})


def test_the_token_does_not_follow_a_redirect_to_another_host(hub: HubServer, partial: Path, lfs: Transfer) -> None:
    hub.fail(server="cdn", cut_after=100_000)
    assert download(lfs, partial) == SHA256
    assert [r.headers.get("authorization") for r in hub.asked(server="hub")] == ["Bearer hf_secret"] * 2
    cdn = hub.asked(server="cdn")
    assert [r.range for r in cdn] == [None, "bytes=100000-"]
    for request in cdn:
        assert "authorization" not in request.headers
        assert "hf_secret" not in json.dumps([request.path, dict(request.headers)])


def test_a_netrc_entry_is_not_sent_anywhere(
    hub: HubServer, partial: Path, lfs: Transfer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert download(lfs, partial) == SHA256
    assert hub.asked(server="hub")[0].headers["authorization"] == "Bearer hf_secret"
    assert "authorization" not in hub.asked(server="cdn")[0].headers


def test_the_token_is_in_no_message(hub: HubServer, partial: Path, lfs: Transfer) -> None:
    hub.fail(times=None, status=403)
    with pytest.raises(AccessDenied) as caught:
        download(lfs, partial)
    assert "hf_secret" not in f"{caught.value} {caught.value.hint} {lfs!r}"


def test_progress_is_absolute_and_ordered(server: HubServer, partial: Path) -> None:
    events: list[Event] = []
    download(known(server), partial, sink=events.append)
    steps = [event.done for event in events if isinstance(event, Advanced)]
    assert all(one < other for one, other in pairwise(steps))
