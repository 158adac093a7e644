"""Parts side by side: what several connections bring is one right file, whatever becomes of each of them."""

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from owm.errors import AccessDenied, ChecksumMismatch, ModelNotFound, TransferFailed
from owm.events import Advanced, Event, Started, Warned
from owm.store import download as engine
from owm.store.download import Digest, Transfer, download, state_path
from owm.store.limits import Limits
from owm.store.transfers import hashing, intake, ledger, note, watch
from support.facts import model_bytes
from support.line_server import Asked, Line, LineServer, random_cuts
from support.run import finish, start

pytestmark = pytest.mark.slow

BODY = model_bytes(6_000_000, seed=3)
SHA256 = hashlib.sha256(BODY).hexdigest()
DIGEST = Digest("sha256", SHA256)
RATE = 6e6


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that takes seconds of a real line takes less here."""
    monkeypatch.setattr(engine, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(engine, "STALL_SECONDS", 1.5)
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watch, "WORTH_SECONDS", 0.1)
    monkeypatch.setattr(watch, "SLOW_SECONDS", 0.5)
    monkeypatch.setattr(watch, "MIN_SPLIT_BYTES", 1 << 18)
    monkeypatch.setattr(intake, "MIN_PART_BYTES", 1 << 19)
    monkeypatch.setattr(ledger, "NOTE_SECONDS", 0.05)


@pytest.fixture
def server() -> Iterator[LineServer]:
    with LineServer({"m.gguf": BODY}, bytes_per_second=RATE) as server:
        yield server


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf.incomplete"


def transfer(server: LineServer, *, is_known: bool = True, mirrors: tuple[str, ...] = ()) -> Transfer:
    if not is_known:
        return Transfer(server.url("m.gguf"), "m.gguf", mirrors=mirrors)
    return Transfer(server.url("m.gguf"), "m.gguf", len(BODY), DIGEST, mirrors=mirrors)


def steps(events: list[Event]) -> list[int]:
    return [event.done for event in events if isinstance(event, Advanced)]


def leave_parts(server: LineServer, partial: Path, *, is_known: bool) -> int:
    """Stop a download in the midst of parts; return how many bytes are noted."""

    def sink(event: Event) -> None:
        if isinstance(event, Advanced) and event.done > len(BODY) * 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(transfer(server, is_known=is_known), partial, sink=sink)
    noted = note.read(partial)
    assert noted is not None
    assert noted.parts is not None
    return sum(end - begin for begin, end in noted.parts)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_slow_line_is_shared_by_several_connections(server: LineServer, partial: Path, is_known: bool) -> None:
    events: list[Event] = []
    began = time.monotonic()
    assert download(transfer(server, is_known=is_known), partial, sink=events.append) == SHA256
    assert time.monotonic() - began < 0.7 * len(BODY) / RATE
    assert partial.read_bytes() == BODY
    assert 2 <= server.n_open_most <= 5  # one of them may be seen to close late
    assert steps(events) == sorted(set(steps(events)))
    assert steps(events)[-1] == len(BODY)
    for asked in server.asked[1:]:
        assert asked.end is not None or "range" in asked.headers
        assert ("if-range" in asked.headers) is not is_known


def test_one_job_is_one_connection(server: LineServer, partial: Path) -> None:
    assert download(transfer(server), partial, limits=Limits(n_connections=1)) == SHA256
    assert (len(server.asked), server.n_open_most) == (1, 1)


def test_a_fast_line_is_not_split(partial: Path) -> None:
    with LineServer({"m.gguf": BODY}) as server:
        assert download(transfer(server), partial) == SHA256
        assert len(server.asked) == 1


def test_what_waits_for_its_turn_in_the_hash_is_bounded(
    server: LineServer, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "MEMORY_BYTES", 100_000)
    assert download(transfer(server), partial) == SHA256


@pytest.mark.parametrize("is_known", [True, False])
def test_parts_of_an_interrupted_download_are_taken_up_again(server: LineServer, partial: Path, is_known: bool) -> None:
    kept = leave_parts(server, partial, is_known=is_known)
    time.sleep(0.2)  # what was on its way is noticed to be unwanted
    n_sent = server.n_sent
    events: list[Event] = []
    assert download(transfer(server, is_known=is_known), partial, sink=events.append) == SHA256
    assert server.n_sent - n_sent < len(BODY) - kept + 3_000_000  # and what was in buffers when a part was shared
    assert steps(events)[0] >= kept
    assert steps(events) == sorted(set(steps(events)))


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_parts_of_a_file_that_has_changed_are_not_mixed_with_the_new_one(
    server: LineServer, partial: Path, honours_if_range: bool
) -> None:
    leave_parts(server, partial, is_known=False)
    other = model_bytes(len(BODY), seed=4)
    server.files["m.gguf"] = other
    if not honours_if_range:
        etag = server.etag("m.gguf")

        def behave(asked: Asked) -> Line:
            sent = asked.headers.get("if-range")
            return Line(headers={"ETag": etag}, etag=sent) if sent else Line()

        server.behave = behave
    assert download(transfer(server, is_known=False), partial) == hashlib.sha256(other).hexdigest()
    assert partial.read_bytes() == other


def test_a_file_that_changes_between_parts_starts_again(server: LineServer, partial: Path) -> None:
    other = model_bytes(len(BODY), seed=4)

    def sink(event: Event) -> None:
        if isinstance(event, Advanced) and event.done > 2_500_000:
            server.files["m.gguf"] = other

    assert download(transfer(server, is_known=False), partial, sink=sink) == hashlib.sha256(other).hexdigest()
    assert partial.read_bytes() == other


def test_a_change_that_all_connections_see_at_once_is_one_change(
    server: LineServer, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MIN_PART_BYTES", 1 << 17)
    other = model_bytes(len(BODY), seed=4)

    def sink(event: Event) -> None:
        if isinstance(event, Advanced) and event.done > 1_000_000 and server.files["m.gguf"] is not other:
            server.files["m.gguf"] = other
            time.sleep(0.7)  # all connections come to the end of their parts before anything is decided

    limits = Limits(n_connections=5)
    assert (
        download(transfer(server, is_known=False), partial, sink=sink, limits=limits)
        == hashlib.sha256(other).hexdigest()
    )


def test_a_file_that_never_stays_the_same_is_given_up(server: LineServer, partial: Path) -> None:
    server.bytes_per_second = None
    server.behave = lambda asked: Line(etag='"other"') if asked.begin else Line(cut_after=2_500_000)
    with pytest.raises(TransferFailed, match=r"m.gguf keeps changing at 127.0.0.1"):
        download(transfer(server, is_known=False), partial)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_note_of_another_boot_counts_only_what_was_flushed(server: LineServer, partial: Path, is_known: bool) -> None:
    leave_parts(server, partial, is_known=is_known)
    noted = json.loads(state_path(partial).read_text())
    noted |= {"boot": "before", "safe_parts": [[0, 250_000]]}
    state_path(partial).write_text(json.dumps(noted))
    with open(partial, "r+b") as file:  # what a power cut does to what was not flushed
        file.seek(250_000)
        file.write(bytes(500_000))
    events: list[Event] = []
    assert download(transfer(server, is_known=is_known), partial, sink=events.append) == SHA256
    assert not any(isinstance(event, Warned) for event in events)


@pytest.mark.parametrize(
    "damage",
    [
        '{"validator": null, "parts": [[5, 3]]}',
        '{"validator": 3}',
        "[",
        '{"validator": null, "parts": [[0, 9.5]]}',
        "",
    ],
)
def test_a_damaged_note_of_parts_costs_time_and_nothing_else(server: LineServer, partial: Path, damage: str) -> None:
    leave_parts(server, partial, is_known=True)
    state_path(partial).write_text(damage)
    assert download(transfer(server), partial) == SHA256


def test_a_note_that_claims_more_than_the_file_holds_is_not_believed(server: LineServer, partial: Path) -> None:
    leave_parts(server, partial, is_known=True)
    os.truncate(partial, 350_000)
    assert download(transfer(server), partial) == SHA256


def test_cuts_at_random_bytes_of_one_connection(server: LineServer, tmp_path: Path) -> None:
    body = BODY[:2_000_000]
    sha256 = hashlib.sha256(body).hexdigest()
    server.files["s.gguf"] = body
    server.bytes_per_second = None
    for seed in range(20):
        server.behave = random_cuts(seed, len(body))
        partial = tmp_path / f"{seed}.incomplete"
        assert download(Transfer(server.url("s.gguf"), "s.gguf"), partial) == sha256
        partial.unlink()


@pytest.mark.parametrize("seed", range(4))
def test_cut_parts_are_asked_for_again(server: LineServer, partial: Path, seed: int) -> None:
    server.behave = random_cuts(seed, 1_000_000)
    events: list[Event] = []
    assert download(transfer(server, is_known=False), partial, sink=events.append) == SHA256
    assert partial.read_bytes() == BODY
    assert steps(events) == sorted(set(steps(events)))


def test_a_server_that_wants_fewer_connections_gets_fewer(server: LineServer, partial: Path) -> None:
    def behave(asked: Asked) -> Line:
        return Line(status=429, headers={"Retry-After": "1"}) if server.n_open > 2 else Line()

    server.behave = behave
    assert download(transfer(server), partial) == SHA256


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_server_that_takes_one_connection_only_is_served(server: LineServer, partial: Path, status: int) -> None:
    server.behave = lambda asked: Line(status=status) if server.n_open > 1 else Line()
    assert download(transfer(server), partial) == SHA256


def test_a_server_whose_ranges_are_a_pretence_sends_it_once(server: LineServer, partial: Path) -> None:
    server.behave = lambda asked: Line(has_ranges=False, headers={"Accept-Ranges": "bytes"})
    assert download(transfer(server), partial) == SHA256
    assert partial.read_bytes() == BODY


def test_a_silent_connection_among_others_is_asked_again(server: LineServer, partial: Path) -> None:
    server.behave = lambda asked: Line(silent_after=100_000) if asked.number == 2 else Line()
    began = time.monotonic()
    assert download(transfer(server), partial) == SHA256
    assert time.monotonic() - began < len(BODY) / RATE + 1.5


def test_a_slow_connection_among_fast_ones_is_asked_again(server: LineServer, partial: Path) -> None:
    server.behave = lambda asked: Line(bytes_per_second=50_000) if asked.number == 2 else Line()
    began = time.monotonic()
    assert download(transfer(server), partial) == SHA256
    assert time.monotonic() - began < 8


def test_a_slow_loris_is_given_up(server: LineServer, partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(engine, "MAX_TRIES", 2)
    server.behave = lambda asked: Line(bytes_per_second=20)
    with pytest.raises(TransferFailed, match="sends next to nothing"):
        download(transfer(server), partial)
    server.behave = lambda asked: Line()
    assert download(transfer(server), partial) == SHA256


def test_the_rate_is_kept_by_all_connections_together(partial: Path) -> None:
    with LineServer({"m.gguf": BODY}) as server:
        began = time.monotonic()
        assert download(transfer(server), partial, limits=Limits(bytes_per_second=6e6)) == SHA256
        seconds = time.monotonic() - began
    assert 0.85 * len(BODY) / 6e6 <= seconds < 1.5 * len(BODY) / 6e6


def test_a_byte_that_turned_over_is_found_and_the_file_fetched_once_more(server: LineServer, partial: Path) -> None:
    server.behave = lambda asked: Line(damage_at=3_500_000 if asked.number < 4 else None)
    server.bytes_per_second = None
    events: list[Event] = []
    server.behave = lambda asked: Line(damage_at=3_500_000 if asked.number == 0 else None)
    assert download(transfer(server), partial, sink=events.append) == SHA256
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "m.gguf arrived damaged, fetching it once more"
    ]
    server.behave = lambda asked: Line(damage_at=3_500_000)
    partial.unlink()
    with pytest.raises(ChecksumMismatch):
        download(transfer(server), partial)
    assert os.listdir(partial.parent) == []


# -- mirrors -----------------------------------------------------------------------------------------------------------


def test_a_mirror_takes_over_where_the_first_address_fails(server: LineServer, partial: Path) -> None:
    server.behave = lambda asked: Line(status=500)
    with LineServer({"copy.gguf": BODY}) as mirror:
        assert download(transfer(server, mirrors=(mirror.url("copy.gguf"),)), partial) == SHA256


@pytest.mark.parametrize("status", [403, 404])
def test_a_mirror_is_asked_where_the_first_address_says_no(server: LineServer, partial: Path, status: int) -> None:
    server.behave = lambda asked: Line(status=status)
    with LineServer({"copy.gguf": BODY}) as mirror:
        assert download(transfer(server, mirrors=(mirror.url("copy.gguf"),)), partial) == SHA256
        assert all("authorization" not in asked.headers for asked in mirror.asked)


def test_a_token_does_not_go_to_a_mirror(server: LineServer, partial: Path) -> None:
    server.behave = lambda asked: Line(status=503)
    with LineServer({"m.gguf": BODY}) as mirror:
        secret = Transfer(
            server.url("m.gguf"), "m.gguf", len(BODY), DIGEST, {"Authorization": "Bearer s"}, (mirror.url("m.gguf"),)
        )
        assert download(secret, partial) == SHA256
        assert mirror.asked
        assert all("authorization" not in asked.headers for asked in mirror.asked)


def test_a_mirror_with_other_bytes_is_found_out(server: LineServer, partial: Path) -> None:
    wrong = bytearray(BODY)
    wrong[2_500_000] ^= 1
    server.bytes_per_second = None
    server.behave = lambda asked: Line(cut_after=1_000_000) if asked.number == 0 else Line()
    with LineServer({"m.gguf": bytes(wrong)}) as mirror:
        events: list[Event] = []
        known = transfer(server, mirrors=(mirror.url("m.gguf"),))
        assert download(known, partial, sink=events.append) == SHA256
        assert mirror.asked


def test_without_a_digest_a_mirror_must_have_the_same_etag(server: LineServer, partial: Path) -> None:
    server.bytes_per_second = None
    server.behave = lambda asked: Line(cut_after=1_000_000) if asked.number == 0 else Line()
    other = model_bytes(len(BODY), seed=9)
    with LineServer({"m.gguf": other}) as mirror:
        unknown = transfer(server, is_known=False, mirrors=(mirror.url("m.gguf"),))
        assert download(unknown, partial) == SHA256
    assert partial.read_bytes() == BODY


def test_of_several_that_say_no_the_error_is_the_first_ones(server: LineServer, partial: Path) -> None:
    server.behave = lambda asked: Line(status=403)
    with LineServer({}) as mirror, pytest.raises((AccessDenied, ModelNotFound)) as caught:
        download(transfer(server, mirrors=(mirror.url("m.gguf"),)), partial)
    assert "HTTP 40" in str(caught.value)


# -- kills -------------------------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from owm.events import Advanced
from owm.store.download import Digest, Transfer, download
from owm.store.transfers import watch
watch.LOOK_SECONDS, watch.WORTH_SECONDS = 0.05, 0.1
url, size, digest, path = sys.argv[1:]
def sink(event):
    if isinstance(event, Advanced): print(event.done, flush=True)
known = Transfer(url, "m.gguf", int(size), Digest("sha256", digest)) if digest else Transfer(url, "m.gguf")
print("whole", download(known, Path(path), sink=sink), flush=True)
"""


@pytest.mark.parametrize("is_known", [True, False])
def test_killed_at_random_moments_it_still_ends_and_loses_little(
    server: LineServer, partial: Path, is_known: bool
) -> None:
    dice = random.Random(11)
    arguments = [server.url("m.gguf"), str(len(BODY)), SHA256 if is_known else "", str(partial)]
    for _ in range(20):
        process = start(["-c", CHILD, *arguments])
        timer = threading.Timer(dice.uniform(0.3, 0.8), process.kill)
        timer.start()
        output = finish(process)
        timer.cancel()
        if output.exit_code == 0:
            break
    assert output.strip().endswith(f"whole {SHA256}")
    assert partial.read_bytes() == BODY
    assert server.n_sent < 3 * len(BODY)


def test_the_size_is_told_when_it_becomes_known(server: LineServer, partial: Path) -> None:
    events: list[Event] = []
    download(transfer(server, is_known=False), partial, sink=events.append)
    assert [event.total for event in events if isinstance(event, Started)] == [None, len(BODY)]
